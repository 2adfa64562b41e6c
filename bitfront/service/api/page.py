"""The web page: its files as they are in the package, and plotly.js of the installed package.

All but the page itself stand in a folder that is named by their content, so that a browser keeps
them for good and never mixes two versions. They hold no data, so they need no token.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import version
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from string import Template

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse

from bitfront import __version__

from .files import Tags, same
from .problems import Problem

router = APIRouter(include_in_schema=False)
PLOTLY = "plotly.js"
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
    match = re.search(r'getElementById\("([0-9a-f]{64})"\)', plotly().read_text(encoding="utf-8"))
    return match[1] if match else "no-maps"


@router.get("/", name="page")
def index(if_none_match: Tags = None) -> Response:
    """The page, which finds everything else beside itself."""
    text = Template(contents()["index.html"].decode())
    filled = text.substitute(folder=f"page/{tag()}", version=__version__, maps=taken())
    headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-cache"}
    return _answer(filled.encode(), "text/html", if_none_match, headers)


@router.get("/page/{folder}/{name}", name="page_file")
def file(folder: str, name: str, if_none_match: Tags = None) -> Response:
    """A script, a style or a picture of the page."""
    known = folder == tag() and (name == PLOTLY or name in contents())
    if not known or name == "index.html":
        raise Problem(404, f"the page has no file {folder}/{name}", "load the page again")
    headers = {"Cache-Control": KEPT}
    if name == PLOTLY:
        headers["ETag"] = f'"{tag()}"'
        return FileResponse(plotly(), media_type=MEDIA[".js"], headers=headers)
    return _answer(contents()[name], MEDIA[Path(name).suffix], if_none_match, headers)


def _answer(
    data: bytes, media_type: str, if_none_match: str | None, headers: Mapping[str, str]
) -> Response:
    mark = f'"{hashlib.sha256(data).hexdigest()}"'
    whole = {**headers, "ETag": mark}
    if same(if_none_match, mark):
        return Response(status_code=304, headers=whole)
    return Response(data, media_type=media_type, headers=whole)
