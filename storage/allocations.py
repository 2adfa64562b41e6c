"""Allocations of all trials of a study, put together by the database: a row for each trial."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, Text, cast, func, select
from sqlalchemy.dialects.postgresql import aggregate_order_by

from .engine import Database
from .models import TrialLayerRow, TrialRow
from .records import AllocationRow, StudyRecord


def allocations(database: Database, study: StudyRecord) -> Iterator[AllocationRow]:
    """Of every trial that has layers, in no order."""
    R = TrialRow
    ids = select(R.id).where(R.study_id == study.id)
    query = select(R.id, R.settings["container"].as_string()).where(R.study_id == study.id)
    with database.reading() as connection:
        containers = {row[0]: row[1] for row in connection.execute(query)}
        for id, layers, schemes in listed(connection, ids):
            yield AllocationRow(id, containers[id], layers, schemes)


def listed(
    connection: Connection, ids: Select[Any]
) -> Iterator[tuple[int, tuple[str, ...], tuple[str, ...]]]:
    """The layers and schemes of the trials that ``ids`` selects, in no order of trials."""

    @cache  # trials of one model have the same layers
    def read(text: str) -> tuple[str, ...]:
        return tuple(json.loads(text))

    of = ids.subquery()
    L = TrialLayerRow
    rows = select(L.trial_id, L.position, L.layer, L.scheme).join(of, L.trial_id == of.c[0])
    lists: list[Any]
    if connection.dialect.name == "sqlite":  # goes by the order of what it is given
        given = rows.order_by(L.trial_id, L.position).subquery().c
        lists = [func.json_group_array(column) for column in (given.layer, given.scheme)]
    else:
        given = rows.subquery().c
        lists = [
            cast(func.json_agg(aggregate_order_by(column, given.position)), Text)
            for column in (given.layer, given.scheme)
        ]
    query = select(given.trial_id, *lists).group_by(given.trial_id)
    for id, layers, schemes in connection.execute(query).all():
        yield id, read(layers), tuple(json.loads(schemes))
