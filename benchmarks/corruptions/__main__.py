"""Corrupted and mismatched exports of real models: what the audit makes of each.

    python -m benchmarks.corruptions > benchmarks/results/corruptions.json

JSON on standard output, a table on standard error; exit code 1 where any corruption is missed, or
where a sound folder is not passed. Each trial (benchmarks/exports.py) is exported once and audited;
then each corruption is made in a copy of the folder, which is audited in a fresh process, with the
functions that ``bitfront export`` calls. "signed": the manifest's digests are made those of the
damaged files, so that only weights, settings and outputs can tell.

``--only WORDS`` takes those whose name has the words. ``--resume FILE`` keeps what is found there,
a line each, and does not do again what is there already.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.common import arguments, head, parsed, plain, show, write
from benchmarks.corruptions.blocks import BLOCKS
from benchmarks.corruptions.changes import Change, Corruption
from benchmarks.corruptions.graphs import GRAPH
from benchmarks.corruptions.networks import NETWORK, PIPELINE
from benchmarks.corruptions.packed import PACKED
from benchmarks.exports import Export, exports

CORRUPTIONS = [*PACKED, *BLOCKS, *GRAPH, *NETWORK, *PIPELINE]


def audited(export: Export, room: Path, change: Change | None) -> dict[str, Any]:
    """What the audit finds in a copy of the sound folder, changed."""
    copy = room / "copy"
    shutil.copytree(export.sound, copy)
    before = contents(copy)
    try:
        if change is not None:
            change(export, copy)
            assert contents(copy) != before
        begun = time.perf_counter()
        found = export.compare(copy)
        return {
            "caught": not found.ok,
            "failure": found.failures[0].replace(f"{room}/", "") if found.failures else None,
            "max difference": found.max_difference,
            "spread": found.spread,
            "seconds": time.perf_counter() - begun,
        }
    finally:
        shutil.rmtree(copy)


def described(corruption: Corruption, export: Export, room: Path) -> dict[str, Any]:
    """What the audit makes of a corruption."""
    return {
        "container": export.container.name,
        "done": corruption.what,
        "signed": corruption.signed,
        **audited(export, room, corruption.apply),
    }


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


class Rows:
    """What was found, by name; kept in a file of lines where there is one."""

    def __init__(self, path: Path | None) -> None:
        self.path, self.found = path, dict[str, dict[str, Any]]()
        if path is not None and path.is_file():
            rows = map(json.loads, path.read_text().splitlines())
            self.found = {row["name"]: row for row in rows}

    def add(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The row of a name, made where it is not known."""
        if name not in self.found:
            row = self.found[name] = {"name": name, **plain(make())}
            print(json.dumps(row), file=sys.stderr, flush=True)
            if self.path is not None:
                with self.path.open("a") as file:
                    file.write(json.dumps(row) + "\n")
        return self.found[name]


def main(options: argparse.Namespace) -> int:
    rows = Rows(options.resume)
    sound, damaged = [], []
    with tempfile.TemporaryDirectory(prefix="bitfront-corruptions-") as name:
        room = Path(name)
        made = exports(options.assets, room)
        for key, export in made.items():
            wanted = [c for c in CORRUPTIONS if c.export == key and options.only in c.name]
            if not wanted:
                continue
            sound.append(rows.add(f"{key}: sound", partial(audited, export, room, None)))
            for c in wanted:
                damaged.append(rows.add(c.name, partial(described, c, export, room)))
    columns = ["name", "caught", "failure"]
    show("Corruptions", columns, [[row[c] for c in columns] for row in [*sound, *damaged]])
    caught = sum(row["caught"] for row in damaged)
    print(f"{caught} of {len(damaged)} caught", file=sys.stderr)
    write({**head(), "caught": caught, "of": len(damaged), "sound": sound, "corruptions": damaged})
    return 0 if caught == len(damaged) and not any(row["caught"] for row in sound) else 1


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("--resume", type=Path, help="a file of what is known")
    parser.add_argument("--only", default="", help="words in a corruption's name")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    sys.exit(main(parsed(parser, 1)))
