"""Trajectories of a diffusion model, and the denoiser's calls that are recorded on the way.

    S  calls of the denoiser in one sampling      T  recorded ones of each trajectory
    G  groups of timesteps, equal parts of a trajectory, the noisiest first

Calibration on inputs of one timestep is biased, since their distribution changes along the
trajectory; so inputs are taken from all of it (X. Li et al., Q-Diffusion, arXiv:2302.04304, 3.2).
Piece b of B records call ⌊(j + (b + ½) / B) S / T⌋ of each stretch j < T: evenly spread, and
different pieces take different calls of a stretch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from bitfront.errors import InvalidInput, ModelError

from .base import Batch
from .conditions import Condition

Call = Callable[[int, Any, Any, Any], None]  # number of the call, args, kwargs, output


class Sampler(Protocol):
    """A denoiser, and the loop around it that makes images of noise."""

    denoiser: nn.Module

    def recorded(self, piece: Plan, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """Arguments of the task's model that stand for a call of the denoiser."""

    def __call__(self, seeds: Sequence[int], conditions: Sequence[Condition] | None) -> Tensor:
        """Images (N, C, H, W) from 0 to 1, one for each seed; the same each time."""


@dataclass(frozen=True)
class Plan:
    """What is sampled: images by their seeds, ``size`` of them at a time.

    conditions: one for each seed, or None.
    """

    seeds: tuple[int, ...]
    conditions: tuple[Condition, ...] | None
    size: int

    def pieces(self) -> list[Plan]:
        """The plans of images that are sampled together."""
        return [
            self._rows(slice(start, start + self.size))
            for start in range(0, len(self.seeds), self.size)
        ]

    def first(self, count: int | None) -> Plan:
        """The plan of the first ``count`` images, of all if there are fewer or for None."""
        return self._rows(slice(count))

    def _rows(self, rows: slice) -> Plan:
        conditions = None if self.conditions is None else self.conditions[rows]
        return Plan(self.seeds[rows], conditions, self.size)


def merged(pieces: Sequence[Plan]) -> Plan:
    """One plan of pieces, all but the last of which are full: it has the same pieces."""
    given = [piece.conditions for piece in pieces]
    conditions = tuple(c for of in given if of is not None for c in of)
    seeds = tuple(seed for piece in pieces for seed in piece.seeds)
    return Plan(seeds, None if given[0] is None else conditions, pieces[0].size)


@dataclass(frozen=True, eq=False)
class Recorded:
    """Calls of the denoiser as batches, whose parts are groups of timesteps; and the images.

    pieces: the calls of the trajectories that were sampled together.
    """

    pieces: tuple[tuple[Batch, ...], ...]
    images: Tensor


def sampled(sampler: Sampler, plan: Plan) -> Tensor:
    """The images of a plan, float32 (M, C, H, W). Raises ``ModelError`` for other things."""
    return torch.cat([_sampled(sampler, piece) for piece in plan.pieces()])


def _sampled(sampler: Sampler, piece: Plan) -> Tensor:
    images = sampler(piece.seeds, piece.conditions).float().cpu()
    if images.dim() != 4 or len(images) != len(piece.seeds):
        raise ModelError(
            f"sampling gave images of shape {tuple(images.shape)} for {len(piece.seeds)} seeds",
            "images are (seeds, channels, height, width)",
        )
    if not torch.isfinite(images).all():
        raise ModelError(
            "the images are not finite", "check the weights, or use a wider dtype or more steps"
        )
    return images.clamp(0, 1)


def calls_of(sampler: Sampler, plan: Plan) -> int:
    """S: how often the denoiser is called for the first image."""
    count = 0

    def receive(call: int, args: Any, kwargs: Any, output: Any) -> None:
        nonlocal count
        count = call + 1

    with _listening(sampler.denoiser, lambda call: False, receive):
        sampled(sampler, Plan(plan.seeds[:1], plan.conditions and plan.conditions[:1], 1))
    if not count:
        raise ModelError("sampling never calls the denoiser", "let it call the module itself")
    return count


def recorded(sampler: Sampler, plan: Plan, calls: int, timesteps: int, groups: int) -> Recorded:
    """Sample, and keep ``timesteps`` calls of each trajectory (T), of ``calls`` (S).

    Raises ``InvalidInput`` when there are fewer calls than that, ``ModelError`` when trajectories
    differ in their number of calls, or a call's outputs are no samples.
    """
    if calls < timesteps:
        raise InvalidInput(
            f"{timesteps} timesteps of a trajectory of {calls} calls of the denoiser",
            "ask for fewer timesteps, or more steps",
        )
    pieces = plan.pieces()
    found = []
    for number, piece in enumerate(pieces):
        offset = (number + 0.5) / len(pieces)
        groups_of = {
            call: call * groups // calls
            for call in (int((j + offset) * calls / timesteps) for j in range(timesteps))
        }
        found.append(_recorded(sampler, piece, calls, groups_of))
    calls_of_pieces = tuple(piece for one in found for piece in one.pieces)
    return Recorded(calls_of_pieces, torch.cat([one.images for one in found]))


def joined(pieces: Iterable[Iterable[Batch]]) -> tuple[Batch, ...]:
    """The calls of all ``pieces``."""
    return tuple(batch for piece in pieces for batch in piece)


def _recorded(sampler: Sampler, piece: Plan, calls: int, groups_of: Mapping[int, int]) -> Recorded:
    """One piece. groups_of: calls that are kept -> their groups."""
    batches: list[Batch] = []
    last = -1

    def receive(call: int, args: Any, kwargs: Any, output: Any) -> None:
        nonlocal last
        last = call
        if call in groups_of:
            N = len(prediction(output))
            part = torch.full((N,), groups_of[call], dtype=torch.int64)
            batches.append(Batch(*sampler.recorded(piece, args, kwargs), N, part=part))

    with _listening(sampler.denoiser, groups_of.__contains__, receive):
        images = _sampled(sampler, piece)
    if last + 1 != calls:
        raise ModelError(
            f"the denoiser is called {last + 1} times for some images and {calls} for others",
            "sample all images in the same number of steps",
        )
    return Recorded((tuple(batches),), images)


def forked(device: torch.device) -> list[torch.device]:
    """Devices whose global generators sampling may disturb, for ``torch.random.fork_rng``."""
    return [device] if device.type == "cuda" else []


def prediction(output: Any) -> Tensor:
    """The tensor in what a denoiser returned: itself, its ``.sample``, or its first element."""
    found = getattr(output, "sample", output)
    if isinstance(found, (list, tuple)) and found:
        found = found[0]
    if not isinstance(found, Tensor) or found.dim() < 2:
        raise ModelError(
            f"the denoiser returned {type(output).__name__}",
            "its output must be a tensor of samples, or begin with one",
        )
    return found


@contextmanager
def _listening(denoiser: nn.Module, wanted: Callable[[int], bool], receive: Call) -> Iterator[None]:
    """Hear of every call; what ``wanted`` ones are given comes as copies on the CPU."""
    count = 0
    given: Any = ()
    copies = _Copies()

    def before(module: nn.Module, args: Any, kwargs: Any) -> None:
        nonlocal given  # copied before the call, which may change it in place
        given = (copies.of(args), copies.of(kwargs)) if wanted(count) else ((), {})

    def after(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        nonlocal count
        receive(count, given[0], given[1], output)
        count += 1

    handles = [
        denoiser.register_forward_pre_hook(before, with_kwargs=True),
        denoiser.register_forward_hook(after, with_kwargs=True),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Copies:
    """Copies of tensors on the CPU; what is given unchanged with every call is copied once."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Tensor, int, Tensor]] = {}  # id -> tensor, version, copy

    def of(self, value: Any) -> Any:
        """``value`` with every tensor in it copied."""
        if isinstance(value, Tensor):
            known = self._known.get(id(value))
            if known is None or known[0] is not value or known[1] != value._version:
                known = (value, value._version, value.detach().to("cpu", copy=True))
                self._known[id(value)] = known
            return known[2]
        if isinstance(value, dict):
            return {k: self.of(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(self.of(v) for v in value)
        return value
