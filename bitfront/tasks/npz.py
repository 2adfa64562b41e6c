"""Arrays from ``.npz`` files. No object in them is ever unpickled."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitfront.errors import DataError

from .boundary import foreign


class Arrays:
    """An open file: its ``keys``, and each array read when it is asked for."""

    def __init__(self, name: str, file: Any) -> None:
        self.name, self._file = name, file
        self.keys: tuple[str, ...] = tuple(file.files)

    def __getitem__(self, key: str) -> NDArray[Any]:
        with foreign(f"reading {key!r} of {self.name}", "copy or save it again", DataError):
            try:
                found = self._file[key]
            except ValueError as error:
                if "allow_pickle" not in str(error):
                    raise
                raise DataError(
                    f"{key!r} of {self.name} holds Python objects, not numbers",
                    "save arrays of one numeric dtype",
                ) from error
        if not isinstance(found, np.ndarray):
            raise DataError(f"{key!r} of {self.name} is no array", "save it with numpy.savez")
        return found


@contextmanager
def opened(path: Path) -> Iterator[Arrays]:
    """The arrays in ``path``. Raises ``DataError`` for a file of another kind, or damaged."""
    if not zipfile.is_zipfile(path):
        raise DataError(
            f"{path.name} is not an .npz file, or damaged",
            "save it with numpy.savez, or copy it again",
        )
    with foreign(f"reading {path.name}", "copy or save it again", DataError):
        file = np.load(path, allow_pickle=False)
    with file:
        yield Arrays(path.name, file)
