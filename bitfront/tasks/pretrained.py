"""transformers models from a local folder or the hub; whatever is wrong is said in one line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from bitfront.errors import ModelError

from .boundary import foreign
from .paths import absolute, expanded, is_reference
from .placement import dtype_of

_OFFLINE = "check the name and the connection, or give a local folder"
_KINDS = {  # class of transformers -> where it says which models it knows
    "AutoModelForCausalLM": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "AutoModelForImageClassification": "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES",
}


def load_pretrained(
    auto: str, name: str, *, dtype: str = "auto", trust_remote_code: bool = False
) -> nn.Module:
    """The model that transformers' class ``auto`` loads from ``name``, on the CPU.

    Raises ``ModelError`` for a folder without a model, damaged or missing weights (transformers
    would fill these with random numbers), and weights that are quantized already.
    """
    import transformers

    folder = local_folder(name)
    config: Mapping[str, Any] = {}
    where, remedy = " from the hub", _OFFLINE
    if folder is not None:
        config = _read_config(folder, name)
        _check_weights(folder, name)
        where, remedy = "", f"correct the folder until transformers' {auto} loads it"
    try:
        with foreign(f"loading {name!r}{where}", remedy), quiet():
            model, info = getattr(transformers, auto).from_pretrained(
                folder or name,
                dtype=dtype_of(dtype) or "auto",
                trust_remote_code=trust_remote_code,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # refused below, with their names
            )
    except ModelError as error:
        raise _closer(error, name, config, auto, trust_remote_code) from error
    kind = type(model).__name__
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelError(
            f"{name!r} has no fitting weights for {first_of(missing)}",
            f"use the complete weights of a {kind}",
        )
    shapes = {key: (tuple(there), tuple(wanted)) for key, there, wanted in info["mismatched_keys"]}
    if shapes:
        there, wanted = shapes[min(shapes)]
        raise ModelError(
            f"{name!r} has no fitting weights for {first_of(sorted(shapes))}, of shape {there}",
            f"config.json asks for {wanted}: use the weights and configuration of one model",
        )
    if getattr(model.config, "quantization_config", None) is not None:
        raise _quantized(name)
    return model


def load_tokenizer(name: str, *, trust_remote_code: bool = False) -> Any:
    """The tokenizer of a local folder or of a name on the hub."""
    from transformers import AutoTokenizer

    remedy = "give tokenizer=, or token ids in an .npz file (ids, lengths)"
    with foreign(f"loading the tokenizer of {name!r}", remedy), quiet():
        return AutoTokenizer.from_pretrained(
            local_folder(name) or name, trust_remote_code=trust_remote_code
        )


def load_processor(name: str, *, trust_remote_code: bool = False) -> Any:
    """The image processor of a local folder or of a name on the hub."""
    from transformers import AutoImageProcessor

    remedy = "install pillow, or give mean= and std="
    with foreign(f"loading the image processor of {name!r}", remedy), quiet():
        return AutoImageProcessor.from_pretrained(
            local_folder(name) or name, trust_remote_code=trust_remote_code, backend="pil"
        )


def local_folder(name: str) -> Path | None:
    """The folder that ``name`` is, or None if it must be a name on the hub."""
    path = expanded(name)
    if name and path.exists():
        return absolute(name)
    if not name or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelError(f"no folder {name!r}", "give a folder with config.json and weights")
    return None


def resolved(name: str) -> str:
    """``name`` as another process can use it: absolute if it is a local folder."""
    return str(local_folder(name) or name)


def located(model: str) -> str:
    """``resolved`` of a folder or name; of ``path/to/file.py:name`` with the path absolute."""
    if not is_reference(model):
        return resolved(model)
    path, _, name = model.rpartition(":")
    return f"{absolute(path)}:{name}"


def _read_config(folder: Path, name: str) -> Mapping[str, Any]:
    """What config.json says. Raises ``ModelError`` unless it is of a model in full precision."""
    if not folder.is_dir():
        raise ModelError(
            f"{str(folder)!r} is a file",
            "give the folder with config.json and weights, or file.py:function for vision",
        )
    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(f"no config.json in {str(folder)!r}", "give a transformers model's folder")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{str(path)!r} is not JSON ({error})", "restore the file") from None
    if not isinstance(config, dict):
        raise ModelError(f"{str(path)!r} is no JSON object", "restore the file")
    if config.get("quantization_config"):
        raise _quantized(name)
    return config


def _closer(
    error: ModelError, name: str, config: Mapping[str, Any], auto: str, trusted: bool
) -> ModelError:
    """``error``, or why ``auto`` cannot load such a model at all, which is shorter."""
    from transformers.models.auto import modeling_auto

    kind = config.get("model_type")
    if kind is None or kind in getattr(modeling_auto, _KINDS[auto]):
        return error
    if auto not in config.get("auto_map", ()):
        return ModelError(
            f"loading {name!r} failed: no {auto} is of model_type {kind!r}",
            "use another kind of task, or a newer transformers if that knows it",
        )
    if trusted:
        return error
    return ModelError(
        f"loading {name!r} failed: it runs code of its own",
        "allow it with --trust-remote-code (in Python: trust_remote_code=True) if you trust it",
    )


def _check_weights(folder: Path, name: str) -> None:
    """Raises ``ModelError`` for weights that are not there, or not whole; reads headers only."""
    from safetensors import safe_open

    index = folder / "model.safetensors.index.json"
    if index.is_file():
        with foreign(f"reading {str(index)!r}", "restore the file"):
            content = json.loads(index.read_text(encoding="utf-8"))
            names = sorted(set(content["weight_map"].values()))
    elif (folder / "model.safetensors").is_file():
        names = ["model.safetensors"]
    elif any(folder.glob("*.safetensors")) or any(folder.glob("*.bin")):
        return
    else:
        raise ModelError(f"no weights in {str(folder)!r}", "it needs model.safetensors")
    for file in names:
        if not (folder / file).is_file():
            raise ModelError(
                f"no {file} in {str(folder)!r}, which {index.name} asks for", "restore it"
            )
        with (
            foreign(f"loading {name!r}: reading {file}", "download or copy it again"),
            safe_open(folder / file, framework="pt"),
        ):
            pass


def _quantized(name: str) -> ModelError:
    return ModelError(f"{name!r} is quantized already", "use the model that it was made from")


def first_of(names: Sequence[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]!r}{more}"


@contextmanager
def quiet() -> Iterator[None]:
    """Without progress bars, load reports and retries, which would break our own output."""
    from huggingface_hub.utils import logging as hub
    from transformers.utils import logging

    level, hub_level = logging.get_verbosity(), hub.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    hub.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        hub.set_verbosity(hub_level)
        if bars:
            logging.enable_progress_bar()


def context_length(model: nn.Module) -> int | None:
    """Tokens that a language model has positions for; None where its configuration says nothing."""
    config: Any = getattr(model, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    found = getattr(text, "max_position_embeddings", None)
    return found if isinstance(found, int) and found > 0 else None
