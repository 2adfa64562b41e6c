"""Activation memory as a cost: the largest cut of a forward pass, under schemes of its layers.

    b_i         bytes of activation i in full precision, e_i its elements
    s_ij(c)     its bytes where reader j takes scheme c: e_i times the width of j's input, or b_i
                where c does not quantize inputs, scales aside; what is BOS-aware keeps 1 token of T
    size_i      max_j s_ij(c_j): the widest that a reader needs; b_i where anything but a layer
                that is quantized reads it
    total       max over cuts of Σ_{i in cut} size_i

A limit on the total is one on every sum in which each activation of a cut has one of its readers:
the greatest of these is the cut's. So the program stays linear and exact. Where a cut has more than
``CHOICES`` such sums, some of its activations have one sum instead that is never too low,
Σ_j s_ij(c_j) − (readers − 1) · min s_ij.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from bitfront.budget import ACTIVATIONS
from bitfront.scheme import Scheme
from bitfront.tasks.liveness import Activation, Liveness
from bitfront.types import Costs, Float, Part

CHOICES = 64  # sums for one cut


@dataclass(frozen=True, eq=False)
class _Sum:
    """fixed + Σ of the rows (C,) of some layers, by index; nan where a layer cannot take."""

    fixed: float
    rows: Mapping[int, Float]

    @property
    def least(self) -> float:
        return self.fixed + sum(float(np.nanmin(row)) for row in self.rows.values())

    @property
    def most(self) -> float:
        return self.fixed + sum(float(np.nanmax(row)) for row in self.rows.values())

    def never_above(self, other: _Sum) -> bool:
        """Whether it is at most ``other`` whatever is chosen."""
        excess = self.fixed - other.fixed
        for i in self.rows.keys() | other.rows.keys():
            row = self.rows.get(i, 0.0) - other.rows.get(i, np.zeros(1))
            excess += float(np.nanmax(row))
        return excess <= 0


def with_activations(costs: Costs, live: Liveness, groups: Sequence[Sequence[str]] = ()) -> Costs:
    """``costs`` with the resource ``activations``, bytes of one sample.

    groups: layers that take the same scheme, of which one stands for all.
    """
    index = {name: i for i, name in enumerate(costs.layers)}
    first = {name: next(n for n in group if n in index) for group in groups for name in group
             if name in index}  # fmt: skip
    allowed = np.isfinite(next(iter(costs.tables.values())))
    schemes = [Scheme.parse(s) for s in costs.schemes]
    sizes = []
    for a in live.activations:
        readers = {index[first.get(name, name)] for name in a.readers if name in index}
        quantized = a.width and a.readers <= index.keys()
        sizes.append(_sizes(a, schemes, allowed, readers) if quantized else {})
    sums: list[_Sum] = []
    for cut in live.cuts:
        sums += _sums([live.activations[i].bytes for i in cut], [sizes[i] for i in cut])
    shape = (len(costs.layers), len(costs.schemes))
    parts = tuple(_part(kept, shape) for kept in _undominated(sums))
    most = max((sum(live.activations[i].bytes for i in cut) for cut in live.cuts), default=0)
    full = {**costs.full, ACTIVATIONS: float(most)}
    return replace(costs, full=full, peaks={**costs.peaks, ACTIVATIONS: parts})


def _sizes(
    a: Activation, schemes: Sequence[Scheme], allowed: np.ndarray, readers: Iterable[int]
) -> dict[int, Float]:
    """Reader -> ``s_ij`` (C,); nothing where no scheme makes the activation smaller."""
    row = np.array([_size(a, scheme) for scheme in schemes])
    rows = {j: np.where(allowed[j], row, np.nan) for j in sorted(readers)}
    return rows if all(np.nanmin(r) < a.bytes for r in rows.values()) else {}


def _size(a: Activation, scheme: Scheme) -> float:
    if scheme.activation is None:
        return float(a.bytes)
    elements = 8 * a.bytes // a.width
    whole = elements // a.tokens if scheme.activation.bos else 0  # elements of the first token
    bits = scheme.activation.bits * (elements - whole) + a.width * whole
    return float(min(a.bytes, math.ceil(bits / 8)))


def _sums(full: Sequence[int], sizes: Sequence[Mapping[int, Float]]) -> list[_Sum]:
    """The sums of one cut. full: bytes of its activations; sizes: ``_sizes`` of each."""
    fixed = float(sum(b for b, rows in zip(full, sizes, strict=True) if not rows))
    options: list[list[_Sum]] = []
    for rows in sorted(filter(None, sizes), key=len):
        if math.prod(map(len, options)) * len(rows) <= CHOICES:
            options.append([_Sum(0.0, {j: row}) for j, row in rows.items()])
        else:
            least = min(float(np.nanmin(row)) for row in rows.values())
            options.append([_Sum(-(len(rows) - 1) * least, rows)])
    return [_added(fixed, chosen) for chosen in product(*options)]


def _added(fixed: float, sums: Iterable[_Sum]) -> _Sum:
    rows: dict[int, Float] = {}
    for one in sums:
        fixed += one.fixed
        for j, row in one.rows.items():
            rows[j] = rows[j] + row if j in rows else row
    return _Sum(fixed, rows)


def _undominated(sums: Sequence[_Sum]) -> list[_Sum]:
    """Those that can be the greatest, the greatest at most first."""
    least = max((one.least for one in sums), default=0.0)
    kept: list[_Sum] = []
    for one in sorted(sums, key=lambda one: -one.most):
        if one.most >= least and not any(one.never_above(other) for other in kept):
            kept.append(one)
    return kept


def _part(one: _Sum, shape: tuple[int, int]) -> Part:
    table = np.zeros(shape)
    for j, row in one.rows.items():
        table[j] = row
    return Part(one.fixed, table)
