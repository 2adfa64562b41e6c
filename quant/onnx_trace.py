"""A model as an ONNX graph with holes where its layers are.

A hole is a node ``bitfront::Layer`` with the layer's name, from its input to its output. No weight
of a layer is in the graph, so one trace serves every allocation.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bitfront.errors import ExportError
from bitfront.types import Layer

from .onnx_attention import translatable
from .onnx_experts import batched_experts
from .onnx_parts import OPSET
from .statistics import call_input

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch.export import ExportedProgram

DOMAIN, HOLE = "bitfront", "Layer"


@dataclass(frozen=True, eq=False)
class Signature:
    """How a model is called where it is deployed.

    run: takes the inputs in order, gives a tensor for each of ``outputs`` (one alone as itself).
    inputs: name -> an example. axes: name -> dimensions whose size may vary from call to call, and
    what it is called. measured: gives the first output as it was measured; None: as ``run`` does.
    example: inputs to trace with, where not ``inputs``; then each of ``axes`` has to vary.
    remedy: for models that torch cannot trace. beside: writes more files into the export's folder.
    """

    run: Callable[..., Any]
    inputs: Mapping[str, Tensor]
    outputs: tuple[str, ...]
    axes: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    measured: Callable[[], Tensor] | None = None
    example: Mapping[str, Tensor] | None = None
    remedy: str = "see that torch.export.export takes the model, or use another container"
    beside: Callable[[Path], object] = lambda folder: None


def traced(model: nn.Module, layers: Sequence[Layer], signature: Signature) -> ModelProto:
    """The graph of ``model``. Sizes vary only where the model's own code lets them.

    Raises ``ExportError`` for a model that torch cannot trace.
    """
    with _holes(model, layers), batched_experts(model), _quiet():
        try:
            program, found = _converted(_Called(model, signature.run).eval(), signature)
        except Exception as error:  # of many classes of torch's, and whatever the model raises
            raise ExportError(
                f"torch cannot trace a {type(model).__name__}: {_first_line(error)}",
                signature.remedy,
            ) from error
    _strip(found)
    _name_sizes(found, _sizes(program), signature)
    return found


def _converted(called: _Called, signature: Signature) -> tuple[ExportedProgram, ModelProto]:
    """A traced program as a graph: that in which most sizes vary, of those that convert."""
    failed: Exception | None = None
    for program in _programs(called, signature):
        try:
            translatable(program)
            exported: Any = torch.onnx.export(
                program,
                input_names=list(signature.inputs),
                output_names=list(signature.outputs),
                opset_version=OPSET,
                custom_translation_table={torch.ops.bitfront.hole.default: _hole_node},
                verbose=False,
            )
            _drop_unused(exported.model.graph)  # while they are torch's own memory
            return program, exported.model_proto
        except Exception as error:  # noqa: BLE001 - raised below where none converts
            failed = failed or error
    assert failed is not None
    raise failed


def _programs(called: _Called, signature: Signature) -> list[ExportedProgram]:
    """The traced program, in one or two ways, that in which more sizes vary first.

    Python sees ``len(x)`` as a number; Dynamo does not, but takes less of what models do.
    """
    from torch.export import Dim, export

    axes = [signature.axes.get(name, {}) for name in signature.inputs]
    shapes = tuple(dict.fromkeys(dims, Dim.AUTO) for dims in axes)
    examples = tuple((signature.example or signature.inputs).values())

    def fixed(program: ExportedProgram) -> int:
        asked = zip(_sizes(program), axes, strict=True)
        return sum(sizes[d] is not None for sizes, dims in asked for d in dims)

    first = export(called, examples, dynamic_shapes=(shapes,), strict=False)
    if not fixed(first):
        return [first]
    try:
        second = export(called, examples, dynamic_shapes=(shapes,), strict=True)
    except Exception:  # noqa: BLE001 - of many classes; the first one stands
        return [first]
    return sorted((first, second), key=fixed)


def _sizes(program: ExportedProgram) -> list[list[int | None]]:
    """Of each input, None where they vary."""
    names = set(program.graph_signature.user_inputs)
    shapes = [node.meta["val"].shape for node in program.graph.nodes if node.name in names]
    return [[s if isinstance(s, int) else s.node.maybe_as_int() for s in sh] for sh in shapes]


def _name_sizes(graph: ModelProto, sizes: list[list[int | None]], signature: Signature) -> None:
    """Fix sizes that torch's exporter calls variable and are not, and name the others.

    Raises ``ExportError`` where one is fixed that has to vary.
    """
    words: dict[str, str] = {}  # torch's symbol -> name
    for given, found in zip(graph.graph.input, sizes, strict=True):
        axes = signature.axes.get(given.name, {})
        for d, (dim, size) in enumerate(zip(given.type.tensor_type.shape.dim, found, strict=True)):
            if size is not None:
                dim.dim_value = size
                if d in axes and signature.example is not None:
                    raise ExportError(
                        f"the model fixes {axes[d]} of {given.name!r} to {size}", signature.remedy
                    )
            elif d in axes:
                words.setdefault(dim.dim_param, axes[d])
                dim.dim_param = axes[d]
    for made in graph.graph.output:
        for dim in made.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = re.sub(
                    r"\w+", lambda m: words.get(m.group(), m.group()), dim.dim_param
                )


def _first_line(error: BaseException) -> str:
    """Of what caused an error."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next(filter(None, map(str.strip, str(error).splitlines())), repr(error))


def _drop_unused(graph: Any) -> None:
    """Remove the weights that only layers use from the exporter's graph."""
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]


def _strip(graph: ModelProto) -> None:
    """Remove the exporter's notes, which name local files."""
    graph.graph.ClearField("value_info")
    graph.graph.ClearField("metadata_props")
    graph.ClearField("metadata_props")
    parts = graph.graph
    for part in (*parts.node, *parts.initializer, *parts.input, *parts.output):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


class _Called(nn.Module):
    """The model, called by ``run``."""

    def __init__(self, model: nn.Module, run: Callable[..., Any]) -> None:
        super().__init__()
        self.model = model
        self._run = run

    def forward(self, *inputs: Tensor) -> Any:
        return self._run(*inputs)


@contextmanager
def _holes(model: nn.Module, layers: Sequence[Layer]) -> Iterator[None]:
    """Layers that leave a hole where they are called, until the block ends.

    An embedding that does more than look up, and scale, stays as it is.
    """
    with ExitStack() as stack:
        for layer in layers:
            if layer.beyond_lookup:
                continue
            module = model.get_submodule(layer.name)
            module.forward = _hole(layer, module)
            stack.callback(module.__dict__.pop, "forward")
        yield


def _hole(layer: Layer, module: Any) -> Callable[..., Tensor]:
    geometry = _geometry(layer, module)

    def forward(*args: Any, **kwargs: Any) -> Tensor:
        x = call_input(args, kwargs)
        if geometry and x.ndim != len(geometry) // 4 + 2:
            raise ExportError(
                f"layer {layer.name!r} is given {tuple(x.shape)}", "give convolutions batches"
            )
        width = layer.cols if layer.kind == "embedding" else layer.rows
        dtype: torch.dtype = module.weight.dtype
        return torch.ops.bitfront.hole(x, layer.name, layer.kind, width, geometry, dtype)

    return forward


def _geometry(layer: Layer, module: Any) -> list[int]:
    """Reach of the kernel, stride, padding of both sides, padding of outputs, by dimension."""
    if not hasattr(module, "kernel_size"):
        return []
    dims = len(module.kernel_size)
    found: list[int] = []
    for d in range(dims):
        reach = module.dilation[d] * (module.kernel_size[d] - 1) + 1
        if layer.kind.startswith("conv_transpose"):
            padding, more = 2 * module.padding[d], module.output_padding[d]
        else:
            padding = sum(module._reversed_padding_repeated_twice[2 * (dims - 1 - d) :][:2])
            more = 0
        found += [reach, module.stride[d], padding, more]
    return found


@torch.library.custom_op("bitfront::hole", mutates_args=())
def _hole_op(
    x: Tensor, layer: str, kind: str, width: int, geometry: list[int], dtype: torch.dtype
) -> Tensor:
    raise NotImplementedError("a hole is for tracing only")


@_hole_op.register_fake
def _hole_shape(
    x: Tensor, layer: str, kind: str, width: int, geometry: list[int], dtype: torch.dtype
) -> Tensor:
    """An output of the layer's shape. geometry: of all dimensions, one after another."""
    if kind == "embedding":
        return x.new_empty((*x.shape, width), dtype=dtype)
    if not geometry:
        return x.new_empty((*x.shape[:-1], width), dtype=dtype)
    sizes = []
    for d, size in enumerate(x.shape[2:]):
        reach, stride, padding, more = geometry[4 * d : 4 * d + 4]
        if kind.startswith("conv_transpose"):
            sizes.append((size - 1) * stride + reach + more - padding)
        else:
            sizes.append((size + padding - reach) // stride + 1)
    return x.new_empty((x.shape[0], width, *sizes), dtype=dtype)


def _hole_node(x: Any, layer: str, kind: str, width: int, geometry: Any, dtype: int) -> Any:
    """The node that stands for a hole."""
    from onnx.defs import OpSchema
    from onnxscript.values import Op, Opset

    numbers = ["tensor(float)", "tensor(int64)", "tensor(int32)"]
    schema = OpSchema(
        HOLE, DOMAIN, 1,
        inputs=[OpSchema.FormalParameter("x", "T")],
        outputs=[OpSchema.FormalParameter("y", "U")],
        type_constraints=[("T", numbers, "inputs"), ("U", ["tensor(float)"], "outputs")],
        attributes=[OpSchema.Attribute("layer", OpSchema.AttrType.STRING, "its name")],
    )  # fmt: skip
    return Op(Opset(DOMAIN, 1), HOLE, schema)(x, layer=layer)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's lines on what is not installed, and torch's warnings of itself."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
