"""How much of a budget each class of layers is given: factors on their objectives, searched for.

    k, F_k   a class of layers, the predicted loss of its layers      f_k   its factor, 1/8 to 8

The least Σ_k f_k F_k within the budgets gives class k the more of them the greater f_k is, whatever
the resources and however many; factors that differ by a common one give the same, so the first is
1. What an allocation comes to is measured, and few can be: a Gaussian process of log loss over
log f proposes the next (Optuna's ``GPSampler``).
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from bitfront.types import Sensitivities

from .quiet import quiet

WIDEST = 3.0  # of |log2 f|
STARTS = 4  # proposals that are drawn at random, before there is something to model


def factors(classes: Sequence[str], seed: int = 0) -> Generator[dict[str, float], float, None]:
    """Class -> factor, proposal after proposal; send what each came to (the less the better).

    The first is 1 for all. The same sequence for the same answers. A loss that is not positive, or
    not finite, is taken for the least, or the greatest.
    """
    import optuna
    from optuna.distributions import BaseDistribution, FloatDistribution

    ones = dict.fromkeys(classes, 1.0)
    moved: dict[str, BaseDistribution] = {
        name: FloatDistribution(-WIDEST, WIDEST) for name in classes[1:]
    }
    with quiet():
        study = optuna.create_study(
            sampler=optuna.samplers.GPSampler(seed=seed, n_startup_trials=STARTS)
        )
        study.enqueue_trial(dict.fromkeys(moved, 0.0))
    while True:
        with quiet():
            trial = study.ask(moved)
        loss = yield {**ones, **{name: 2.0 ** trial.params[name] for name in moved}}
        tiny = np.finfo(np.float64).tiny
        with quiet():
            study.tell(trial, math.log(min(max(loss, tiny), 1 / tiny)))


def weighted(table: Sensitivities, factor: Mapping[str, float]) -> Sensitivities:
    """``table`` with the rows of each class multiplied by its factor."""
    f = np.array([factor[cls] for cls in table.classes])[:, None]
    return replace(table, values=table.values * f, stderr=table.stderr * f)
