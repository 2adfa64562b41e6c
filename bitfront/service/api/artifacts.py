"""The files that a job wrote, with their digests; only what is under the server's output folder."""

from __future__ import annotations

import hashlib
import mimetypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from bitfront.storage import Job
from bitfront.storage.jobstates import SUCCEEDED

from .problems import Problem

MEDIA = {".safetensors": "application/octet-stream", ".jinja": "text/plain", ".md": "text/markdown"}


@dataclass(frozen=True)
class Written:
    """file: where it is. path: within the job's folder, with slashes."""

    file: Path
    path: str
    bytes: int
    media_type: str
    sha256: str


def written(job: Job, output: Path | None) -> list[Written]:
    """The files of a job, by their paths.

    Raises ``Problem`` for one that has not succeeded, that writes no files, or wrote elsewhere.
    """
    if job.kind not in ("export", "report"):
        raise Problem(
            404, f"job {job.id} is a {job.kind}, which writes no files",
            "ask for those of an export or a report", "no-files",
        )  # fmt: skip
    if job.state != SUCCEEDED or job.result is None:
        raise Problem(
            409, f"job {job.id} is {job.state}", "its files are there when it succeeded", "no-files"
        )
    place = job.result["folder"] if job.kind == "export" else job.result["html"]
    folder = Path(os.path.realpath(place if job.kind == "export" else Path(place).parent))
    home = None if output is None else Path(os.path.realpath(output))
    if home is None or folder.parent != home or not folder.is_dir():
        raise Problem(
            404, f"the files of job {job.id} are not in this server's output folder",
            "look where its request says", "no-files",
        )  # fmt: skip
    return [_written(path, folder) for path in sorted(folder.rglob("*")) if _plain(path)]


def hash_of(files: Sequence[Written]) -> str:
    """Of the names and contents of all of them."""
    text = "\n".join(f"{file.sha256} {file.path}" for file in files)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _written(file: Path, folder: Path) -> Written:
    known = file.stat()
    kind = MEDIA.get(file.suffix) or mimetypes.guess_type(file.name)[0]
    digest = _digest(str(file), known.st_size, known.st_mtime_ns)
    path = file.relative_to(folder).as_posix()
    return Written(file, path, known.st_size, kind or "application/octet-stream", digest)


@lru_cache(maxsize=4096)
def _digest(path: str, size: int, modified: int) -> str:
    """SHA-256 (hex) of a file, which is read again when its size or time is another."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
