"""What commands print: one JSON document, or tables for people; all else goes to standard error."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer

from bitfront.documents import plain
from bitfront.errors import InvalidInput

STDOUT = "standard output"  # as errors name it
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]


def emit(value: Any) -> None:
    """``value`` as one JSON document on standard output; nan and inf, which JSON lacks, as null."""
    with naming(STDOUT):
        print(json.dumps(plain(value), allow_nan=False, ensure_ascii=False))


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str = "") -> None:
    """A table on standard output; numbers to the right, floats to six digits."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    cells = [list(row) for row in rows]
    grid = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD)
    for i, name in enumerate(columns):
        numeric = all(isinstance(row[i], int | float) or row[i] is None for row in cells)
        grid.add_column(Text(name), justify="right" if numeric and cells else "left")
    for row in cells:
        grid.add_row(*(Text(word(cell)) for cell in row))
    console = Console()
    if not console.is_terminal:  # a file or a pipe has no width to fold to
        console = Console(width=10_000)
    with naming(STDOUT):
        console.print(grid)


def word(value: Any) -> str:
    """One cell: floats to six digits, a dash for what is unknown."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def check_file(option: str, path: Path | None) -> None:
    """Raises ``InvalidInput`` for a file that cannot be written; to ask before the work is done."""
    if path is None:
        return
    if path.is_dir():
        raise InvalidInput(f"{option} {str(path)!r} is a folder", "name a file in it")
    if not path.parent.is_dir():
        raise InvalidInput(f"{option} {str(path)!r}: no folder {str(path.parent)!r}", "create it")


def write_file(path: Path, text: str) -> None:
    """Write ``text``; the file is there whole or not at all. Raises ``OSError`` that names it."""
    from bitfront.files import write_text

    with naming(path):
        write_text(path, text)


@contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """Let an ``OSError`` of the block name ``path``, not the temporary file beside it, or none."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def quiet_stdout() -> Iterator[None]:
    """Send to standard error whatever is printed inside, by Python or by a library in C."""
    sys.stdout.flush()
    try:
        saved = os.dup(1)
    except OSError:  # standard output is closed: nothing can be printed there
        yield
        return
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)
