"""GGUF files that llama.cpp loads: a causal language model with a block type for each tensor.

A folder holds ``model.gguf`` and ``bitfront.json``. Tensors are written one at a time; their types
are the schemes' (``keep``: the model's own dtype), norms and biases are F32. Names, the order of
rows and settings are those of ``gguf_models``, the tokenizer that of the model's folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bitfront.errors import ExportError
from bitfront.types import Layer, Scheme

from . import gguf_file, gguf_tokenizer
from .export_base import Loadable, identity, read_manifest, tensors_of, write_manifest
from .export_compressed import local_folder
from .folders import MANIFEST, new_folder
from .ggml_types import is_block, row_bytes, type_name
from .gguf_file import TYPES, GgufFile, Planned, as_bytes
from .gguf_models import (
    FAMILIES,
    FREQUENCIES,
    heads_of,
    reason,
    reason_config,
    rope,
    settings,
    tensor_name,
)
from .stored import KEEP
from .tensorfiles import SHARD_BYTES
from .weights import QuantizedLayer

FILE = "model.gguf"
# settings that transformers' loader does not read in a GGUF file
_UNREAD = ("head_dim", "rope_parameters", "attention_bias", "mlp_bias")


class Gguf(Loadable):
    """Causal language models of ``gguf_models.FAMILIES``; block types, and 16-bit casts."""

    name = "gguf"
    stands_alone = True

    def reason(self, layer: Layer, scheme: Scheme) -> str | None:
        return reason(layer, scheme)

    def reason_model(self, model: nn.Module) -> str | None:
        from transformers import PreTrainedModel

        if not isinstance(model, PreTrainedModel) or type(model).__name__ not in FAMILIES:
            return f"models that are written are {', '.join(FAMILIES)} of transformers"
        if getattr(model.config, "quantization_config", None) is not None:
            return "it is quantized already; start from its full-precision weights"
        return reason_config(model.config)

    def require(self, model: nn.Module) -> None:
        """As of ``Container``, and for a tokenizer that is not written."""
        super().require(model)
        _words(model)

    def other_bytes(self, model: nn.Module, layers: Sequence[Layer]) -> int:
        weights = {f"{layer.name}.weight" for layer in layers}
        numbers = [t for key, t in _once(model.state_dict()) if key not in weights]
        if (frequencies := _frequencies(model)) is not None:
            numbers.append(frequencies)
        return sum(t.numel() * _written(t).itemsize for t in numbers)

    def expected(
        self, model: nn.Module, layers: Sequence[Layer], schemes: Mapping[str, Scheme]
    ) -> dict[str, Any]:
        plan = self._plan(model, layers, schemes, _nothing)
        return {
            "tensors": {tensor.name: [tensor.type, list(tensor.shape)] for tensor in plan},
            "metadata": {**_metadata(model), **_plain(_words(model))},
        }

    def verify(self, folder: Path, expected: Mapping[str, Any]) -> int:
        """Compares digests, then each tensor's type and shape, then the model's settings."""
        file, written = GgufFile(folder / FILE), read_manifest(folder).digests
        if (found := file.digests) != written:
            odd = min(n for n in {*found, *written} if found.get(n) != written.get(n))
            raise ExportError(f"tensor {odd!r} in {FILE} is damaged", "copy or export it again")
        tensors = {name: [kind, list(file.shapes[name])] for name, kind in file.types.items()}
        for what, asked, given in (
            ("tensor", expected.get("tensors", tensors), tensors),
            ("setting", expected.get("metadata", {}), _plain(file.metadata)),
        ):
            for name, value in asked.items():
                if given.get(name) != value:
                    said = f"{given.get(name)}, not {value}"
                    if isinstance(value, list) and what == "setting":
                        said = "another list"
                    raise ExportError(f"{what} {name!r} in {FILE} is {said}", "export it again")
        if len(tensors) != len(expected.get("tensors", tensors)):
            raise ExportError(f"{FILE} has tensors that the model has not", "export it again")
        return file.bytes

    def open(self, folder: Path, model: nn.Module | None = None) -> nn.Module:
        from transformers import AutoConfig, AutoModelForCausalLM

        config = AutoConfig.from_pretrained(folder, gguf_file=FILE)
        about = json.loads((folder / MANIFEST).read_text())
        for key, value in about["config"].items():
            setattr(config, key, value)
        opened: nn.Module = AutoModelForCausalLM.from_pretrained(
            folder, gguf_file=FILE, config=config, dtype=getattr(torch, about["dtype"])
        )
        return opened.eval()

    def write(
        self,
        model: nn.Module,
        layers: Sequence[Layer],
        schemes: Mapping[str, Scheme],
        quantized: Callable[[str], QuantizedLayer],
        folder: Path,
        manifest: Mapping[str, Any],
        *,
        overwrite: bool = False,
        shard_bytes: int = SHARD_BYTES,
        check: Callable[[Path], object] | None = None,
    ) -> None:
        """As of ``Loadable``; one file, whatever ``shard_bytes`` says."""
        gguf_file.require_gguf()
        schemes = self.completed(model, layers, schemes)
        family, config = FAMILIES[type(model).__name__], _config(model)
        plan = self._plan(model, layers, schemes, quantized)
        words = _words(model)
        with new_folder(folder, overwrite) as partial:
            digests = gguf_file.write(
                partial / FILE, family.architecture, {**_metadata(model), **words}, plan
            )
            more = {
                "aliases": {},
                "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
                "config": {key: getattr(config, key) for key in _UNREAD if hasattr(config, key)},
                "tokenizer": words["tokenizer.ggml.model"],
            }
            size = sum(tensor.size for tensor in plan)
            write_manifest(partial, self, layers, schemes, size, more, manifest, digests)
            if check is not None:
                check(partial)

    def _plan(
        self,
        model: nn.Module,
        layers: Sequence[Layer],
        schemes: Mapping[str, Scheme],
        quantized: Callable[[str], QuantizedLayer],
    ) -> list[Planned]:
        """What to write, in the order of the model's tensors."""
        family, config = FAMILIES[type(model).__name__], _config(model)
        by_key = {f"{layer.name}.weight": layer for layer in layers if layer.shares is None}
        plan = []
        for key, tensor in _once(tensors_of(model)):
            name, order = tensor_name(key), _order(tensor, heads_of(key, family, config))
            layer = by_key.get(key)
            if layer is None or schemes.get(layer.name, KEEP) == KEEP:
                plan.append(_number(name, tensor, order))
            else:
                plan.append(_weight(name, layer, schemes[layer.name], quantized, order))
        if (frequencies := _frequencies(model)) is not None:
            plan.append(_number(FREQUENCIES, frequencies, None))
        return plan


def _number(name: str, tensor: Tensor, order: Tensor | None) -> Planned:
    """A tensor as it is, vectors as F32."""
    dtype = _written(tensor)

    def make() -> Tensor:
        return (tensor if order is None else tensor[order.to(tensor.device)]).to(dtype)

    return gguf_file.plain(name, torch.empty(tensor.shape, dtype=dtype, device="meta"), make)


def _weight(
    name: str,
    layer: Layer,
    scheme: Scheme,
    quantized: Callable[[str], QuantizedLayer],
    order: Tensor | None,
) -> Planned:
    """A layer's quantized weight."""
    kind, shape = type_name(layer, scheme), (layer.rows, layer.cols)
    assert kind is not None
    row = row_bytes(layer.cols, scheme) if is_block(scheme) else 2 * layer.cols

    def make() -> Tensor:
        data = as_bytes(quantized(layer.name).weight.codes)
        return data if order is None else data[order]

    return Planned(name, kind, shape, row, make)


def _order(tensor: Tensor, heads: int | None) -> Tensor | None:
    """The row of transformers that stands in each row of the file; None where they are the same.

    Row i of the first half of a head comes before row i of the second half.
    """
    if heads is None:
        return None
    return torch.arange(len(tensor)).reshape(heads, 2, -1).transpose(1, 2).reshape(-1)


def _once(state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Name and tensor, those that are the same memory once, under their first name."""
    seen = set()
    for key, tensor in state.items():
        if (mine := identity(tensor)) not in seen:
            seen.add(mine)
            yield key, tensor


def _written(tensor: Tensor) -> torch.dtype:
    """The dtype that a tensor as it is has in the file."""
    if tensor.dtype not in TYPES:
        raise ExportError(f"tensors of {tensor.dtype}", f"GGUF holds {', '.join(TYPES.values())}")
    return torch.float32 if tensor.ndim == 1 else tensor.dtype


def _frequencies(model: nn.Module) -> Tensor | None:
    """By what each frequency of rotation is divided (Llama 3), None where by nothing."""
    config: Any = _config(model)
    if rope(config)["rope_type"] != "llama3":
        return None
    scaled: Any = model.get_submodule("model.rotary_emb").inv_freq
    half = torch.arange(0, 2 * len(scaled), 2, dtype=torch.float32) / (2 * len(scaled))
    return (1.0 / rope(config)["rope_theta"] ** half) / scaled.float().cpu()


def _metadata(model: nn.Module) -> dict[str, Any]:
    """The model's settings under their keys in the file."""
    architecture = FAMILIES[type(model).__name__].architecture
    found = settings(_config(model))
    return {f"{architecture}.{key}": _single(value) for key, value in found.items()}


def _words(model: nn.Module) -> dict[str, Any]:
    """The model's name and tokenizer under their keys in the file."""
    config, source = _config(model), getattr(model, "name_or_path", "") or ""
    folder = local_folder(source)
    tokenizer = None if folder is None else gguf_tokenizer.load(folder)
    found = gguf_tokenizer.fields(tokenizer, config.vocab_size)
    name = Path(source).name or type(model).__name__
    return {
        # transformers takes a model of exactly this name for another architecture, and fails
        "general.name": "Mistral" if name == "mistral" else name,
        **{f"tokenizer.{key}": value for key, value in found.items()},
    }


def _plain(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _single(value) for key, value in metadata.items()}


def _single(value: Any) -> Any:
    """Numbers as a file holds them: real ones in float32."""
    if isinstance(value, list):
        return [_single(item) for item in value]
    return float(torch.tensor(value)) if isinstance(value, float) else value


def _config(model: nn.Module) -> Any:
    return model.config


def _nothing(name: str) -> QuantizedLayer:
    raise AssertionError(f"{name} is only planned")
