"""``bitfront serve`` as a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def served(
    folder: Path, *words: str, token: str | None = None
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Its address, and the process; what it logs goes to ``log``."""
    code = "from bitfront.cli import main; main()"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("BITFRONT_TOKEN", None)
    if token is not None:
        environment["BITFRONT_TOKEN"] = token
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", code, "serve", "--port", "0", "--db", str(folder / "b.db"),
             *words],
            stdout=subprocess.PIPE, stderr=log, text=True, env=environment,
        )  # fmt: skip
    assert process.stdout is not None
    with process.stdout:
        line = process.stdout.readline()
        match = re.fullmatch(r"serving on (http://\S+)\n", line)
        assert match, (folder / "log").read_text()
        try:
            yield match[1], process
        finally:
            process.terminate()  # so that its worker ends too
            process.wait(60.0)
