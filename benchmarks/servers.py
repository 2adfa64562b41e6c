"""PostgreSQL for benchmarks: databases of their own on a server, and a server of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import make_url

USER = "postgres"  # whom the server runs as, where this process is root's


@contextmanager
def fresh_database(server: str) -> Iterator[str]:
    """URL of a new database on ``server``, which may stop meanwhile; gone afterwards."""
    name = f"bitfront_{uuid.uuid4().hex[:12]}"
    _execute(server, f"CREATE DATABASE {name}")
    yield make_url(server).set(database=name).render_as_string(hide_password=False)
    _execute(server, f"DROP DATABASE {name} WITH (FORCE)")


def _execute(server: str, statement: str) -> None:
    import psycopg

    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(statement)


class Server:
    """A server of PostgreSQL in a folder of its own, to be stopped and started.

    Its programs are those of the newest version under /usr/lib/postgresql, else of the path.
    """

    def __init__(self, folder: Path) -> None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name))
        self._programs = f"{found[-1]}/" if found else ""
        self._data, self._log = folder / "data", folder / "log"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._options = (
            f"-c port={self._port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
        )
        if os.geteuid() == 0:
            shutil.chown(folder, USER)
        self._run("initdb", "-D", self._data, "-U", "postgres", "-A", "trust", "-E", "UTF8")

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self._port}/postgres"

    def start(self) -> None:
        """Start, and wait until it answers."""
        self._run("pg_ctl", "-D", self._data, "-l", self._log, "-o", self._options, "-w", "start")

    def stop(self, mode: str) -> None:
        """mode: ``fast`` ends its connections; ``immediate`` is a crash."""
        self._run("pg_ctl", "-D", self._data, "-m", mode, "-w", "stop")

    def _run(self, program: str, *words: str | Path) -> None:
        account = USER if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        subprocess.run(
            [f"{self._programs}{program}", *map(str, words)], check=True, user=account,
            cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip


@contextmanager
def own_server() -> Iterator[Server]:
    """A running server, which is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="bitfront-postgresql-") as folder:
        Path(folder).chmod(0o755)
        server = Server(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop("fast")
