"""A search killed outright at random moments, and run again until it is done.

The process under test is killed with SIGKILL. Triggers in the database note every attempt to
record something, those that find it recorded already too: a unit that was measured twice shows as
two attempts.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.watching import attempts, outcome, reached, watched
from bitfront.heldout import PARTIAL
from bitfront.storage import Store
from tests import tiny
from tests.small_tasks import many_images

SCHEMES, BUDGETS = "w2 w3 w4 w8", ("3bpw", "4bpw", "5bpw")
KILLS = {"refine": 8, "evolution": 4}  # benchmarks/kill.py has 20, of a larger job


def search(folder: str, db: str, explorer: str, ready: Any) -> None:
    """What runs in the process that is killed."""
    import torch

    import bitfront
    import bitfront.searching

    torch.set_num_threads(1)
    task = tiny.language_task(Path(folder)) if explorer == "refine" else many_images()
    ready.send(True)
    with bitfront.open_study("s", task, db) as study:
        bitfront.search(study, SCHEMES, BUDGETS, explorer=explorer)


class Search:
    """The search in a process of its own, which has loaded everything and begins to work."""

    def __init__(self, folder: Path, db: Path, explorer: str) -> None:
        context = multiprocessing.get_context("forkserver")  # loads torch once, for all
        context.set_forkserver_preload(["torch", "transformers", "bitfront.searching"])
        receiver, sender = context.Pipe(duplex=False)
        args = str(folder), str(db), explorer, sender
        self.process = context.Process(target=search, args=args)
        self.process.start()
        sender.close()
        receiver.recv()
        receiver.close()

    def ended(self) -> bool:
        """Whether it came to its end by itself."""
        self.process.join()
        assert self.process.exitcode in (0, -signal.SIGKILL)
        return self.process.exitcode == 0

    def kill_at(self, db: Path, count: int, delay: float) -> None:
        """Kill it ``delay`` seconds after ``count`` attempts were noted, if it lives so long."""
        reached(db, count, self.process.is_alive)
        time.sleep(delay)
        if self.process.is_alive():
            assert self.process.pid is not None
            os.kill(self.process.pid, signal.SIGKILL)


def test_the_triggers_see_a_second_attempt(tmp_path: Path) -> None:
    db = tmp_path / "b.db"
    watched(db)
    with Store.open(db) as store:
        study = store.open_study("s", {"weights": "1"}, {})
        for _ in range(2):
            store.add_checkpoint(study, "pass", 3, {})
    assert attempts(db) == [("checkpoint", "pass/3")] * 2


@pytest.mark.parametrize("explorer", KILLS)
def test_nothing_is_measured_twice_and_the_end_is_the_same(explorer: str, tmp_path: Path) -> None:
    tiny.language_task(tmp_path)  # makes the files
    whole, db = tmp_path / "whole.db", tmp_path / "killed.db"
    watched(whole)
    assert Search(tmp_path, whole, explorer).ended()
    planned = attempts(whole)
    assert len(planned) == len(set(planned))
    given_up = {key.split("/")[0] for _, key in planned if key.endswith(f"/{PARTIAL}kl")}
    assert bool(given_up) == (explorer != "refine")

    rng = random.Random(0)
    watched(db)
    moments = sorted(rng.sample(range(len(planned)), KILLS[explorer]))
    killed = 0
    for moment in moments:
        running = Search(tmp_path, db, explorer)
        running.kill_at(db, moment, rng.uniform(0, 0.02))
        killed += not running.ended()
    assert killed >= KILLS[explorer] - 1  # the last one may come too late
    assert Search(tmp_path, db, explorer).ended()
    assert outcome(db, "s") == outcome(whole, "s")
    assert sorted(attempts(db)) == sorted(planned)  # the same units, none of them twice
