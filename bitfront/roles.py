"""Whose the sensitivity is: sums over layers of one role, or of one kind, as shares of the whole.

v[l, c]     sensitivity of layer l under scheme c; what is negative or not known counts as 0
total[c]    Σ_l v[l, c]
share[g, c] Σ_{l in g} v[l, c] / total[c]
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bitfront.types import Sensitivities


def totals(table: Sensitivities) -> NDArray[np.float64]:
    """``total`` (C,), in the metric's unit."""
    return _counted(table).sum(0)


def shares(table: Sensitivities, groups: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """Group -> its ``share`` (C,), groups in order of appearance; nan where ``total`` is 0.

    groups: the group of each of the table's layers.
    """
    v, whole = _counted(table), totals(table)
    of = np.array(groups)
    known = np.where(whole > 0, whole, np.nan)
    return {group: v[of == group].sum(0) / known for group in dict.fromkeys(groups)}


def _counted(table: Sensitivities) -> NDArray[np.float64]:
    return np.where(table.values > 0, table.values, 0.0)
