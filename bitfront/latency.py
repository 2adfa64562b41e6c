"""Seconds of a model on a target: kernels timed alone, and whole models that say what is between.

Whole models are the full one, all layers alike, and mixes; ``residual`` says from them what
everything takes that is no layer. Nothing is timed twice (``timingbench``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bitfront.costfile import Given
from bitfront.errors import SchemeError
from bitfront.residual import Residual, fitted
from bitfront.scheme import KEEP, Scheme
from bitfront.study import Progress, Study, silent
from bitfront.targets import Aimed
from bitfront.timingbench import Bench, allocation_key, kernel_scheme
from bitfront.types import Place, Timing, Trial, content_key

MIXES = 16  # allocations drawn for the fit


@dataclass(frozen=True, slots=True)
class Alike:
    """layers: that take the scheme. predicted, measured: seconds of the whole model."""

    layers: int
    predicted: float
    measured: float


@dataclass(frozen=True, eq=False)
class Latency:
    """What a target takes. given: the costs of layers, of the rest and of the full model, seconds.

    kernels: (layer, scheme) -> its calls alone. alike: scheme -> the model with all layers under it
    that can take it, kept else. wholes: what the fit rests on, the full model first. residual: the
    fit.
    """

    aimed: Aimed
    place: Place
    given: Given
    kernels: Mapping[tuple[str, str], float]
    alike: Mapping[str, Alike]
    wholes: tuple[Timing, ...]
    residual: Residual

    @property
    def errors(self) -> tuple[float, float]:
        """Median and greatest relative error of whole models, each predicted from the others."""
        off = np.abs(self.residual.errors)
        return float(np.median(off)), float(off.max())


def latency(
    study: Study,
    schemes: Sequence[Scheme],
    aim: Aimed,
    *,
    mixes: int = MIXES,
    progress: Progress = silent,
) -> Latency:
    """Time what is not recorded of the task's layers under ``schemes``, and fit the rest.

    Pairs that the target cannot run are left out. Raises ``InvalidInput`` for a target without a
    shape, or a shape that the model does not have, and ``ExportError`` where the target's packages
    are not installed or it does not take the model.
    """
    bench = Bench(study, aim)
    wanted = list(dict.fromkeys([Scheme.parse(KEEP), *map(kernel_scheme, schemes)]))
    alone = bench.kernels(wanted, progress)
    allocations = _allocations(bench, wanted, alone, mixes)
    wholes = bench.wholes(allocations, progress)
    parts = [bench.part(a, alone, w) for a, w in zip(allocations, wholes, strict=True)]
    residual = fitted(parts)
    seconds = {
        (layer.name, kernel): residual.layer(bench.operator(layer, kernel), t, bench.calls(layer))
        for layer in bench.layers
        for kernel in map(str, wanted)
        if (t := alone.get((layer.name, kernel))) is not None
    }
    alike = {}
    for kernel, allocation, whole in zip(map(str, wanted), allocations, wholes, strict=False):
        of = [allocation.get(layer.name, KEEP) for layer in bench.layers]
        pairs = zip((layer.name for layer in bench.layers), of, strict=True)
        moved = residual.element * bench.moved(allocation)
        total = math.fsum([residual.rest, moved, *(seconds[pair] for pair in pairs)])
        alike[kernel] = Alike(of.count(kernel), total, whole.seconds)
    costs = {
        layer.name: {
            str(s): seconds[layer.name, str(kernel_scheme(s))]
            for s in (*schemes, Scheme.parse(KEEP))
            if (layer.name, str(kernel_scheme(s))) in seconds
        }
        for layer in bench.layers
    }
    given = Given(
        costs,
        fixed=residual.rest,
        full=wholes[0].seconds,
        apart={
            layer.name: [s for s in costs[layer.name] if bench.target.apart(layer, Scheme.parse(s))]
            for layer in bench.layers
        },
        handovers=tuple((one, other, residual.element * n) for one, other, n in bench.handovers)
        if residual.element
        else (),
    )
    return Latency(aim, bench.place, given, alone, alike, tuple(wholes), residual)


def timed(
    study: Study, aims: Sequence[Aimed], trials: Sequence[Trial], progress: Progress = silent
) -> list[Trial]:
    """``trials`` with what their whole models take on each target that has a shape, recorded as
    costs (``Aimed.measured``).

    Raises ``SchemeError`` for a trial that a target cannot run, and as ``latency``.
    """
    costs: dict[int, dict[str, float]] = {trial.id: {} for trial in trials}
    for aim in aims:
        new = [trial for trial in trials if aim.measured not in trial.costs]
        if aim.shape is None or not new:
            continue
        bench = Bench(study, aim)
        for trial in new:
            _check(bench, trial)
        found = bench.wholes([dict(trial.schemes) for trial in new], progress)
        for trial, timing in zip(new, found, strict=True):
            costs[trial.id][aim.measured] = timing.seconds
    return [
        study.store.set_costs(study.record, t.id, costs[t.id]) if costs[t.id] else t for t in trials
    ]


def _check(bench: Bench, trial: Trial) -> None:
    for layer in bench.layers:
        scheme = Scheme.parse(trial.schemes.get(layer.name, KEEP))
        why = bench.target.reason(layer, scheme)
        if why is not None:
            pair = f"{layer.name!r} as {scheme}"
            raise SchemeError(
                f"{bench.target.name} cannot run trial {trial.id}, {pair}: {why}",
                "time a trial that was searched for with this target",
            )


def _allocations(
    bench: Bench,
    schemes: Sequence[Scheme],
    alone: Mapping[tuple[str, str], float],
    mixes: int,
) -> list[dict[str, str]]:
    """The full model, all layers alike where they can be, and mixes, each in shares of its own."""
    words, layers = [str(scheme) for scheme in schemes], bench.layers
    can = {la.name: [w for w in words if (la.name, w) in alone] for la in layers}
    found = [bench.alike(scheme) for scheme in schemes]
    generator = np.random.default_rng(int(content_key([words, sorted(can)])[:8], 16))
    seen = {allocation_key(allocation) for allocation in found}
    for _ in range(mixes):
        shares = dict(zip(words, generator.dirichlet(np.full(len(words), 0.5)), strict=True))
        mix = {}
        for name, of in can.items():
            p = np.array([shares[w] for w in of]) + 1e-9
            mix[name] = str(generator.choice(of, p=p / p.sum()))
        for layer in layers:  # a tied layer is as the one whose weight it uses
            if layer.shares is not None and mix[layer.shares] in can[layer.name]:
                mix[layer.name] = mix[layer.shares]
            elif layer.shares is not None:
                mix[layer.name] = mix[layer.shares] = KEEP
        if allocation_key(mix) not in seen:  # one that was there before would tell of itself
            seen.add(allocation_key(mix))
            found.append({name: word for name, word in mix.items() if word != KEEP})
    return found
