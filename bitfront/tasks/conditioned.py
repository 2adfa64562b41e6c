"""A denoiser together with the text encoders that it is conditioned by, as one module.

How a pipeline makes the denoiser's inputs of the encoders' outputs (which hidden states, pooled or
not, guidance) is its own. So the forward runs the pipeline itself up to its first call of the
denoiser, puts the recorded noisy input and timestep in the place of those of that call, and ends
with the call's output.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from bitfront.errors import InvalidInput, ModelError

from .pipelines import quiet_diffusers

NOISY = ("sample", "hidden_states", "timestep")  # what diffusers' denoisers call these inputs


class _Reached(BaseException):  # no pipeline may take it for an error
    """The denoiser has answered; the rest of the pipeline is not needed."""


class Conditioned(nn.Module):
    """Prompts and noisy inputs in, predictions out; children are named as the pipeline's."""

    def __init__(self, pipeline: Any, denoiser: str, call: Mapping[str, Any]) -> None:
        super().__init__()
        parts = {n: p for n, p in pipeline.components.items() if isinstance(p, nn.Module)}
        self.encoders = tuple(name for name in parts if name.startswith("text_encoder"))
        if not self.encoders:
            kind = type(pipeline).__name__
            raise InvalidInput(f"text encoders of a {kind}", "it has none: leave them out")
        for name in (*self.encoders, denoiser):
            self.add_module(name, parts[name])
        self._denoiser, self._call = denoiser, dict(call)
        self._pipeline = pipeline

    def check(self, calls: int) -> None:
        """Raises ``ModelError`` unless the last sampling made ``calls``, one for each timestep.

        Where a step calls the denoiser once with the prompts and once without, the first call of
        the pipeline does not say what the others are conditioned by.
        """
        timesteps = len(self._pipeline.scheduler.timesteps)
        if calls != timesteps:
            raise ModelError(
                f"the denoiser is called {calls} times in {timesteps} timesteps",
                "turn guidance off, or leave the text encoders out",
            )

    def noisy(self, args: Any, kwargs: Any) -> dict[str, Any]:
        """The inputs of a call of the denoiser that change along a trajectory."""
        given = self._signature.bind(*args, **kwargs).arguments
        return {name: given[name] for name in NOISY if name in given}

    def forward(self, prompts: list[str], noisy: Mapping[str, Tensor]) -> Any:
        found: list[Any] = []

        def before(module: nn.Module, args: Any, kwargs: Any) -> Any:
            call = self._signature.bind(*args, **kwargs)
            call.arguments.update(noisy)
            return call.args, call.kwargs

        def after(module: nn.Module, args: Any, output: Any) -> None:
            found.append(output)
            raise _Reached

        denoiser = self.get_submodule(self._denoiser)
        handles = [
            denoiser.register_forward_pre_hook(before, with_kwargs=True),
            denoiser.register_forward_hook(after),
        ]
        generators = [torch.Generator().manual_seed(0) for _ in prompts]
        run = inspect.unwrap(type(self._pipeline).__call__)  # itself, it forbids gradients
        try:
            with suppress(_Reached), quiet_diffusers():
                run(self._pipeline, prompt=list(prompts), generator=generators, **self._call)
        finally:
            for handle in handles:
                handle.remove()
        return found[0]

    @property
    def _signature(self) -> inspect.Signature:
        return inspect.signature(self.get_submodule(self._denoiser).forward)
