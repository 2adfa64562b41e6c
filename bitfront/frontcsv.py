"""A front as CSV: figures, standard errors, and which trials are on it and at its knee."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bitfront.queries import Front


def front_csv(found: Front, everything: bool = False) -> str:
    """A row for each trial on the front; everything: for dominated ones too."""
    rows = found.listed(everything)
    costs = sorted({name for i in rows for name in found.trials[i].costs})
    metrics = sorted({name for i in rows for name in found.trials[i].metrics})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    errors = [f"{name} stderr" for name in metrics]
    head = ["trial", "on_front", "knee", "solver", "budgets"]
    head += ["predicted", "expected", "bound", "created"]
    writer.writerow([*head, *costs, *metrics, *errors])
    for i in rows:
        t = found.trials[i]
        budgets = " ".join(t.settings.get("budgets", []))
        marks = [int(i in found.best), int(i == found.knee)]
        row = [t.id, *marks, t.solver, budgets, t.predicted, t.expected, t.bound, t.created]
        measured = [t.metrics.get(name) for name in metrics]
        writer.writerow(
            [
                *row,
                *(t.costs.get(name, "") for name in costs),
                *(m.value if m else "" for m in measured),
                *(m.stderr if m else "" for m in measured),
            ]
        )
    return text.getvalue()
