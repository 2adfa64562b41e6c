"""Sampling with diffusers pipelines, and with their text encoders as layers too."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bitfront.errors import DataError, InvalidInput, ModelError

from .boundary import foreign
from .conditioned import Conditioned
from .conditions import Condition
from .fingerprint import value_digest, weights_digest
from .pipelines import load_pipeline, quiet_diffusers
from .trajectories import Plan, forked

_OURS = ("generator", "num_inference_steps", "guidance_scale", "output_type", "return_dict")
_CONDITIONS = ("prompt", "class_labels")


class PipelineSampler:
    """A pipeline's own sampling, image by image the same for the same seeds.

    name: a pipeline's folder or name on the hub; or the pipeline, and its denoiser's component.
    condition: what the pipeline takes for each image: ``prompt``, ``class_labels``, or None.
    channels: leading channels of the denoiser's output that are its prediction; None for all.
    model: whose layers are quantized, the denoiser or with it the text encoders.
    """

    def __init__(
        self,
        name: str | tuple[Any, str],
        steps: int | None,
        guidance: float | None,
        arguments: Mapping[str, Any],
        dtype: str = "auto",
        text_encoders: bool = False,
    ) -> None:
        found = load_pipeline(name, dtype) if isinstance(name, str) else name
        self.pipeline, self._component = found
        self.denoiser: nn.Module = getattr(self.pipeline, self._component)
        self.channels = self._predicted()
        parameters = inspect.signature(type(self.pipeline).__call__).parameters
        self.condition = next((name for name in _CONDITIONS if name in parameters), None)
        self._counted = "batch_size" in parameters
        self._call = self._called(parameters, steps, guidance, arguments)
        self.model: nn.Module = self.denoiser
        if text_encoders:
            self.model = Conditioned(self.pipeline, self._component, self._call)

    def _called(
        self,
        parameters: Mapping[str, inspect.Parameter],
        steps: int | None,
        guidance: float | None,
        arguments: Mapping[str, Any],
    ) -> dict[str, Any]:
        """What the pipeline is called with each time. Raises ``InvalidInput``, ``ModelError``."""
        call = dict(arguments)
        for option, value, word in (
            ("num_inference_steps", steps, "steps"),
            ("guidance_scale", guidance, "guidance"),
        ):
            if value is not None and option not in parameters:
                raise InvalidInput(f"{word} for a {self._kind}", f"it takes no {option}")
            if value is not None:
                call[option] = value
        ours = {"self", *_OURS, *_CONDITIONS, "batch_size"}
        theirs = {n: p for n, p in parameters.items() if n not in ours and p.kind != p.VAR_KEYWORD}
        for option in arguments:
            if option not in theirs:
                raise InvalidInput(
                    f"argument {option!r} of a {self._kind}", f"it takes {', '.join(theirs)}"
                )
        for option, parameter in theirs.items():
            if parameter.default is parameter.empty and option not in call:
                raise ModelError(
                    f"a {self._kind} needs {option!r}", "give it in arguments, if it is plain"
                )
        return call

    def recorded(self, piece: Plan, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """What the model is called with, for a call of the denoiser in a piece's sampling."""
        if isinstance(self.model, Conditioned):
            return (list(piece.conditions or ()), self.model.noisy(args, kwargs)), {}
        return args, kwargs

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
            torch.random.fork_rng(forked(self.pipeline.device)),
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
            if name not in (self._component, "scheduler") and part is not None:
                apart = isinstance(part, nn.Module) and name not in dict(
                    self.model.named_children()
                )
                weights = weights_digest(part) if apart else ""
                parts[name] = [type(part).__name__, weights, plain_config(part)]
        scheduler = self.pipeline.scheduler
        return {
            "denoiser": value_digest(plain_config(self.denoiser)),
            "scheduler": value_digest([type(scheduler).__name__, plain_config(scheduler)]),
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


def plain_config(part: Any) -> dict[str, Any]:
    """A component's configuration, without what changes no output."""
    config: Any = getattr(part, "config", {})
    values = config.to_dict() if hasattr(config, "to_dict") else config
    incidental = ("transformers_version", "torch_dtype", "dtype")
    return {k: v for k, v in dict(values).items() if k[0] != "_" and k not in incidental}
