"""Allocation problems in files: JSON, NumPy's .npz, Parquet.

    {"schemes": ["int4", "int8"],              names, C of them
     "loss": [[0.46, 0.0016], ...],            layers × schemes, L × C
     "costs": {"size": [[0.017, 0.035], ...]}, resource -> L × C
     "tied": [[14, 16], ...],                  optional: layers (from 0) that share a scheme
     "layers": ["conv1", ...]}                 optional: names, else layer0, layer1, ...

Other keys are ignored. Scheme names need not be in Bitfront's grammar. ``problem_arrays`` and
``problem_parquet`` say how the same stands in the other two.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitfront.errors import ProblemError
from bitfront.types import Problem, closure

_FORM = "give a JSON object with schemes, loss (layers × schemes) and costs (name -> the same)"


def read_problem(path: str | Path, limits: Mapping[str, float] | None = None) -> Problem:
    """The problem in the file ``path``, under ``limits`` (resource -> greatest total).

    A name that ends in ``.npz`` or ``.parquet`` is read as such, any other as JSON. Raises
    ``ProblemError`` for a file that cannot be read or does not hold a problem, ``InvalidInput`` for
    Parquet without pyarrow.
    """
    from .problem_arrays import read_arrays
    from .problem_parquet import read_parquet

    readers = {".npz": read_arrays, ".parquet": read_parquet}
    read = readers.get(Path(path).suffix.lower(), _read_json)
    try:
        return read(Path(path), limits or {})
    except OSError as error:
        raise ProblemError(f"cannot read {str(path)!r}", error.strerror or str(error)) from None
    except ProblemError as error:
        raise ProblemError(f"{str(path)!r}: {error.what}", error.remedy) from None


def _read_json(path: Path, limits: Mapping[str, float]) -> Problem:
    try:
        return parse_problem(json.loads(path.read_text(encoding="utf-8")), limits)
    except UnicodeDecodeError:
        raise ProblemError("not a text file", _FORM) from None
    except (json.JSONDecodeError, RecursionError) as error:
        raise ProblemError(f"not JSON ({error})", _FORM) from None


def parse_problem(data: Any, limits: Mapping[str, float]) -> Problem:
    """The problem in ``data``, as read from JSON. Raises ``ProblemError``."""
    if not isinstance(data, dict):
        raise ProblemError(f"a {type(data).__name__} instead of an object", _FORM)
    for key in ("schemes", "loss", "costs"):
        if key not in data:
            raise ProblemError(f"{key!r} is missing", _FORM)
    schemes = _names(data["schemes"], "schemes")
    loss = _table(data["loss"], "loss", None, schemes)
    if not isinstance(data["costs"], dict):
        raise ProblemError("costs are not an object", _FORM)
    costs = {
        name: _table(rows, f"costs of {name}", len(loss), schemes)
        for name, rows in data["costs"].items()
    }
    layers = None if data.get("layers") is None else _names(data["layers"], "layers")
    return assembled(layers, schemes, loss, costs, limits, _tied(data.get("tied"), len(loss)))


def assembled(
    layers: Sequence[str] | None,
    schemes: Sequence[str],
    loss: NDArray[np.float64],
    costs: Mapping[str, NDArray[np.float64]],
    limits: Mapping[str, float],
    tied: tuple[tuple[int, ...], ...],
) -> Problem:
    """The problem of checked tables; layers without names get numbers."""
    if layers is None:
        layers = [f"layer{i}" for i in range(len(loss))]
    if len(layers) != len(loss):
        raise ProblemError(f"{len(layers)} layers are named", f"loss has {len(loss)} rows")
    return Problem(tuple(layers), tuple(schemes), loss, costs, dict(limits), groups=tied)


def distinct(names: Sequence[str], key: str) -> tuple[str, ...]:
    """``names``, which must be some, each once."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if not names or twice:
        some = ", ".join(sorted(twice)[:5])
        raise ProblemError(f"{key} names {some} twice" if twice else f"{key} is empty", _FORM)
    return tuple(names)


def finite(table: NDArray[np.float64], key: str, schemes: Sequence[str]) -> NDArray[np.float64]:
    """``table`` (L, C), whose entries must all be finite."""
    bad = np.argwhere(~np.isfinite(table))
    if len(bad):
        i, c = bad[0].tolist()
        raise ProblemError(
            f"{key} of layer {i} under {schemes[c]!r} is {table[i, c]}",
            "every entry must be a finite number",
        )
    return table


def _names(value: Any, key: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ProblemError(f"{key} is not a list of names", f"write {key} as a list of strings")
    return distinct(value, key)


def _table(
    value: Any, key: str, length: int | None, schemes: tuple[str, ...]
) -> NDArray[np.float64]:
    if not isinstance(value, list) or not value:
        raise ProblemError(f"{key} is not a list of rows", _FORM)
    if length is not None and len(value) != length:
        raise ProblemError(f"{key} has {len(value)} rows", f"loss has {length}")
    for i, row in enumerate(value):
        if not isinstance(row, list):
            raise ProblemError(f"row {i} of {key} is not a list", _FORM)
        if len(row) != len(schemes):
            raise ProblemError(
                f"row {i} of {key} has {len(row)} entries", f"there are {len(schemes)} schemes"
            )
        for c, entry in enumerate(row):
            if not _finite(entry):
                raise ProblemError(
                    f"{key} of layer {i} under {schemes[c]!r} is {json.dumps(entry)[:40]}",
                    "every entry must be a finite number",
                )
    return np.array(value, dtype=np.float64)


def _finite(entry: Any) -> bool:
    if isinstance(entry, bool) or not isinstance(entry, int | float):
        return False
    try:
        return math.isfinite(entry)
    except OverflowError:  # an integer beyond the doubles
        return False


def _tied(value: Any, layers: int) -> tuple[tuple[int, ...], ...]:
    if value is None:
        return ()
    help_ = f"write tied as lists of layer indices from 0 to {layers - 1}"
    if not isinstance(value, list) or not all(isinstance(pair, list) for pair in value):
        raise ProblemError("tied is not a list of lists", help_)
    for pair in value:
        for index in pair:
            if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < layers:
                raise ProblemError(f"tied names layer {json.dumps(index)[:40]}", help_)
    return closure(pair for pair in value if pair)
