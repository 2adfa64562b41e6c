"""Running the command line inside the test's own process: torch is loaded once."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bitfront.cli import main


@dataclass(frozen=True)
class Done:
    """Exit code, and what was printed."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on standard output."""
        return json.loads(self.out)


class Commands:
    """``bitfront WORDS...`` with a database of its own."""

    def __init__(self, db: Path | str, capture: pytest.CaptureFixture[str]) -> None:
        self.db = str(db)
        self._capture = capture

    def __call__(self, *words: object) -> Done:
        self._capture.readouterr()
        with _restored():
            os.environ["BITFRONT_DB"] = self.db
            try:
                main([str(word) for word in words])
            except SystemExit as end:
                code = end.code
        out, err = self._capture.readouterr()
        assert isinstance(code, int)
        return Done(code, out, err)

    def ok(self, *words: object) -> Done:
        """The same, for a command that must succeed."""
        done = self(*words)
        assert done.code == 0, done.err
        return done

    def refused(self, *words: object) -> str:
        """The one line with which a command must be refused."""
        done = self(*words)
        lines = [line for line in done.err.splitlines() if line.startswith("error:")]
        assert done.code == 2, (done.code, done.err)
        assert done.out == ""
        assert len(lines) == 1, done.err
        assert "Traceback" not in done.err
        assert "a bug" not in lines[0]
        return lines[0]


@contextlib.contextmanager
def _restored() -> Iterator[None]:
    hook, environment = sys.excepthook, dict(os.environ)
    try:
        with warnings.catch_warnings():
            yield
    finally:
        sys.excepthook = hook
        os.environ.clear()
        os.environ.update(environment)
