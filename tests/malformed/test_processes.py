"""Processes without an output, with a bug, and interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.commands import Commands
from tests.malformed.cases import (
    FULL,
    MODULE,
    ROOT,
    search,
    trials,
    written,
)


def started(*words: object, db: str, **options: Any) -> subprocess.Popen[str]:
    """``bitfront WORDS`` as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", "from bitfront.cli import main; main()", *map(str, words)],
        cwd=ROOT, env={**os.environ, "BITFRONT_DB": db}, text=True,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
    )  # fmt: skip


def test_standard_output_on_a_full_disk(begun: Commands) -> None:
    with open("/dev/full", "w") as full, started("front", "m", db=begun.db, stdout=full) as process:
        _, error = process.communicate()
    line = f"error: standard output: No space left on device: {FULL}\n"
    assert (process.returncode, error) == (2, line)


def test_no_standard_output_at_all(begun: Commands) -> None:
    def close() -> None:
        os.close(1)

    with started("front", "m", db=begun.db, stdout=None, preexec_fn=close) as process:
        _, error = process.communicate()
    assert (process.returncode, error) == (0, "")


def test_a_bug_is_one_line_whatever_typer_does(begun: Commands) -> None:
    code = (
        "import bitfront.queries as q; q.studies = lambda db: {}['missing']\n"
        "from bitfront.cli import main; main(['studies'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    line = "error: unexpected KeyError: 'missing' (a bug; BITFRONT_DEBUG=1 shows where)\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", line)


SLOW = """
import time
from pathlib import Path

from bring import Net, task as quick

HERE = Path(__file__).parent

class Slow(Net):
    calls = 0

    def forward(self, x):
        Slow.calls += 1
        if (HERE / "slow").exists():
            time.sleep(0.1)
            if Slow.calls == 5:  # two to look at the model, then batches of the profile
                (HERE / "begun").touch()
        return super().forward(x)

def f():
    made = quick()
    model = Slow()
    model.load_state_dict(made["model"].state_dict())
    made["model"], made["calibration"] = model, made["calibration"] * 10
    return made
"""


def test_an_interrupted_search_goes_on_later(bitfront: Commands, folder: Path) -> None:
    words = search(MODULE, written("mine.py", SLOW), function="@/mine.py:f")(folder)
    (folder / "slow").touch()
    with started(*words, db=bitfront.db) as process:
        while not (folder / "begun").exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=60)
    assert (process.returncode, out, error) == (130, "", "error: interrupted\n")
    assert trials(bitfront) == {"s": 0}
    (folder / "slow").unlink()
    bitfront.ok("search", "s", "--schemes", "w4 w8", "--budget", "6bpw")
    assert trials(bitfront)["s"] > 1
