"""A job as it goes on, as server-sent events."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

from anyio.to_thread import run_sync
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from bitfront.documents import event_document, job_document, plain
from bitfront.errors import StorageError
from bitfront.storage import Job, JobEvent
from bitfront.storage.jobstates import CANCELLED, FAILED, SUCCEEDED

from .common import Service
from .problems import Problem

ENDED = (SUCCEEDED, FAILED, CANCELLED)
MOMENT = 0.05  # seconds between two looks whether the server is to end


class Stream(StreamingResponse):
    """Events above ``after``, progress as it changes, and the job when it has ended.

    Raises ``Problem`` when it is made and there are too many streams.
    """

    def __init__(self, service: Service, id: int, after: int) -> None:
        headers = {"X-Accel-Buffering": "no"}  # a proxy should not hold events back
        events = _until_end(service, id, after)
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._places = service.streams
        if not self._places.acquire(blocking=False):
            wait = {"Retry-After": "10"}
            raise Problem(429, "too many streams", "ask for events with after=", headers=wait)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._places.release()


async def _until_end(service: Service, id: int, after: int) -> AsyncIterator[str]:
    def look() -> tuple[Job, list[JobEvent]]:
        job = service.store.job(id)  # before its events, so that the last ones are not missed
        return job, service.store.events(id, after) if job.updated != seen else []

    seen, shown, said = "", None, time.monotonic()
    yield ": jobs go on when nobody listens\n\n"
    while not service.ending.is_set():
        try:
            job, events = await run_sync(look)
        except StorageError:  # it passes, or the client asks again and is told
            break
        seen = job.updated  # which every event changes
        for event in events:
            after = event.number
            yield _message(event.kind, event_document(event), event.number)
        document = plain(job_document(job))
        progress = {"state": job.state, **(document["progress"] or {})}
        if progress != shown and job.progress is not None:
            shown = progress
            yield _message("progress", progress)
            said = time.monotonic()
        if job.state in ENDED:
            yield _message("end", document)
            return
        if time.monotonic() - said >= service.settings.heartbeat:
            said = time.monotonic()
            yield ": still here\n\n"
        await _pause(service)


async def _pause(service: Service) -> None:
    until = time.monotonic() + service.settings.poll
    while time.monotonic() < until and not service.ending.is_set():
        await asyncio.sleep(min(MOMENT, service.settings.poll))


def _message(kind: str, document: Any, id: int | None = None) -> str:
    number = "" if id is None else f"id: {id}\n"
    return f"{number}event: {kind}\ndata: {json.dumps(document)}\n\n"
