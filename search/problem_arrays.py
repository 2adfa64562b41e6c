"""Allocation problems as NumPy arrays, in .npz files. Never pickles.

schemes     (C,) text
loss        (L, C) numbers
cost_NAME   (L, C) numbers, of the resource NAME; costs/NAME means the same
tied        (N, 2) integers, optional: pairs of layers (from 0) that share a scheme
group       (L,) integers, optional: layers with the same number share a scheme; -1 is no group
layers      (L,) text, optional: names, else layer0, layer1, ...
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitfront.errors import ProblemError
from bitfront.files import replacing
from bitfront.types import Problem, closure

from .problem_file import assembled, distinct, finite

_FORM = "save schemes (text), loss (layers × schemes) and cost_NAME (the same) with numpy.savez"
_PREFIXES = ("cost_", "costs/")


def read_arrays(
    path: Path, limits: Mapping[str, float], floors: Mapping[str, float] = MappingProxyType({})
) -> Problem:
    """The problem in the .npz file ``path``. Raises ``ProblemError``, and ``OSError``."""
    try:
        with path.open("rb") as file:
            data = np.load(file, allow_pickle=False)
            if isinstance(data, np.ndarray):
                raise ProblemError("one array instead of an archive", _FORM)
            names = [n for n in data.files if n in _KNOWN or n.startswith(_PREFIXES)]
            arrays = {name: data[name] for name in names}
    except ProblemError:
        raise
    except (ValueError, EOFError, zipfile.BadZipFile, KeyError):
        raise ProblemError("not an .npz file of plain arrays", _FORM) from None
    for key in ("schemes", "loss"):
        if key not in arrays:
            raise ProblemError(f"{key!r} is missing", _FORM)
    schemes = distinct(_text(arrays["schemes"], "schemes"), "schemes")
    loss = _table(arrays["loss"], "loss", schemes)
    costs = {}
    for key, array in arrays.items():
        name = next((key.removeprefix(p) for p in _PREFIXES if key.startswith(p)), None)
        if name is None:
            continue
        if name in costs:
            raise ProblemError(f"two tables of {name}", "keep one of " + " and ".join(_PREFIXES))
        costs[name] = _table(array, f"costs of {name}", schemes)
        if len(costs[name]) != len(loss):
            raise ProblemError(
                f"costs of {name} has {len(costs[name])} rows", f"loss has {len(loss)}"
            )
    layers = None
    if "layers" in arrays:
        layers = distinct(_text(arrays["layers"], "layers"), "layers")
    return assembled(layers, schemes, loss, costs, _groups(arrays, len(loss)), limits, floors)


_KNOWN = ("schemes", "loss", "tied", "group", "layers")


def write_arrays(problem: Problem, path: Path) -> None:
    """``problem``, without its limits, as ``read_arrays`` reads it, in the file ``path``.

    Raises ``ProblemError`` where schemes are barred or costs fixed, which the form cannot say, and
    ``OSError`` as the file system does; ``path`` is then as it was.
    """
    if not problem.allowed.all() or any(problem.fixed.values()):
        raise ProblemError(
            "a problem with barred schemes or fixed costs", "leave them out to write it"
        )
    group = np.full(len(problem.layers), -1)
    for number, members in enumerate(problem.groups):
        group[list(members)] = number
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez(
            file,
            schemes=np.array(problem.schemes),
            layers=np.array(problem.layers),
            loss=problem.loss,
            group=group,
            **{f"cost_{name}": table for name, table in problem.costs.items()},  # type: ignore[arg-type]
        )


def grouped(numbers: Sequence[Any], none: Any) -> tuple[tuple[int, ...], ...]:
    """The layers of each group, from the group of each layer; ``none`` is in no group."""
    groups: dict[Any, list[int]] = {}
    for layer, number in enumerate(numbers):
        if number != none:
            groups.setdefault(number, []).append(layer)
    return closure(group for group in groups.values() if len(group) > 1)


def _text(array: NDArray[Any], key: str) -> list[str]:
    if array.ndim != 1 or array.dtype.kind != "U":
        raise ProblemError(
            f"{key} is an array of {array.dtype} with shape {array.shape}",
            f"write {key} as one row of text",
        )
    return [str(name) for name in array]


def _table(array: NDArray[Any], key: str, schemes: Sequence[str]) -> NDArray[np.float64]:
    if array.dtype.kind not in "iuf":
        raise ProblemError(f"{key} is an array of {array.dtype}", "give numbers")
    if array.ndim != 2 or array.shape[1] != len(schemes) or not len(array):
        raise ProblemError(
            f"{key} has shape {array.shape}", f"give a row of {len(schemes)} schemes for each layer"
        )
    return finite(array.astype(np.float64, copy=False), key, schemes)


def _groups(arrays: Mapping[str, NDArray[Any]], layers: int) -> tuple[tuple[int, ...], ...]:
    if "tied" in arrays and "group" in arrays:
        raise ProblemError("both tied and group", "keep one of them")
    if "group" in arrays:
        group = arrays["group"]
        if group.dtype.kind not in "iu" or group.shape != (layers,):
            raise ProblemError(
                f"group is an array of {group.dtype} with shape {group.shape}",
                f"give one integer for each of {layers} layers, -1 for no group",
            )
        return grouped(group.tolist(), -1)
    tied = arrays.get("tied", np.zeros((0, 2), dtype=int))
    if tied.dtype.kind not in "iu" or tied.ndim != 2:
        raise ProblemError(
            f"tied is an array of {tied.dtype} with shape {tied.shape}",
            "give pairs of layer indices",
        )
    outside = tied[(tied < 0) | (tied >= layers)]
    if len(outside):
        raise ProblemError(
            f"tied names layer {outside[0]}", f"give layer indices from 0 to {layers - 1}"
        )
    return closure(tied.tolist())
