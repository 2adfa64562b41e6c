"""A file that scores are imported from, read once and as far as it is needed."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

from bitfront.errors import InvalidInput

ZIP = b"PK\x03\x04"  # what torch.save writes
LOOK = 4096  # bytes that tell text from other files


class Source:
    """The file at ``path``. Raises ``InvalidInput`` where it cannot be read."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            with self.path.open("rb") as file:
                self._head = file.read(LOOK)
        except OSError as error:
            raise self._unreadable(error) from None
        if not self._head:
            raise InvalidInput(f"{str(self.path)!r} is empty", "give a file of scores")

    @property
    def zipped(self) -> bool:
        """Whether it is an archive, as ``torch.save`` writes."""
        return self._head.startswith(ZIP)

    @cached_property
    def text(self) -> str | None:
        """All of it; None where it is no text."""
        if self.zipped or b"\0" in self._head:
            return None
        try:
            return self.path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            return None
        except OSError as error:
            raise self._unreadable(error) from None

    @cached_property
    def looks_like_json(self) -> bool:
        """Whether it begins as a JSON object or array does."""
        return self.text is not None and self.text.lstrip()[:1] in ("{", "[")

    @cached_property
    def json(self) -> Any:
        """Its JSON value. Raises ``InvalidInput`` for what is none, and for a key given twice."""
        if self.text is None:
            raise InvalidInput("it is no text", "give the JSON file")
        try:
            return json.loads(self.text, object_pairs_hook=_once)
        except (ValueError, RecursionError) as error:
            if isinstance(error, InvalidInput):
                raise
            raise InvalidInput(
                f"it is not JSON ({error})", "give the file as it was written"
            ) from None

    def _unreadable(self, error: OSError) -> InvalidInput:
        why = error.strerror or str(error)
        return InvalidInput(f"cannot read {str(self.path)!r} ({why})", "check the path")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found and found[key] != value:
            raise InvalidInput(f"{key!r} stands twice in one object", "leave one of the two")
        found[key] = value
    return found
