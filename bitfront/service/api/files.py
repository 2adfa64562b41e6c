"""What export and report jobs wrote: listed, one file, all in one archive."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import unquote

from fastapi import APIRouter, Header, Path, Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import AfterValidator, BaseModel

from .archive import zipped
from .artifacts import Written, hash_of, written
from .common import In, JobId
from .problems import Problem, documented
from .ranges import one_range

router = APIRouter(tags=["jobs"])
# pages of a report run scripts of their own, and reach nothing else
PAGE_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'; sandbox allow-scripts"
)
FilePath = Annotated[
    str, Path(description="As it is listed.", max_length=4000), AfterValidator(unquote)
]
Tags = Annotated[str | None, Header(alias="if-none-match")]


class FileDocument(BaseModel):
    """bytes: its size. sha256: of its content, which is its ETag too."""

    path: str
    bytes: int
    media_type: str
    sha256: str


class Files(BaseModel):
    items: list[FileDocument]


_BYTES = {"schema": {"type": "string", "format": "binary"}}
KEPT = {"Cache-Control": "private, no-cache"}  # kept by the client, asked for by its ETag
BINARY = {"content": {"application/octet-stream": _BYTES}}
SAME: dict[int | str, dict[str, Any]] = {304: {"description": "As the client has it (ETag)."}}
WHOLE: dict[int | str, dict[str, Any]] = {200: {**BINARY, "description": "The file."}, **SAME}
PART: dict[int | str, dict[str, Any]] = {206: {**BINARY, "description": "The range."}}
ZIP = {"content": {"application/zip": _BYTES}}


@router.get("/jobs/{id}/files", response_model=Files, responses=documented(404, 409))
def files(service: In, id: JobId) -> Any:
    """The files that a job wrote, in the order of their paths."""
    found = written(service.store.job(id), service.settings.output)
    return {"items": [_document(file) for file in found]}


@router.get(
    "/jobs/{id}/archive", response_class=Response,
    responses={**documented(404, 409), 200: {**ZIP, "description": "A zip of all files."}, **SAME},
)  # fmt: skip
def archive(service: In, id: JobId, if_none_match: Tags = None) -> Response:
    """All files of a job as one zip, not compressed."""
    found = written(service.store.job(id), service.settings.output)
    tag = f'"{id}-{hash_of(found)}"'
    if same(if_none_match, tag):
        return Response(status_code=304, headers={"ETag": tag, **KEPT})
    named = f'attachment; filename="job-{id}.zip"'
    headers = {"Content-Disposition": named, "ETag": tag, **KEPT}
    return StreamingResponse(zipped(found), media_type="application/zip", headers=headers)


@router.get(
    "/jobs/{id}/files/{path:path}", response_class=Response,
    responses={**documented(404, 409, 416), **WHOLE, **PART},
)  # fmt: skip
def file(
    service: In,
    id: JobId,
    path: FilePath,
    request: Request,
    if_none_match: Tags = None,
    range: Annotated[str | None, Header()] = None,
    if_range: Annotated[str | None, Header()] = None,
) -> Response:
    """A file of a job, or a range of it."""
    found = {f.path: f for f in written(service.store.job(id), service.settings.output)}.get(path)
    if found is None:
        raise Problem(404, f"job {id} wrote no file {path!r}", "see its files", "unknown-name")
    tag = f'"{found.sha256}"'
    if same(if_none_match, tag):
        return Response(status_code=304, headers={"ETag": tag, **KEPT})
    if range is not None and not (if_range in (None, tag) and one_range(range, found.bytes)):
        kept = [h for h in request.scope["headers"] if h[0].lower() != b"range"]
        request.scope["headers"] = kept  # the whole file is the answer
    page = found.media_type == "text/html"
    return FileResponse(
        found.file, media_type=found.media_type, filename=found.file.name,
        content_disposition_type="inline" if page else "attachment",
        headers={"ETag": tag, **KEPT, **({"Content-Security-Policy": PAGE_POLICY} if page else {})},
    )  # fmt: skip


def _document(file: Written) -> dict[str, Any]:
    return {
        "path": file.path, "bytes": file.bytes, "media_type": file.media_type,
        "sha256": file.sha256,
    }  # fmt: skip


def same(given: str | None, tag: str) -> bool:
    """Whether If-None-Match names ``tag``."""
    tags = [t.strip().removeprefix("W/") for t in (given or "").split(",")]
    return "*" in tags or tag in tags
