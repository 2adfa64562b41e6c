"""Jobs that survive: workers killed at random moments, workers side by side, a database that stops.

    python -m benchmarks.chaos --db sqlite postgresql --postgres URL > benchmarks/results/chaos.json

JSON on standard output. The job is a search of a small network on digits: 3 layers, 3 schemes, a
budget, 9000 calibration images, so that arrays go to the artifact folder, for good (a score for
each image) and for a while (a batch). Workers are processes forked from one that has loaded all.

    kills     on each database ``--runs`` jobs, each in a database of its own: its worker is killed
              (SIGKILL) at a random moment of the time that the job takes, another one ends it once
              the lease has run out. Compared with a run that was not disturbed: trials
              (allocations, costs, metrics) and answers, to the bit; every attempt to record a unit,
              as triggers in the database note it; and after ``collect`` the files of the artifact
              folder with the rows that refer to them, where a partial file counts as old
    workers   on each database ten jobs, and two workers at once
    outage    a PostgreSQL server of its own, stopped for ``--outage`` seconds in mid-job
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import select

from benchmarks.common import arguments, head, write
from benchmarks.servers import fresh_database, own_server
from benchmarks.watching import attempts, outcome, watched
from bitfront.files import PARTIAL
from bitfront.storage import Store
from bitfront.storage.artifacts import referring
from bitfront.storage.models import ArtifactRow

LEASE = 0.6  # seconds
STUDY = "digits"
JOBS = 10
PARTS = ("kills", "workers", "outage")
NETWORK = """
from torch import nn


def network():
    return nn.Sequential(
        nn.Flatten(), nn.Linear(49, 24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 10)
    )
"""


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--db", nargs="+", choices=("sqlite", "postgresql"), default=["sqlite"])
    parser.add_argument("--postgres", metavar="URL", help="the server of --db postgresql")
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--outage", type=float, default=20.0, help="seconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    options = parser.parse_args()
    if "postgresql" in options.db and not options.postgres:
        parser.error("--db postgresql needs --postgres URL")
    report: dict[str, Any] = {**head(), "seed": options.seed}
    with tempfile.TemporaryDirectory(prefix="bitfront-") as folder:
        task = prepared(options.assets, Path(folder))
        servers = [None if db == "sqlite" else options.postgres for db in options.db]
        if "kills" in options.parts:
            report["kills"] = {named(s): kills(s, task, options) for s in servers}
        if "workers" in options.parts:
            report["workers"] = {named(s): side_by_side(s, task) for s in servers}
        if "outage" in options.parts:
            report["outage"] = [
                outage(task, mode, options.outage) for mode in ("fast", "immediate")
            ]
    write(report)


def named(server: str | None) -> str:
    return "postgresql" if server else "sqlite"


def prepared(assets: Path, folder: Path) -> dict[str, Any]:
    """The task: a network that has learnt a little, and digits, in files of ``folder``."""
    (folder / "network.py").write_text(NETWORK)
    done = forked(lambda: learn(assets, folder), folder / "learning.log")
    if ended(done) != 0:
        raise RuntimeError((folder / "learning.log").read_text())
    return {
        "kind": "vision",
        "arguments": {
            "model": f"{folder / 'network.py'}:network",
            "weights": str(folder / "network.safetensors"),
            "calibration": str(folder / "digits.npz"),
            "samples": 9000, "batch": 3000, "hold_back": 0.0,
        },
    }  # fmt: skip


def learn(assets: Path, folder: Path) -> None:
    import numpy as np
    import torch
    from safetensors.torch import save_file

    from bitfront.tasks.boundary import function_at

    with np.load(next((assets / "mnist").glob("*.npz"))) as digits:
        x, y = digits["x"], digits["y"]
    x = x.reshape(-1, 7, 4, 7, 4).mean((2, 4)).astype(np.uint8)[..., None]  # (N, 7, 7, 1)
    np.savez(
        folder / "digits.npz", x_train=x[:9000], y_train=y[:9000], x_test=x[9000:], y_test=y[9000:]
    )
    torch.manual_seed(0)
    network = function_at(f"{folder / 'network.py'}:network")()
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    images, labels = torch.tensor(x[:9000]).permute(0, 3, 1, 2) / 255, torch.tensor(y[:9000]).long()
    for part in torch.randperm(9000).split(100):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(images[part]), labels[part]).backward()
        optimizer.step()
    save_file(network.state_dict(), folder / "network.safetensors")


# what is shown


def kills(server: str | None, task: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """A worker killed at a random moment, once a run; what differs from a run without."""
    whole = undisturbed(server, task)
    rng = random.Random(options.seed)
    runs = []
    for _ in range(options.runs):
        moment = rng.uniform(0.0, whole["seconds"])
        with places(server) as (db, folder):
            watched(db)
            job = submit(db, task)
            first = worker(db, folder, "first")
            time.sleep(moment)
            os.kill(first, signal.SIGKILL)
            killed = ended(first) == -signal.SIGKILL
            time.sleep(1.1 * LEASE)
            second = ended(worker(db, folder, "second"))
            done = attempts(db)
            run = {
                "killed": killed,
                "lost": history(db, job).count("lost"),
                "identical": second == 0 and outcome(db, STUDY) == whole["outcome"],
                "twice": len(done) - len(set(done)),
                "same units": Counter(done) == whole["units"],
                **strays(db),
            }
            print(f"{named(server)}, killed after {moment:.2f} s: {run}", file=sys.stderr)
            runs.append(run)
    return {
        "seconds without a kill": whole["seconds"],
        "units": dict(Counter(kind for kind, _ in whole["units"].elements())),
        "runs": len(runs),
        **{key: sum(run[key] for run in runs) for key in runs[0]},
    }


def undisturbed(server: str | None, task: dict[str, Any]) -> dict[str, Any]:
    """The job without a kill: its seconds, every attempt to record a unit, what came of it."""
    load()
    with places(server) as (db, folder):
        watched(db)
        submit(db, task)
        began = time.monotonic()
        if ended(worker(db, folder, "calm")) != 0:
            raise RuntimeError((folder / "calm.log").read_text())
        seconds = time.monotonic() - began
        return {
            "seconds": seconds, "units": Counter(attempts(db)), "outcome": outcome(db, STUDY),
            **strays(db),
        }  # fmt: skip


def side_by_side(server: str | None, task: dict[str, Any]) -> dict[str, Any]:
    """Ten jobs on studies of their own, two workers: how often each job was claimed, by whom."""
    units = undisturbed(server, task)["units"]
    with places(server) as (db, folder):
        watched(db)
        jobs = [submit(db, task, f"{STUDY} {number}") for number in range(JOBS)]
        working = [worker(db, folder, name, 30.0) for name in ("one", "two")]
        codes = [ended(child) for child in working]
        with Store.open(db) as store:
            events = [store.events(job) for job in jobs]
        claims = [[e.details["worker"] for e in of if e.kind == "claimed"] for of in events]
        done = Counter(attempts(db))
        return {
            "jobs": len(jobs),
            "ended": codes,
            "succeeded": sum(of[-1].kind == "succeeded" for of in events),
            "claimed once": sum(len(names) == 1 for names in claims),
            "by": dict(Counter(name for names in claims for name in names)),
            "units twice": sum(n - JOBS for n in done.values()),
            "same units": done == Counter({key: JOBS * n for key, n in units.items()}),
        }


def outage(task: dict[str, Any], mode: str, seconds: float) -> dict[str, Any]:
    """A server stopped in mid-job and started again; what becomes of the job."""
    with own_server() as server:
        whole = undisturbed(server.url, task)
        with places(server.url) as (db, folder):
            watched(db)
            job = submit(db, task)
            working = worker(db, folder, "one", 5.0, idle=True)
            time.sleep(0.4 * whole["seconds"])
            before = len(attempts(db))
            server.stop(mode)
            time.sleep(seconds)
            server.start()
            began = time.monotonic()
            while not (kinds := history(db, job)) or kinds[-1] not in ("succeeded", "failed"):
                time.sleep(0.05)
            after = time.monotonic() - began
            os.kill(working, signal.SIGTERM)
            done = attempts(db)
            return {
                "mode": mode,
                "seconds without": whole["seconds"],
                "stopped for": seconds,
                "units before": before,
                "units": len(done),
                "history": kinds,
                "ended": ended(working),
                "seconds after": after,
                "identical": outcome(db, STUDY) == whole["outcome"],
                "twice": len(done) - len(set(done)),
                **strays(db),
            }


def strays(db: str) -> dict[str, int]:
    """After collecting: artifacts that are referred to, files without a reference, references
    without a file, rows without a reference."""
    with Store.open(db) as store:
        assert store.folder is not None
        folder = store.folder.path
        for partial in folder.rglob(f"*{PARTIAL}"):  # of a writer that is dead
            os.utime(partial, (0.0, 0.0))
        store.collect(grace=0.0)
        with store.reading() as connection:
            wanted = {
                hash
                for column in referring()
                for hash in connection.scalars(select(column).where(column.is_not(None)))
            }
            rows = set(connection.scalars(select(ArtifactRow.hash)))
        files = {path.name for path in folder.rglob("*") if path.is_file()}
    return {
        "artifacts": len(wanted), "orphans": len(files - wanted), "missing": len(wanted - files),
        "unused rows": len(rows - wanted),
    }  # fmt: skip


# databases and workers


@contextmanager
def places(server: str | None) -> Iterator[tuple[str, Path]]:
    """A new database, with a folder of its own for artifacts and logs."""
    with tempfile.TemporaryDirectory(prefix="bitfront-") as folder:
        if server is None:
            yield str(Path(folder, "b.db")), Path(folder)
            return
        os.environ["BITFRONT_ARTIFACTS"] = str(Path(folder, "artifacts"))
        with fresh_database(server) as url:
            yield url, Path(folder)


def forked(work: Callable[[], Any], log: Path) -> int:
    """The number of a process that does ``work``; what it says goes to ``log``."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        with log.open("ab") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        work()
        code = 0
    finally:
        if code:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(child: int) -> int:
    """Wait for a process; its exit code, or the number of the signal that ended it, negated."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def worker(db: str, folder: Path, name: str, lease: float = LEASE, *, idle: bool = False) -> int:
    """A worker as a process, which ends when no job waits. idle: by SIGTERM only."""

    def work() -> None:
        import torch

        from bitfront.service.worker import Worker

        torch.set_num_threads(1)
        working = Worker(db, name, lease)
        signal.signal(signal.SIGTERM, lambda *_: working.stop())
        working.run(idle=idle)

    return forked(work, folder / f"{name}.log")


def load() -> None:
    """Import everything that a worker does, before it is forked."""
    import torch.fx.experimental.symbolic_shapes  # noqa: F401 (by the first backward pass)

    import bitfront.searching
    import bitfront.service.worker
    import bitfront.smallest  # noqa: F401


def submit(db: str, task: dict[str, Any], study: str = STUDY) -> int:
    request = {"task": task, "schemes": "w2 w4 w8", "budgets": ["4bpw"], "explore": 2}
    with Store.open(db) as store:
        return store.submit("search", study, request)[0].id


def history(db: str, job: int) -> list[str]:
    """What became of a job: its events, without the stages of its work."""
    with Store.open(db) as store:
        return [event.kind for event in store.events(job) if event.kind != "stage"]


if __name__ == "__main__":
    main()
