"""``bitfront --server URL``: commands that ask a service instead of a database of their own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from bitfront.errors import InvalidInput

if TYPE_CHECKING:
    from bitfront.executors import Wanted
    from bitfront.giventask import Given
    from bitfront.pipeline import Choices
    from bitfront.queries import Front, Shown
    from bitfront.remote import Server
    from bitfront.sensitivity import Profiler
    from bitfront.storage import StudyRecord
    from bitfront.types import Trial

SERVER, TOKEN = "BITFRONT_SERVER", "BITFRONT_TOKEN"


def server(db: str | None) -> Server | None:
    """The service that is to be asked; None for the database. Raises ``InvalidInput`` for both."""
    url = os.environ.get(SERVER)
    if not url:
        return None
    if db is not None:
        raise InvalidInput(f"--db {db} with server {url}", "give one of them")
    from bitfront.remote import Server

    return Server(url, os.environ.get(TOKEN) or None)


def refuse(command: str) -> None:
    """Raises ``InvalidInput`` where a service is to be asked for what it does not do."""
    if url := os.environ.get(SERVER):
        raise InvalidInput(f"{command} with server {url}", f"leave out --server, or unset {SERVER}")


def refuse_executor(executor: Wanted) -> None:
    """Raises ``InvalidInput`` where a service's worker would have to have it."""
    said = [f"{executor.spelled(name)} {value}" for name, value in executor.settings.items()]
    if executor.name != "local":
        said.insert(0, f"--executor {executor.name}")
    if said:
        raise InvalidInput(f"{said[0]} with a server", "give it to the server's bitfront worker")


def study_path(name: str) -> str:
    """Where a study is, under the API's path."""
    return f"studies/{quote(name, safe='')}"


def front(
    at: Server, study: str, costs: tuple[str, ...], metrics: tuple[str, ...], within: list[str]
) -> Front:
    """``queries.front`` of a service's study."""
    from bitfront.fromdocuments import front_from, study_of

    x, y, *z = (*costs, *metrics)
    path = study_path(study)
    record = study_of(at.get(path))
    document = at.get(f"{path}/front", x=x, y=y, z=z, within=within, all="true", format="json")
    return front_from(document, record, costs, metrics)


def show(at: Server, study: str, trial: int, metric: str) -> Shown:
    """``queries.show`` of a service's study."""
    from bitfront.fromdocuments import shown_from, study_of

    path = study_path(study)
    document = at.get(f"{path}/trials/{trial}", metric=metric)
    return shown_from(document, study_of(at.get(path)), metric)


def trial(at: Server, study: str, trial: int) -> tuple[StudyRecord, Trial]:
    """A service's study, and one of its trials with its schemes."""
    from bitfront.fromdocuments import study_of, trial_of

    path = study_path(study)
    record = study_of(at.get(path))
    metric = next(iter(record.settings.get("metrics", ())), None)
    document = at.get(f"{path}/trials/{trial}", metric=metric)
    return record, trial_of(document)


def task_body(task: Given) -> dict[str, Any]:
    """As a request spells a task. Its paths are the server's."""
    return {"kind": task.kind, "arguments": dict(task.arguments)}


def profiler_body(profiler: Profiler) -> dict[str, Any]:
    """As a request spells a profiler."""
    return {"name": profiler.name, "settings": profiler.settings()}


def choices_body(choices: Choices) -> dict[str, Any]:
    """As a request spells which layers take part."""
    from bitfront.costfile import given_costs

    costs = None if choices.costs is None else given_costs(choices.costs).plain()
    return {
        "include": choices.include, "exclude": choices.exclude, "pins": dict(choices.pins),
        "embeddings": choices.embeddings, "head": choices.head, "groups": choices.groups,
        "hand_groups": choices.hand_groups, "average_over": choices.average_over,
        "container": choices.container, "costs": costs, "targets": choices.targets,
    }  # fmt: skip


def download(at: Server, job: Mapping[str, Any], folder: Path) -> None:
    """Write every file of a job into a folder that is there, each checked by its digest."""
    for file in at.get(f"jobs/{job['id']}/files")["items"]:
        place = folder.joinpath(*Path(file["path"]).parts)
        if ".." in Path(file["path"]).parts or not place.is_relative_to(folder):
            raise InvalidInput(f"server {at.url!r} names a file {file['path']!r}", "do not use it")
        place.parent.mkdir(parents=True, exist_ok=True)
        at.fetch(f"jobs/{job['id']}/files/{quote(file['path'])}", place, file["sha256"])
