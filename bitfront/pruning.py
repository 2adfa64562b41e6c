"""Giving up on a hopeless candidate before all calibration data is spent on it.

    N  calibration samples    n  of them measured so far, the rest N − n    z  ``SURE``
    x  (N,) what each sample adds to the incumbent's loss
    d  (n,) what each adds to the candidate's loss, less x

A candidate is hopeless once  mean(d) > z · error,  where

    error² = var(d)/n · (1 − n/N)  +  Σd²/Σx² · Σ_rest x² / N²

The first term is that of drawing without replacement (Cochran 1977, "Sampling Techniques", eq.
2.20): the question is what all N samples will say, not those that nobody has. It knows nothing of a
few samples still to come that hold most of the loss. The incumbent's are known, though: the second
term is the error where the rest differ by as large a part of x as those that were seen, either way.
Where one sample outweighs all others, mean over error is 1/√(1 − n/N) at most, so that it alone
tells only once 1 − 1/z² of the samples are seen. Batches are taken in an order by lot, since data
may be sorted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bitfront.heldout import PARTIAL
from bitfront.tasks.evaluation import Evaluator, Measured, increases

if TYPE_CHECKING:
    from bitfront.study import Study
    from bitfront.types import Trial

SURE = 2.0
LEAST = 32  # samples, before which nothing is decided
BATCHES = PARTIAL + "batches"
_KINDS = ("sums", "counts")

Float = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Hopeless:
    """What a candidate is compared with, and when it is given up.

    metric: of the task, or a view of one, that batches add up to. incumbent: (N,) what each
    calibration sample adds to it in the best so far (``measuring.contributions``). sure: z.
    """

    metric: str
    incumbent: Float
    sure: float = SURE
    least: int = LEAST

    def given_up(self, part: Float, rows: NDArray[np.intp]) -> bool:
        """Whether ``part`` (n,), of the samples ``rows`` (n,), is enough to give up."""
        n, N = len(rows), len(self.incumbent)
        if n < max(self.least, 2):
            return False
        x = self.incumbent.astype(np.float64)
        d = part.astype(np.float64) - x[rows]
        rest = np.delete(x, rows)
        size = float(d @ d) / max(float(x[rows] @ x[rows]), float(np.finfo(np.float64).tiny))
        error2 = d.var(ddof=1) / n * (1 - n / N) + size * (rest @ rest) / N**2
        return bool(n < N and d.mean() > self.sure * np.sqrt(error2))

    def expected(self, part: Float, rows: NDArray[np.intp]) -> float:
        """The loss on all samples, by the incumbent's and the paired differences so far."""
        d = part.astype(np.float64) - self.incumbent[rows]
        return float(self.incumbent.astype(np.float64).mean() + d.mean())


def watched(
    evaluator: Evaluator, hopeless: Hopeless | None, begun: Measured | None = None
) -> tuple[Measured, bool]:
    """The model in its present state, batch by batch, and whether it was given up.

    begun: what was measured of it before, when it was given up: this time it is measured in full.
    """
    parts = [] if begun is None else [begun]
    done = set() if begun is None else set(begun.batches)
    order = [int(i) for i in np.random.default_rng(0).permutation(len(evaluator.batches))]
    for index in order:
        if index in done:
            continue
        parts = [_joined([*parts, evaluator.measure(batches=[index])])]
        if begun is None and hopeless and gives_up(parts[0], evaluator.baseline, hopeless):
            return parts[0], True
    return parts[0], False


def gives_up(part: Measured, baseline: Measured, hopeless: Hopeless) -> bool:
    return hopeless.given_up(*_added(part, baseline, hopeless.metric))


def recorded(part: Measured) -> dict[str, Float]:
    """Arrays by which a part is found again (``begun``)."""
    arrays: dict[str, Any] = {BATCHES: np.array(part.batches, dtype=np.int64)}
    for kind in _KINDS:
        for name, values in getattr(part, kind).items():
            arrays[f"{PARTIAL}{kind}/{name}"] = values
    return arrays


def begun(vectors: Mapping[str, Float], evaluator: Evaluator) -> Measured | None:
    """The part that ``recorded`` left, or None where there is none of all that is measured now."""
    wanted = {f"{PARTIAL}{kind}/{name}" for kind in _KINDS for name in evaluator.metrics}
    if not vectors.keys() >= {BATCHES, *wanted}:
        return None
    batches = tuple(map(int, vectors[BATCHES]))
    sums, counts = (
        {n: vectors[f"{PARTIAL}{kind}/{n}"].astype(np.float64) for n in evaluator.metrics}
        for kind in _KINDS
    )
    sizes = tuple(evaluator.batches[i].samples for i in batches)
    return Measured(sums, counts, batches, sizes, evaluator.metrics)


def loss_of(study: Study, trial: Trial, hopeless: Hopeless) -> float:
    """The calibration loss of a trial, for an explorer; of one that was given up, as expected.

    The latter is the incumbent's loss plus the mean of the paired differences so far. It is above
    what all samples would say more often than below, as only those far above were given up: by
    about an error, where the candidate is worse by several.
    """
    vectors = study.store.trial_vectors(study.record, trial.id)
    if hopeless.metric in vectors:
        return float(vectors[hopeless.metric].astype(np.float64).mean())
    part = begun(vectors, study.calibration_judge)
    assert part is not None
    baseline = study.calibration_judge.baseline
    return hopeless.expected(*_added(part, baseline, hopeless.metric))


def _added(part: Measured, baseline: Measured, metric: str) -> tuple[Float, NDArray[np.intp]]:
    """What each sample of ``part`` adds to the worsening, and which samples these are."""
    starts = np.cumsum([0, *baseline.sizes])
    rows = np.concatenate([np.arange(starts[b], starts[b + 1]) for b in part.batches])
    per_sample = baseline.counts[metric].mean()
    return increases(part, baseline)[metric] / per_sample, rows


def _joined(parts: Sequence[Measured]) -> Measured:
    """Parts of different batches as one, in the order of the batches."""
    metrics = parts[-1].metrics
    both = Measured(
        {name: np.concatenate([p.sums[name] for p in parts]) for name in metrics},
        {name: np.concatenate([p.counts[name] for p in parts]) for name in metrics},
        tuple(b for p in parts for b in p.batches),
        tuple(s for p in parts for s in p.sizes),
        metrics,
    )
    return both.take(sorted(both.batches))
