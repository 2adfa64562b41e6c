"""Arrays and JSON values as the database holds them, and back. Nothing here ever unpickles."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitfront.errors import InvalidInput, StorageError

_DAMAGED = "the database is damaged here: restore it from a copy"


def pack(array: NDArray[Any], what: str) -> bytes:
    """``array`` as ``.npy`` bytes. Raises ``InvalidInput`` for an array of objects."""
    buffer = io.BytesIO()
    np.save(buffer, _plain_array(array, what), allow_pickle=False)
    return buffer.getvalue()


def unpack(data: bytes, what: str) -> NDArray[Any]:
    """The read-only array in ``.npy`` bytes. Raises ``StorageError`` if they are damaged."""
    try:
        array: NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise StorageError(f"cannot read {what}", _DAMAGED) from error
    array.setflags(write=False)
    return array


def pack_many(arrays: Mapping[str, NDArray[Any]], what: str) -> bytes:
    """Named arrays as ``.npz`` bytes, which equal arrays have the same of at any time: they are
    known by them. Raises ``InvalidInput`` for an array of objects."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy")  # of 1980, not of now
            archive.writestr(entry, pack(array, f"{name!r} of {what}"))
    return buffer.getvalue()


def unpack_many(data: bytes, what: str) -> dict[str, NDArray[Any]]:
    """The named arrays in ``.npz`` bytes. Raises ``StorageError`` if they are damaged."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = {name.removesuffix(".npy"): archive.read(name) for name in archive.namelist()}
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise StorageError(f"cannot read {what}", _DAMAGED) from error
    return {name: unpack(entry, f"{name!r} of {what}") for name, entry in entries.items()}


def plain(value: Mapping[str, Any], what: str) -> dict[str, Any]:
    """``value`` as JSON gives it back. Raises ``InvalidInput`` for what JSON cannot hold."""
    try:
        copy: dict[str, Any] = json.loads(json.dumps(dict(value), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InvalidInput(
            f"{what} cannot be recorded ({error})",
            "use text, finite numbers, true, false, null, lists and mappings of these",
        ) from None
    return copy


def _plain_array(array: NDArray[Any], what: str) -> NDArray[Any]:
    array = np.asarray(array)
    if array.dtype.hasobject:
        raise InvalidInput(f"{what} is an array of objects", "record arrays of numbers")
    return array
