"""Units in a Ray cluster on this machine: what a search survives, what they cost, how it scales.

    python -m benchmarks.ray_cluster > benchmarks/results/ray_cluster.json

JSON on standard output, a table on standard error. Every process has one thread. The job is a
search of the Llama's, by ``bitfront worker``, in a cluster of three nodes of a core each.

    killed     one node is killed when ``NODE`` of the job's rows have been written, the worker when
               ``DRIVER`` of them have; another worker goes on
    twice      rows that were measured a second time although they had been recorded
    same       whether trials (allocations, costs, metrics) and answers are equal to the bit to
               those of a worker that measures in its own process
    times      seconds: of a unit given alone, the median over units, of one that does nothing and
               of an allocation that is built and measured (look); of all given together (of the
               former, for each), the least of ``REPEATS``
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.common import ROOT, arguments, head, parsed, show, write
from benchmarks.watching import attempts, outcome, reached, watched

if TYPE_CHECKING:
    from bitfront.executors import Executor
    from bitfront.workbench import Workbench

STUDY = "llama"
NODE, DRIVER = 0.3, 0.6
SCHEMES = ("w2", "w3", "w4", "w8")
NOTHING, TOGETHER, REPEATS = 100, 16, 2
LEASE = 5.0  # seconds


@dataclass(frozen=True)
class Nothing:
    """A unit that does nothing."""

    def do(self, bench: Workbench) -> None:
        del bench


def task(options: Any) -> dict[str, Any]:
    arguments = {
        "model": str(options.assets / "stories260K_llama"),
        "calibration": str(options.assets / "text" / "wikitext2.valid.txt"),
        "samples": options.samples, "eval_samples": options.samples, "length": 128, "batch": 8,
        "hold_back": 0.0, "device": "cpu",
    }  # fmt: skip
    return {"kind": "language", "arguments": arguments}


def submitted(db: Path, options: Any) -> Path:
    """A database with the job, which notes every attempt to insert a row."""
    from bitfront.storage import Store

    request = {
        "task": task(options), "schemes": " ".join(SCHEMES), "budgets": ["3bpw", "4bpw"],
        "explore": 12,
    }  # fmt: skip
    watched(db)
    with Store.open(db) as store:
        store.submit("search", STUDY, request)
    return db


def worker(db: Path, *words: str) -> subprocess.Popen[bytes]:
    command = "from bitfront.cli import main; main()"
    run = [sys.executable, "-c", command, "worker", "--once", "--db", str(db)]
    run += ["--lease", str(LEASE), *words]
    return subprocess.Popen(run, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def waited(process: subprocess.Popen[bytes], db: Path, count: int) -> None:
    """Until so many attempts are noted, by a worker that lives."""
    there = reached(db, count, lambda: process.poll() is None)
    assert there, "the job ended before anything was killed"


def state(db: Path) -> str:
    from bitfront.storage import Store

    with Store.open(db) as store:
        return store.job(1).state


def result(db: Path) -> tuple[Any, Any]:
    """Trials and answers, whatever the trials' numbers: side by side they come in no order."""
    from bitfront.storage import Store

    trials, _ = outcome(db, STUDY)
    with Store.open(db) as store:
        study = store.study(STUDY)
        keys = {trial.id: trial.key for trial in store.trials(study)}
        answers = []
        for found in store.selections(study):
            details = {**found.details, "measured": [keys[i] for i in found.details["measured"]]}
            answers.append((found.request_key, keys[found.trial_id], str(details)))
    return trials, sorted(answers)


def survived(cluster: Any, node: Any, folder: Path, options: Any) -> dict[str, Any]:
    """The job without a kill in one process, and in the cluster with two."""
    whole, cut = (submitted(folder / f"{n}.db", options) for n in ("whole", "cut"))
    began = time.monotonic()
    assert worker(whole).wait() == 0
    seconds, planned = time.monotonic() - began, attempts(whole)
    assert state(whole) == "succeeded", state(whole)
    began = time.monotonic()
    first = worker(cut, "--executor", "ray", "--ray-address", cluster.address)
    waited(first, cut, int(NODE * len(planned)))
    cluster.remove_node(node, allow_graceful=False)
    waited(first, cut, int(DRIVER * len(planned)))
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    time.sleep(LEASE)
    assert worker(cut, "--executor", "ray", "--ray-address", cluster.address).wait() == 0
    done = Counter(attempts(cut))
    assert state(cut) == "succeeded", state(cut)
    return {
        "seconds": {"local": seconds, "killed": time.monotonic() - began},
        "attempts": {"local": len(planned), "killed": sum(done.values())},
        "twice": sum(n - 1 for n in done.values()),
        "same": result(cut) == result(whole),
    }


def alone(executor: Executor, bench: Workbench, units: list[Any]) -> float:
    """Seconds of a unit given by itself, the median."""
    seconds = []
    for unit in units:
        began = time.perf_counter()
        list(executor.map(bench, [unit]))
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def together(executor: Executor, bench: Workbench, units: list[Any]) -> float:
    """Seconds of all units at once, the least of ``REPEATS``."""
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        list(executor.map(bench, units))
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def timed(executor: Executor, bench: Workbench, workers: int) -> dict[str, float]:
    from benchmarks.ray_cluster import Nothing  # a name by which other processes find it
    from bitfront.units import Look

    names = [la.name for la in bench.task.layers if la.role == "body"]
    looks = [
        Look(dict.fromkeys(names[i % 4 :], SCHEMES[i % 4]), ("calibration/",))
        for i in range(TOGETHER)
    ]
    list(executor.map(bench, looks[: 4 * workers]))  # processes start, and measure the full model
    found = {
        "nothing": alone(executor, bench, [Nothing()] * NOTHING),
        "look": alone(executor, bench, looks),
        "nothing_together": together(executor, bench, [Nothing()] * NOTHING) / NOTHING,
        "looks_together": together(executor, bench, looks),
    }
    executor.close()
    return found


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--samples", type=int, default=64, help="of 128 tokens")
    options = parsed(parser, 1)
    os.environ |= {
        "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    from ray.cluster_utils import Cluster as Nodes

    from bitfront.cluster import Cluster
    from bitfront.executors import Local
    from bitfront.processes import Processes
    from bitfront.tasks import from_recipe
    from bitfront.workbench import Workbench

    given = task(options)
    node = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 100 << 20}
    nodes = Nodes(initialize_head=True, head_node_args={**node, "num_cpus": 0})
    times = {}
    with tempfile.TemporaryDirectory(prefix="bitfront-") as folder:
        bench = Workbench(from_recipe({"kind": given["kind"], **given["arguments"]}))
        times["local"] = timed(Local(), bench, 1)
        times["2 processes"] = timed(Processes(2, threads=1), bench, 2)
        for cores in (1, 2):
            last = nodes.add_node(**node)
            times[f"ray, {cores}"] = timed(Cluster(nodes.address), bench, cores)
        nodes.add_node(**node)
        kept = survived(nodes, last, Path(folder), options)
    nodes.shutdown()
    write({**head(), "samples": options.samples, "times": times, "killed": kept})
    columns = ["nothing", "look", "nothing_together", "looks_together"]
    show("seconds", ["", *columns], [[n, *(t[c] for c in columns)] for n, t in times.items()])


if __name__ == "__main__":
    main()
