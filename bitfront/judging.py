"""Which of several measured candidates is better, and whether that is more than noise.

Candidates are judged on the same calibration samples, so differences are paired. Where a few
samples hold nearly all of a metric, its mean says little: two halves of the data rank candidates
differently. Then a view of the metric that the halves agree on decides instead (``tasks.views``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitfront.sensitivity.stability import split_half

Contributions = Mapping[str, NDArray[np.floating]]
"""View -> (N,) what each sample adds to it; the mean over samples is its value."""

AGREED = 0.5  # rank correlation between halves of the data from which a view is trusted
FEW = 4  # candidates, below which a rank correlation says nothing


@dataclass(frozen=True, eq=False)
class Gain:
    """How much lower one candidate is than another: mean of paired differences, and its error."""

    value: float
    stderr: float

    @property
    def real(self) -> bool:
        """Whether it is above its standard error."""
        return self.value > self.stderr


def trusted(candidates: Sequence[Contributions], views: Sequence[str]) -> str | None:
    """The first of ``views`` whose halves agree on the candidates, else the one that agrees most.

    None where there are too few candidates, or samples, to tell.
    """
    if len(candidates) < FEW:
        return None
    agreement = {}
    for view in views:
        scores = np.stack([c[view].astype(np.float64) for c in candidates])
        agreement[view] = split_half(scores, np.ones(scores.shape[1]))
        if agreement[view] >= AGREED:
            return view
    known = {view: r for view, r in agreement.items() if np.isfinite(r)}
    return max(known, key=lambda view: known[view]) if known else None


def gain(candidate: Contributions, over: Contributions, view: str) -> Gain:
    """Of ``candidate`` over another under ``view``."""
    d = over[view].astype(np.float64) - candidate[view].astype(np.float64)
    stderr = float(d.std(ddof=1)) / np.sqrt(len(d)) if len(d) > 1 else float("inf")
    return Gain(float(d.mean()), float(stderr))
