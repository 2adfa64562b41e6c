"""Models as ONNX graphs: written, opened by ONNX Runtime in a fresh process, what is refused."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.damage import sign
from bitfront import graph_audit
from bitfront.errors import ExportError
from bitfront.quant.build import Builder
from bitfront.quant.export_onnx import Onnx
from bitfront.quant.exporters import predicted_bytes
from bitfront.quant.onnx_file import OnnxFile
from bitfront.quant.onnx_graph import IR_VERSION
from bitfront.quant.onnx_parts import from_proto, to_proto
from bitfront.quant.onnx_run import Session
from bitfront.quant.onnx_trace import Signature, traced
from bitfront.quant.surgery import applied
from bitfront.tasks import ModuleTask
from bitfront.tasks.deployed import signature
from bitfront.tasks.running import ModelTask
from bitfront.types import Scheme, parse_schemes
from tests import tiny
from tests.small_tasks import TASKS

ONNX = Onnx()
SCHEMES = parse_schemes("w4 w8 w3z w4g16 w8a8szo w8a8 w4a8so w4a8sz w8g16a8g bf16 keep")


def mixed(task: ModelTask, schemes: tuple[Scheme, ...] = SCHEMES, first: int = 0) -> dict[str, Any]:
    """Schemes in turn, of those that a layer can take; a tied layer as the one it is tied to."""
    chosen: dict[str, Scheme] = {}
    sharing = {layer.shares for layer in task.layers}
    for i, layer in enumerate(task.layers):
        if layer.shares is not None:
            chosen[layer.name] = chosen[layer.shares]
            continue
        turned = [schemes[(first + i + k) % len(schemes)] for k in range(len(schemes))]
        chosen[layer.name] = next(
            s
            for s in turned
            if ONNX.reason(layer, s) is None and not (layer.name in sharing and s.activation)
        )
    return chosen


def export(task: ModelTask, schemes: Mapping[str, Scheme], folder: Path) -> Any:
    builder = Builder(task.model, task.layers, lambda: [task.outputs(b) for b in task.calibration])
    builder.prepare(schemes.items())
    return graph_audit.export(
        task, ONNX, task.layers, schemes, lambda n: builder.quantized(n, schemes[n]), folder,
        {"study": "s"},
    )  # fmt: skip


def made(name: str, folder: Path) -> ModelTask:
    task = TASKS[name]() if name in TASKS else tiny.MAKERS[name](folder)
    return cast(ModelTask, task)


@pytest.mark.parametrize(
    ("name", "first"),
    [("convolutional", 0), ("language", 3), ("vision", 1), ("diffusion", 2)],
)
def test_a_fresh_runtime_gives_what_was_measured(name: str, first: int, tmp_path: Path) -> None:
    task = made(name, tmp_path)
    schemes = mixed(task, first=first)
    before = {n: t.clone() for n, t in task.model.state_dict().items()}
    found = export(task, schemes, tmp_path / "out")
    assert found.ok
    assert all(torch.equal(t, before[n]) for n, t in task.model.state_dict().items())
    assert not any("forward" in vars(module) for module in task.model.modules())
    assert found.bytes == sum(len(t.raw_data) for t in tensors(tmp_path / "out").values())
    manifest = json.loads((tmp_path / "out" / "bitfront.json").read_text())
    assert manifest["exporter"] == "onnx"
    assert manifest["tensor_bytes"] == found.bytes
    assert {n: entry["scheme"] for n, entry in manifest["layers"].items()} == {
        n: str(s) for n, s in schemes.items()
    }
    # small constants of the forms, and of the graph, are the whole difference
    assert abs(found.bytes - predicted_bytes(ONNX, task.model, task.layers, schemes)) < 5000


def tensors(folder: Path) -> dict[str, Any]:
    return {t.name: t for t in OnnxFile(folder).graph.graph.initializer}


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelTask, Mapping[str, Any], Path]:
    """A language model whose head is tied, its schemes, and its export."""
    folder = tmp_path_factory.mktemp("spoken")
    task = made("language", folder)
    schemes = mixed(task, parse_schemes("w4 w8 bf16"))
    export(task, schemes, folder / "out")
    return task, schemes, folder / "out"


def test_any_number_of_samples_and_tokens(
    spoken: tuple[ModelTask, Mapping[str, Any], Path],
) -> None:
    task, schemes, folder = spoken
    ids = torch.randint(2, 9, (3, 7), generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    names = signature(task).inputs
    (found,) = Session(folder / "model.onnx", 1)({n: inputs[n] for n in names})
    builder = Builder(task.model, task.layers, lambda: None)
    changed = {n: builder.quantized(n, s) for n, s in schemes.items()}
    with torch.no_grad(), applied(task.model, changed):
        expected = task.model(ids).logits
    assert torch.allclose(found, expected, atol=1e-4)


def test_tied_weights_stand_there_once(
    spoken: tuple[ModelTask, Mapping[str, Any], Path],
) -> None:
    task, schemes, folder = spoken
    names = tensors(folder)
    tied = [layer for layer in task.layers if layer.shares is not None]
    assert tied
    for layer in tied:
        suffix = "weight" if str(schemes[layer.name]) == "bf16" else "codes"
        assert f"{layer.shares}.{suffix}" in names
        assert f"{layer.name}.{suffix}" not in names


class Own(nn.Module):
    """Sees the number of samples as a number, and uses a layer's weight without calling it."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.ones(1, 1, 16))
        self.first, self.last = nn.Linear(16, 16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(len(x), -1, -1), self.first(x)], 1)
        return self.last(x.mean(1)) + nn.functional.linear(x.mean(1), self.last.weight)


class Fixed(nn.Module):
    """Only for 6 samples."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.reshape(6, -1, 16).mean(1))


class Asking(nn.Module):
    """Asks for a number while it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x.mean(1))
        return y if float(y.sum()) > 0 else -y


def brought(model: nn.Module, x: Tensor | None = None) -> ModuleTask:
    if x is None:
        x = torch.randn(6, 4, 16, generator=torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match="brings no evaluation"):
        return ModuleTask(lambda: {"model": model.eval(), "calibration": [x]}, hold_back=0)


def test_len_of_an_input_is_no_number(tmp_path: Path) -> None:
    task = brought(Own())
    export(task, {}, tmp_path / "out")
    session = Session(tmp_path / "out" / "model.onnx", 1)
    assert session.varying_samples() == ["x"]
    x = torch.randn(2, 4, 16)
    with torch.no_grad():
        assert torch.allclose(session({"x": x})[0], task.model(x), atol=1e-5)


def test_a_number_of_samples_that_the_model_fixes_is_fixed_in_the_graph(tmp_path: Path) -> None:
    export(brought(Fixed()), {}, tmp_path / "out")
    session = Session(tmp_path / "out" / "model.onnx", 1)
    assert session.varying_samples() == []
    with pytest.raises(ExportError, match=r"ONNX Runtime fails: .*: give inputs of the sizes"):
        session({"x": torch.randn(2, 4, 16)})


def test_attention_without_heads(tmp_path: Path) -> None:
    task = made("attentive", tmp_path)
    assert export(task, mixed(task), tmp_path / "out").ok


class Steep(nn.Module):
    """The last bits of its layer are the third decimal of its outputs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(16, 48)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(3e4 * self.layer(x))


def test_a_model_that_amplifies_the_order_of_sums(tmp_path: Path) -> None:
    task, schemes, folder = brought(Steep()), {"layer": Scheme.parse("w8")}, tmp_path / "out"
    export(task, schemes, folder)

    def last_bits(graph: Any) -> None:
        """As sums in another order would be off."""
        bias = np.frombuffer(tensor(graph, "layer.bias").raw_data, np.int32)
        tensor(graph, "layer.bias").raw_data = (bias ^ 1).tobytes()

    def steeper(graph: Any) -> None:
        (factor,) = (t for t in graph.graph.initializer if not t.name.startswith("layer."))
        factor.raw_data = np.float32(3.001e4).tobytes()

    rewritten(folder, last_bits)
    sign(folder)
    found = compared(task, schemes, folder)
    assert found.ok
    assert found.max_difference > 5 * graph_audit.FLOAT * found.spread
    rewritten(folder, steeper)
    assert_fault(task, schemes, folder, "outputs differ by .* more than")


class Masked(nn.Module):
    """Attention of two and three dimensions, with masks of both."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: Tensor, added: Tensor, shared: Tensor, keys: Tensor) -> Tensor:
        q, attend = self.layer(x), nn.functional.scaled_dot_product_attention
        masks = (added, shared, keys, None)
        found = sum(attend(q, x, x, attn_mask=mask) for mask in masks)
        return found + attend(q[0], x[1], x[1], attn_mask=shared) + attend(q, x, x, is_causal=True)


def test_masks_of_attention_without_heads() -> None:
    g = torch.Generator().manual_seed(0)
    inputs = {
        "x": torch.randn(3, 6, 8, generator=g),
        "added": torch.randn(3, 6, 6, generator=g),
        "shared": torch.rand(6, 6, generator=g) > 0.3,
        "keys": torch.rand(3, 1, 6, generator=g) > 0.3,
    }
    model = Masked().eval()
    graph = traced(model, [], Signature(model, inputs, ("y",), {"x": {0: "N"}, "added": {0: "N"}}))
    graph.ir_version = IR_VERSION
    (found,) = Session(graph, 1)(inputs)
    with torch.no_grad():
        assert torch.allclose(found, model(*inputs.values()), atol=1e-5)


class Scaled(nn.Embedding):
    """As Gemma's."""

    embed_scale = 4.0

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.embed_scale


class Shifted(nn.Embedding):
    """As OPT's of positions."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + 2)


def embedded(kind: type[nn.Embedding]) -> ModuleTask:
    ids = torch.arange(24).view(4, 6) % 16
    return brought(nn.Sequential(kind(20, 16), nn.Linear(16, 5)), ids)


def test_embeddings_with_a_forward_of_their_own(tmp_path: Path) -> None:
    assert export(embedded(Scaled), {"0": Scheme.parse("w8")}, tmp_path / "out").ok
    assert export(embedded(Shifted), {"1": Scheme.parse("w8")}, tmp_path / "kept").ok
    with pytest.raises(ExportError, match="'0' as w8: its embedding does more than look rows up"):
        export(embedded(Shifted), {"0": Scheme.parse("w8")}, tmp_path / "no")


class Tied(nn.Module):
    """Positions that score themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.table = Shifted(20, 16)
        self.head = nn.Linear(16, 20, bias=False)
        self.head.weight = self.table.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.table(x))


def test_a_layer_tied_to_an_embedding_with_a_forward_of_its_own(tmp_path: Path) -> None:
    ids = torch.arange(24).view(4, 6) % 16
    with pytest.raises(ExportError, match=r"is a Shifted, .*: use another container"):
        export(brought(Tied(), ids), {}, tmp_path / "no")


def test_attention_of_windows(tmp_path: Path) -> None:
    """Its masks vary with the samples, which the exporter's strides of outputs did not."""
    from transformers import SwinConfig, SwinForImageClassification

    config = SwinConfig(
        image_size=16, patch_size=2, num_channels=1, embed_dim=8, depths=[2, 1], num_heads=[2, 2],
        window_size=4,
    )  # fmt: skip
    images = torch.randn(6, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    task = brought(SwinForImageClassification(config), images)
    layer = task.layers[2].name
    assert export(task, {layer: Scheme.parse("w8")}, tmp_path / "out").ok
    assert Session(tmp_path / "out" / "model.onnx", 1).varying_samples() != []


def test_a_model_that_cannot_be_traced(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"torch cannot trace a Asking: .*use another container"):
        export(brought(Asking()), {}, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_large_tensors_stand_beside_the_graph(tmp_path: Path) -> None:
    big = brought(nn.Sequential(nn.Flatten(), nn.Linear(64, 400), nn.Linear(400, 5)))
    layers, called = big.layers, signature(big)
    builder = Builder(big.model, layers, lambda: None)
    schemes = {layers[0].name: Scheme.parse("w8")}
    ONNX.write(
        big.model, layers, schemes, lambda n: builder.quantized(n, schemes[n]), called,
        tmp_path / "out", {}, external=0,
    )  # fmt: skip
    assert (tmp_path / "out" / "model.onnx.data").stat().st_size >= 16 * 400
    file = OnnxFile(tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "bitfront.json").read_text())
    file.verify(manifest["digests"])
    expected = builder.quantized(layers[0].name, schemes[layers[0].name]).weight
    assert torch.equal(
        file.quantized(layers[0], schemes[layers[0].name]).weight.codes, expected.codes
    )
    inputs = called.inputs
    with applied(big.model, {layers[0].name: builder.quantized(layers[0].name, expected.scheme)}):
        (found,) = Session(tmp_path / "out" / "model.onnx", 1)(inputs)
        assert torch.allclose(found, big.model(*inputs.values()), atol=1e-5)


def test_a_graph_that_is_too_large_for_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tensors go by files, and come out the same; nothing is left of them."""
    task, x = brought(Own()), torch.randn(2, 4, 16)
    export(task, {"first": Scheme.parse("w4")}, tmp_path / "out")
    (expected,) = Session(OnnxFile(tmp_path / "out").graph, 1)({"x": x})
    monkeypatch.setattr("bitfront.quant.onnx_run.LARGEST", 0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "room"))
    (tmp_path / "room").mkdir()
    (found,) = Session(OnnxFile(tmp_path / "out").graph, 1)({"x": x})
    assert torch.equal(found, expected)
    assert list((tmp_path / "room").iterdir()) == []


class Chained(nn.Module):
    """Convolutions one after another, with a depthwise one and a pooling between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False)
        self.third = nn.Conv2d(16, 32, 3, stride=2)
        self.last = nn.Conv2d(32, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.relu6(self.second(torch.relu(self.first(x))))
        x = nn.functional.max_pool2d(torch.relu(self.third(x)), 2)
        return self.head(self.last(x).mean((2, 3)))


def chained() -> ModuleTask:
    generator = torch.Generator().manual_seed(0)
    images = [torch.randn(5, 3, 12, 12, generator=generator) for _ in range(3)]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Chained().eval()
        model.second.weight.data *= 40  # so that its outputs reach 6
    return ModuleTask(
        lambda: {"model": model, "calibration": images[:2], "evaluation": images[2:]}, hold_back=0
    )


CONVOLUTIONS = {n: Scheme.parse("w4a8szo") for n in ("first", "second", "third", "last")}


@pytest.mark.parametrize("schemes", ["w4a8szo", "w8a8szo", "w8a8so"])
def test_chains_of_convolutions_stay_in_8_bits(schemes: str, tmp_path: Path) -> None:
    """Where each reads what a ReLU makes of the one before, nothing is left between the two."""
    import onnx
    import onnxruntime as ort

    task = chained()
    assert [layer.name for layer in task.layers if layer.rectified] == ["first", "second", "third"]
    export(task, dict.fromkeys(CONVOLUTIONS, Scheme.parse(schemes)), tmp_path / "out")
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(str(tmp_path / "out" / "model.onnx"), options)
    counts = Counter(n.op_type for n in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert counts["QLinearConv"] == 4
    assert counts["Conv"] == 0
    symmetric = schemes == "w8a8so"  # a ReLU stands between grids that reach below 0
    assert counts["Relu"] == (2 if symmetric else 0)
    assert counts["Clip"] == (1 if symmetric else 0)
    # pooling keeps the greatest value, and here the step too, although fewer values are small
    assert counts["QuantizeLinear"] == counts["DequantizeLinear"] == (4 if symmetric else 1)


# ------------------------------------------------------------------------------ faults


def rewritten(folder: Path, change: Callable[[Any], None], *, digests: bool = True) -> None:
    """Change the graph of an export, and its digests with it."""
    import onnx

    graph = onnx.load(folder / "model.onnx")
    change(graph)
    onnx.save_model(graph, folder / "model.onnx")
    if digests:
        path = folder / "bitfront.json"
        manifest = json.loads(path.read_text())
        manifest["digests"] = {
            t.name: hashlib.sha256(t.raw_data).hexdigest() for t in graph.graph.initializer
        }
        path.write_text(json.dumps(manifest))


def tensor(graph: Any, name: str) -> Any:
    return next(t for t in graph.graph.initializer if t.name == name)


def flip(graph: Any, name: str) -> None:
    found = tensor(graph, name)
    found.raw_data = bytes([found.raw_data[0] ^ 1]) + found.raw_data[1:]


def attribute(graph: Any, operator: str, name: str, value: int) -> None:
    node = next(n for n in graph.graph.node if n.op_type == operator)
    next(a for a in node.attribute if a.name == name).i = value


def removed(graph: Any, name: str) -> None:
    graph.graph.initializer.remove(tensor(graph, name))


BLOCKED = {"first": Scheme.parse("w8g16a8g")}
FAULTS: dict[str, tuple[Callable[[Any], None], bool, str]] = {
    "a flipped bit": (
        lambda g: flip(g, "first.codes"), False, r"tensor 'first\.codes' has changed since"
    ),
    "other codes": (lambda g: flip(g, "first.codes"), True, "weights of layer 'first' differ"),
    "another scale": (lambda g: flip(g, "first.scale"), True, "weights of layer 'first' differ"),
    "another bias": (
        lambda g: setattr(tensor(g, "first.bias"), "raw_data", b"\x00\x00\x00@" * 16), True,
        "layer 'first' as w8g16a8g, alone, differs by",
    ),
    "a missing tensor": (
        lambda g: removed(g, "first.scale"), False, r"tensor 'first\.scale' is missing"
    ),
    "other inputs": (
        lambda g: attribute(g, "MatMulNBits", "accuracy_level", 0), True,
        r"layer 'first' as w8g16a8g is MatMulNBits with \{'accuracy_level': 0\}",
    ),
    "a constant of the graph": (
        lambda g: setattr(tensor(g, "model.token"), "raw_data", b"\x00\x00\x20A" * 16), True,
        "outputs differ by .* more than",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelTask, Path]:
    """A task, and its export with a layer as w8g16a8g."""
    task, folder = brought(Own()), tmp_path_factory.mktemp("sound") / "out"
    export(task, BLOCKED, folder)
    return task, folder


@pytest.mark.parametrize("fault", list(FAULTS))
def test_the_audit_finds(fault: str, sound: tuple[ModelTask, Path], tmp_path: Path) -> None:
    change, digests, line = FAULTS[fault]
    task, folder = sound
    shutil.copytree(folder, tmp_path / "out")
    rewritten(tmp_path / "out", change, digests=digests)
    assert_fault(task, BLOCKED, tmp_path / "out", line)


def other_number(graph: Any, name: str) -> None:
    """A number that is greater by its hundredth, or by 1."""
    found = tensor(graph, name)
    values = from_proto(found)
    more = values * 1.01 if values.is_floating_point() else values + 1
    found.CopyFrom(to_proto(name, more.to(values.dtype)))


def strides(graph: Any) -> None:
    node = next(n for n in graph.graph.node if n.op_type == "QLinearConv" and "third" in n.name)
    next(a for a in node.attribute if a.name == "strides").ints[:] = [1, 1]


CONVOLUTION_FAULTS: dict[str, tuple[Callable[[Any], None], str]] = {
    "other codes": (lambda g: flip(g, "first.codes"), "weights of layer 'first' differ"),
    "another scale": (lambda g: flip(g, "third.scale"), "weights of layer 'third' differ"),
    "another step": (lambda g: other_number(g, "third.step"), "the steps of layer 'third' differ"),
    "another zero": (
        lambda g: other_number(g, "first.offset"), "the steps of layer 'first' differ"
    ),
    "another step of outputs": (
        lambda g: other_number(g, "third.output_step"), "the steps of layer 'third' differ"
    ),
    "another zero of outputs": (
        lambda g: other_number(g, "last.output_offset"), "the steps of layer 'last' differ"
    ),
    "another bias": (
        lambda g: setattr(tensor(g, "last.bias"), "raw_data", b"\x00\x01\x00\x00" * 8),
        "layer 'last' as w4a8szo, alone, differs by",
    ),
    "another zero of weights": (
        lambda g: other_number(g, "third.nothing"), "does not load|alone, differs by|fails"
    ),
    "other strides": (strides, r"alone, gives \(1, 32, 10, 10\), not \(1, 32, 5, 5\)"),
}  # fmt: skip


@pytest.fixture(scope="module")
def convolved(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelTask, Path]:
    task, folder = chained(), tmp_path_factory.mktemp("convolved") / "out"
    export(task, CONVOLUTIONS, folder)
    return task, folder


@pytest.mark.parametrize("fault", list(CONVOLUTION_FAULTS))
def test_the_audit_finds_in_convolutions(
    fault: str, convolved: tuple[ModelTask, Path], tmp_path: Path
) -> None:
    change, line = CONVOLUTION_FAULTS[fault]
    task, folder = convolved
    shutil.copytree(folder, tmp_path / "out")
    rewritten(tmp_path / "out", change)
    assert_fault(task, CONVOLUTIONS, tmp_path / "out", line)


def compared(task: ModelTask, schemes: Mapping[str, Scheme], folder: Path) -> Any:
    builder = Builder(task.model, task.layers, lambda: [task.outputs(b) for b in task.calibration])
    builder.prepare(schemes.items())
    return graph_audit.compare(
        task, ONNX, signature(task), folder, task.layers, schemes,
        lambda n: builder.quantized(n, schemes[n]),
    )  # fmt: skip


def assert_fault(task: ModelTask, schemes: Mapping[str, Scheme], folder: Path, line: str) -> None:
    found = compared(task, schemes, folder)
    assert not found.ok
    assert re.search(line, "; ".join(found.failures)), found.failures


def test_the_audit_finds_another_scheme_and_a_file_that_is_none(
    sound: tuple[ModelTask, Path], tmp_path: Path
) -> None:
    task, folder = sound
    w4 = {"first": Scheme.parse("w4g16a8g")}
    assert_fault(task, w4, folder, "layer 'first' has .* bytes where .* were predicted")
    rounded = {"first": Scheme.parse("w8g16a8g+gptq")}
    assert_fault(task, rounded, folder, "weights of layer 'first' differ")
    shutil.copytree(folder, tmp_path / "out")
    (tmp_path / "out" / "model.onnx").write_bytes(b"no graph")
    assert_fault(task, BLOCKED, tmp_path / "out", "does not open")


@pytest.mark.parametrize(
    ("scheme", "line"),
    [
        ("fp8", "onnx cannot hold 'first' as fp8: ONNX Runtime has no fp8"),
        ("w8a4", "onnx cannot hold 'first' as w8a4: integer products take inputs of 8 bits"),
    ],
)
def test_what_it_cannot_hold_is_refused_before_anything_is_written(
    scheme: str, line: str, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=line):
        export(brought(Own()), {"first": Scheme.parse(scheme)}, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_without_the_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = brought(Own())
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ExportError, match="onnxscript is not installed: pip install 'bitfront"):
        export(task, {}, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
