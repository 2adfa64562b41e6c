"""How soon a service answers about a large study, and 100 clients that follow a job.

    python -m benchmarks.service_load --db DB --db URL > benchmarks/results/service_load.json

JSON on standard output, a table of medians on standard error. Each database is one that
``benchmarks.large_study`` made. Milliseconds: ``first`` is the first answer of a server, or store,
that was just started, ``median`` and ``p95`` are of ``--repeats`` answers to the same question.
A server is a process of its own, asked over one connection that is kept. ``cpu`` is what it, or
this process, worked for an answer, which other programs on the machine change less.

    polls     100 clients ask for the progress of a job once a second, each over its connection
    streams   100 clients listen to the job's events as it goes on: from when progress is recorded
              until a client has it
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from benchmarks.common import arguments, commit, show, write
from benchmarks.large_study import STUDY
from bitfront.queries import front_in
from bitfront.storage import Store
from bitfront.storage.overviews import overview
from bitfront.storage.pages import (
    Order,
    measurement_places,
    some_measurements,
    some_trials,
    trial_places,
)

API = "/api/v1"
OF = f"{API}/studies/{STUDY}"
ROUTES = {
    "front": f"{OF}/front?x=bytes&y=kl",
    "front within a bound": f"{OF}/front?x=bytes&y=kl&within=top1>=0.5",
    "front within a budget": f"{OF}/front?x=bytes&y=kl&within=4bpw",
    "trials": f"{OF}/trials",
    "trials by bytes": f"{OF}/trials?order=bytes",
    "trials by kl, the worst first": f"{OF}/trials?order=-kl",
    "trials within a bound by kl": f"{OF}/trials?order=kl&within=4MB",
    "measurements": f"{OF}/measurements",
    "measurements by kl": f"{OF}/measurements?order=kl",
    "studies": f"{API}/studies",
    "study": OF,
}
SERVE = """
import json, sys
from bitfront.service.api import Settings, create_app
from bitfront.service.api.serving import bound, serve
settings = Settings(db=sys.argv[1], port=int(sys.argv[2]), **json.loads(sys.argv[3]))
serve(create_app(settings), bound(settings))
"""
LAST = 1_000_000  # units of the job that is followed
FREELY = {"rate": 1e6, "burst": 1_000_000}  # measured is what an answer takes, not the limit


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--db", action="append", required=True)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=20.0, help="that clients follow a job")
    options = parser.parse_args()
    report: dict[str, Any] = {
        "commit": commit(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}",
        "repeats": options.repeats, "clients": options.clients,
    }  # fmt: skip
    for db in options.db:
        name = "postgresql" if "://" in db else "sqlite"
        report[name] = {
            "storage": of_storage(db, options.repeats),
            "http": of_http(db, options.repeats),
            "polls": asyncio.run(polls(db, options.clients, options.seconds)),
            "streams": asyncio.run(streams(db, options.clients, options.seconds)),
        }
        show(
            f"{name}: medians, in milliseconds",
            ["", "storage", "http", "of it at work", "bytes"],
            [
                [
                    what,
                    report[name]["storage"].get(what, {}).get("median"),
                    report[name]["http"][what]["median"],
                    report[name]["http"][what]["cpu"],
                    report[name]["http"][what]["bytes"],
                ]
                for what in ROUTES
            ],
        )
    write(report)


def timed(
    action: Callable[[], Any], repeats: int, cpu: Callable[[], float] = time.process_time
) -> dict[str, float]:
    """Milliseconds: the first one, and what the ones after it took. cpu: a clock, in seconds."""
    spent = []
    for i in range(repeats + 1):
        began = time.perf_counter()
        action()
        spent.append(1000 * (time.perf_counter() - began))
        if i == 0:
            worked = cpu()
    each = 1000 * (cpu() - worked) / repeats
    return {"first": spent[0], **spread(spent[1:]), "cpu": each}


def spread(values: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(values, n=20, method="inclusive")
    return {"median": statistics.median(values), "p95": cuts[-1], "greatest": max(values)}


def of_storage(db: str, repeats: int) -> dict[str, Any]:
    """Without a server: what it asks of the database."""
    with Store.open(db) as store:
        study = store.study(STUDY)
        within = {"front": (), "front within a bound": ("top1>=0.5",),
                  "front within a budget": ("4bpw",)}  # fmt: skip
        found = {
            name: timed(partial(front_in, store, STUDY, ("bytes", "kl"), limits), repeats)
            for name, limits in within.items()
        }

        def trials(order: Order) -> None:
            places = trial_places(store, study, order, limit=101)
            some_trials(store, [place.id for place in places[:100]], layers=False)

        def measurements(order: Order) -> None:
            places = measurement_places(store, study, order, limit=101)
            some_measurements(store, [place.id for place in places[:100]])

        pages: dict[str, Callable[[], Any]] = {
            "trials": lambda: trials(Order()),
            "trials by bytes": lambda: trials(Order("bytes")),
            "trials by kl, the worst first": lambda: trials(Order("kl", descending=True)),
            "measurements": lambda: measurements(Order()),
            "measurements by kl": lambda: measurements(Order("kl")),
            "studies": store.studies,
            "study": lambda: overview(store, study),
        }
        return found | {name: timed(action, repeats) for name, action in pages.items()}


@contextmanager
def serving(db: str, settings: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """A server as a process; its address, and its number."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-c", SERVE, db, str(port), json.dumps(dict(settings))]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        while True:
            try:
                httpx.get(f"{address}/readyz", timeout=60.0)
                break
            except httpx.ConnectError:
                assert process.poll() is None, "the server ended by itself"
                time.sleep(0.1)
        yield address, process.pid
    finally:
        process.terminate()
        process.wait()


def cpu_of(pid: int) -> float:
    """Seconds that a process has worked (man 5 proc)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def of_http(db: str, repeats: int) -> dict[str, Any]:
    found = {}
    with (
        serving(db, FREELY) as (address, pid),
        httpx.Client(base_url=address, timeout=120.0) as client,
    ):
        for name, path in ROUTES.items():
            size = 0

            def ask(path: str = path) -> None:
                nonlocal size
                size = len(client.get(path).raise_for_status().content)

            found[name] = {**timed(ask, repeats, lambda: cpu_of(pid)), "bytes": size}
    return found


# clients that follow a job: with as little work of their own as can be, as they share the machine


class Client:
    """A connection that is kept."""

    def __init__(self, address: str) -> None:
        self._host, _, port = address.removeprefix("http://").partition(":")
        self._port = int(port)

    async def __aenter__(self) -> Client:
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        return self

    async def __aexit__(self, *error: object) -> None:
        self._writer.close()

    async def head(self, path: str, accept: str = "*/*") -> tuple[int, int]:
        """Ask; the status, and how many bytes follow (0 for a stream)."""
        lines = f"GET {path} HTTP/1.1\r\nHost: {self._host}\r\nAccept: {accept}\r\n\r\n"
        self._writer.write(lines.encode())
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
        return int(head.split(b" ", 2)[1]), int(length or 0)

    async def get(self, path: str) -> tuple[int, Any]:
        status, length = await self.head(path)
        return status, json.loads(await self._reader.readexactly(length))

    async def lines(self) -> AsyncIterator[bytes]:
        while line := await self._reader.readline():
            yield line


async def polls(db: str, clients: int, seconds: float) -> dict[str, Any]:
    """With a server of the usual limits."""
    spent: list[float] = []
    refused = 0

    async def poll(address: str, wait: float) -> None:
        nonlocal refused
        await asyncio.sleep(wait)
        async with Client(address) as client:
            until, after = time.monotonic() + seconds, 0
            while time.monotonic() < until:
                began = time.perf_counter()
                status, document = await client.get(f"{API}/jobs/1/events?after={after}")
                spent.append(1000 * (time.perf_counter() - began))
                refused += status != 200
                after = document.get("after", after)
                await asyncio.sleep(max(0.0, began + 1 - time.perf_counter()))

    with serving(db, {}) as (address, _):
        await asyncio.gather(*(poll(address, i / clients) for i in range(clients)))
    return {"requests": len(spent), "refused": refused, **spread(spent)}


async def streams(db: str, clients: int, seconds: float) -> dict[str, Any]:
    """With a server of the usual limits; the job goes on twice a second."""
    told: dict[int, float] = {}  # units done -> when that was recorded
    late: list[float] = []
    refused = 0

    async def listen(address: str) -> None:
        nonlocal refused
        async with Client(address) as client:
            status, _ = await client.head(f"{API}/jobs/1/events", "text/event-stream")
            if status != 200:
                refused += 1
                return
            async for line in client.lines():
                if line.startswith(b"data: ") and b'"done"' in line:
                    done = json.loads(line.removeprefix(b"data: "))["done"]
                    if done in told:
                        late.append(1000 * (time.perf_counter() - told[done]))
                    if done == LAST:
                        break

    with serving(db, {}) as (address, _), Store.open(db) as store:
        job = store.job(1)
        store.advance(job, "following", 0, LAST)

        async def go_on() -> None:
            await asyncio.sleep(2.0)
            for done in [*range(1, round(2 * seconds)), LAST]:
                await asyncio.to_thread(store.advance, job, "following", done, LAST)
                told[done] = time.perf_counter()
                await asyncio.sleep(0.5)

        await asyncio.gather(go_on(), *(listen(address) for _ in range(clients)))
    return {"changes": len(told), "heard": len(late), "refused": refused, **spread(late)}


if __name__ == "__main__":
    main()
