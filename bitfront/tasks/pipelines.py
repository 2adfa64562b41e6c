"""diffusers pipelines from a local folder or the hub. No pickles.

A pipeline's *denoiser* is its ``unet`` or ``transformer``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from bitfront.errors import ModelError
from bitfront.quant.tensorfiles import DENOISERS
from bitfront.quant.tensorfiles import PIPELINE as INDEX

from .boundary import foreign
from .placement import DTYPES, dtype_of
from .pretrained import first_of, local_folder, quiet

_STORED = {"F16": "float16", "BF16": "bfloat16", "F64": "float64"}  # in safetensors; else float32


def load_pipeline(name: str, dtype: str) -> tuple[Any, str]:
    """The pipeline of a folder or of a name on the hub, on the CPU; and its denoiser's component.

    Raises ``ModelError`` for a folder without a pipeline or a denoiser, for damaged or missing
    weights, and for weights in other files than safetensors.
    """
    import diffusers

    folder = local_folder(name)
    if folder is None:
        remedy = "check the name and the connection, or give a local folder"
        with foreign(f"loading {name!r} from the hub", remedy), quiet_diffusers():
            found = diffusers.DiffusionPipeline.download(name, use_safetensors=True)
        folder = Path(found)
    component, kind = _denoiser(folder, name)
    if not hasattr(diffusers, kind):
        raise ModelError(f"diffusers has no {kind}, the {component} of {name!r}", "use a newer one")
    chosen = dtype_of(dtype) or _stored(folder / component)
    remedy = "correct the folder until diffusers loads it; weights must be safetensors"
    with foreign(f"loading {name!r}", remedy), quiet_diffusers():
        options = {"dtype": chosen, "use_safetensors": True}
        denoiser, info = getattr(diffusers, kind).from_pretrained(
            folder, subfolder=component, output_loading_info=True, **options
        )
        missing = sorted(info["missing_keys"])
        if missing:  # diffusers would fill them with random numbers
            raise ModelError(
                f"{name!r} has no weights for {first_of(missing)}",
                f"use the complete weights of a {kind}",
            )
        pipeline = diffusers.DiffusionPipeline.from_pretrained(
            folder, **{component: denoiser}, **options
        )
    pipeline.set_progress_bar_config(disable=True)
    if getattr(pipeline, "safety_checker", None) is not None:
        pipeline.safety_checker = None  # it blackens images, of the full model too
    return pipeline, component


@contextmanager
def quiet_diffusers() -> Iterator[None]:
    """Without diffusers' and transformers' progress bars and reports, which would break our own."""
    from diffusers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        with quiet():
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _denoiser(folder: Path, name: str) -> tuple[str, str]:
    """Component and class of the denoiser, from the folder's index."""
    index = folder / INDEX
    if not index.is_file():
        raise ModelError(f"no {INDEX} in {str(folder)!r}", "give a diffusers pipeline's folder")
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
        parts = {k: v for k, v in content.items() if isinstance(v, list) and len(v) == 2 and v[1]}
    except (ValueError, RecursionError, AttributeError) as error:
        raise ModelError(f"{str(index)!r} is damaged ({error})", "restore the file") from None
    for component in DENOISERS:
        if component in parts:
            return component, str(parts[component][1])
    raise ModelError(
        f"{name!r} has no denoiser, its components are {', '.join(parts) or 'none'}",
        f"give a pipeline with a {' or '.join(DENOISERS)}",
    )


def _stored(folder: Path) -> torch.dtype:
    """The dtype of the first weight in a component's folder."""
    from safetensors import safe_open

    for file in sorted(folder.glob("*.safetensors")):
        with foreign(f"reading {file.name}", "copy it again"), safe_open(file, "pt") as weights:
            for key in weights.keys():  # noqa: SIM118 - it is no mapping
                return DTYPES[_STORED.get(weights.get_slice(key).get_dtype(), "float32")]
    return torch.float32
