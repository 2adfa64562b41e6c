"""Layers are found by type, in order of execution, with roles, shapes and MACs."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from bitfront.errors import ModelError
from bitfront.tasks.discovery import Survey, survey


class Odd(nn.Module):
    """Layers that run out of order, twice, never, or with another's weights."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, 3)
        self.unused = nn.Linear(8, 8)
        self.repeated = nn.Linear(8, 8, bias=False)
        self.table = nn.Embedding(11, 8)
        self.positions = nn.Embedding(4, 8)
        self.scale = nn.Parameter(torch.ones(8))
        self.bilinear = nn.Parameter(torch.eye(8))
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))
        self.norm = nn.LayerNorm(8)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.table(ids) + self.positions.weight[: ids.shape[1]]
        x = self.repeated(torch.relu(self.repeated(x)))
        x = self.normed(self.norm(x @ self.bilinear * self.scale))
        return self.head(x)


def seen(model: nn.Module, *inputs: Tensor) -> Survey:
    def run() -> Tensor:
        found: Tensor = model(*inputs)
        return found

    return survey(model.eval(), run, len(inputs[0]))


@pytest.fixture(scope="module")
def odd() -> Survey:
    return seen(Odd(), torch.arange(8).reshape(2, 4))


def test_layers_stand_in_order_of_execution_with_roles(odd: Survey) -> None:
    found = [(layer.name, layer.kind, layer.role) for layer in odd.layers]
    assert found == [
        ("table", "embedding", "embedding"),
        ("repeated", "linear", "body"),
        ("head", "linear", "head"),
    ]


def test_macs_are_of_one_sample_over_all_calls(odd: Survey) -> None:
    macs = {layer.name: layer.macs for layer in odd.layers}
    assert macs == {"table": 0, "repeated": 2 * 4 * 64, "head": 4 * 24}


def test_what_is_given_single_vectors_is_flat() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.pooled, self.one, self.both = (nn.Linear(8, 8) for _ in range(4))
            self.conv = nn.Conv1d(8, 8, 1)

        def forward(self, x: Tensor) -> Tensor:
            h = self.conv(self.tokens(x).transpose(1, 2)).transpose(1, 2)
            h = self.one(self.pooled(h.mean(1))[:, None])
            return self.both(h[:, 0]) + self.both(x).mean(1)

    found = seen(Mixed(), torch.randn(2, 4, 8))
    assert [la.name for la in found.layers if la.flat] == ["pooled", "one", "both"]
    assert not any(la.flat for la in seen(Odd(), torch.arange(8).reshape(2, 4)).layers)


def test_shapes_and_biases(odd: Survey) -> None:
    head = odd.layers[-1]
    assert (head.rows, head.cols, head.bias, head.dtype) == (3, 8, 3, "float32")


def test_what_is_left_out_says_why(odd: Survey) -> None:
    assert "does not run" in odd.left_out["unused"]
    assert "does not run" in odd.left_out["positions"]
    assert "computed from other parameters" in odd.left_out["normed"]
    assert set(odd.left_out) == {"unused", "positions", "normed"}


def test_parameters_outside_layers_are_counted(odd: Survey) -> None:
    assert odd.others["bilinear"] == 64
    assert odd.others["positions.weight"] == 32
    assert "scale" not in odd.others
    assert 0 < odd.others_share < 1
    assert any("bilinear" in note for note in odd.notes())


def test_a_shared_weight_belongs_to_the_first_that_runs() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Linear(8, 11, bias=False)
            self.table = nn.Embedding(11, 8)
            self.out.weight = self.table.weight

        def forward(self, ids: Tensor) -> Tensor:
            return self.out(self.table(ids))

    found = seen(Tied(), torch.arange(8).reshape(2, 4))
    assert [(la.name, la.shares) for la in found.layers] == [("table", None), ("out", "table")]
    assert found.groups == (("table", "out"),)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_head_is_found_behind_a_cast(dtype: torch.dtype) -> None:
    class Cast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.classifier = nn.Linear(4, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.classifier(self.body(x)).float()

    found = seen(Cast().to(dtype), torch.zeros(2, 4, dtype=dtype))
    assert [layer.role for layer in found.layers] == ["body", "head"]
    assert found.layers[0].dtype == str(dtype).removeprefix("torch.")


def test_an_output_of_the_same_size_elsewhere_is_no_head() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x))

    roles = [layer.role for layer in seen(Residual(), torch.zeros(2, 4)).layers]
    assert roles == ["body", "head"]


def test_convolutions_count_macs_by_what_they_compute() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, stride=2), nn.Conv2d(8, 8, 3, groups=8, padding=1),
        nn.ConvTranspose2d(8, 4, 2, stride=2), nn.Flatten(2), nn.Conv1d(4, 2, 1),
    )  # fmt: skip
    found = seen(model, torch.zeros(5, 3, 8, 8))
    macs = [layer.macs for layer in found.layers]
    assert macs == [16 * 8 * 27, 16 * 8 * 9, 16 * 8 * 4 * 4, 64 * 4 * 2]
    assert [layer.kind for layer in found.layers] == [
        "conv2d", "conv2d", "conv_transpose2d", "conv1d",
    ]  # fmt: skip


def test_attention_fused_by_torch_is_left_out() -> None:
    class Torch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.head = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.attention(x, x, x, need_weights=False)[0])

    found = seen(Torch(), torch.randn(2, 4, 8))
    assert [layer.name for layer in found.layers] == ["head"]
    assert "attention.out_proj" in found.left_out
    assert found.others["attention.in_proj_weight"] == 192


def test_a_model_without_layers_is_refused() -> None:
    with pytest.raises(ModelError, match="no quantizable layer"):
        seen(nn.ReLU(), torch.zeros(2, 4))


def test_no_hook_stays_behind() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    seen(model, torch.zeros(2, 4))
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


class Read(nn.Module):
    """Convolutions whose outputs a ReLU reads, alone or beside others."""

    def __init__(self) -> None:
        super().__init__()
        names = ("in_place", "functional", "six", "added", "viewed", "twice", "once", "returned")
        self.of = nn.ModuleDict({name: nn.Conv2d(4, 4, 1) for name in names})
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.of["in_place"](x)) + 1
        x = torch.relu(self.of["functional"](x))
        x = nn.functional.relu6(self.of["six"](x))
        y = self.of["added"](x)
        x = torch.relu(y) + y
        x = torch.relu(self.of["viewed"](x).flatten(1)).reshape(x.shape)
        x = torch.relu(self.of["twice"](torch.relu(self.of["twice"](x))))
        x = torch.relu(self.of["once"](x)) + self.of["once"](x)
        y = self.of["returned"](nn.functional.leaky_relu(x))
        torch.relu(y)
        return y


def test_layers_that_only_a_relu_reads() -> None:
    found = seen(Read(), torch.randn(2, 4, 3, 3))
    rectified = {layer.name: layer.ceiling for layer in found.layers if layer.rectified}
    assert rectified == {"of.in_place": 0, "of.functional": 0, "of.six": 6, "of.twice": 0}
    assert [la.read for la in found.layers][1:4] == [(0, math.inf), (0, 6), (-math.inf, math.inf)]
