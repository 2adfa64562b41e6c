"""Many files as one zip that is sent while it is made: never whole in memory or on a disk."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Sequence

from .artifacts import Written

CHUNK = 1 << 20  # bytes
EPOCH = (1980, 1, 1, 0, 0, 0)  # of every entry, so that the same files are the same archive


class _Sink(io.RawIOBase):
    """Takes what is written until somebody fetches it."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        part = bytes(data)  # type: ignore[call-overload]  # bytes or a memoryview
        self._parts.append(part)
        return len(part)

    def fetched(self) -> bytes:
        whole = b"".join(self._parts)
        self._parts.clear()
        return whole


def zipped(files: Sequence[Written]) -> Iterator[bytes]:
    """The archive, in pieces. Files are stored as they are: weights do not compress."""
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for file in files:
            entry = zipfile.ZipInfo(file.path, EPOCH)
            entry.external_attr = 0o644 << 16
            with archive.open(entry, "w", force_zip64=True) as inside, file.file.open("rb") as data:
                while chunk := data.read(CHUNK):
                    inside.write(chunk)
                    yield sink.fetched()
    yield sink.fetched()
