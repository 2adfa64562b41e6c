"""Timing several things side by side, so that a machine's moods are the same for all.

t_rk   seconds of k in round r, in which each is run once, one after another (warm: twice, of which
       the second counts); not counted where the system gave the processor to somebody else
       meanwhile, as far as it says so
m_k    its median over the rounds
f_r    median over k of t_rk / m_k: how slow the machine was in that round
k      median over r of t_rk / f_r; f is 1 where fewer than ``COMMON`` are timed
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from bitfront.types import Timing

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

Run = Callable[[], object]

COMMON = 4
ENOUGH = 7  # runs that count; with fewer, all do
LEAST, MOST = 15, 201  # rounds
SECONDS = 4.0  # that rounds are added for, between these
WARM_UP = 2  # rounds
COPIES = 2  # of a whole model, each elsewhere in memory: the quicker one counts
SMALL = 1 << 28  # bytes of a model up to which it matters where it lies


def interleaved(
    runs: Sequence[Run], seconds: float = SECONDS, *, warm: bool = False, least: int = LEAST
) -> list[Timing]:
    """What each of ``runs`` takes. seconds: that all rounds may take together, ``least`` at least.

    Each run finds the caches as the others left them, as a kernel does in a model. warm: as it left
    them itself, as a model does that is called again and again.
    """
    if not runs:
        return []
    for _ in range(WARM_UP - 1):
        _round(runs, warm)
    began = time.perf_counter()
    _round(runs, warm)
    once = time.perf_counter() - began
    rounds = int(min(MOST, max(least, seconds / once)))
    collecting = gc.isenabled()
    gc.disable()
    try:
        found = [_round(runs, warm) for _ in range(rounds)]
    finally:
        if collecting:
            gc.enable()
    times, put_off = np.array([t for t, _ in found]), np.array([p for _, p in found])
    return timings(_counted(times, put_off))


def copies(size: int) -> int:
    """How many of a model of ``size`` bytes are timed."""
    return COPIES if size <= SMALL else 1


def quickest(
    makes: Sequence[Callable[[], Run]], size: int, seconds: float = SECONDS
) -> list[Timing]:
    """What whole models take, warm, each as the quicker of its copies.

    Single copies were seen to be 28 to 45 % slower than others, all their runs long. makes: of each
    model, one copy a call. size: bytes of the largest.
    """
    each = copies(size)
    runs = [make() for _ in range(each) for make in makes]
    found = interleaved(runs, seconds, warm=True, least=-(-LEAST // each))
    return [min(found[i :: len(makes)], key=lambda t: t.seconds) for i in range(len(makes))]


def timings(times: NDArray[np.float64]) -> list[Timing]:
    """Of ``times`` (rounds, runs), nan where a run does not count; no column is all nan."""
    if times.shape[1] >= COMMON:
        pace = np.ones((len(times), 1))
        some = ~np.isnan(times).all(axis=1)
        middle = np.nanmedian(times, axis=0)
        pace[some] = np.nanmedian(times[some] / middle, axis=1, keepdims=True)
        times = times / pace
    low, middle, high = np.nanquantile(times, [0.25, 0.5, 0.75], axis=0)
    counts = (~np.isnan(times)).sum(axis=0)
    return [
        Timing(float(m), float(s), int(n))
        for m, s, n in zip(middle, (high - low) / 2, counts, strict=True)
    ]


def _counted(times: NDArray[np.float64], put_off: NDArray[np.bool_]) -> NDArray[np.float64]:
    """``times`` with nan where a run was put off, unless too few of its kind would be left."""
    enough = (~put_off).sum(axis=0) >= ENOUGH
    return np.where(put_off & enough, np.nan, times)


def _round(runs: Sequence[Run], warm: bool) -> tuple[list[float], list[bool]]:
    """Seconds of each, and whether it was put off."""
    taken, put_off = [], []
    for run in runs:
        if warm:
            run()
        switches, began = _switches(), time.perf_counter()
        run()
        taken.append(time.perf_counter() - began)
        put_off.append(_switches() != switches)
    return taken, put_off


def _switches() -> int:
    """How often the system took a processor from this process; 0 where it does not say."""
    return 0 if resource is None else resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """This thread, and those that it begins, on ``threads`` processors, where the system can."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:threads])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def processors() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
