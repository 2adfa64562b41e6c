"""CSV: a row a layer and scheme, as ``bitfront profile --csv`` writes, or as anyone can.

    table,metric,layer,scheme,value,stderr,samples
    sample@2,kl,blocks.0,w4,0.0123,0.0004,512

``layer``, ``scheme`` and ``value`` must be there. Without ``metric`` the values are ``score``,
of no known unit; without ``table`` the metric tells tables apart. Empty and nan values are no
scores.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Iterator

from bitfront.errors import InvalidInput, SchemeError, UnknownName
from bitfront.scheme import Scheme

from .base import IMPORTERS, Asked, Importer, Score, Scores, shown
from .source import Source

NEEDED = ("layer", "scheme", "value")
KNOWN = (*NEEDED, "table", "metric", "stderr", "samples")
MOST = 2.0**53  # samples, beyond which floats skip numbers
UNKNOWN = "score"  # the metric of values whose unit nobody says
_METRIC = re.compile(r"[\w.:+-]{1,64}")
_HEAD = "begin it with a line of column names: layer,scheme,value, and maybe metric,stderr,samples"

Row = dict[str, str]


@IMPORTERS.register("csv")
class Csv(Importer):
    """Rows under column names."""

    name = "csv"
    takes = frozenset({"table"})

    def recognises(self, source: Source) -> bool:
        if source.text is None or source.looks_like_json:
            return False
        first = source.text.partition("\n")[0]
        return set(NEEDED) <= {word.strip() for word in first.split(",")}

    def read(self, source: Source, asked: Asked) -> Scores:
        if source.text is None:
            raise InvalidInput("it is no text", "give a CSV file")
        tables: dict[str, list[tuple[int, Row]]] = {}
        for line, row in _rows(source.text):
            name = row["table"] or row["metric"] or UNKNOWN
            tables.setdefault(name, []).append((line, row))
        if not tables:
            raise InvalidInput("it has no rows", _HEAD)
        name = next(iter(tables)) if asked.table is None else asked.table
        if name not in tables:
            raise UnknownName(f"it has no table {name!r}", f"choose from {', '.join(tables)}")
        others = [other for other in tables if other != name]
        notes = (f"table {name!r} was taken, not {', '.join(others)}",) if others else ()
        rows = tables[name]
        metric = _metric(rows)
        scores = [_score(line, row) for line, row in rows]
        unit = f"{metric}, as the file says" if metric != UNKNOWN else "of no known unit"
        return Scores(
            metric, unit, tuple(score for score in scores if score is not None),
            unscored=Counter("it has no value" for score in scores if score is None),
            notes=notes,
        )  # fmt: skip


def _rows(text: str) -> Iterator[tuple[int, Row]]:
    """(line, column -> word) of each row."""
    reader = csv.reader(io.StringIO(text))
    try:
        columns = [word.strip() for word in next(reader, [])]
        missing = [name for name in NEEDED if name not in columns]
        if missing:
            raise InvalidInput(f"it has no column {missing[0]!r}", _HEAD)
        twice = [name for name in KNOWN if columns.count(name) > 1]
        if twice:
            raise InvalidInput(f"it has two columns {twice[0]!r}", "leave one")
        for words in reader:
            if not any(word.strip() for word in words):
                continue
            if len(words) != len(columns):
                raise InvalidInput(
                    f"line {reader.line_num} has {len(words)} cells, not {len(columns)}",
                    "give each column a cell; a name with a comma needs quotes",
                )
            row = dict(zip(columns, map(str.strip, words), strict=True))
            yield reader.line_num, {name: row.get(name, "") for name in KNOWN}
    except csv.Error as error:
        raise InvalidInput(f"it is no CSV file ({error})", _HEAD) from None


def _metric(rows: list[tuple[int, Row]]) -> str:
    """What all of the rows are."""
    metric = rows[0][1]["metric"] or UNKNOWN
    if not _METRIC.fullmatch(metric):
        raise InvalidInput(
            f"line {rows[0][0]} has the metric {shown(metric)}", "name it like kl: no spaces or @"
        )
    for line, row in rows:
        if (row["metric"] or UNKNOWN) != metric:
            raise InvalidInput(
                f"line {line} is of {shown(row['metric'])}, the table's first of {metric!r}",
                "give each metric a table of its own",
            )
    return metric


def _score(line: int, row: Row) -> Score | None:
    """None where there is no value."""
    if not row["layer"] or not row["scheme"]:
        raise InvalidInput(f"line {line} names no layer or no scheme", "name both")
    if "*" in row["layer"]:
        raise InvalidInput(f"line {line} has the layer {shown(row['layer'])}", "name each layer")
    value = _figure(line, row, "value")
    if math.isnan(value):
        return None
    stderr, samples = _figure(line, row, "stderr", 0.0), _figure(line, row, "samples", 0.0)
    if not math.isnan(samples) and not (samples.is_integer() and samples < MOST):
        raise InvalidInput(f"line {line} has {row['samples']} samples", "give a whole number")
    scheme: Scheme | str
    try:
        scheme = Scheme.parse(row["scheme"])
    except SchemeError:
        scheme = row["scheme"]
    return Score((row["layer"],), scheme, value, stderr, int(samples) if samples == samples else 0)


def _figure(line: int, row: Row, column: str, least: float = -math.inf) -> float:
    """The number in a cell; nan for an empty one."""
    word = row[column]
    try:
        value = float(word) if word else math.nan
    except ValueError:
        raise InvalidInput(f"line {line} has the {column} {shown(word)}", "give a number") from None
    if math.isinf(value) or value < least:
        raise InvalidInput(
            f"line {line} has the {column} {shown(word)}",
            "give a finite number" + (f", {least:g} or more" if math.isfinite(least) else ""),
        )
    return value
