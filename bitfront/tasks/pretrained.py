"""transformers models from a local folder or the hub; whatever is wrong is said in one line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from bitfront.errors import ModelError

from .boundary import foreign
from .placement import dtype_of

_OFFLINE = "check the name and the connection, or give a local folder"


def load_pretrained(
    auto: str, name: str, *, dtype: str = "auto", trust_remote_code: bool = False
) -> nn.Module:
    """The model that transformers' class ``auto`` loads from ``name``, on the CPU.

    Raises ``ModelError`` for a folder without a model, damaged or missing weights (transformers
    would fill these with random numbers), and weights that are quantized already.
    """
    import transformers

    folder = local_folder(name)
    if folder is not None:
        _check_folder(folder)
    with foreign(f"loading {name!r}", "" if folder else _OFFLINE), _quiet():
        model, info = getattr(transformers, auto).from_pretrained(
            folder or name,
            dtype=dtype_of(dtype) or "auto",
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
        )
    for problem in ("missing_keys", "mismatched_keys"):
        bad = sorted(str(k) for k in info.get(problem) or ())
        if bad:
            raise ModelError(
                f"{name!r} has no fitting weights for {bad[0]!r} and {len(bad) - 1} others"
                if len(bad) > 1
                else f"{name!r} has no fitting weights for {bad[0]!r}",
                f"they are not those of a {type(model).__name__}",
            )
    if getattr(model.config, "quantization_config", None) is not None:
        raise ModelError(f"{name!r} is quantized already", "use the model that it was made from")
    return model


def load_tokenizer(name: str, *, trust_remote_code: bool = False) -> Any:
    """The tokenizer of a local folder or of a name on the hub."""
    from transformers import AutoTokenizer

    remedy = "give tokenizer=, or token ids in an .npz file (ids, lengths)"
    with foreign(f"loading the tokenizer of {name!r}", remedy), _quiet():
        return AutoTokenizer.from_pretrained(
            local_folder(name) or name, trust_remote_code=trust_remote_code
        )


def load_processor(name: str, *, trust_remote_code: bool = False) -> Any:
    """The image processor of a local folder or of a name on the hub."""
    from transformers import AutoImageProcessor

    remedy = "install pillow, or give mean= and std="
    with foreign(f"loading the image processor of {name!r}", remedy), _quiet():
        return AutoImageProcessor.from_pretrained(
            local_folder(name) or name, trust_remote_code=trust_remote_code, backend="pil"
        )


def local_folder(name: str) -> Path | None:
    """The folder that ``name`` is, or None if it must be a name on the hub."""
    path = Path(name).expanduser()
    if path.exists():
        return path.resolve()
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or not name:
        raise ModelError(f"no folder {name!r}", "give a folder with config.json and weights")
    return None


def resolved(name: str) -> str:
    """``name`` as another process can use it: absolute if it is a local folder."""
    return str(local_folder(name) or name)


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise ModelError(
            f"{str(folder)!r} is a file", "give the folder with config.json and weights"
        )
    config = folder / "config.json"
    if not config.is_file():
        raise ModelError(f"no config.json in {str(folder)!r}", "give a transformers model's folder")
    try:
        json.loads(config.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{str(config)!r} is not JSON ({error})", "restore the file") from None
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("*.bin")):
        raise ModelError(f"no weights in {str(folder)!r}", "it needs model.safetensors")


@contextmanager
def _quiet() -> Iterator[None]:
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
