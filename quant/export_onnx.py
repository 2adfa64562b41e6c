"""ONNX models that ONNX Runtime loads: traced once, each layer in the form of its scheme.

A folder holds ``model.onnx`` (with ``model.onnx.data`` beside it where tensors are more than
``EXTERNAL`` bytes) and ``bitfront.json``. Tensors of layers are named as in ``onnx_forms``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import torch
from torch import nn

from bitfront.errors import ExportError
from bitfront.types import Layer, Scheme

from .container import Container
from .costs import layer_costs
from .export_base import write_manifest
from .folders import new_folder
from .onnx_forms import FORMS
from .onnx_graph import Fill, filled, holes
from .onnx_stored import form_of, reason
from .onnx_trace import Signature, traced
from .stored import KEEP
from .surgery import original
from .weights import QuantizedLayer, QuantizedWeight

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

FILE, DATA = "model.onnx", "model.onnx.data"
EXTERNAL = 250_000_000  # bytes of tensors in one file at most; writing it takes 4 times as many
SMALL = 1024  # bytes of tensors that stay in the file
PAGE = 4096  # what runtimes that map files into memory align tensors to


class Onnx(Container):
    """Any model that torch can trace, in float32; ``onnx_stored`` has the schemes."""

    name = "onnx"

    def reason(self, layer: Layer, scheme: Scheme) -> str | None:
        return reason(layer, scheme)

    def reason_model(self, model: nn.Module) -> str | None:
        config = getattr(model, "config", None)
        if getattr(config, "quantization_config", None) is not None:
            return "it is quantized already; start from its full-precision weights"
        floats = (p.dtype for p in model.parameters() if p.ndim > 1 and p.is_floating_point())
        if (odd := next((dtype for dtype in floats if dtype != torch.float32), None)) is not None:
            return (
                "ONNX Runtime's CPU kernels are float32, and it has weights in "
                f"{str(odd).removeprefix('torch.')}; load it with dtype float32, in another study"
            )
        return None

    def write(
        self,
        model: nn.Module,
        layers: Sequence[Layer],
        schemes: Mapping[str, Scheme],
        quantized: Callable[[str], QuantizedLayer],
        signature: Signature,
        folder: Path,
        manifest: Mapping[str, Any],
        *,
        overwrite: bool = False,
        external: int = EXTERNAL,
        check: Callable[[Path], object] | None = None,
    ) -> None:
        """Write ``model`` with each layer under its scheme; layers without one are kept.

        signature: how the model is called. quantized, manifest, check, and what appears when: as of
        ``Loadable.write``. Raises ``ExportError`` for pairs that have no form, for a model that
        torch cannot trace, and for a target that cannot be written.
        """
        require_onnx()
        import onnx

        schemes = self.completed(model, layers, schemes)
        with new_folder(folder, overwrite) as partial:
            trace = traced(model, layers, signature)
            beside = tensors_size(trace) + _bytes(self, layers, schemes) > external
            with Tensors(partial / DATA if beside else None) as tensors:
                graph = self.graph(trace, model, layers, schemes, quantized, tensors.put)
            more = {
                "aliases": {},
                "inputs": {name: list(x.shape) for name, x in signature.inputs.items()},
                "outputs": list(signature.outputs),
                "opset": {o.domain or "ai.onnx": o.version for o in graph.opset_import},
            }
            onnx.save_model(graph, partial / FILE)
            signature.beside(partial)
            write_manifest(
                partial, self, layers, schemes, tensors.bytes, more, manifest, tensors.digests
            )
            if check is not None:
                check(partial)

    def graph(
        self,
        trace: ModelProto,
        model: nn.Module,
        layers: Sequence[Layer],
        schemes: Mapping[str, Scheme],
        quantized: Callable[[str], QuantizedLayer],
        put: Callable[[TensorProto], object] = lambda tensor: None,
    ) -> ModelProto:
        """The traced model with its layers under ``schemes``, one for each. put: see ``filled``."""
        called, fills = holes(trace), {}
        tied = {layer.shares for layer in layers if layer.name in called}
        for layer in layers:
            module, scheme = model.get_submodule(layer.name), schemes[layer.name]
            if layer.name not in called and (scheme != KEEP or layer.name in tied):
                remedy = "keep the layer" if scheme != KEEP else "use another container"
                raise ExportError(_uncalled(layer, module), remedy)
            make = _lazily(layer, scheme, module, quantized)
            fills[layer.name] = fill_of(layer, scheme, module, make)
        return filled(trace, fills, put)


def fill_of(
    layer: Layer, scheme: Scheme, module: nn.Module, make: Callable[[], QuantizedLayer]
) -> Fill:
    """What stands for a layer under a scheme that has a form. make: gives its weights."""
    form = form_of(layer, scheme)
    assert form is not None
    return Fill(FORMS[form], module, layer, make, layer.shares)


def require_onnx() -> None:
    """Raises ``ExportError`` where the packages are not installed."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ExportError(
            f"{error.name} is not installed", "pip install 'bitfront[onnx]'"
        ) from error


def tensors_size(graph: ModelProto) -> int:
    """Bytes of a graph's tensors."""
    return sum(len(tensor.raw_data) for tensor in graph.graph.initializer)


class Tensors:
    """The tensors of a graph as they are made; larger ones are written to ``beside``, if given.

    bytes: of all of them. digests: name -> SHA-256.
    """

    def __init__(self, beside: Path | None) -> None:
        self.bytes, self.digests = 0, dict[str, str]()
        self._file: BinaryIO | None = beside.open("wb") if beside is not None else None

    def put(self, tensor: TensorProto) -> None:
        """Count a tensor, and take its bytes to the file."""
        size = len(tensor.raw_data)
        self.bytes += size
        self.digests[tensor.name] = raw_digest(tensor)
        if self._file is None or size < SMALL:
            return
        from onnx import TensorProto

        self._file.write(bytes(-self._file.tell() % PAGE))
        place = {"location": DATA, "offset": self._file.tell(), "length": size}
        self._file.write(tensor.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in place.items():
            tensor.external_data.add(key=key, value=str(value))

    def __enter__(self) -> Tensors:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


def _bytes(exporter: Onnx, layers: Sequence[Layer], schemes: Mapping[str, Scheme]) -> float:
    """Of the tensors of all layers, as the costs count them."""
    return sum(layer_costs(la, schemes[la.name], exporter.stored)["bytes"] for la in layers)


def _uncalled(layer: Layer, module: nn.Module) -> str:
    if layer.beyond_lookup:
        return f"embedding {layer.name!r} is a {type(module).__name__}, which has its own forward"
    return f"the model uses the weight of {layer.name!r} without calling it"


def _lazily(
    layer: Layer, scheme: Scheme, module: nn.Module, quantized: Callable[[str], QuantizedLayer]
) -> Callable[[], QuantizedLayer]:
    """The layer's weights when they are wanted, so that one layer is made at a time."""

    def make() -> QuantizedLayer:
        if scheme == KEEP:
            return QuantizedLayer(QuantizedWeight(scheme, original(layer.name, module)))
        return quantized(layer.name)

    return make


def raw_digest(tensor: TensorProto) -> str:
    """SHA-256 of a tensor's bytes."""
    return hashlib.sha256(tensor.raw_data).hexdigest()
