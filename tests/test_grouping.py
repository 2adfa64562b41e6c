"""Groups come from structure: who reads the same tensor, who is routed to, who shares a tensor."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitfront.errors import InvalidInput, UnknownName
from bitfront.tasks import ModuleTask, select
from bitfront.tasks.discovery import survey


class Block(nn.Module):
    """Attention and gated MLP with names that say nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = (
            nn.Linear(8, 8),
            nn.Linear(8, 4),
            nn.Linear(8, 4),
            nn.Linear(4, 8),
        )
        self.e, self.f, self.g = nn.Linear(8, 16), nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        a, b, c = self.a(x), self.b(x), self.c(x)
        x = x + self.d(a[..., :4] * b + c)
        return x + self.g(F.silu(self.e(x)) * self.f(x))


class Routed(nn.Module):
    """A mixture of experts: expert 3 is never chosen."""

    def __init__(self, lists: int = 4) -> None:
        super().__init__()
        self.router = nn.Linear(8, lists, bias=False)
        self.experts = nn.ModuleList(
            nn.ModuleDict({"up": nn.Linear(8, 6), "down": nn.Linear(6, 8)}) for _ in range(lists)
        )

    def forward(self, x: Tensor) -> Tensor:
        logits = self.router(x)
        logits[..., -1] = -1e9
        weight, chosen = logits.softmax(-1).max(-1)
        out = torch.zeros_like(x)
        for i, expert in enumerate(self.experts):
            rows = chosen == i
            if rows.any():
                assert isinstance(expert, nn.ModuleDict)
                out[rows] = weight[rows][:, None] * expert["down"](F.relu(expert["up"](x[rows])))
        return x + out


class Model(nn.Module):
    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


@pytest.fixture(autouse=True)
def _seed() -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def groups(model: nn.Module, x: Tensor) -> tuple[tuple[str, ...], ...]:
    def run() -> Tensor:
        found: Tensor = model(x)
        return found

    return survey(model.eval(), run, len(x)).groups


IDS = torch.arange(66).reshape(6, 11) % 11


def test_siblings_that_read_one_tensor_are_fused_and_ties_are_groups() -> None:
    assert groups(Model(Block()), IDS) == (
        ("embed", "head"),
        ("blocks.0.a", "blocks.0.b", "blocks.0.c"),
        ("blocks.0.e", "blocks.0.f"),
    )


def test_all_layers_of_all_experts_are_one_group_chosen_or_not() -> None:
    found = groups(Model(Routed()), IDS)
    expected = {f"blocks.0.experts.{i}.{w}" for i in range(4) for w in ("up", "down")}
    assert {frozenset(g) for g in found} == {frozenset(expected), frozenset({"embed", "head"})}


def test_an_idle_expert_is_a_layer() -> None:
    model = Model(Routed()).eval()
    found = survey(model, lambda: model(IDS), len(IDS))
    idle = [layer for layer in found.layers if "experts.3" in layer.name]
    assert [layer.macs for layer in idle] == [0, 0]
    assert not found.left_out


def test_stacked_blocks_are_no_experts_even_with_as_many_classes() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
            self.head = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            for block in self.blocks:
                x = torch.relu(block(x))
            return self.head(x)

    assert groups(Net(), torch.randn(4, 8)) == ()


def test_a_tensor_changed_in_place_is_another_input() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x)
            x.add_(1)
            return y + self.b(x)

    assert groups(Net(), torch.randn(4, 8)) == ()


def test_layers_fed_alike_but_apart_are_not_fused() -> None:
    """Time embeddings are projected all over a U-Net: other modules run in between."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.time1, self.time2 = nn.Linear(8, 8), nn.Linear(8, 8)
            self.body = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
            self.out = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            t = torch.ones(len(x), 8)
            return self.out(self.body(x + self.time1(t)) + self.time2(t))

    assert groups(Net(), torch.randn(4, 8)) == ()


def test_cross_attention_fuses_what_reads_the_same_side() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(8, 8) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            other = x.flip(0)
            return self.q(x) + self.k(other) * self.v(other)

    assert groups(Net(), torch.randn(4, 8)) == (("k", "v"),)


@pytest.fixture(scope="module")
def task() -> ModuleTask:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Model(Block(), Block())
    return ModuleTask(lambda: {"model": model, "calibration": [IDS], "evaluation": [IDS]})


def test_by_default_modules_give_head_and_body_but_not_with_an_embedding(task: ModuleTask) -> None:
    chosen = select(task)
    assert set(chosen.kept_out) == {"embed", "head"}, "they share a tensor: both or neither"
    assert len(chosen.layers) == 14
    assert len(chosen.groups) == 4


def test_an_embedding_that_is_asked_for_brings_its_tied_head(task: ModuleTask) -> None:
    chosen = select(task, embeddings=True)
    assert not chosen.kept_out
    assert ("embed", "head") in chosen.groups


def test_grouping_turned_off_leaves_shared_tensors(task: ModuleTask) -> None:
    assert select(task, groups="off").groups == ()
    assert select(task, groups="off", embeddings=True).groups == (("embed", "head"),)


def test_hand_groups_join_what_was_found(task: ModuleTask) -> None:
    found = select(task, hand_groups=[["blocks.0.a", "blocks.1.a"]]).groups
    assert ("blocks.0.a", "blocks.0.b", "blocks.0.c", *(f"blocks.1.{n}" for n in "abc")) in found


def test_pins_hold_for_whole_groups(task: ModuleTask) -> None:
    chosen = select(task, pins={"blocks.*": "W4", "blocks.1.b": "keep", "blocks.1.[ac]": "keep"})
    assert chosen.pins["blocks.0.a"] == "w4"
    assert chosen.pins["blocks.1.c"] == "keep"
    assert select(task, pins={"blocks.0.a": "w8"}).pins == dict.fromkeys(
        ["blocks.0.a", "blocks.0.b", "blocks.0.c"], "w8"
    )


def test_a_group_is_in_or_out_together(task: ModuleTask) -> None:
    chosen = select(task, exclude=["blocks.0.b"])
    assert "shares a scheme with 'blocks.0.b'" in chosen.kept_out["blocks.0.a"]
    assert "blocks.0.a" in select(task, exclude=["blocks.0.b"], groups="off").names


def test_include_limits(task: ModuleTask) -> None:
    assert select(task, include=["blocks.1.*"]).names == tuple(f"blocks.1.{n}" for n in "abcdefg")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"exclude": ["block.*"]}, UnknownName, "near it: blocks"),
        ({"pins": {"nothing": "w4"}}, UnknownName, "no layer matches 'nothing'"),
        ({"pins": {"blocks.0.a": "w4", "blocks.0.b": "w8"}}, InvalidInput, "pinned differently"),
        ({"pins": {"blocks.0.a": "w4"}, "exclude": ["*.a"]}, InvalidInput, "pinned to w4 and excl"),
        ({"pins": {"blocks.0.a": "w4"}, "exclude": ["*.b"]}, InvalidInput, "share a scheme"),
        ({"pins": {"blocks.0.a": "w44"}}, InvalidInput, "w44"),
        ({"exclude": ["*"]}, InvalidInput, "no layer is left"),
        ({"include": ["head"]}, InvalidInput, "no layer is left"),
        ({"groups": "some"}, InvalidInput, "use auto or off"),
        ({"hand_groups": [["nope"]]}, UnknownName, "nope"),
    ],
)
def test_contradictions_are_one_clear_error(
    task: ModuleTask, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        select(task, **options)
