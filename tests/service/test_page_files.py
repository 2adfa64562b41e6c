"""The files of the web page, as they are served."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import plotly
import pytest

from bitfront.service.api import page
from tests.service.apis import problem, serving

ROOT = Path(__file__).resolve().parents[2]
FILES = ROOT / "bitfront" / "service" / "page"
TOKEN = "a-token-for-everything"


def test_the_page_and_everything_it_names(tmp_path: Path) -> None:
    with serving(str(tmp_path / "b.db")) as client:
        found = client.get("/")
        assert found.headers["content-type"] == "text/html; charset=utf-8"
        assert found.headers["cache-control"] == "no-cache"
        again = client.get("/", headers={"if-none-match": found.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        named = re.findall(r'(?:src|href)="(page/[^"]+)"', found.text)
        assert len(named) >= 4
        for address in named:
            assert client.get(f"/{address}").status_code == 200
        folder = named[0].rpartition("/")[0]
        for file in FILES.iterdir():
            if file.name == "index.html":
                continue
            got = client.get(f"/{folder}/{file.name}")
            assert got.content == file.read_bytes(), file.name
            assert "immutable" in got.headers["cache-control"]
            same = client.get(
                f"/{folder}/{file.name}", headers={"if-none-match": got.headers["etag"]}
            )
            assert same.status_code == 304
            kind = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
            assert got.headers["content-type"].startswith(kind[file.suffix])


def test_files_are_sent_packed_to_whoever_can_read_that(tmp_path: Path) -> None:
    with serving(str(tmp_path / "b.db")) as client:
        for name in ("plotly.js", "main.js", "icon.svg"):
            plain = client.get(f"/page/{page.tag()}/{name}", headers={"accept-encoding": "br"})
            packed = client.get(f"/page/{page.tag()}/{name}", headers={"accept-encoding": "gzip"})
            assert plain.content == packed.content  # unpacked by the client
            assert "content-encoding" not in plain.headers
            assert packed.headers["content-encoding"] == "gzip"
            assert int(packed.headers["content-length"]) < int(plain.headers["content-length"])
            assert plain.headers["etag"] != packed.headers["etag"]
            assert plain.headers["vary"] == packed.headers["vary"] == "Accept-Encoding"


def test_the_page_names_every_module_and_nothing_else_as_one(tmp_path: Path) -> None:
    with serving(str(tmp_path / "b.db")) as client:
        text = client.get("/").text
    named = set(re.findall(r'rel="modulepreload" href="page/[^/]+/([^"]+)"', text))
    found, left = set(), ["main.js"]
    while left:
        name = left.pop()
        found.add(name)
        imported = re.findall(r'from "\./([^"]+)"', (FILES / name).read_text())
        left += set(imported) - found
    assert named == found


def test_modules_name_modules_that_are_there() -> None:
    for file in FILES.glob("*.js"):
        for name in re.findall(r'from "\./([^"]+)"', file.read_text()):
            assert (FILES / name).is_file(), (file.name, name)


def test_plotly_is_that_of_the_package(tmp_path: Path) -> None:
    with serving(str(tmp_path / "b.db")) as client:
        got = client.get(f"/page/{page.tag()}/plotly.js")
        own = Path(str(plotly.__file__)).parent / "package_data" / "plotly.min.js"
        assert got.content == own.read_bytes()
        assert "immutable" in got.headers["cache-control"]
        assert got.headers["content-type"].startswith("text/javascript")
    assert page.taken() in own.read_text()


def test_nothing_else_is_served(tmp_path: Path) -> None:
    with serving(str(tmp_path / "b.db")) as client:
        for address in (
            f"/page/{page.tag()}/index.html", f"/page/{page.tag()}/..%2Fdriver.py",
            f"/page/{page.tag()}/%2Fetc%2Fpasswd", "/page/0123456789abcdef/main.js",
            "/page/main.js",
        ):  # fmt: skip
            problem(client.get(address), 404, "not-found")
        problem(client.post("/"), 405, "method-not-allowed")


def test_the_policy_lets_nothing_run_but_the_pages_files(tmp_path: Path) -> None:
    with serving(str(tmp_path / "b.db")) as client:
        policy = client.get("/").headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        file = client.get(f"/page/{page.tag()}/main.js").headers["content-security-policy"]
        assert file.startswith("default-src 'none'")


@pytest.mark.parametrize("file", sorted(FILES.iterdir()), ids=lambda file: file.name)
def test_no_file_names_another_host(file: Path) -> None:
    text = file.read_text()
    hosts = re.findall(r"\b(?:https?:)?//[a-z][\w-]*\.[\w.-]+", text)
    assert [host for host in hosts if host != "http://www.w3.org"] == []
    assert "innerHTML" not in text
    assert not re.search(r"\beval\(|new Function", text)


def test_the_page_needs_no_token_and_tells_nothing(tmp_path: Path) -> None:
    with serving(str(tmp_path / "b.db"), token=TOKEN) as client:
        assert client.get("/").status_code == 200
        assert client.get(f"/page/{page.tag()}/main.js").status_code == 200
        problem(client.get("/api/v1/meta"), 401, "unauthorized")
    with serving(str(tmp_path / "b.db")) as client:
        problem(client.get("/", headers={"host": "evil.example"}), 421, "misdirected")


def test_behind_a_prefix(tmp_path: Path) -> None:
    with serving(str(tmp_path / "b.db"), prefix="/bitfront", token=TOKEN) as client:
        for address in ("/bitfront/", "/"):
            assert client.get(address).status_code == 200
        moved = client.get("/bitfront", follow_redirects=False)
        assert (moved.status_code, moved.headers["location"]) == (308, "/bitfront/")
        assert client.get(f"/bitfront/page/{page.tag()}/main.js").status_code == 200
        problem(client.get("/bitfrontier"), 401, "unauthorized")


def test_who_asks_is_told_whether_they_may_change_anything(tmp_path: Path) -> None:
    reading = "another-token-for-reading"
    with serving(str(tmp_path / "b.db"), token=TOKEN, read_token=reading) as client:
        for token, changes in ((TOKEN, True), (reading, False)):
            found = client.get("/api/v1/meta", headers={"authorization": f"Bearer {token}"}).json()
            assert found["changes"] is changes
    with serving(str(tmp_path / "b.db")) as client:
        assert client.get("/api/v1/meta").json()["changes"] is True


def test_the_files_are_packaged() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert settings["package-data"]["bitfront.service"] == ["page/*"]
    assert all(file.is_file() for file in FILES.iterdir())
