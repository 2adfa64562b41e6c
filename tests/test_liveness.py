"""Activation memory against a literal simulation: every tensor kept, every reader looked up."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

import bitfront
from bitfront.errors import Infeasible
from bitfront.livecosts import CHOICES, with_activations
from bitfront.scheme import Scheme
from bitfront.tasks.boundary import function_at
from bitfront.tasks.liveness import Activation, Liveness, liveness, watched
from bitfront.types import Costs
from tests import tiny
from tests.small_tasks import attentive, convolutional


class Net(nn.Module):
    """A residual, two readers of one tensor, work in place, views, and a layer that is left out."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.left, self.right = nn.Conv2d(6, 4, 1), nn.Conv2d(6, 8, 3, padding=1)
        self.join = nn.Conv2d(12, 6, 1)
        self.wide = nn.Linear(6 * 16, 40)
        self.head = nn.Linear(40, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.stem(x))
        y = F.relu(x)
        y = self.join(torch.cat([self.left(y), self.right(y)], 1))
        y = torch.tanh(y) + x
        return self.head(F.relu(self.wide(y.flatten(1))))


LAYERS = ("stem", "left", "right", "join", "wide", "head")


def literal(model: nn.Module, x: Tensor, bits: dict[str, int | None]) -> int:
    """The most bytes at any node of the traced graph; bits: layer -> width that it reads, or None.

    Contents of memory are numbered as they are written. All tensors are kept to the end, so that
    equal addresses are one memory.
    """
    graph = fx.symbolic_trace(model).graph
    values: dict[fx.Node, Any] = {}
    contents: list[dict[str, Any]] = []
    at: dict[int, int] = {}  # address -> the content that is there

    def content(tensor: Tensor) -> int:
        return at[tensor.untyped_storage().data_ptr()]

    def write(tensor: Tensor, step: int) -> None:
        at[tensor.untyped_storage().data_ptr()] = len(contents)
        place = tensor.untyped_storage().data_ptr()
        size = tensor.untyped_storage().nbytes()
        contents.append({"place": place, "bytes": size, "from": step, "to": step, "readers": []})

    steps = 0
    modules = dict(model.named_modules())
    for node in graph.nodes:
        steps += 1
        given = [values[n] for n in node.all_input_nodes]
        if node.op == "placeholder":
            values[node] = x
            write(x, steps)
            continue
        if node.op == "output":
            for value in given:
                contents[content(value)]["to"] = steps - 1  # what is returned outlives the end
                contents[content(value)]["readers"].append(None)
            break
        arguments = fx.node.map_arg((node.args, node.kwargs), lambda n: values[n])
        before = {content(t): t.clone() for t in given if isinstance(t, Tensor)}
        target = modules[node.target] if node.op == "call_module" else node.target
        if node.op == "call_method":
            out = getattr(arguments[0][0], node.target)(*arguments[0][1:], **arguments[1])
        else:
            out = target(*arguments[0], **arguments[1])
        values[node] = out
        if not isinstance(out, Tensor):
            continue
        same = out.untyped_storage().data_ptr() in {
            t.untyped_storage().data_ptr() for t in given if isinstance(t, Tensor)
        }
        written = getattr(target, "inplace", False)
        if same and not written:
            continue  # a view
        reader = node.target if node.op == "call_module" and node.target in bits else None
        for number in before:
            contents[number]["to"] = steps
            contents[number]["readers"].append(reader)
        write(out, steps)
    peak = 0
    for step in range(1, steps):
        memory: dict[int, int] = {}
        for one in contents:
            if one["from"] <= step <= one["to"]:
                size = one["bytes"]
                widths = [bits.get(r) if r else None for r in one["readers"]]
                if widths and None not in widths:
                    size = math.ceil(size // 4 * max(w for w in widths if w) / 8)
                memory[one["place"]] = max(memory.get(one["place"], 0), size)
        peak = max(peak, sum(memory.values()))
    return peak


def costs(layers: tuple[str, ...], schemes: tuple[str, ...], allowed: Any = None) -> Costs:
    table = np.zeros((len(layers), len(schemes)))
    if allowed is not None:
        table[~allowed] = np.nan
    return Costs(layers, schemes, {"bytes": table}, {}, {"bytes": 1.0}, 1)


def seen(model: nn.Module, x: Tensor, layers: tuple[str, ...]) -> Liveness:
    return watched(model, layers, lambda: model(x))


SCHEMES = ("w4", "w8a8", "w4a4")
BITS = {s: (a.bits if (a := Scheme.parse(s).activation) else None) for s in SCHEMES}


def test_every_allocation_has_the_peak_of_the_literal_simulation() -> None:
    model, x = Net().eval(), torch.randn(1, 3, 4, 4)
    found = with_activations(costs(LAYERS, SCHEMES), seen(model, x, LAYERS))
    with torch.no_grad():
        assert found.full["activations"] == literal(model, x, {})
        for choice in itertools.product(SCHEMES, repeat=6):
            bits = {n: BITS[s] for n, s in zip(LAYERS, choice, strict=True)}
            chosen = dict(zip(LAYERS, choice, strict=True))
            assert found.total(chosen)["activations"] == literal(model, x, bits)
    assert len(found.peaks["activations"]) > 1


def test_layers_that_are_kept_out_read_full_precision() -> None:
    model, x = Net().eval(), torch.randn(1, 3, 4, 4)
    some = tuple(n for n in LAYERS if n not in ("right", "wide"))
    found = with_activations(costs(some, SCHEMES), seen(model, x, LAYERS))
    with torch.no_grad():
        for scheme in SCHEMES:
            total = found.total(dict.fromkeys(some, scheme))["activations"]
            assert total == literal(model, x, dict.fromkeys(some, BITS[scheme]))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_resnet20_and_its_literal_simulation(assets: Path, scheme: str) -> None:
    model = function_at(f"{assets / 'archs.py'}:ResNetCIFAR")(20).eval()
    x = torch.randn(1, 3, 32, 32)
    layers = tuple(n for n, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear)))
    found = with_activations(costs(layers, SCHEMES), seen(model, x, layers))
    with torch.no_grad():
        total = found.total(dict.fromkeys(layers, scheme))["activations"]
        assert total == literal(model, x, dict.fromkeys(layers, BITS[scheme]))


def test_one_stands_for_a_group() -> None:
    model, x = Net().eval(), torch.randn(1, 3, 4, 4)
    live = seen(model, x, LAYERS)
    apart = with_activations(costs(LAYERS, SCHEMES), live)
    together = with_activations(costs(LAYERS, SCHEMES), live, [("left", "right")])
    assert len(together.peaks["activations"]) <= len(apart.peaks["activations"])
    for choice in itertools.product(SCHEMES, repeat=5):
        chosen = dict(zip(("stem", "left", "join", "wide", "head"), choice, strict=True))
        chosen["right"] = chosen["left"]
        assert together.total(chosen)["activations"] == apart.total(chosen)["activations"]


def test_many_readers_are_never_counted_too_low() -> None:
    """Seven activations with three readers each have 3^7 sums; three of them are bounded."""
    names = tuple(f"l{i}" for i in range(21))
    tensors = tuple(
        Activation(100 * (i + 1), 32, frozenset(names[3 * i : 3 * i + 3])) for i in range(7)
    )
    found = with_activations(costs(names, SCHEMES), Liveness(tensors, (tuple(range(7)),)))
    assert len(found.peaks["activations"]) <= CHOICES
    rng = np.random.default_rng(0)
    exact = 0
    for _ in range(200):
        chosen = dict(zip(names, rng.choice(SCHEMES, 21).tolist(), strict=True))
        widths = [[BITS[chosen[n]] or 32 for n in names[3 * i : 3 * i + 3]] for i in range(7)]
        true = sum(math.ceil(t.bytes * max(w) / 32) for t, w in zip(tensors, widths, strict=True))
        total = found.total(chosen)["activations"]
        assert total >= true
        exact += total == true
    for scheme in SCHEMES[1:]:
        total = found.total(dict.fromkeys(names, scheme))["activations"]
        assert total >= sum(math.ceil(t.bytes * (BITS[scheme] or 32) / 32) for t in tensors)


def test_what_is_bos_aware_keeps_its_first_token() -> None:
    live = Liveness((Activation(4 * 6 * 10, 32, frozenset("a"), tokens=6),), ((0,),))
    found = with_activations(costs(("a",), ("w8a8", "w8a8b", "w4")), live)
    sizes = [found.total({"a": s})["activations"] for s in found.schemes]
    assert sizes == [60, 50 + 4 * 10, 240]


def test_integers_and_barred_schemes() -> None:
    ids = Activation(48, 0, frozenset("a"))
    live = Liveness((ids, Activation(40, 32, frozenset("ab"))), ((0, 1),))
    allowed = np.array([[True, False], [True, True]])
    found = with_activations(costs(("a", "b"), ("w4", "w8a8"), allowed), live)
    assert found.total({"a": "w4", "b": "w8a8"})["activations"] == 88  # a takes it in full


def test_one_sample_of_a_batch() -> None:
    """Whatever the batch holds; its tensors are counted, not the memory that they are views of."""
    live = liveness(convolutional())
    assert live.activations[0] == Activation(3 * 6 * 6 * 4, 32, frozenset({"stem"}), 6)
    assert max(sum(live.activations[i].bytes for i in cut) for cut in live.cuts) == 2 * 8 * 36 * 4
    texts = liveness(attentive())
    qkv = next(a for a in texts.activations if "q" in a.readers)
    assert qkv.readers == {"q", "k", "v", ""}
    assert qkv.bytes == 6 * 8 * 4


@pytest.mark.parametrize("kind", tiny.MAKERS)
def test_of_every_kind_of_task(kind: str, tmp_path: Path) -> None:
    task = tiny.MAKERS[kind](tmp_path)
    live = liveness(task)
    read = {name for a in live.activations for name in a.readers}
    assert {la.name for la in task.layers} <= read
    assert all(a.bytes > 0 for a in live.activations)
    assert {i for cut in live.cuts for i in cut} == set(range(len(live.activations)))
    if kind == "language":  # all logits of 16 tokens are there at the end
        assert any(a.bytes == 16 * len(tiny.WORDS) * 4 for a in live.activations)


@pytest.mark.parametrize("solver", ["ilp", "lagrange", "greedy", "greedy-up"])
def test_a_search_within_activation_memory(tmp_path: Path, solver: str) -> None:
    with bitfront.open_study("s", convolutional(), tmp_path / "b.db") as study:
        schemes = "w4 w8 w8a8 w4a4"
        costs = bitfront.cost(study, schemes, budgets=["80%act"])
        assert costs.full["activations"] == 2304
        (answer,) = bitfront.search(study, schemes, ["80%act", "6bpw"], solver=solver, explore=3)
        assert answer.trial.costs["activations"] <= 0.8 * 2304
        assert answer.trial.costs == costs.total(answer.trial.schemes)
        # of 1152 bytes each, one of two is read by a layer alone and can have 4 bits
        words = "budget 1.2KBact cannot be met, the least possible is "
        with pytest.raises(Infeasible, match=words):
            bitfront.search(study, schemes, ["1.2KBact"], solver=solver)
        with pytest.raises(Infeasible, match="or allow smaller schemes"):
            bitfront.search(study, "w4 w8", ["80%act"], solver=solver)


def test_operators_that_write_in_place_and_return_nothing_new() -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            h = self.a(x)
            h.mul_(2)
            h[:, :4].add_(1)
            return self.b(h)

    model, x = InPlace().eval(), torch.randn(1, 8)
    found = with_activations(costs(("a", "b"), SCHEMES), seen(model, x, ("a", "b")))
    # x with 8 bits and h in full; then h, being written, is there once; then h with 8 bits
    assert found.total({"a": "w8a8", "b": "w8a8"})["activations"] == 8 + 32
    assert found.total({"a": "w4", "b": "w8a8"})["activations"] == 32 + 32
    assert found.full["activations"] == 64
