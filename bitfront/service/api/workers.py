"""Workers of the database: those that live, and those that were lost lately."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel

from bitfront.documents import worker_document

from .common import Db
from .problems import documented

router = APIRouter(tags=["server"])


class WorkerDocument(BaseModel):
    """A worker. job: the one that it holds. seen: when it last said that it lives; it is lost
    where that is longer ago than its lease."""

    name: str
    host: str
    version: str
    state: Literal["idle", "busy", "lost"]
    job: int | None
    started: str
    seen: str


class Workers(BaseModel):
    items: list[WorkerDocument]


@router.get("/workers", response_model=Workers, responses=documented())
def workers(store: Db) -> Any:
    """The workers that live, and those that were lost in the last day, by name."""
    return {"items": [worker_document(worker) for worker in store.workers()]}
