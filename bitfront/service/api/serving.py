"""The server as a process: its socket, its end, its log, and a worker beside it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator

import uvicorn
from fastapi import FastAPI

from bitfront.errors import InvalidInput, StorageError

from .app import create_app
from .settings import Settings

ENDING = 10  # seconds in which requests that run are to be answered
SECRETS = ("BITFRONT_TOKEN", "BITFRONT_READ_TOKEN")

log = logging.getLogger(__name__)


class Redacted(logging.Formatter):
    """Lines without a token in them, tracebacks included."""

    def __init__(self, settings: Settings) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")
        self._settings = settings

    def format(self, record: logging.LogRecord) -> str:
        return self._settings.redacted(super().format(record))


class Server(uvicorn.Server):
    """uvicorn's, which tells streams to end first, and ends without an error when told to."""

    def __init__(self, app: FastAPI) -> None:
        super().__init__(
            uvicorn.Config(
                app, http="h11", ws="none", log_config=None, access_log=False,
                server_header=False, proxy_headers=False, timeout_graceful_shutdown=ENDING,
            )
        )  # fmt: skip
        self._service = app.state.service

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._service.ending.set()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        if threading.current_thread() is not threading.main_thread():
            yield  # signals are the main thread's alone
            return
        before = {number: signal.signal(number, self.handle_exit) for number in
                  (signal.SIGINT, signal.SIGTERM)}  # fmt: skip
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def bound(settings: Settings) -> socket.socket:
    """A socket that listens where the settings say. Raises ``InvalidInput``."""
    try:
        family, *_, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.create_server(address[:2], family=family, backlog=256)
        # of what is accepted too; asyncio would leave it to sockets that name their protocol, and
        # the second part of an answer then waits 40 ms for the first one to be acknowledged
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error)
        where = f"{settings.host}:{settings.port}"
        raise InvalidInput(
            f"cannot listen on {where} ({why})", "choose another host or port"
        ) from error


def address(listening: socket.socket, prefix: str) -> str:
    """Where a socket is reached."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}{prefix}"


def opened(settings: Settings) -> FastAPI:
    """The application, with its database opened. Raises ``StorageError`` for one that cannot be
    used, but not for one that is only out of reach for the moment."""
    handler = logging.StreamHandler()
    handler.setFormatter(Redacted(settings))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("alembic").setLevel(logging.WARNING)
    app = create_app(settings)
    try:
        app.state.service.store  # noqa: B018 (it is opened now)
    except StorageError as error:
        if not error.passing:
            raise
        log.warning("%s; it is tried again at every request", error)
    return app


def serve(app: FastAPI, listening: socket.socket) -> None:
    """Answer until SIGTERM or SIGINT."""
    Server(app).run(sockets=[listening])


@contextlib.contextmanager
def beside(settings: Settings) -> Iterator[None]:
    """A worker of the database as a child process, told to stop when the block ends.

    Where there are roots, it looks too that nothing else is loaded.
    """
    words = ["worker", *(() if settings.db is None else ("--db", settings.db))]
    if settings.roots:
        words += [word for root in settings.roots for word in ("--root", str(root))]
        words += ["--allow-hub"] * settings.allow_hub
        words += ["--allow-functions"] * settings.allow_functions
    kept = {name: value for name, value in os.environ.items() if name not in SECRETS}
    code = "from bitfront.cli import main; main()"
    child = subprocess.Popen([sys.executable, "-c", code, *words], env=kept)
    ended = threading.Event()

    def watch() -> None:
        code = child.wait()
        if not ended.is_set():
            log.error("the worker ended with code %d: jobs wait for another", code)

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield
    finally:
        ended.set()
        child.terminate()
        watching.join()
