"""Allocation problems in files: JSON, NumPy's .npz, Parquet.

    {"schemes": ["int4", "int8"],              names, C of them
     "loss": [[0.46, 0.0016], ...],            layers × schemes, L × C
     "costs": {"size": [[0.017, 0.035], ...]}, resource -> L × C
     "tied": [[14, 16], ...],                  optional: layers (from 0) that share a scheme
     "layers": ["conv1", ...],                 optional: names, else layer0, layer1, ...
     "classes": {"attn": [0, 1], ...}}         optional: layers (from 0) that may be limited apart,
                                               as the resource size[attn]

Other keys are ignored. Scheme names need not be in Bitfront's grammar. ``problem_arrays`` and
``problem_parquet`` say how the same stands in the other two.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitfront.budget import of_class
from bitfront.errors import ProblemError
from bitfront.types import Problem, closure

_FORM = "give a JSON object with schemes, loss (layers × schemes) and costs (name -> the same)"


def read_problem(
    path: str | Path,
    limits: Mapping[str, float] | None = None,
    floors: Mapping[str, float] | None = None,
) -> Problem:
    """The problem in the file ``path``, under ``limits`` and ``floors``.

    These are resource -> greatest and least total; ``size[attn]`` is the size of class ``attn``. A
    name that ends in ``.npz`` or ``.parquet`` is read as such, any other as JSON. Raises
    ``ProblemError`` for a file that cannot be read or does not hold a problem, ``InvalidInput`` for
    Parquet without pyarrow.
    """
    from .problem_arrays import read_arrays
    from .problem_parquet import read_parquet

    readers = {".npz": read_arrays, ".parquet": read_parquet}
    read = readers.get(Path(path).suffix.lower(), _read_json)
    try:
        return read(Path(path), limits or {}, floors or {})
    except OSError as error:
        why = error.strerror or str(error)
        raise ProblemError(f"cannot read {str(path)!r} ({why})", "check the path") from None
    except ProblemError as error:
        raise ProblemError(f"{str(path)!r}: {error.what}", error.remedy) from None


def _read_json(path: Path, limits: Mapping[str, float], floors: Mapping[str, float]) -> Problem:
    try:
        return parse_problem(json.loads(path.read_text(encoding="utf-8")), limits, floors)
    except UnicodeDecodeError:
        raise ProblemError("not a text file", _FORM) from None
    except (json.JSONDecodeError, RecursionError) as error:
        raise ProblemError(f"not JSON ({error})", _FORM) from None


def parse_problem(
    data: Any, limits: Mapping[str, float], floors: Mapping[str, float] = MappingProxyType({})
) -> Problem:
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
    tied = _tied(data.get("tied"), len(loss))
    costs |= _of_classes(costs, data.get("classes"), len(loss), {**limits, **floors})
    return assembled(layers, schemes, loss, costs, tied, limits, floors)


def assembled(
    layers: Sequence[str] | None,
    schemes: Sequence[str],
    loss: NDArray[np.float64],
    costs: Mapping[str, NDArray[np.float64]],
    tied: tuple[tuple[int, ...], ...],
    limits: Mapping[str, float],
    floors: Mapping[str, float],
) -> Problem:
    """The problem of checked tables; layers without names get numbers."""
    if layers is None:
        layers = [f"layer{i}" for i in range(len(loss))]
    if len(layers) != len(loss):
        raise ProblemError(f"{len(layers)} layers are named", f"loss has {len(loss)} rows")
    return Problem(
        tuple(layers), tuple(schemes), loss, costs, dict(limits), groups=tied, floors=dict(floors)
    )


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


def _of_classes(
    costs: Mapping[str, NDArray[np.float64]], classes: Any, layers: int, wanted: Iterable[str]
) -> dict[str, NDArray[np.float64]]:
    """The tables of ``wanted`` resources that are a class's, like ``size[attn]``."""
    if classes is None:
        classes = {}
    if not isinstance(classes, dict):
        raise ProblemError("classes are not an object", "write name -> list of layer indices")
    members = {name: _indices(value, f"class {name!r}", layers) for name, value in classes.items()}
    return {
        of_class(resource, name): np.where(np.isin(np.arange(layers), inside)[:, None], table, 0.0)
        for resource, table in costs.items()
        for name, inside in members.items()
        if of_class(resource, name) in wanted
    }


def _indices(value: Any, key: str, layers: int) -> list[int]:
    good = isinstance(value, list) and all(
        isinstance(i, int) and not isinstance(i, bool) and 0 <= i < layers for i in value
    )
    if not good or not value:
        raise ProblemError(
            f"{key} is {json.dumps(value)[:40]}", f"list layer indices from 0 to {layers - 1}"
        )
    return list(value)


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
