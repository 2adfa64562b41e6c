"""What routes share: the store, names in paths, pages."""

from __future__ import annotations

import threading
from typing import Annotated, Any
from urllib.parse import unquote

from fastapi import Depends, Path, Query, Request
from pydantic import AfterValidator, BaseModel

from bitfront.storage import Store

from .settings import Settings

MOST = 500  # rows of a page
LARGEST = (1 << 31) - 1  # of a column of integers


class Service:
    """What lives as long as the application: its settings, its store, and that it is to end."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.ending = threading.Event()
        self.streams = threading.BoundedSemaphore(settings.streams)
        self._lock = threading.Lock()
        self._store: Store | None = None

    @property
    def store(self) -> Store:
        """Opened when it is first asked for, so that the server outlives a database out of reach.

        Raises ``StorageError``.
        """
        with self._lock:
            if self._store is None:
                self._store = Store.open(self.settings.db)
            return self._store

    def close(self) -> None:
        with self._lock:
            if self._store is not None:
                self._store.close()
                self._store = None


async def service(request: Request) -> Service:  # not in a thread, which takes longer
    found: Service = request.app.state.service
    return found


def store(service: Annotated[Service, Depends(service)]) -> Store:
    return service.store


In = Annotated[Service, Depends(service)]
Db = Annotated[Store, Depends(store)]
StudyName = Annotated[
    str,
    Path(description="Name of a study; a slash in it is written %2F.", max_length=600),
    AfterValidator(unquote),
]
JobId = Annotated[int, Path(description="Number of a job.", ge=1, le=LARGEST)]
TrialId = Annotated[int, Path(description="Number of a trial of the study.", ge=1, le=LARGEST)]
Limit = Annotated[int, Query(description="Rows of the page, at most.", ge=1, le=MOST)]
After = Annotated[str | None, Query(alias="cursor", description="``next`` of the page before.")]
# PostgreSQL's texts have no NUL; and no name has any other control character
Word = Annotated[str, Query(min_length=1, max_length=600, pattern=r"^[^\x00-\x1f\x7f]+$")]


class Page(BaseModel):
    """A part of a list. next: the cursor of the page after it, null at the end."""

    next: str | None


def page(items: list[Any], next: str | None) -> dict[str, Any]:
    return {"items": items, "next": next}
