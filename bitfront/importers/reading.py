"""From files to what they say together: the format of each, and whether they may be one import."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

from bitfront.errors import BitfrontError, InvalidInput

from .base import IMPORTERS, Asked, Importer, Scores
from .source import Source


def read(
    paths: Sequence[str | Path], format: str | None = None, asked: Asked | None = None
) -> tuple[str, Scores]:
    """The format of the files, and what all of them say.

    format: recognised by content if None. Raises ``UnknownName`` for a format there is none of, and
    ``InvalidInput`` for a file that is of none, or not of the one named, and for files that are not
    of one run of one program.
    """
    if not paths:
        raise InvalidInput("no file of scores", "name one")
    asked = asked or Asked()
    sources = [Source(path) for path in paths]
    kinds = [_recognised(s) if format is None else IMPORTERS[format]() for s in sources]
    for source, kind in zip(sources, kinds, strict=True):
        if kind.name != kinds[0].name:
            raise InvalidInput(
                f"{str(sources[0].path)!r} is a file of {kinds[0].name}, {str(source.path)!r} of "
                f"{kind.name}",
                "import them apart",
            )
    _check_asked(kinds[0], asked)
    found = [_read(kind, s, asked) for kind, s in zip(kinds, sources, strict=True)]
    return kinds[0].name, _joined(found, [str(s.path) for s in sources])


def _recognised(source: Source) -> Importer:
    """Raises ``InvalidInput``."""
    kinds = (IMPORTERS[name]() for name in IMPORTERS)
    try:
        found = next((kind for kind in kinds if kind.recognises(source)), None)
    except InvalidInput as error:  # of JSON that cannot be read
        raise InvalidInput(f"{str(source.path)!r}: {error.what}", error.remedy) from None
    if found is None:
        raise InvalidInput(
            f"{str(source.path)!r} is of no format that is known ({', '.join(IMPORTERS)})",
            "write it as CSV with the columns layer, scheme, value (docs/import.md)",
        )
    return found


def _read(importer: Importer, source: Source, asked: Asked) -> Scores:
    try:
        return importer.read(source, asked)
    except BitfrontError as error:
        raise type(error)(f"{str(source.path)!r}: {error.what}", error.remedy) from None


def _check_asked(importer: Importer, asked: Asked) -> None:
    for field in fields(asked):
        if getattr(asked, field.name) and field.name not in importer.takes:
            takers = [name for name, kind in IMPORTERS.items() if field.name in kind.takes]
            raise InvalidInput(
                f"{field.name} for a file of {importer.name}",
                f"leave it out; it is for files of {', '.join(takers)}",
            )


def _joined(found: Sequence[Scores], names: Sequence[str]) -> Scores:
    first = found[0]
    for name, other in zip(names, found, strict=True):
        if (other.metric, other.run) != (first.metric, first.run):
            raise InvalidInput(
                f"{names[0]!r} and {name!r} are of different runs ({first.metric}, {other.metric})",
                "import them apart: scores of different data are on different scales",
            )
    unscored: Counter[str] = Counter()
    for scores in found:
        unscored.update(scores.unscored)
    return replace(
        first,
        scores=tuple(score for scores in found for score in scores.scores),
        unscored=unscored,
        notes=tuple(dict.fromkeys(note for scores in found for note in scores.notes)),
    )
