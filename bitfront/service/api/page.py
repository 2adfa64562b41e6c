"""The web page: its files as they are in the package, and plotly.js of the installed package.

All but the page itself stand in a folder that is named by their content, so that a browser keeps
them for good and never mixes two versions. They hold no data, so they need no token.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Mapping
from functools import cache, lru_cache
from importlib.metadata import version
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import Annotated

from fastapi import APIRouter, Header, Response

from bitfront import __version__

from .files import Tags, same
from .problems import Problem

router = APIRouter(include_in_schema=False)
INDEX, PLOTLY = "index.html", "plotly.js"
EARLY = "early.js"  # a script, and not a module
MEDIA = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
# plotly.js makes pictures of a figure through data: and blob:. It would insert style elements too,
# which the page tells it not to: page.css has those rules.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
KEPT = "public, max-age=31536000, immutable"


@lru_cache(maxsize=1)
def contents() -> Mapping[str, bytes]:
    """Name -> content of every file of the page."""
    folder = files("bitfront.service").joinpath("page")
    return {item.name: item.read_bytes() for item in folder.iterdir() if item.is_file()}


@lru_cache(maxsize=1)
def tag() -> str:
    """Of the content of all files."""
    parts = [f"{name} {hashlib.sha256(data).hexdigest()}" for name, data in contents().items()]
    whole = "\n".join([*sorted(parts), version("plotly"), __version__])
    return hashlib.sha256(whole.encode()).hexdigest()[:16]


@lru_cache(maxsize=1)
def plotly() -> Path:
    """Where the installed package has plotly.js; without importing the package."""
    found = find_spec("plotly")
    assert found is not None
    assert found.submodule_search_locations is not None
    return Path(found.submodule_search_locations[0]) / "package_data" / "plotly.min.js"


@lru_cache(maxsize=1)
def taken() -> str:
    """Id of the style element that plotly.js makes for maps, unless there is an element of this
    id: the page has one, as it draws no maps and its policy would refuse that element."""
    match = re.search(r'getElementById\("([0-9a-f]{64})"\)', _content(PLOTLY).decode())
    return match[1] if match else "no-maps"


@lru_cache(maxsize=1)
def modules() -> str:
    """What tells a browser of all modules at once, before it has read which one needs which."""
    names = sorted(n for n in contents() if n.endswith(".js") and n != EARLY)
    return "\n".join(f'<link rel="modulepreload" href="page/{tag()}/{n}">' for n in names)


@cache
def sent(name: str, packed: bool) -> tuple[bytes, str]:
    """A file and its tag; packed: by gzip, which leaves a third of plotly.js to wait for."""
    data = gzip.compress(_content(name), mtime=0) if packed else _content(name)
    return data, _tag_of(data)


@router.get("/", name="page")
async def index(if_none_match: Tags = None) -> Response:
    """The page, which finds everything else beside itself."""
    text = Template(contents()[INDEX].decode())
    filled = text.substitute(
        folder=f"page/{tag()}", version=__version__, maps=taken(), modules=modules()
    )
    headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-cache"}
    data = filled.encode()
    return _answer(data, _tag_of(data), "text/html", if_none_match, headers)


@router.get("/page/{folder}/{name}", name="page_file")
async def file(
    folder: str,
    name: str,
    if_none_match: Tags = None,
    accept_encoding: Annotated[str, Header()] = "",
) -> Response:
    """A script, a style or a picture of the page."""
    known = folder == tag() and (name == PLOTLY or name in contents())
    if not known or name == INDEX:
        raise Problem(404, f"the page has no file {folder}/{name}", "load the page again")
    headers = {"Cache-Control": KEPT, "Vary": "Accept-Encoding"}
    packed = "gzip" in accept_encoding
    if packed:
        headers["Content-Encoding"] = "gzip"
    return _answer(*sent(name, packed), MEDIA[Path(name).suffix], if_none_match, headers)


def _content(name: str) -> bytes:
    return plotly().read_bytes() if name == PLOTLY else contents()[name]


def _tag_of(data: bytes) -> str:
    return f'"{hashlib.sha256(data).hexdigest()}"'


def _answer(
    data: bytes, tag: str, media_type: str, if_none_match: str | None, headers: Mapping[str, str]
) -> Response:
    whole = {**headers, "ETag": tag}
    if same(if_none_match, tag):
        return Response(status_code=304, headers=whole)
    return Response(data, media_type=media_type, headers=whole)
