"""What the benchmarks share: where they ran, where data lies, how results are written."""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import math
import os
import platform
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bitfront import Answer, Study
    from bitfront.tasks import Task

ROOT = Path(__file__).resolve().parents[1]
ASSETS = Path(os.environ.get("BITFRONT_ASSETS") or ROOT.parent / "shared" / "assets")
ROOMS = ("bitfront", "search", "sensitivity", "quant", "storage")


def arguments(doc: str | None) -> argparse.ArgumentParser:
    """A parser with ``--assets``; ``doc`` is the script's docstring."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--assets", type=Path, default=ASSETS, help="models and data")
    return parser


def parsed(parser: argparse.ArgumentParser, threads: int | None = None) -> argparse.Namespace:
    """The command line, with ``--threads`` (default ``threads``, else torch's), which are set.

    Where other programs are at work one thread is often faster than two that wait for each other.
    """
    import torch

    threads = torch.get_num_threads() if threads is None else threads
    parser.add_argument("--threads", type=int, default=threads)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    return options


def commit() -> str:
    """The commit that ran, with a ``+`` when the library's files differ from it."""

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=ROOT, capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--", *ROOMS)
    return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")


def head() -> dict[str, str]:
    """The first keys of a report on something that torch computes."""
    import torch

    return {
        "commit": commit(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, "
        f"Python {platform.python_version()}, torch {version('torch')}",
    }


def write(report: Mapping[str, Any]) -> None:
    """The JSON on standard output, numbers to six digits, nan and infinities as null."""
    json.dump(plain(report), sys.stdout, indent=1, allow_nan=False)
    print()


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A Markdown table on standard error, numbers to three digits, None as an empty cell."""
    lines = [title, "", _row(columns), _row(["---"] * len(columns))]
    print("\n".join([*lines, *(_row([_cell(v) for v in row]) for row in rows)]), file=sys.stderr)
    print(file=sys.stderr)


def origin(answer: Answer) -> dict[str, Any]:
    """How a search came by an answer."""
    return {
        "predicted": answer.predicted,
        "table": answer.table,
        "unverified": answer.unverified,
        "evaluations": answer.evaluations,
    }


def peak_memory() -> int:
    """The greatest memory of this process so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def memory_above(work: Callable[[], float]) -> tuple[float, int]:
    """What ``work`` gives, and how far the process's memory rose above what it was, in bytes.

    Of Linux: free memory is given back and the peak forgotten first, so that what came before does
    not hide it.
    """
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak (man 5 proc)
    before = _status("VmRSS")
    found = work()
    return found, _status("VmHWM") - before


def _status(field: str) -> int:
    """A figure of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])


@contextmanager
def fresh_study(task: Task) -> Iterator[Study]:
    """A study of ``task`` in a new database, which is gone afterwards."""
    import bitfront

    with (
        tempfile.TemporaryDirectory(prefix="bitfront-") as folder,
        bitfront.open_study("benchmark", task, Path(folder) / "study.db") as study,
    ):
        yield study


def plain(value: Any) -> Any:
    """As JSON takes it: numbers to six digits, nan and infinities as null."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
