"""Which of several measured candidates is better, and whether that is more than noise.

Candidates are judged on the same calibration samples, so differences are paired. Where a few
samples hold nearly all of a metric, its mean says little: two halves of the data rank candidates
differently. A quieter view of it (``tasks.views``) ranks alike on both, but not always as the
metric does on other data. So the metric is foretold from the view, and of what that leaves as much
is believed as halves of the data agree on:

    K candidates near the best, N samples     m, v  (K,) means of the metric and of the view
    f = v · Σm / Σv                           value = f + share · (m − f)

with share = 2ρ / (1 + ρ), ρ the correlation of m − f between halves of the samples, and share so
what that makes of all of them (Spearman 1910, Brown 1910): the best linear guess of a mean over
samples that nobody has. The line goes through 0, as both do where nothing is changed; a line fitted
to candidates that were chosen by m would lean with their noise.

Who searches for low values finds candidates that the view errs on, as surely as those that a few
samples flatter. So a candidate's value is the worse of what was measured and what is foretold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitfront.sensitivity.stability import split_half
from bitfront.tasks.views import views_of

Contributions = Mapping[str, NDArray[np.floating]]
"""View -> (N,) what each sample adds to it; the mean over samples is its value."""

Float = NDArray[np.float64]

CLOSE = 1.6  # times the least value, up to which candidates say how a metric goes with its views
FEW = 6  # candidates, below which that is not known
SPLITS = 16


@dataclass(frozen=True)
class View:
    """What candidates are told apart by: a metric, or what it is believed to be.

    quiet: the view that it is foretold from, or None; the metric itself counts where it is worse.
    scale: Σm / Σv.
    """

    metric: str
    quiet: str | None = None
    scale: float = 0.0
    share: float = 1.0

    def of(self, sums: Contributions, prefix: str = "") -> Float:
        """(N,) what each sample adds. prefix: of the names in ``sums``."""
        own = sums[prefix + self.metric].astype(np.float64)
        if self.quiet is None:
            return own
        foretold = self.scale * sums[prefix + self.quiet].astype(np.float64)
        believed = foretold + self.share * (own - foretold)
        return believed if believed.mean() > own.mean() else own


@dataclass(frozen=True, eq=False)
class Gain:
    """How much lower one candidate is than another: mean of paired differences, and its error."""

    value: float
    stderr: float

    @property
    def real(self) -> bool:
        """Whether it is above its standard error."""
        return self.value > self.stderr


def view_of(candidates: Sequence[Contributions], metric: str) -> View:
    """What tells ``candidates`` apart best: ``metric``, corrected by the quietest of its views.

    The metric alone where there are too few candidates near the best, or samples, to tell.
    """
    _, *views = views_of(metric, list(candidates[0]))
    means = [float(c[metric].mean()) for c in candidates]
    near = [c for c, m in zip(candidates, means, strict=True) if m <= CLOSE * min(means)]
    if len(near) < FEW or not views:
        return View(metric)
    scores = {name: np.stack([c[name].astype(np.float64) for c in near]) for name in views}
    agreement = {name: split_half(s, np.ones(s.shape[1])) for name, s in scores.items()}
    quiet = max(agreement, key=lambda name: np.nan_to_num(agreement[name], nan=-1.0))
    if not agreement[quiet] > 0:
        return View(metric)
    own = np.stack([c[metric].astype(np.float64) for c in near])
    return _mixed(metric, quiet, own, scores[quiet])


def _mixed(metric: str, quiet: str, m: Float, v: Float) -> View:
    """m, v: (K, N) what each sample adds to the metric and to the view."""
    scale = float(m.sum() / v.sum())
    left = m - scale * v
    together = both = 0.0
    rng = np.random.default_rng(0)
    for _ in range(SPLITS):
        order = rng.permutation(m.shape[1])
        means = [left[:, half].mean(1) for half in np.array_split(order, 2)]
        a, b = (mean - mean.mean() for mean in means)
        together += float(a @ b)
        both += float(a @ a + b @ b) / 2
    rho = max(together / both, 0.0) if both > 0 else 1.0
    return View(metric, quiet, scale, 2 * rho / (1 + rho))


def gain(candidate: Contributions, over: Contributions, view: View) -> Gain:
    """Of ``candidate`` over another under ``view``."""
    d = view.of(over) - view.of(candidate)
    stderr = float(d.std(ddof=1)) / np.sqrt(len(d)) if len(d) > 1 else float("inf")
    return Gain(float(d.mean()), float(stderr))
