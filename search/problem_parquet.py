"""Allocation problems as a table with a row for each layer and scheme, in Parquet files.

    layer, scheme   text
    loss            number
    group           text or integer, optional: layers with the same group share a scheme; null: none
    any other       number: a cost of that name

Layers and schemes keep the order in which they first come. Needs pyarrow: ``bitfront[parquet]``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitfront.errors import InvalidInput, ProblemError
from bitfront.types import Problem

from .problem_arrays import grouped
from .problem_file import assembled, finite

_FORM = "give columns layer, scheme, loss and one for each cost, and a row for each pair"


def read_parquet(
    path: Path, limits: Mapping[str, float], floors: Mapping[str, float] = MappingProxyType({})
) -> Problem:
    """The problem in the Parquet file ``path``.

    Raises ``ProblemError``, ``OSError``, and ``InvalidInput`` where pyarrow is not installed.
    """
    arrow, parquet = _pyarrow()
    with path.open("rb") as file:
        try:
            table = parquet.read_table(file)
        except arrow.ArrowException as error:
            raise ProblemError(f"not a Parquet file ({error})", _FORM) from None
    names = table.column_names
    if len(set(names)) < len(names):
        raise ProblemError("two columns of one name", _FORM)
    for key in ("layer", "scheme", "loss"):
        if key not in names:
            raise ProblemError(f"column {key!r} is missing", _FORM)
    layers, rows = _indexed(table.column("layer"), "layer", arrow)
    schemes, columns = _indexed(table.column("scheme"), "scheme", arrow)
    L, C = len(layers), len(schemes)
    place = rows * C + columns
    count = np.bincount(place, minlength=L * C)
    if (count != 1).any():
        at = int(np.flatnonzero(count != 1)[0])
        pair = f"layer {layers[at // C]!r} under {schemes[at % C]!r}"
        raise ProblemError(f"{count[at]} rows for {pair}", "give one row for each pair")

    def matrix(name: str) -> NDArray[np.float64]:
        column = table.column(name)
        if not (arrow.types.is_integer(column.type) or arrow.types.is_floating(column.type)):
            raise ProblemError(f"column {name!r} is {column.type}", "give numbers")
        values = np.empty(L * C)
        values[place] = column.to_numpy().astype(np.float64)  # null becomes nan
        key = "loss" if name == "loss" else f"costs of {name}"
        return finite(values.reshape(L, C), key, schemes)

    costs = {n: matrix(n) for n in names if n not in ("layer", "scheme", "loss", "group")}
    groups = _groups(table.column("group").to_pylist(), rows, layers) if "group" in names else ()
    return assembled(layers, schemes, matrix("loss"), costs, groups, limits, floors)


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InvalidInput(
            "reading Parquet needs pyarrow", "pip install 'bitfront[parquet]', or write .npz"
        ) from None
    return pyarrow, pyarrow.parquet


def _indexed(column: Any, key: str, arrow: Any) -> tuple[list[str], NDArray[np.intp]]:
    """The names in a column, in order, and which of them each row has."""
    if arrow.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not (arrow.types.is_string(column.type) or arrow.types.is_large_string(column.type)):
        raise ProblemError(f"column {key!r} is {column.type}", "give text")
    if column.null_count or not len(column):
        raise ProblemError(f"column {key!r} has empty entries", "name each layer and scheme")
    coded = column.combine_chunks().dictionary_encode()
    return coded.dictionary.to_pylist(), coded.indices.to_numpy().astype(np.intp)


def _groups(
    column: list[Any], rows: NDArray[np.intp], layers: list[str]
) -> tuple[tuple[int, ...], ...]:
    group: list[Any] = [None] * len(layers)
    seen = [False] * len(layers)
    for layer, number in zip(rows.tolist(), column, strict=True):
        if seen[layer] and group[layer] != number:
            raise ProblemError(
                f"layer {layers[layer]!r} is in groups {group[layer]} and {number}",
                "give all rows of a layer the same group",
            )
        group[layer], seen[layer] = number, True
    return grouped(group, None)
