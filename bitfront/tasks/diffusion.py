"""Diffusion tasks: denoisers of diffusers pipelines, or with a sampler of the user's own.

N  samples of a call (two for an image where guidance doubles it)    P = 1    K  numbers predicted
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from bitfront.errors import InvalidInput, ModelError

from .arguments import parse_arguments
from .base import Batch
from .boundary import function_at
from .conditioned import Conditioned
from .conditions import asked, checked_classes, in_turn, spelled
from .fidelity import MSE, PSNR, SQNR, SSIM, brought_score
from .fingerprint import source_digest, value_digest
from .holding import HOLD_BACK, checked_share, chosen, note, split
from .metrics import METRICS, Metric, of_part
from .numbers import require
from .paths import is_reference
from .pipeline_sampling import PipelineSampler
from .placement import floating_dtype
from .pretrained import located
from .running import ModelTask
from .sampling import BroughtSampler
from .trajectories import Plan, Recorded, calls_of, joined, merged, prediction, recorded, sampled

_PIPELINES = ("steps", "guidance", "text_encoders")  # arguments that only these take
_APART = 1_000_000  # between the seeds of tasks whose ``seed`` differs by one

T = TypeVar("T")


class DiffusionTask(ModelTask):
    """A denoiser, judged by its predictions along trajectories and by the images it leads to.

    model: a diffusers pipeline's folder or name on the hub; ``path/to/file.py:function``, called
        with ``arguments``, or a live function (``BroughtSampler``).
    calibration, evaluation: prompts, a text file with one a line or a list; taken in turn by the
        images. Without evaluation prompts those of calibration are taken.
    classes: class labels, taken in turn.
    arguments: of the function, or further ones of the pipeline's call.
    steps: of sampling, guidance: its scale (None: the pipeline's own); of pipelines only.
    text_encoders: whether those of the pipeline are quantized too; then the model is the denoiser
        with them, and its batches are prompts and noisy inputs.
    samples, eval_samples: images for calibration and evaluation. Image i has seed
        1 000 000 · ``seed`` + 2 i, and 1 more for evaluation.
    timesteps: calls of the denoiser that are recorded of each trajectory, evenly spread over it;
        a multiple of ``timestep_groups``, the parts that SQNR is measured by (``sqnr_t1`` the
        noisiest).
    batch: images sampled together.
    hold_back: share of the calibration images, to the nearest ``batch`` of them, that nothing is
        chosen by: whole trajectories, so that every group of timesteps stays.
    score: ``path/to/file.py:function`` of (images, the full model's images), a metric under the
        function's name; better: ``lower`` or ``higher``.

    Batches are calls of the denoiser on the full model's trajectories. They are recorded when they
    are first asked for, by sampling, which must be while the model is in full precision.
    """

    kind = "diffusion"
    output = "gaussian"

    def __init__(
        self,
        model: str | Path | Callable[..., Any],
        calibration: str | Path | Sequence[str] | None = None,
        evaluation: str | Path | Sequence[str] | None = None,
        *,
        classes: Sequence[int] | None = None,
        arguments: Mapping[str, Any] | str | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        text_encoders: bool = False,
        samples: int = 32,
        eval_samples: int = 32,
        timesteps: int = 8,
        timestep_groups: int = 4,
        batch: int = 8,
        hold_back: float = HOLD_BACK,
        score: str | None = None,
        better: str = "lower",
        dtype: str = "auto",
        device: str = "auto",
        seed: int = 0,
    ) -> None:
        require(1, samples=samples, eval_samples=eval_samples, batch=batch, steps=steps)
        require(1, timesteps=timesteps, timestep_groups=timestep_groups)
        require(0, seed=seed)
        if timesteps % timestep_groups:
            raise InvalidInput(
                f"{timesteps} timesteps in {timestep_groups} groups",
                "give a multiple of timestep_groups",
            )
        if guidance is not None and not math.isfinite(guidance):
            raise InvalidInput(f"guidance {guidance}", "give a finite number")
        if better not in ("lower", "higher"):
            raise InvalidInput(f"better {better!r}", "use lower or higher")
        self._recipe: dict[str, Any] = {
            "model": _spelled(model),
            "calibration": spelled(calibration, "calibration"),
            "evaluation": spelled(evaluation, "evaluation"),
            "classes": checked_classes(classes),
            "arguments": parse_arguments(arguments),
            "steps": steps,
            "guidance": guidance,
            "text_encoders": text_encoders,
            "samples": samples,
            "eval_samples": eval_samples,
            "timesteps": timesteps,
            "timestep_groups": timestep_groups,
            "batch": batch,
            "hold_back": checked_share(hold_back),
            "score": None if score is None else _spelled(score),
            "better": better,
            "dtype": dtype,
            "device": device,
            "seed": seed,
        }
        self._sampler = self._load()
        self._plans = self._planned()
        batches = len(self._plans[0].pieces())
        self._held = chosen(batches, hold_back)
        self._holding = note(batches, hold_back, "give smaller --batch or more --samples")
        self.place(self._sampler.model, device, dtype)
        self._sampler.place(self.device, floating_dtype(self.model))
        if isinstance(self._sampler, BroughtSampler):
            self.cast = floating_dtype(self.model)  # calls are recorded as ``sample`` made them
        self._own = self._metrics()
        self.metrics = ("kl", *self._own)

    def called(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        return prediction(self.model(*args, **kwargs))

    def shaped(self, output: Tensor, batch: Batch) -> Tensor:
        return output[:, : self._sampler.channels].reshape(len(output), 1, -1)

    def metric(self, name: str) -> Metric:
        return self._own[name] if name in self._own else METRICS[name]

    @property
    def calibration(self) -> Sequence[Batch]:  # type: ignore[override]
        """The calls of calibration trajectories."""
        return joined(self._calibration[0])

    @cached_property
    def held_back(self) -> Sequence[Batch]:  # type: ignore[override]
        """Those of the trajectories held back."""
        return joined(self._calibration[1])

    @cached_property
    def evaluation(self) -> Sequence[Batch]:  # type: ignore[override]
        """The calls of held-out trajectories."""
        return joined(self._held_out.pieces)

    def generated(
        self, *, reference: bool = False, calibration: bool = False, first: int | None = None
    ) -> Tensor:
        if not calibration:
            if reference:
                return self._held_out.images[:first]
            return sampled(self._sampler, self._plans[1].first(first))
        if reference:
            images = self._calibrated.images.split(self._recipe["batch"])
            return torch.cat(tuple(self._split(images)[0]))[:first]
        plan = merged(self._split(self._plans[0].pieces())[0])
        return sampled(self._sampler, plan.first(first))

    @property
    def pipeline(self) -> dict[str, Any] | None:
        """How its pipeline is called, for a ``PipelineSampler``; None for samplers of a user."""
        if not isinstance(self._sampler, PipelineSampler):
            return None
        return {name: self._recipe[name] for name in ("steps", "guidance", "arguments")}

    def plan(self, first: int) -> Plan:
        """What the first evaluation images are sampled by."""
        return self._plans[1].first(first)

    def fingerprint(self) -> dict[str, str]:
        recorded = [self._recipe["timesteps"], self._recipe["timestep_groups"]]
        score = self._recipe["score"]
        return {
            **self.model_fingerprint(),
            "calibration": value_digest([recorded, vars(self._plans[0])]),
            **({"held_back": value_digest(self._held)} if self._held else {}),
            "evaluation": value_digest([recorded, vars(self._plans[1])]),
            **self._sampler.fingerprint(),
            "score": "none" if score is None else source_digest(function_at(score)),
        }

    def recipe(self) -> dict[str, Any]:
        if not isinstance(self._recipe["model"], str):
            raise ModelError(
                "the task was made from a live function", "give path/to/file.py:name instead"
            )
        return {"kind": self.kind, **self._recipe}

    @cached_property
    def _calibrated(self) -> Recorded:
        return self._recorded(self._plans[0])

    def _split(self, pieces: Sequence[T]) -> tuple[Sequence[T], Sequence[T]]:
        """Of something of each piece of the calibration data: what is used, what is held back."""
        return split(pieces, self._recipe["hold_back"])

    @cached_property
    def _calibration(self) -> tuple[Sequence[tuple[Batch, ...]], Sequence[tuple[Batch, ...]]]:
        return self._split(self._calibrated.pieces)

    @cached_property
    def _held_out(self) -> Recorded:
        return self._recorded(self._plans[1])

    @cached_property
    def _calls(self) -> int:
        calls = calls_of(self._sampler, self._plans[0])
        if isinstance(self.model, Conditioned):
            self.model.check(calls)
        return calls

    def _recorded(self, plan: Plan) -> Recorded:
        timesteps, groups = self._recipe["timesteps"], self._recipe["timestep_groups"]
        return recorded(self._sampler, plan, self._calls, timesteps, groups)

    def _load(self) -> PipelineSampler | BroughtSampler:
        recipe = self._recipe
        model, arguments = recipe["model"], recipe["arguments"]
        if isinstance(model, str) and not is_reference(model):
            options = {name: recipe[name] for name in (*_PIPELINES, "dtype")}
            return PipelineSampler(model, arguments=arguments, **options)
        for name in _PIPELINES:
            if recipe[name]:
                raise InvalidInput(
                    f"{name} for a sampler of a function", "let the function see to it"
                )
        return BroughtSampler(model, arguments)

    def _planned(self) -> tuple[Plan, Plan]:
        """What is sampled for calibration and for evaluation."""
        recipe = self._recipe
        conditions = asked(recipe["calibration"], recipe["evaluation"], recipe["classes"])
        self._sampler.check(conditions)
        found = []
        for k, count in enumerate((recipe["samples"], recipe["eval_samples"])):
            seeds = tuple(_APART * recipe["seed"] + 2 * i + k for i in range(count))
            given = None if conditions is None else in_turn(conditions[k], count)
            found.append(Plan(seeds, given, recipe["batch"]))
        return found[0], found[1]

    def _metrics(self) -> dict[str, Metric]:
        parts = [of_part(SQNR, k, "t") for k in range(self._recipe["timestep_groups"])]
        found = {metric.name: metric for metric in (MSE, SQNR, *parts, PSNR, SSIM)}
        if self._recipe["score"] is not None:
            score = brought_score(self._recipe["score"], self._recipe["better"])
            if score.name in {*found, *METRICS}:
                raise InvalidInput(f"score {score.name!r} is built in", "rename the function")
            found[score.name] = score
        return found


def _spelled(model: Any) -> Any:
    if callable(model):
        return model
    if str(model).endswith(".py"):
        raise ModelError(f"{str(model)!r} names no function", "write path/to/file.py:function")
    return located(str(model))
