"""Units as tasks of a Ray cluster of three nodes, which all run on this machine."""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bitfront
from bitfront import cluster, clusterlink, clusternode
from bitfront.cluster import Cluster
from bitfront.errors import BudgetError, ClusterError, InvalidInput, ModelError, StudyMismatch
from bitfront.executors import Executor, Local, Wanted
from bitfront.tasks import Task, from_recipe
from bitfront.units import Look
from bitfront.workbench import Workbench
from tests import tiny
from tests.commands import Commands
from tests.test_executors import SCHEMES, Failing, everything

WIDE = tiny.CODE.replace(
    "width=8", "width=640"
)  # so wide that the convolution's weights are shared


def module(folder: Path) -> Task:
    path = folder / "net.py"
    path.write_text(WIDE)
    return from_recipe({"kind": "module", "function": f"{path}:task", "arguments": {}})


@dataclass
class Nodes:
    """A head, and two more nodes, of one core each."""

    cluster: Any
    others: list[Any]

    @property
    def address(self) -> str:
        return str(self.cluster.address)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster as Started

    node = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80 << 20}
    started = Started(initialize_head=True, head_node_args=node)
    yield Nodes(started, [started.add_node(wait=False, **node) for _ in range(2)])
    started.shutdown()
    patch.undo()


@pytest.fixture(scope="module")
def connected(nodes: Nodes) -> Iterator[None]:
    """A connection of the user's own, which leaves processes to the next test."""
    import ray

    ray.init(address=nodes.address, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()


@pytest.fixture
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


MAKERS: dict[str, Callable[[Path], Task]] = {"module": module, "language": tiny.language_task}


@pytest.mark.parametrize(
    ("kind", "database"), [("module", "sqlite"), ("language", "postgresql")], indirect=["database"]
)
@pytest.mark.usefixtures("connected", "one_thread")
def test_a_search_in_a_cluster_is_the_search_in_this_process(
    kind: str, database: str, nodes: Nodes, tmp_path: Path
) -> None:
    found, answers = [], []
    places: dict[str, Executor] = {
        str(tmp_path / "here.db"): Local(), database: Cluster(nodes.address)
    }  # fmt: skip
    for db, executor in places.items():
        task = MAKERS[kind](tmp_path)
        with bitfront.open_study("s", task, db, executor) as study:
            bitfront.profile(study, SCHEMES)
            of = bitfront.search(study, SCHEMES, ["3bpw", "4bpw"], explore=4)
            answers.append([(a.trial.key, a.predicted, a.expected, a.evaluations) for a in of])
            found.append(everything(study))
    assert answers[0] == answers[1]
    assert found[0] == found[1]


@dataclass(frozen=True)
class Found:
    """A unit of a test: its process, what the weights stand on, and an array."""

    seconds: float = 0.0

    def do(self, bench: Workbench) -> tuple[int, bool, Any]:
        time.sleep(self.seconds)
        weight = bench.task.model.get_parameter("conv.weight").data_ptr()
        for line in Path("/proc/self/maps").read_text().splitlines():
            first, last = (int(x, 16) for x in line.split()[0].split("-"))
            if first <= weight < last:
                return os.getpid(), "/dev/shm/plasma" in line, np.zeros(3)
        raise AssertionError("the weights are in no memory of this process")


@pytest.mark.usefixtures("connected")
def test_processes_read_the_weights_from_the_store(nodes: Nodes, tmp_path: Path) -> None:
    """Those of the study, whatever became of the files since; quantizing leaves no trace."""
    bench, executor = Workbench(module(tmp_path)), Cluster(nodes.address)
    (tmp_path / "net.py").write_text(WIDE.replace("manual_seed(0)", "manual_seed(5)"))
    looks = [Look({"conv": s}, ("calibration/", "")) for s in ("w2", "w4", "w8", "w2", "w4")]
    there = dict(executor.map(bench, [*looks, Found()]))
    _, in_store, array = there[len(looks)]
    assert in_store
    array += 1  # as of a result of this process
    for index, unit in enumerate(looks):
        assert unit.do(bench).metrics == there[index].metrics
    executor.close()
    bench.close()


@pytest.mark.usefixtures("connected")
def test_what_fails_in_a_cluster_says_so_and_what_was_done_is_kept(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "RETRIES", 1)
    bench, executor = Workbench(module(tmp_path)), Cluster(nodes.address)
    done: list[tuple[int, int]] = []
    with pytest.raises(ModelError, match="it cannot be: do something else"):
        done.extend(executor.map(bench, [Failing("fine"), Failing("raises")]))
    assert [index for index, _ in done] == [0]
    assert done[0][1] != os.getpid()
    with pytest.raises(ClusterError, match="a unit, tried 2 times, was lost"):
        list(executor.map(bench, [Failing("dies")]))
    first = next(executor.map(bench, [Failing("fine")] * 40))  # the others are cancelled
    assert first[1] != os.getpid()
    assert sorted(dict(executor.map(bench, [Failing("fine")] * 4))) == [0, 1, 2, 3]
    executor.close()
    too_large = Cluster(nodes.address, cpus=64, memory=1000)
    with pytest.raises(ClusterError, match="a unit of 64 CPU, 1000 memory: no node has room"):
        list(too_large.map(bench, [Found()]))
    too_large.close()
    bench.close()


@pytest.mark.usefixtures("connected")
def test_a_node_that_lacks_the_files_says_so(nodes: Nodes, tmp_path: Path) -> None:
    bench, executor = Workbench(module(tmp_path)), Cluster(nodes.address)
    (tmp_path / "net.py").write_text(WIDE.replace("arange(20) % 3", "arange(20) % 2"))
    with pytest.raises(StudyMismatch, match=r"node .* makes another task: calibration, evaluation"):
        list(executor.map(bench, [Found()]))
    (tmp_path / "net.py").unlink()
    with pytest.raises(ModelError, match=r"node .* cannot make the task: no file"):
        list(executor.map(bench, [Found()]))
    executor.close()
    bench.close()


@pytest.mark.usefixtures("connected")
def test_units_of_a_node_that_dies_are_done_elsewhere(nodes: Nodes, tmp_path: Path) -> None:
    bench, executor = Workbench(module(tmp_path)), Cluster(nodes.address)
    found, dead = {}, nodes.others.pop()
    for index, (process, _, _) in executor.map(bench, [Found(0.2)] * 30):
        found[index] = process
        if len(found) == 6:
            nodes.cluster.remove_node(dead, allow_graceful=False)
    assert sorted(found) == list(range(30))
    executor.close()
    bench.close()


def test_a_cluster_that_dies_is_told_of(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In time: Ray itself would end this process, after a minute. No test is left for the rest."""
    import ray

    ray.shutdown()
    monkeypatch.setattr(clusterlink, "PATIENCE", 1.0)
    before = signal.getsignal(signal.SIGTERM)
    bench, executor = Workbench(module(tmp_path)), Cluster(nodes.address)
    units = executor.map(bench, [Found(0.5)] * 1000)
    assert next(units)[1][0] != os.getpid()
    assert signal.getsignal(signal.SIGTERM) is before
    [head] = nodes.cluster.head_node.all_processes["gcs_server"]
    os.kill(head.process.pid, signal.SIGKILL)
    with pytest.raises(ClusterError, match="no head of a Ray cluster at"):
        list(units)
    with pytest.raises(ClusterError, match="no head of a Ray cluster at"):
        list(executor.map(bench, [Found()]))
    executor.close()
    bench.close()


@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
def test_shipped_weights_are_read_in_place(
    dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clusternode, "SMALL", 1)
    monkeypatch.setattr(clusternode, "ALIGNED", 1)
    task = tiny.language_task(tmp_path, dtype)
    sent = clusternode.shipped(task, 1)
    for _, _, data in sent.weights.values():
        data.flags.writeable = False
    names = [la.name for la in task.layers]
    look = Look(dict.fromkeys(names, "w3"), ("calibration/",))
    expected = look.do(Workbench(task)).metrics
    other = tiny.language_task(tmp_path, dtype)
    with torch.no_grad():
        for tensor in other.model.parameters():
            tensor.zero_()
    clusternode._lend(other, sent)
    assert other.fingerprint() == task.fingerprint()
    for name, (_, _, data) in sent.weights.items():
        if name in dict(other.model.named_parameters()):
            assert other.model.get_parameter(name).data_ptr() == data.ctypes.data
    before = {name: data.tobytes() for name, (_, _, data) in sent.weights.items()}
    bench = Workbench(other)
    assert look.do(bench).metrics == expected
    assert look.do(bench).metrics == expected
    assert {name: data.tobytes() for name, (_, _, data) in sent.weights.items()} == before
    assert other.fingerprint() == task.fingerprint()


def test_a_cluster_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Workbench(module(tmp_path))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ClusterError, match=f"no head of a Ray cluster at {address}"):
            list(Cluster(address).map(bench, [Found()]))
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(ClusterError, match=f"no head of a Ray cluster at {address}"):
            list(Cluster().map(bench, [Found()]))
        monkeypatch.delenv("RAY_ADDRESS")
        (tmp_path / "current").write_text(address)
        monkeypatch.setattr(clusterlink, "CURRENT", tmp_path / "current")
        with pytest.raises(ClusterError, match=f"no head of a Ray cluster at {address}"):
            list(Cluster().map(bench, [Found()]))
    assert list(Cluster().map(bench, [])) == []
    bench.close()


def test_what_a_cluster_cannot_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ({"cpus": 0}, {"gpus": 2.0}, {"gpus": -1.0}, {"memory": -1}):
        with pytest.raises(InvalidInput, match=f"{next(iter(wrong))} "):
            Cluster(**wrong)
    for address in ("head", "ray://head:10001", ":6379", "head:"):
        with pytest.raises(InvalidInput, match="give HOST:PORT of the head"):
            Cluster(address)
    for memory in ("2bpw", "10%", ">=2GB", "attention:2GB", "bytes<=10", "2"):
        with pytest.raises(BudgetError):
            Wanted("ray", {"unit_memory": memory}).made()
    asked = Wanted("ray", {"unit_memory": "1.5GiB", "unit_gpus": 0.5}).made()
    assert isinstance(asked, Cluster)
    assert asked._asked == {"num_cpus": 1, "num_gpus": 0.5, "memory": 3 << 29}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InvalidInput, match=r"pip install 'bitfront\[ray\]'"):
        Cluster()


def test_options_of_the_command_line(bitfront: Commands, tmp_path: Path) -> None:
    for wrong, said in {
        ("--unit-cpus", "2"): "--unit-cpus 2 with executor local: it takes --processes",
        ("--executor", "ray", "--processes", "2"): "--processes 2 with executor ray: it takes",
        ("--executor", "dask"): "no executor named 'dask': choose from local, ray",
    }.items():
        assert said in bitfront.refused("worker", "--once", *wrong)
    words = ("profile", "s", "--schemes", "w4", "--executor", "ray")
    assert "--executor ray with a server: give it to the server's bitfront worker" in (
        bitfront.refused("--server", "http://127.0.0.1:9", *words)
    )
    module(tmp_path)
    more = ("--function", f"{tmp_path / 'net.py'}:task", "--ray-address", "127.0.0.1:9")
    assert "no head of a Ray cluster at 127.0.0.1:9" in bitfront.refused(*words, *more)
