"""A search killed with SIGKILL at random moments, and begun again with the same command.

    python -m benchmarks.kill > benchmarks/results/kill.json

JSON on standard output. The job is the command line's: ResNet-20, 6 schemes, 4 budgets, SQLite. It
is run once without a kill; then killed when a random number of rows has been written, and a random
moment later, ``--kills`` times, and run to its end. Triggers in the database note every attempt to
record a measurement, a finished batch, a metric of a trial or an answer.

    attempts   of the run without a kill, and of the killed one: equal when nothing is done twice
    twice      rows that were measured a second time although they had been recorded
    same       whether trials (allocations, costs, metrics) and answers are equal to the bit
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks.common import arguments, head, write
from benchmarks.watching import attempts, outcome, reached, watched

BUDGETS = ("2.5bpw", "3bpw", "3.5bpw", "4bpw")
STUDY = "resnet20"
PAUSE = 1.0  # seconds at most between the row that was waited for and the kill


def command(assets: Path, db: Path) -> list[str]:
    images = next((assets / "cifar10").glob("*.npz"))
    weights = next((assets / "cifar10_resnet20").glob("*.safetensors"))
    words = [
        "search", STUDY, "--db", db, "--task", "vision",
        "--model", f"{assets / 'archs.py'}:ResNetCIFAR", "--arguments", '{"depth": 20}',
        "--weights", weights, "--calibration", images, "--hold-back", "0",
        "--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225",
        "--schemes", "w2 w3 w4 w5 w6 w8",
    ]  # fmt: skip
    words += [word for budget in BUDGETS for word in ("--budget", budget)]
    return [sys.executable, "-c", "from bitfront.cli import main; main()", *map(str, words)]


def killed(run: list[str], db: Path, count: int, pause: float) -> bool:
    """Run the job, kill it ``pause`` seconds after ``count`` attempts; whether it was killed."""
    process = subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    reached(db, count, lambda: process.poll() is None)
    time.sleep(pause)
    if process.poll() is None:
        os.kill(process.pid, signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="bitfront-") as folder:
        whole, cut = Path(folder, "whole.db"), Path(folder, "killed.db")
        for db in (whole, cut):
            watched(db)
        began = time.monotonic()
        subprocess.run(command(options.assets, whole), check=True, capture_output=True)
        seconds = time.monotonic() - began
        planned = attempts(whole)
        moments = sorted(rng.sample(range(len(planned)), options.kills))
        run = command(options.assets, cut)
        kills = sum(killed(run, cut, m, rng.uniform(0, PAUSE)) for m in moments)
        subprocess.run(run, check=True, capture_output=True)
        done = Counter(attempts(cut))
        write(
            {
                **head(),
                "kills": kills,
                "seconds_without_a_kill": seconds,
                "kinds": dict(Counter(kind for kind, _ in planned)),
                "attempts": {"without": len(planned), "killed": sum(done.values())},
                "twice": sum(n - 1 for n in done.values()),
                "same": outcome(cut, STUDY) == outcome(whole, STUDY),
            }
        )


if __name__ == "__main__":
    main()
