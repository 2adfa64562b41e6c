"""Studies: opened under a name, and never resumed with something else."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any

from sqlalchemy import Connection, func, select

from bitfront.errors import InvalidInput, StudyMismatch, UnknownName

from .arrays import plain
from .engine import Database, now
from .models import MeasurementTallyRow, StudyRow, TrialTallyRow
from .named import COST, METRIC, Kind, ranges
from .records import StudyRecord, StudySummary

LONGEST_NAME = 200  # characters; an index of PostgreSQL has room for no more than some hundreds

Ranges = dict[int, dict[str, tuple[float, float]]]


class Studies(Database):
    """Creating, comparing and listing studies."""

    def open_study(
        self, name: str, fingerprint: Mapping[str, str], settings: Mapping[str, Any]
    ) -> StudyRecord:
        """The study ``name``, created if it is new. Safe when several processes do so at once.

        ``settings`` are recorded when the study is created and not compared later: what must stay
        the same belongs into the ``fingerprint``. Raises ``StudyMismatch`` naming every field in
        which the recorded fingerprint differs.
        """
        check_name(name)
        fields = {str(key): str(value) for key, value in fingerprint.items()}
        row = {
            "name": name,
            "created": now(),
            "fingerprint": fields,
            "settings": plain(settings, f"the settings of study {name!r}"),
        }
        with self.writing() as connection:
            connection.execute(self.insert(StudyRow), row)
            study = _find(connection, name)
        assert study is not None
        _compare(study, fields)
        return study

    def study(self, name: str) -> StudyRecord:
        """The study ``name``. Raises ``UnknownName`` listing the names that are near."""
        check_name(name)
        with self.reading() as connection:
            study = _find(connection, name)
            if study is not None:
                return study
            names = _names(connection)
        near = get_close_matches(name, names, n=5, cutoff=0.5) or names[:10]
        known = ", ".join(repr(n) for n in near)
        raise UnknownName(
            f"no study named {name!r}",
            f"did you mean {known}?" if near else "the database has no studies yet",
        )

    def names(self) -> list[str]:
        """The names of all studies, in alphabetical order."""
        with self.reading() as connection:
            return _names(connection)

    def created(self) -> dict[str, str]:
        """The name of every study, and when it was begun; oldest first."""
        query = select(StudyRow.name, StudyRow.created).order_by(StudyRow.id)
        with self.reading() as connection:
            return {row.name: row.created for row in connection.execute(query)}

    def studies(self, among: Collection[str] | None = None) -> list[StudySummary]:
        """All studies, oldest first, with counts and the ranges of their trials' figures.

        among: names, of which there are not too many for a query; all if None.
        """
        query = select(StudyRow.id, StudyRow.name, StudyRow.created).order_by(StudyRow.id)
        if among is not None:
            query = query.where(StudyRow.name.in_(among))
        with self.reading() as connection:
            rows = connection.execute(query).all()
            ids = query.with_only_columns(StudyRow.id).order_by(None)
            measurements = _counts(connection, MeasurementTallyRow.measurements, ids)
            trials = _counts(connection, TrialTallyRow.trials, ids)
            metrics = _ranges(connection, METRIC, ids)
            costs = _ranges(connection, COST, ids)
        return [
            StudySummary(
                name=row.name,
                created=row.created,
                measurements=measurements.get(row.id, 0),
                trials=trials.get(row.id, 0),
                metrics=metrics[row.id],
                costs=costs[row.id],
            )
            for row in rows
        ]


def check_name(name: str) -> None:
    """Raises ``InvalidInput`` for a name that no study can have."""
    if not name.strip():
        raise InvalidInput(f"study name {name!r}", "give the study a name")
    if not name.isprintable():
        raise InvalidInput(f"study name {name!r}", "use characters that can be printed")
    if len(name) > LONGEST_NAME:
        raise InvalidInput(
            f"study name {name[:20]!r}… of {len(name)} characters", f"use at most {LONGEST_NAME}"
        )


def _names(connection: Connection) -> list[str]:
    return list(connection.scalars(select(StudyRow.name).order_by(StudyRow.name)))


def _find(connection: Connection, name: str) -> StudyRecord | None:
    row = connection.execute(
        select(
            StudyRow.id, StudyRow.name, StudyRow.created, StudyRow.fingerprint, StudyRow.settings
        ).where(StudyRow.name == name)
    ).one_or_none()
    return None if row is None else StudyRecord(*row)


def _compare(study: StudyRecord, fields: Mapping[str, str]) -> None:
    recorded = study.fingerprint
    differing = [
        f"{field} was {_shown(recorded.get(field))} and is now {_shown(fields.get(field))}"
        for field in sorted(recorded.keys() | fields.keys())
        if recorded.get(field) != fields.get(field)
    ]
    if differing:
        raise StudyMismatch(
            f"study {study.name!r} was begun with something else: {'; '.join(differing)}",
            "restore what it was begun with, or give the study another name",
        )


def _shown(value: str | None) -> str:
    if value is None:
        return "absent"
    digest = re.fullmatch(r"(\w+:)?[0-9a-f]{32,}", value)
    return f"{value[:19]}…" if digest else repr(value)


def _counts(connection: Connection, tally: Any, ids: Any) -> dict[int, int]:
    study = tally.class_.study_id
    query = select(study, func.sum(tally)).where(study.in_(ids)).group_by(study)
    return {row[0]: int(row[1]) for row in connection.execute(query)}


def _ranges(connection: Connection, kind: Kind, ids: Any) -> Ranges:
    found: Ranges = defaultdict(dict)
    for study, name, least, greatest in connection.execute(ranges(ids, kind)):
        if not math.isnan(least):
            found[study][name] = (least, greatest)
    return found
