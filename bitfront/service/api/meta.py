"""What this server is, and whether it works."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from bitfront import __version__
from bitfront.errors import StorageError
from bitfront.storage.health import health
from bitfront.storage.jobstates import STATES
from bitfront.storage.workers import BUSY, IDLE

from .bodies import KINDS
from .common import In
from .problems import Problem, documented

router = APIRouter(tags=["server"])
probes = APIRouter(tags=["server"])


class Alive(BaseModel):
    alive: Literal[True]


class WorkerCounts(BaseModel):
    """Workers that live: those that wait for a job, and those that do one."""

    idle: int
    busy: int


class Ready(BaseModel):
    ready: Literal[True]
    schema_: str = Field(alias="schema", description="Revision of the database's tables.")
    workers: WorkerCounts
    queued: int = Field(description="Jobs that wait for a worker.")


class Meta(BaseModel):
    """allow: what jobs may load besides files under the roots. output: whether export and report
    jobs are taken. changes: whether who asks may submit and move jobs, or only read."""

    name: Literal["bitfront"]
    version: str
    api: Literal["v1"]
    kinds: list[str]
    states: list[str]
    allow: dict[str, bool]
    roots: int
    output: bool
    changes: bool
    limits: dict[str, float]


@probes.get("/healthz", response_model=Alive, responses=documented())
def healthz() -> Any:
    """The server answers."""
    return {"alive": True}


@probes.get("/readyz", response_model=Ready, responses=documented())
def readyz(service: In) -> Any:
    """The database can be reached and has the newest schema; who works is told, not required."""
    try:
        found = health(service.store)
        states = [worker.state for worker in service.store.workers()]
    except StorageError as error:
        raise Problem(503, error.what, error.remedy) from error
    if found.schema != found.newest:
        raise Problem(
            503, f"the database has schema {found.schema}, and {found.newest} is needed",
            "start the server again, which brings it up to date",
        )  # fmt: skip
    return {
        "ready": True, "schema": found.schema, "queued": found.queued,
        "workers": {"idle": states.count(IDLE), "busy": states.count(BUSY)},
    }  # fmt: skip


@router.get("/meta", response_model=Meta, responses=documented())
def meta(service: In, request: Request) -> Any:
    """Version, kinds of jobs, what is allowed and how much."""
    settings = service.settings
    return {
        "name": "bitfront", "version": __version__, "api": "v1",
        "kinds": list(KINDS), "states": list(STATES),
        "allow": {"hub": settings.allow_hub, "functions": settings.allow_functions},
        "roots": len(settings.roots), "output": settings.output is not None,
        "changes": request.state.changes,
        "limits": {
            "body_bytes": settings.max_body, "requests_per_second": settings.rate,
            "burst": settings.burst, "streams": settings.streams,
        },
    }  # fmt: skip
