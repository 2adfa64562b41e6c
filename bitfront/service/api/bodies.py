"""Requests for jobs over HTTP. Where an export or a report is written the server decides."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias, get_args

from pydantic import Field

from bitfront.service.requests import (
    Body,
    MeasureBody,
    OfTask,
    ProfileBody,
    SearchBody,
    TaskBody,
    Text,
)

from .common import LARGEST


class ProfileJob(ProfileBody):
    kind: Literal["profile"]


class SearchJob(SearchBody):
    kind: Literal["search"]


class MeasureJob(MeasureBody):
    kind: Literal["measure"]


class ExportJob(OfTask):
    """Write a trial's model to a folder of the server, audited in a fresh process.

    cache: whether an ONNX graph takes and gives keys and values of earlier tokens; null for
    language tasks alone."""

    kind: Literal["export"]
    trial: Annotated[int, Field(ge=1, le=LARGEST)]
    format: Text | None = None
    cache: bool | None = None


class ReportJob(Body):
    """Write a page about the study. edition: any word; the same request with another one is
    another job, so a page of what was measured since can be asked for."""

    kind: Literal["report"]
    metric: Text = "kl"
    edition: Annotated[str, Field(max_length=200)] = ""


JobRequest: TypeAlias = Annotated[
    ProfileJob | SearchJob | MeasureJob | ExportJob | ReportJob, Field(discriminator="kind")
]
Kind = Literal["profile", "search", "measure", "export", "report"]
KINDS: tuple[str, ...] = get_args(Kind)


def task_of(body: JobRequest) -> TaskBody | None:
    """The task that a request is about; None for one that needs no model."""
    return body.task if isinstance(body, OfTask) else None
