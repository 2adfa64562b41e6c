"""HTML pages, read as a browser reads them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

HOSTILE = '</script><script>alert("1")</script><!-- & <img src=x onerror=y> $data ${study} %{x}'


@dataclass
class Page(HTMLParser):
    """A page read as a browser reads it."""

    text: str
    starts: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    inside: dict[str, list[str]] = field(default_factory=dict)  # tag -> texts of its elements

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.starts.append((tag, dict(attrs)))
        self.inside.setdefault(tag, []).append("")

    def handle_data(self, data: str) -> None:
        if self.starts:
            self.inside[self.starts[-1][0]][-1] += data

    @property
    def data(self) -> dict[str, Any]:
        return json.loads(self.inside["script"][0])

    @property
    def rows(self) -> list[dict[str, str]]:
        columns = [name.strip() for name in self.inside["th"]]
        cells = [cell.strip() for cell in self.inside["td"]]
        rows = [cells[i : i + len(columns)] for i in range(0, len(cells), len(columns))]
        return [dict(zip(columns, row, strict=True)) for row in rows]
