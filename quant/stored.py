"""What stands in a file for a layer under a scheme, known without the weights and without torch.

Tensors   suffix of a tensor's name -> (safetensors dtype, shape), the bias excluded
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from bitfront.registry import Registry
from bitfront.scheme import KEEP as KEEP_WORD
from bitfront.types import Activation, Layer, Scheme

from .ggml_types import is_block, row_bytes
from .onnx_stored import in_onnx
from .sdnq_stored import in_sdnq

Tensors = Mapping[str, tuple[str, tuple[int, ...]]]
Stored = Callable[[Layer, Scheme], Tensors]

KEEP = Scheme.parse(KEEP_WORD)
CASTS = {"bf16": "BF16", "fp16": "F16"}
WIDE_CODES = {**CASTS, "fp8": "F8_E4M3", "mxfp8": "F8_E4M3"}  # one code an element, not packed
_DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
# others: the weights' own, 16 bits of wider ones
_SCALES = {"mxfp8": "U8", "mxfp4": "U8", "nvfp4": "F8_E4M3"}

STORED: Registry[Stored] = Registry("exporter")


@STORED.register("safetensors")
def in_safetensors(layer: Layer, scheme: Scheme) -> Tensors:
    """The tensors of ``packed``; of a weight that is shared, only the grid of its inputs."""
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {}
    if layer.shares is None:
        tensors |= _weight(layer, scheme)
    if scheme.activation is not None:
        tensors |= _grids(scheme.activation)
    return tensors


@STORED.register("compressed-tensors")
def in_compressed_tensors(layer: Layer, scheme: Scheme) -> Tensors:
    """The tensors of ``export_compressed``; nothing of a weight that is shared."""
    rows, cols = layer.rows, layer.cols
    if layer.shares is not None:
        return {}
    if scheme == KEEP:
        return {"weight": (_DTYPES[layer.dtype], (rows, cols))}
    if scheme.format in CASTS:
        shape = (cols, rows) if layer.kind == "hf_conv1d" else (rows, cols)
        return {"weight": (CASTS[scheme.format], shape)}
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {}
    if compressed_format(scheme) == "pack-quantized":
        tensors["weight_packed"] = ("I32", (rows, packed_bytes(cols, scheme.bits, 4) // 4))
        tensors["weight_shape"] = ("I64", (2,))
    elif scheme.format in ("nvfp4", "mxfp4"):
        tensors["weight_packed"] = ("U8", (rows, cols // 2))
    else:
        tensors["weight"] = (WIDE_CODES.get(scheme.format, "I8"), (rows, cols))
    tensors["weight_scale"] = (_scale_dtype(layer, scheme), (rows, groups(layer, scheme)))
    if scheme.format == "nvfp4":
        tensors["weight_global_scale"] = ("F32", (1,))
    if scheme.activation is not None and scheme.activation.static:
        tensors[compressed_input(scheme)] = ("F32", (1,))
    return tensors


STORED.register("onnx")(in_onnx)
STORED.register("diffusers")(in_sdnq)


@STORED.register("gguf")
def in_gguf(layer: Layer, scheme: Scheme) -> Tensors:
    """The layer's one tensor; nothing of a weight that is shared."""
    rows, cols = layer.rows, layer.cols
    if layer.shares is not None:
        return {}
    if is_block(scheme):
        return {"weight": ("U8", (rows, row_bytes(cols, scheme)))}
    return {"weight": (CASTS.get(scheme.format) or _DTYPES[layer.dtype], (rows, cols))}


def tensor_name(layer: str, suffix: str) -> str:
    """Full name of a layer's tensor; the model itself, when it is a layer, is named ''."""
    return f"{layer}.{suffix}" if layer else suffix


def compressed_format(scheme: Scheme) -> str:
    """compressed-tensors' name of how such a weight is compressed."""
    if scheme.format == "fp8":
        return "naive-quantized" if scheme.activation is None else "float-quantized"
    if scheme.format != "int":
        return f"{scheme.format}-{'' if scheme.bits == 8 else 'pack-'}quantized"
    whole = scheme.bits == 8 and scheme.group is None and scheme.activation is not None
    return "int-quantized" if whole else "pack-quantized"


def compressed_input(scheme: Scheme) -> str:
    """compressed-tensors' name of the number that a static activation has."""
    return "input_global_scale" if scheme.format == "nvfp4" else "input_scale"


def packed_bytes(cols: int, bits: int, unit: int = 1) -> int:
    """Bytes of a packed row of ``cols`` codes, padded to a multiple of ``unit`` bytes."""
    return math.ceil(cols * bits / (8 * unit)) * unit


def groups(layer: Layer, scheme: Scheme) -> int:
    """Scales of one row."""
    return layer.cols // (scheme.group or layer.cols)


def _grids(activation: Activation) -> Tensors:
    """Of static inputs and of outputs."""
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {}
    for part, wanted in (("input", activation.static), ("output", activation.output)):
        if wanted:
            tensors[f"{part}_scale"] = ("F32", ())
            if not activation.symmetric:
                tensors[f"{part}_zero"] = ("U8", ())
    return tensors


def _scale_dtype(layer: Layer, scheme: Scheme) -> str:
    """The safetensors dtype of a layer's scales."""
    own = _DTYPES[layer.dtype]
    return _SCALES.get(scheme.format) or ("F16" if own in ("F32", "F64") else own)


def _weight(layer: Layer, scheme: Scheme) -> Tensors:
    rows, cols = layer.rows, layer.cols
    if scheme == KEEP:
        return {"weight": (_DTYPES[layer.dtype], (rows, cols))}
    if is_block(scheme):
        return {"weight_codes": ("U8", (rows, row_bytes(cols, scheme)))}
    if scheme.format in WIDE_CODES:
        tensors = {"weight_codes": (WIDE_CODES[scheme.format], (rows, cols))}
    else:
        tensors = {"weight_codes": ("U8", (rows, packed_bytes(cols, scheme.bits)))}
    if scheme.format not in CASTS:
        tensors["weight_scale"] = (_scale_dtype(layer, scheme), (rows, groups(layer, scheme)))
    if not scheme.symmetric:
        width = packed_bytes(groups(layer, scheme), scheme.bits)
        tensors["weight_zero"] = ("U8", (rows, width))
    if scheme.format == "nvfp4":
        return {**tensors, "weight_tensor_scale": ("F32", ())}
    return tensors
