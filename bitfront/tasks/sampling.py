"""Samplers that a user's Python function brings: any denoiser with the loop around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from bitfront.errors import ModelError

from .boundary import foreign, function_at
from .conditions import Condition
from .fingerprint import source_digest
from .placement import moved
from .trajectories import Plan, forked
from .vision import CALLING


class BroughtSampler:
    """What ``path/to/file.py:function`` (or a live function) returned: a denoiser and a sampler.

    The function returns ``(denoiser, sample)``; ``sample(generators, conditions)`` gives images
    (N, C, H, W) from 0 to 1, one for each generator, by calling the denoiser. Conditions are
    prompts or class labels, one for each image, or None.
    """

    channels: int | None = None

    def __init__(self, function: str | Callable[..., Any], arguments: Mapping[str, Any]) -> None:
        make = function_at(function) if isinstance(function, str) else function
        name = getattr(make, "__name__", "the function")
        with foreign(f"calling {name}", CALLING):
            found = make(**arguments)
        pair = isinstance(found, (tuple, list)) and len(found) == 2
        if not pair or not isinstance(found[0], nn.Module) or not callable(found[1]):
            raise ModelError(
                f"{name} returned a {type(found).__name__}",
                "return (denoiser, sample): an nn.Module, and a function of generators and "
                "conditions that gives images",
            )
        self.denoiser: nn.Module = found[0]
        self._sample: Callable[..., Any] = found[1]

        self.model = self.denoiser

    def recorded(self, piece: Plan, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """The call itself."""
        return args, kwargs

    def __call__(self, seeds: Sequence[int], conditions: Sequence[Condition] | None) -> Tensor:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        given = None if conditions is None else list(conditions)
        with (
            torch.no_grad(),
            torch.random.fork_rng(forked(self._device)),
            foreign("sampling", "correct the function 'sample'"),
            self._reached(),
        ):
            torch.manual_seed(seeds[0])
            images = self._sample(generators, given)
        if not isinstance(images, Tensor):
            raise ModelError(f"'sample' gave a {type(images).__name__}", "give a tensor of images")
        return images

    def place(self, device: torch.device, dtype: torch.dtype) -> None:
        """Where, and in what, the denoiser takes its inputs: ``sample`` need not know."""
        self._device, self._dtype = device, dtype

    def check(self, conditions: Any) -> None:
        """Any conditions will do: it is for ``sample`` to use them."""

    def fingerprint(self) -> dict[str, str]:
        """A digest of the sampler's code."""
        return {"sampling": source_digest(self._sample)}

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """While this lasts, the denoiser takes tensors of the CPU and answers with such."""

        def before(module: nn.Module, args: Any, kwargs: Any) -> Any:
            return moved(args, self._device, self._dtype), moved(kwargs, self._device, self._dtype)

        def after(module: nn.Module, args: Any, output: Any) -> Any:
            if isinstance(output, dict):  # diffusers' outputs are such, with attributes
                for key, value in output.items():
                    output[key] = moved(value, torch.device("cpu"), torch.float32)
                return output
            return moved(output, torch.device("cpu"), torch.float32)

        handles = [
            self.denoiser.register_forward_pre_hook(before, with_kwargs=True),
            self.denoiser.register_forward_hook(after),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
