"""Bitfront's own side: one function that calls ``bitfront.search``."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import bitfront
from benchmarks.common import commit, fresh_study
from benchmarks.peers.models import BITS, Model
from bitfront import Choices
from bitfront.tasks import Task
from bitfront.types import Scheme


@dataclass(frozen=True)
class Variant:
    """options: of ``bitfront.search``, defaults else. groups: whether fused layers share.

    told: by the very data that allocations are judged on, which says what another choice could do
    at all.
    """

    groups: str = "off"
    told: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


# defaults; more measurements; q/k/v alike and gate/up alike, as ModelOpt; a bound, if asked for
VARIANTS = {
    "Bitfront": Variant(),
    "Bitfront, longer": Variant(options={"explore": 60}),
    "Bitfront, fused alike": Variant(groups="auto"),
    "Bitfront, told": Variant(told=True, options={"explore": 60}),
}


def chosen_by(variant: Variant, model: Model, task: Task, budgets: list[float]) -> dict[str, Any]:
    """An answer as a peer's: profiled and searched from nothing, all budgets in one call."""
    if variant.told:
        task = copy.copy(task)
        task.calibration, task.held_back = task.evaluation, ()
    layers = model.layers(task)
    spelled = dict.fromkeys(model.scheme(layer, bits) for bits in BITS for layer in layers)
    with fresh_study(task) as study:
        began = time.perf_counter()
        answers = bitfront.search(
            study,
            list(spelled),
            [f"{budget:g}bpw" for budget in budgets],
            choices=Choices(groups=variant.groups),
            **variant.options,
        )
        seconds = time.perf_counter() - began
    found = {
        f"{budget:g}": {
            "asked": budget,
            "table": answer.table,
            "evaluations": answer.evaluations,
            "bits": {name: Scheme.parse(s).bits for name, s in answer.trial.schemes.items()},
        }
        for budget, answer in zip(budgets, answers, strict=True)
    }
    return {"commit": commit(), "seconds": seconds, "budgets": found}
