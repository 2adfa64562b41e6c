"""What jobs wrote, fetched over HTTP: whole, in ranges, as one archive; and nothing else."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from bitfront.service.api.problems import Problem
from bitfront.service.api.ranges import one_range
from bitfront.storage import Store
from tests.service.apis import fill, problem, serving

WEIGHTS = bytes(range(256)) * 300


@dataclass
class Place:
    client: TestClient
    store: Store
    out: Path

    def export(self, folder: Path | None = None, state: str = "succeed") -> int:
        """A job that wrote to ``folder``."""
        place = folder or self.out / "export-1"
        job, _ = self.store.submit("export", "llama", {"trial": 1, "folder": str(place)})
        claimed = self.store.claim("w1", 60.0)
        assert claimed is not None
        if state == "succeed":
            self.store.succeed(claimed, {"folder": str(place)})
        return job.id


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    db, out = tmp_path / "b.db", tmp_path / "out"
    (out / "export-1" / "sub").mkdir(parents=True)
    (out / "export-1" / "model.safetensors").write_bytes(WEIGHTS)
    (out / "export-1" / "bitfront.json").write_text("{}")
    (out / "export-1" / "sub" / "a b%.txt").write_text("text")
    with serving(str(db), output=out) as client, Store.open(db) as store:
        fill(store)
        yield Place(client, store, out)


def test_files_are_listed(place: Place) -> None:
    id = place.export()
    found = place.client.get(f"/api/v1/jobs/{id}/files").json()["items"]
    assert [file["path"] for file in found] == [
        "bitfront.json", "model.safetensors", "sub/a b%.txt",
    ]  # fmt: skip
    assert found[1] == {
        "path": "model.safetensors", "bytes": len(WEIGHTS),
        "media_type": "application/octet-stream", "sha256": hashlib.sha256(WEIGHTS).hexdigest(),
    }  # fmt: skip
    assert [file["media_type"] for file in found[::2]] == ["application/json", "text/plain"]


def test_a_file_with_its_etag(place: Place) -> None:
    address = f"/api/v1/jobs/{place.export()}/files/model.safetensors"
    whole = place.client.get(address)
    assert whole.content == WEIGHTS
    assert whole.headers["accept-ranges"] == "bytes"
    assert whole.headers["content-length"] == str(len(WEIGHTS))
    assert whole.headers["content-disposition"] == 'attachment; filename="model.safetensors"'
    tag = whole.headers["etag"]
    assert tag == f'"{hashlib.sha256(WEIGHTS).hexdigest()}"'
    for match in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        same = place.client.get(address, headers={"if-none-match": match})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
        assert same.headers["cache-control"] == "private, no-cache"
    assert place.client.get(address, headers={"if-none-match": '"x"'}).status_code == 200
    (place.out / "export-1" / "model.safetensors").write_bytes(WEIGHTS[::-1])
    changed = place.client.get(address, headers={"if-none-match": tag})
    assert (changed.status_code, changed.content) == (200, WEIGHTS[::-1])
    strange = place.client.get(address.replace("model.safetensors", "sub/a%20b%25.txt"))
    assert strange.text == "text"


def test_ranges(place: Place) -> None:
    address = f"/api/v1/jobs/{place.export()}/files/model.safetensors"
    size = len(WEIGHTS)
    for header, part in (
        ("bytes=0-0", slice(0, 1)), ("bytes=10-99", slice(10, 100)), ("bytes=-5", slice(-5, None)),
        (f"bytes={size - 1}-", slice(-1, None)), (f"bytes=70000-{2 * size}", slice(70000, None)),
        (f"bytes=-{2 * size}", slice(None)),
    ):  # fmt: skip
        found = place.client.get(address, headers={"range": header})
        start, stop, _ = part.indices(size)
        assert (found.status_code, found.content) == (206, WEIGHTS[part]), header
        assert found.headers["content-range"] == f"bytes {start}-{stop - 1}/{size}"
    for header in ("bytes=5-2", "bytes", "rows=0-1", "bytes=0-1,5-9", "bytes=a-b", "bytes=--1"):
        assert place.client.get(address, headers={"range": header}).content == WEIGHTS, header
    for header in (f"bytes={size}-", "bytes=-0"):
        past = place.client.get(address, headers={"range": header})
        problem(past, 416, "range-not-satisfiable")
        assert past.headers["content-range"] == f"bytes */{size}"
    tag = place.client.get(address).headers["etag"]
    for match, status in ((tag, 206), ('"x"', 200), (f"W/{tag}", 200)):
        headers = {"range": "bytes=0-0", "if-range": match}
        assert place.client.get(address, headers=headers).status_code == status


@given(st.text("0123456789-, bytes=", max_size=20), st.integers(0, 100))
def test_a_range_is_one_within_the_file_or_none(text: str, size: int) -> None:
    try:
        found = one_range(text, size)
    except Problem:  # not within the file
        return
    if found:
        first, last = text.lower().partition("=")[2].strip().split("-")
        start = int(first) if first else max(size - int(last), 0)
        stop = min(int(last) + 1, size) if first and last else size
        assert 0 <= start < stop <= size


def test_an_archive(place: Place) -> None:
    address = f"/api/v1/jobs/{place.export()}/archive"
    done = place.client.get(address)
    assert done.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(done.content)) as archive:
        assert archive.testzip() is None
        assert archive.read("model.safetensors") == WEIGHTS
        assert archive.namelist() == ["bitfront.json", "model.safetensors", "sub/a b%.txt"]
    again = place.client.get(address, headers={"if-none-match": done.headers["etag"]})
    assert again.status_code == 304
    assert place.client.get(address).content == done.content


@pytest.mark.parametrize(
    "path", ["../b.db", "..%2Fb.db", "%2Fetc%2Fpasswd", "link", "folder/b.db", "sub", "", "."]
)
def test_nothing_else_is_sent(place: Place, path: str) -> None:
    folder = place.out / "export-1"
    (folder / "link").symlink_to(place.out.parent / "b.db")
    (folder / "folder").symlink_to(place.out.parent)
    id = place.export()
    listed = place.client.get(f"/api/v1/jobs/{id}/files").json()["items"]
    assert len(listed) == 3
    done = place.client.get(f"/api/v1/jobs/{id}/files/{path}")
    assert done.status_code == 404 or (path == "." and done.json()["items"] == listed)


def test_files_of_jobs_that_have_none_to_give(place: Place, tmp_path: Path) -> None:
    (tmp_path / "else").mkdir()
    other = place.export(tmp_path / "else")
    problem(place.client.get(f"/api/v1/jobs/{other}/files"), 404, "no-files")
    outer = place.export(place.out / ".." / "out" / ".." / "else" / "..")
    problem(place.client.get(f"/api/v1/jobs/{outer}/files"), 404, "no-files")
    running = place.export(state="running")
    problem(place.client.get(f"/api/v1/jobs/{running}/files"), 409, "no-files")
    search, _ = place.store.submit("search", "llama", {})
    problem(place.client.get(f"/api/v1/jobs/{search.id}/archive"), 404, "no-files")
    problem(place.client.get("/api/v1/jobs/99/files"), 404, "unknown-name")


def test_a_report_is_a_page_that_reaches_nothing(place: Place) -> None:
    done: dict[str, Any] = place.client.post(
        "/api/v1/studies/llama/jobs", json={"kind": "report"}
    ).json()
    html = Path(done["request"]["html"])
    html.write_text("<script>1</script>")
    job = place.store.claim("w1", 60.0)
    assert job is not None
    place.store.succeed(job, {"html": str(html)})
    page = place.client.get(f"/api/v1/jobs/{done['id']}/files/report.html")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'unsafe-inline'")
    assert "sandbox allow-scripts" in policy
    assert "allow-same-origin" not in policy
