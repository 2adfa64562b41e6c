"""diffusers pipelines from a local folder or the hub, and sampling with them. No pickles.

A pipeline's *denoiser* is its ``unet`` or ``transformer``.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bitfront.errors import DataError, InvalidInput, ModelError

from .boundary import foreign
from .conditions import Condition
from .fingerprint import value_digest, weights_digest
from .placement import DTYPES, dtype_of
from .pretrained import first_of, local_folder, quiet

DENOISERS = ("unet", "transformer")
INDEX = "model_index.json"
_STORED = {"F16": "float16", "BF16": "bfloat16", "F64": "float64"}  # in safetensors; else float32
_OURS = ("generator", "num_inference_steps", "guidance_scale", "output_type", "return_dict")
_CONDITIONS = ("prompt", "class_labels")


class PipelineSampler:
    """A pipeline's own sampling, image by image the same for the same seeds.

    condition: what the pipeline takes for each image: ``prompt``, ``class_labels``, or None.
    channels: leading channels of the denoiser's output that are its prediction; None for all.
    """

    def __init__(
        self,
        name: str,
        steps: int | None,
        guidance: float | None,
        arguments: Mapping[str, Any],
        dtype: str,
    ) -> None:
        self.pipeline, self._component = load_pipeline(name, dtype)
        self.denoiser: nn.Module = getattr(self.pipeline, self._component)
        self.channels = self._predicted()
        parameters = inspect.signature(type(self.pipeline).__call__).parameters
        self.condition = next((name for name in _CONDITIONS if name in parameters), None)
        self._counted = "batch_size" in parameters
        self._call = dict(arguments)
        for option, value, word in (
            ("num_inference_steps", steps, "steps"),
            ("guidance_scale", guidance, "guidance"),
        ):
            if value is not None and option not in parameters:
                raise InvalidInput(f"{word} for a {self._kind}", f"it takes no {option}")
            if value is not None:
                self._call[option] = value
        own = {*_OURS, *_CONDITIONS, "batch_size"}
        known = [p for p in list(parameters)[1:] if p not in own]
        for option in arguments:
            if option not in known:
                raise InvalidInput(
                    f"argument {option!r} of a {self._kind}", f"it takes {', '.join(known)}"
                )
        for option in known:
            if parameters[option].default is inspect.Parameter.empty and option not in self._call:
                if parameters[option].kind is inspect.Parameter.VAR_KEYWORD:
                    continue
                raise ModelError(
                    f"a {self._kind} needs {option!r}", "give it in arguments, if it is plain"
                )

    @property
    def _kind(self) -> str:
        return type(self.pipeline).__name__

    def place(self, device: torch.device, dtype: torch.dtype) -> None:
        """Move all of the pipeline to ``device``; it has its dtype already."""
        with foreign(f"moving the pipeline to {device}", "use another device"):
            self.pipeline.to(device)

    def check(self, conditions: Any) -> None:
        """Raises ``DataError`` unless there are conditions just where the pipeline takes them."""
        if self.condition is None and conditions is not None:
            raise DataError(
                f"prompts or classes for a {self._kind}", "it takes none: leave them out"
            )
        if self.condition is None:
            return
        text = self.condition == "prompt"
        wanted = "prompts" if text else "classes"
        if conditions is None or isinstance(conditions[0][0], str) != text:
            remedy = "calibration=, a text file with one a line" if text else "classes=, like 0,1,2"
            raise DataError(f"no {wanted} for a {self._kind}", f"give {remedy}")

    def __call__(self, seeds: Sequence[int], conditions: Sequence[Condition] | None) -> Tensor:
        call = {**self._call, "output_type": "pt"}
        call["generator"] = [torch.Generator().manual_seed(seed) for seed in seeds]
        if self.condition is not None:
            call[self.condition] = list(conditions or ())
        elif self._counted:
            call["batch_size"] = len(seeds)
        with (
            torch.random.fork_rng(),
            foreign("running the pipeline", "check its arguments, prompts or classes"),
            quiet_diffusers(),
        ):
            torch.manual_seed(seeds[0])  # for schedulers that are not given the generators
            made = self.pipeline(**call)
        images = getattr(made, "images", None)
        if not isinstance(images, Tensor):
            raise ModelError(f"a {self._kind} gives no images", "use a pipeline that makes images")
        return images

    def fingerprint(self) -> dict[str, str]:
        """Digests of the scheduler's configuration, of the other components, of the call."""
        parts: dict[str, Any] = {}
        for name, part in self.pipeline.components.items():
            if name != self._component and name != "scheduler" and part is not None:
                weights = weights_digest(part) if isinstance(part, nn.Module) else ""
                parts[name] = [type(part).__name__, weights, _plain(part)]
        scheduler = self.pipeline.scheduler
        return {
            "denoiser": value_digest(_plain(self.denoiser)),
            "scheduler": value_digest([type(scheduler).__name__, _plain(scheduler)]),
            "components": value_digest(parts),
            "sampling": value_digest([self._kind, self._call]),
        }

    def _predicted(self) -> int | None:
        """Transformers that learn the variance give it in as many channels behind the prediction,
        which their pipelines drop."""
        config: Any = getattr(self.denoiser, "config", {})
        given, made = config.get("in_channels"), config.get("out_channels")
        learned = self._component == "transformer" and given is not None and made == 2 * given
        return given if learned else None


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


def _plain(part: Any) -> dict[str, Any]:
    """A component's configuration, without what changes no output."""
    config: Any = getattr(part, "config", {})
    values = config.to_dict() if hasattr(config, "to_dict") else config
    incidental = ("transformers_version", "torch_dtype", "dtype")
    return {k: v for k, v in dict(values).items() if k[0] != "_" and k not in incidental}
