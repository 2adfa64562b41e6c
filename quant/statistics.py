"""What calibration data does at the inputs of layers, and at outputs: second moments, histograms.

    X        (n, G, cols)      inputs of one call, one vector a position (G: convolution groups)
    H        (G, cols, cols)   mean of x xᵀ over all positions of all samples
    counts   (BINS,)           how many inputs have |x| in [i, i + 1) · width
    negative (BINS,)           how many of these are below 0

``width`` is a power of two, doubled (and neighbours merged) when a larger input comes, so the
histogram does not depend on the order of the data.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from bitfront.errors import ModelError

from .layers import adapter_of
from .tokens import split_first

Range = tuple[float, float]  # least and greatest
BINS = 4096
_TINY = torch.finfo(torch.float32).tiny
CHUNK = 1 << 24  # elements of unfolded inputs at a time
_SHARING = ("linear", "hf_conv1d")  # kinds whose H depends on the input tensor alone


@dataclass(frozen=True, eq=False)
class Histogram:
    """Magnitudes of inputs or outputs. ``width`` is 0 where all are 0, or float32 has no bins."""

    counts: Tensor  # (BINS,) int64, on the CPU
    width: float
    negative: Tensor  # (BINS,) int64, of ``counts``


@dataclass(frozen=True, eq=False)
class InputStatistics:
    """Statistics of one layer's inputs. ``rows``: how many vectors ``H`` is the mean of.

    magnitudes: of all inputs. after_first: of every token but the first of its text. outputs: what
    is read of the layer's outputs.
    """

    H: Tensor | None = None  # (G, cols, cols) float32
    rows: int = 0
    magnitudes: Histogram | None = None
    after_first: Histogram | None = None
    outputs: Histogram | None = None


def collect(
    model: nn.Module,
    moments: Collection[str],
    magnitudes: Collection[str],
    run: Callable[[], object],
    after_first: Collection[str] = (),
    outputs: Mapping[str, Range] = MappingProxyType({}),
) -> dict[str, InputStatistics]:
    """Statistics of the named layers, while ``run`` pushes the calibration data through ``model``.

    moments: layers whose ``H`` is wanted. magnitudes: layers whose histogram is wanted;
    after_first: without first tokens. outputs: layers whose outputs are wanted -> least and
    greatest that is read, beyond which they count as these. Layers that get the very same tensor in
    every call (q/k/v) share one ``H``; where that looked so at first and was not, ``run`` is called
    once more. Raises ``ModelError`` for a layer that is never called, for values that are not
    finite, and for a layer of ``after_first`` whose inputs have no tokens, or none after the first.
    """
    wanted = (set(moments), set(magnitudes), set(after_first))
    found = _watch(model, wanted, outputs, run, share=True)
    astray = {watch.name for watch in found if watch.astray}
    again = _watch(model, (astray, set(), set()), {}, run, share=False) if astray else []
    statistics = {watch.name: watch.result() for watch in found}
    for watch in again:
        H = watch.result()
        statistics[watch.name] = replace(statistics[watch.name], H=H.H, rows=H.rows)
    return statistics


def moment_bytes(module: nn.Module) -> int:
    """Size of a layer's ``H``."""
    _, cols = adapter_of(module).matrix(module).shape
    return getattr(module, "groups", 1) * cols * cols * 4


def call_input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The input of a module that was called with ``args`` and ``kwargs``."""
    return args[0] if args else next(iter(kwargs.values()))


class _Moments:
    """Running sum of x xᵀ."""

    def __init__(self, groups: int) -> None:
        self.groups = groups
        self.sum: Tensor | None = None
        self.rows = 0

    def add(self, X: Tensor) -> None:
        X = X.float()
        if self.sum is None:
            self.sum = X.new_zeros(X.shape[1], X.shape[2], X.shape[2])
        self.sum.baddbmm_(X.permute(1, 2, 0), X.transpose(0, 1))
        self.rows += X.shape[0]

    @cached_property
    def mean(self) -> Tensor | None:
        """H; nothing is added afterwards."""
        return None if self.sum is None else self.sum.div_(self.rows)


class _Magnitudes:
    """Running histogram."""

    def __init__(self) -> None:
        self.counts = torch.zeros(2, BINS, dtype=torch.int64)  # from 0 on, below 0
        self.width = 0.0

    def add(self, x: Tensor) -> None:
        if x.numel() == 0:  # a text of one token, which is left out
            return
        below = x < 0
        x = x.abs().float()
        top = float(x.max())
        if top > BINS * _TINY:  # else a bin is narrower than float32 tells from 0
            self._widen(math.ldexp(1.0, math.frexp(top)[1]) / BINS)  # top < BINS · width
        bins = (x / self.width).int() if self.width else torch.zeros_like(x, dtype=torch.int32)
        bins += below.int() * BINS
        self.counts += torch.bincount(bins.flatten(), minlength=2 * BINS).cpu().view(2, BINS)

    @property
    def result(self) -> Histogram:
        return Histogram(self.counts.sum(0), self.width, self.counts[1])

    def _widen(self, width: float) -> None:
        while self.width and self.width < width:
            merged = self.counts.view(2, -1, 2).sum(2)
            self.counts = torch.cat([merged, torch.zeros_like(merged)], 1)
            self.width *= 2
        self.width = max(self.width, width)


class _Watch:
    """One layer during a pass: what it was given, or whose inputs it was given too."""

    def __init__(
        self,
        name: str,
        module: nn.Module,
        moments: bool,
        magnitudes: bool,
        after_first: bool,
        read: Range | None,
    ) -> None:
        self.name, self.module, self.adapter = name, module, adapter_of(module)
        self.moments = _Moments(getattr(module, "groups", 1)) if moments else None
        self.magnitudes = _Magnitudes() if magnitudes else None
        self.after_first = _Magnitudes() if after_first else None
        self.outputs = _Magnitudes() if read is not None else None
        self.read = read
        self.calls = 0
        self.leader: _Watch | None = None
        self.astray = False
        self._last: tuple[Callable[[], Tensor | None], int] | None = None

    def given(self, x: Tensor) -> bool:
        """Whether the last input was ``x``, unchanged since."""
        return self._last is not None and self._last[0]() is x and self._last[1] == x._version

    def see(self, x: Tensor, y: Tensor, leaders: list[_Watch]) -> None:
        """Take in one call; ``leaders`` are the layers whose inputs others may share."""
        if x.numel() == 0:  # an expert that got no tokens
            return
        self.calls += 1
        if self.magnitudes is not None or self.after_first is not None:
            if not torch.isfinite(x).all():
                raise self._not_finite("inputs")
            if self.magnitudes is not None:
                self.magnitudes.add(x)
            if self.after_first is not None:
                self.after_first.add(split_first(self.name, x)[1])
        if self.outputs is not None and self.read is not None:
            if not torch.isfinite(y).all():
                raise self._not_finite("outputs")
            self.outputs.add(y.clamp(*self.read))
        if self.moments is None:
            return
        if self.adapter.kind in _SHARING and not x.is_inference():
            if self.calls == 1:
                self.leader = next((other for other in leaders if other.given(x)), None)
                leaders.append(self)
            self._last = (weakref.ref(x), x._version)
        if self.leader is None:
            self._accumulate(self.moments, x, y)
        elif not (self.leader.given(x) and self.leader.calls == self.calls):
            self.astray = True

    def _accumulate(self, moments: _Moments, x: Tensor, y: Tensor) -> None:
        x, y = self.adapter.batched(self.module, x), self.adapter.batched(self.module, y)
        rows, cols = self.adapter.matrix(self.module).shape
        unfolded = max(1, y[0].numel() // rows * moments.groups * cols)  # elements a sample
        for part in x.split(max(1, CHUNK // unfolded)):
            moments.add(self.adapter.patches(self.module, part).flatten(0, 1))

    def _not_finite(self, what: str) -> ModelError:
        return ModelError(f"{what} of layer {self.name!r} are not finite", "check model and data")

    def close(self) -> None:
        """Check the whole pass."""
        if self.calls == 0:
            raise ModelError(
                f"layer {self.name!r} is never called on the calibration data",
                "keep it out, or calibrate with data that reaches it",
            )
        if self.after_first is not None and not self.after_first.counts.any():
            raise ModelError(
                f"layer {self.name!r} gets no token but the first on the calibration data",
                "choose its scheme without b, or calibrate with longer texts",
            )
        if self.leader is not None and self.leader.calls != self.calls:
            self.astray = True

    def result(self) -> InputStatistics:
        """The statistics, checked to be finite."""
        source = self.moments if self.leader is None else self.leader.moments
        found = InputStatistics(
            magnitudes=None if self.magnitudes is None else self.magnitudes.result,
            after_first=None if self.after_first is None else self.after_first.result,
            outputs=None if self.outputs is None else self.outputs.result,
        )
        if source is None or source.mean is None:
            return found
        if not torch.isfinite(source.mean).all():
            raise self._not_finite("inputs")
        return replace(found, H=source.mean, rows=source.rows)


def _watch(
    model: nn.Module,
    wanted: tuple[set[str], set[str], set[str]],
    outputs: Mapping[str, Range],
    run: Callable[[], object],
    share: bool,
) -> list[_Watch]:
    """One pass over the calibration data. wanted: of moments, magnitudes, those after the first."""
    watches = []
    for name in sorted(set().union(*wanted, outputs)):
        moments, magnitudes, after_first = (name in names for names in wanted)
        watches.append(
            _Watch(
                name, model.get_submodule(name), moments, magnitudes, after_first, outputs.get(name)
            )
        )
    leaders: list[_Watch] = []
    with ExitStack() as stack, torch.no_grad():
        for watch in watches:
            stack.callback(
                watch.module.register_forward_hook(
                    _hook(watch, leaders if share else []), with_kwargs=True
                ).remove
            )
        run()
    for watch in watches:
        watch.close()
    return watches


def _hook(watch: _Watch, leaders: list[_Watch]) -> Callable[..., None]:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], y: Tensor) -> None:
        watch.see(call_input(args, kwargs), y, leaders)

    return hook
