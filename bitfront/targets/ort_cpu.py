"""ONNX Runtime on the processors of this machine."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from bitfront.errors import ExportError
from bitfront.interleaving import Run
from bitfront.types import Layer, Place, Scheme

from .base import Handover, Timed

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch import Tensor, nn

    from bitfront.quant.onnx_trace import Signature
    from bitfront.quant.weights import QuantizedLayer
    from bitfront.tasks.running import ModelTask


class OrtCpu(Timed):
    """Graphs of the container ``onnx``, on CPUs."""

    name = "ort-cpu"
    container = "onnx"
    candidates = "w4g32 w4g32a8g w8g32a8g w4a8 w8a8 w8a8s w4a8szo w8a8szo w4 w8 keep"

    def place(self, threads: int) -> Place:
        return Place(self.name, f"onnxruntime {_version()}", processor(), threads)

    def operator(self, layer: Layer, scheme: Scheme) -> str:
        from bitfront.quant.onnx_stored import core_of

        name, attributes = core_of(layer, scheme)
        said = "".join(f" {key}={value}" for key, value in sorted(attributes.items()))
        steps = scheme.activation is not None and not scheme.activation.static
        return f"{name}{said}{' dynamic' if steps else ''}"

    def nothing(self, threads: int) -> Run:
        import torch
        from onnx import TensorProto, helper

        from bitfront.quant.onnx_graph import IR_VERSION
        from bitfront.quant.onnx_parts import OPSET
        from bitfront.quant.onnx_run import Session

        value = partial(helper.make_tensor_value_info, elem_type=TensorProto.FLOAT, shape=[1])
        node = helper.make_node("Identity", ["x"], ["y"])
        graph = helper.make_graph([node], "nothing", [value("x")], [value("y")])
        imports = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION)
        return Session(model, threads).bound({"x": torch.zeros(1)})

    def kernel(
        self, layer: Layer, module: nn.Module, scheme: Scheme, x: Tensor, threads: int
    ) -> Run:
        from bitfront.quant.export_onnx import fill_of
        from bitfront.quant.onnx_graph import alone
        from bitfront.quant.onnx_run import Session

        from .stand_ins import stand_in

        fill = fill_of(layer, scheme, module, lambda: stand_in(layer, module, scheme))
        return Session(alone(fill, tuple(x.shape)), threads).bound({"x": x})

    def frame(self, task: ModelTask, called: Signature) -> ModelProto:
        from bitfront.quant.export_onnx import require_onnx
        from bitfront.quant.onnx_trace import traced

        require_onnx()
        return traced(task.model, task.layers, called)

    def model(
        self,
        frame: ModelProto,
        model: nn.Module,
        layers: Sequence[Layer],
        schemes: Mapping[str, Scheme],
        inputs: Mapping[str, Tensor],
        threads: int,
    ) -> Run:
        from bitfront.quant.export_onnx import Onnx
        from bitfront.quant.onnx_run import Session

        from .stand_ins import stand_in

        by_name = {layer.name: layer for layer in layers}

        def quantized(name: str) -> QuantizedLayer:
            return stand_in(by_name[name], model.get_submodule(name), schemes[name])

        graph = Onnx().graph(frame, model, layers, schemes, quantized)
        return Session(graph, threads).bound(inputs)

    def apart(self, layer: Layer, scheme: Scheme) -> bool:
        """Convolutions of images in float32 work on blocks of channels (NCHWc)."""
        from bitfront.quant.onnx_stored import core_of

        return layer.kind == "conv2d" and core_of(layer, scheme)[0] == "Conv"

    def handovers(
        self,
        frame: ModelProto,
        inputs: Mapping[str, Sequence[int]],
        outputs: Mapping[str, Sequence[int]],
    ) -> list[Handover]:
        from bitfront.quant.onnx_neighbours import neighbours

        found = neighbours(frame, inputs, outputs).items()
        return [Handover(one, other, elements) for (one, other), elements in found]

    def exported(self, folder: Path, inputs: Mapping[str, Tensor], threads: int) -> Run:
        from bitfront.quant.export_onnx import FILE
        from bitfront.quant.onnx_run import Session

        return Session(folder / FILE, threads).bound(inputs)


def _version() -> str:
    try:
        return version("onnxruntime")
    except PackageNotFoundError:
        raise ExportError("onnxruntime is not installed", "pip install 'bitfront[onnx]'") from None


@cache
def processor() -> str:
    """The processor's own name, where the system has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
