"""Trials, and the requests that they answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from numpy.typing import NDArray
from sqlalchemy import Connection, delete, insert, select, update

from bitfront.errors import UnknownName
from bitfront.scheme import KEEP
from bitfront.types import Estimate, Trial, content_key

from .allocations import listed
from .arrays import pack, plain, unpack
from .artifacts import NPY, Artifacts, Blob
from .engine import now
from .models import (
    TOO_LARGE,
    SelectionRow,
    TrialCostRow,
    TrialLayerRow,
    TrialMetricRow,
    TrialRow,
    TrialVectorRow,
)
from .records import Selection, StudyRecord
from .tallies import Tallies

_SELECTION = select(
    SelectionRow.request_key, SelectionRow.trial_id, SelectionRow.details, SelectionRow.created
)


class Trials(Artifacts, Tallies):
    """Recording built and measured allocations, once, and finding them again."""

    def add_trial(
        self,
        study: StudyRecord,
        trial: Trial,
        measured_by: str = "",
        vectors: Mapping[str, NDArray[Any]] = MappingProxyType({}),
    ) -> Trial:
        """Record ``trial`` and return it with its id and time; the first one recorded stays.

        A trial is known by its allocation and ``measured_by``, the content key of whatever settings
        decide what was measured. If there is one already, that one gets the metrics and ``vectors``
        (per-sample arrays) that it does not have yet, and is returned. Raises ``InvalidInput`` for
        vectors that are not numbers.
        """
        blobs = {
            name: self._blob(pack(array, f"{name!r} of a trial"), NPY)
            for name, array in vectors.items()
        }
        row: dict[str, Any] = {
            "study_id": study.id,
            "key": trial.key,
            "measured_by": measured_by,
            "created": now(),
            "solver": trial.solver,
            "predicted": trial.predicted,
            "bound": trial.bound,
            "seconds": trial.seconds,
            "settings": plain(trial.settings, "a trial's settings"),
            "quantized": sum(scheme != KEEP for scheme in trial.schemes.values()),
        }
        self._write(blobs.values())
        with self.writing(study) as connection:
            row["revision"] = self._revised(connection, study)
            added = connection.execute(
                self.insert(TrialRow).returning(TrialRow.id), row
            ).scalar_one_or_none()
            known = _known(study, trial.key, measured_by)
            if added is None:
                id = connection.execute(known.with_only_columns(TrialRow.id)).scalar_one()
                _mark(connection, id, row["revision"])
            else:
                id = added
                self._count_trial(connection, study)
                _add_parts(connection, study, id, trial)
            self._record(blobs.values(), connection)
            self._add_figures(connection, study, id, trial.metrics, blobs)
            return load_trials(connection, known)[0]

    def _add_figures(
        self,
        connection: Connection,
        study: StudyRecord,
        id: int,
        metrics: Mapping[str, Estimate],
        blobs: Mapping[str, Blob],
    ) -> None:
        figures: tuple[tuple[Any, list[dict[str, Any]]], ...] = (
            (
                TrialMetricRow,
                [
                    {
                        "trial_id": id,
                        "study_id": study.id,
                        "metric": metric,
                        "value": estimate.value,
                        "stderr": estimate.stderr,
                        "samples": estimate.samples,
                    }
                    for metric, estimate in metrics.items()
                ],
            ),
            (
                TrialVectorRow,
                [{"trial_id": id, "name": n, **blob.columns} for n, blob in blobs.items()],
            ),
        )
        for table, rows in figures:
            if rows:
                connection.execute(self.insert(table), rows)

    def set_costs(self, study: StudyRecord, id: int, costs: Mapping[str, float]) -> Trial:
        """Record further costs of a trial, or other figures of those it has; returns it.

        Raises ``UnknownName`` when the study has no such trial.
        """
        C = TrialCostRow
        with self.writing(study) as connection:
            require_trial(connection, study, id)
            _mark(connection, id, self._revised(connection, study))
            connection.execute(delete(C).where(C.trial_id == id, C.resource.in_(list(costs))))
            if costs:
                connection.execute(insert(C), _cost_rows(study, id, costs))
            return load_trials(connection, select(TrialRow).where(TrialRow.id == id))[0]

    def trial_vectors(self, study: StudyRecord, id: int) -> dict[str, NDArray[Any]]:
        """The per-sample arrays of a trial, read-only. Raises ``UnknownName``."""
        query = select(TrialVectorRow.name, TrialVectorRow.data, TrialVectorRow.artifact)
        with self.reading() as connection:
            require_trial(connection, study, id)
            rows = connection.execute(
                query.where(TrialVectorRow.trial_id == id).order_by(TrialVectorRow.name)
            ).all()
        return {
            name: unpack(self._bytes(data, artifact), f"{name!r} of trial {id}")
            for name, data, artifact in rows
        }

    def find_trial(
        self, study: StudyRecord, schemes: Mapping[str, str], measured_by: str = ""
    ) -> Trial | None:
        """The trial of this allocation under these settings, or None if it was not measured."""
        key = content_key(dict(schemes))
        with self.reading() as connection:
            found = load_trials(connection, _known(study, key, measured_by))
        return found[0] if found else None

    def trials(
        self, study: StudyRecord, limit: int | None = None, after: int | None = None
    ) -> list[Trial]:
        """Trials by ascending id: at most ``limit``, those after the id ``after``."""
        page = select(TrialRow).where(TrialRow.study_id == study.id)
        if after is not None:
            page = page.where(TrialRow.id > after)
        with self.reading() as connection:
            return load_trials(connection, page.limit(limit))

    def trial(self, study: StudyRecord | None, id: int) -> Trial:
        """The trial with this id, of ``study`` if given. Raises ``UnknownName``."""
        one = select(TrialRow).where(TrialRow.id == id)
        if study is not None:
            one = one.where(TrialRow.study_id == study.id)
        with self.reading() as connection:
            found = load_trials(connection, one) if 0 < id < TOO_LARGE else []
            if found:
                return found[0]
            raise _unknown(connection, study, id)

    def add_selection(
        self, study: StudyRecord, request_key: str, trial_id: int, details: Mapping[str, Any]
    ) -> Selection:
        """Record that a request led to a trial; the first answer to it stays.

        ``request_key`` is the content key of budgets and settings. Raises ``UnknownName`` when the
        study has no such trial.
        """
        row = {
            "study_id": study.id,
            "request_key": request_key,
            "trial_id": trial_id,
            "details": plain(details, "a selection's details"),
            "created": now(),
        }
        with self.writing(study) as connection:
            require_trial(connection, study, trial_id)
            connection.execute(self.insert(SelectionRow), row)
            selection = _selection(connection, study, request_key)
        assert selection is not None
        return selection

    def selection(self, study: StudyRecord, request_key: str) -> Selection | None:
        """What the request led to, or None if it was never answered."""
        with self.reading() as connection:
            return _selection(connection, study, request_key)

    def selections(self, study: StudyRecord) -> list[Selection]:
        """All requests of the study that were answered, oldest first."""
        query = _SELECTION.where(SelectionRow.study_id == study.id)
        with self.reading() as connection:
            rows = connection.execute(
                query.order_by(SelectionRow.created, SelectionRow.request_key)
            )
            return [Selection(*row) for row in rows]


def require_trial(connection: Connection, study: StudyRecord, id: int) -> None:
    """Raises ``UnknownName`` unless ``study`` has the trial ``id``."""
    query = select(TrialRow.id).where(TrialRow.study_id == study.id, TrialRow.id == id)
    if connection.execute(query).first() is None:
        raise _unknown(connection, study, id)


def _unknown(connection: Connection, study: StudyRecord | None, id: int) -> UnknownName:
    ids = select(TrialRow.id).order_by(TrialRow.id)
    if study is not None:
        ids = ids.where(TrialRow.study_id == study.id)
    known = list(connection.scalars(ids.limit(10)))
    place = f"in study {study.name!r}" if study else "in the database"
    remedy = f"there are {', '.join(map(str, known))}" if known else "there are none yet"
    return UnknownName(f"no trial {id} {place}", f"{remedy}, ..." if len(known) == 10 else remedy)


def _known(study: StudyRecord, key: str, measured_by: str) -> Any:
    return select(TrialRow).where(
        TrialRow.study_id == study.id, TrialRow.key == key, TrialRow.measured_by == measured_by
    )


def _mark(connection: Connection, id: int, revision: int) -> None:
    """Note that a trial changed."""
    connection.execute(update(TrialRow).where(TrialRow.id == id).values(revision=revision))


def _add_parts(connection: Connection, study: StudyRecord, id: int, trial: Trial) -> None:
    parts: tuple[tuple[Any, list[dict[str, Any]]], ...] = (
        (
            TrialLayerRow,
            [
                {"trial_id": id, "position": i, "layer": layer, "scheme": scheme}
                for i, (layer, scheme) in enumerate(trial.schemes.items())
            ],
        ),
        (TrialCostRow, _cost_rows(study, id, trial.costs)),
    )
    for table, rows in parts:
        if rows:
            connection.execute(insert(table), rows)


def _cost_rows(study: StudyRecord, id: int, costs: Mapping[str, float]) -> list[dict[str, Any]]:
    return [
        {"trial_id": id, "study_id": study.id, "resource": name, "value": value}
        for name, value in costs.items()
    ]


def load_trials(connection: Connection, page: Any, layers: bool = True) -> list[Trial]:
    """The trials that ``page`` selects, by ascending id, in one query per table.

    layers: with their schemes.
    """
    page = page.order_by(TrialRow.id)
    rows = connection.execute(page).all()
    chosen = page.with_only_columns(TrialRow.id)
    ids = chosen.subquery()
    schemes: dict[int, dict[str, str]] = defaultdict(dict)
    costs: dict[int, dict[str, float]] = defaultdict(dict)
    metrics: dict[int, dict[str, Estimate]] = defaultdict(dict)

    def parts(table: Any, *columns: Any, order: Any) -> Any:
        query = select(table.trial_id, *columns).join(ids, table.trial_id == ids.c.id)
        return connection.execute(query.order_by(table.trial_id, order)).all()

    C, M = TrialCostRow, TrialMetricRow
    if layers:
        for id, names, of_layers in listed(connection, chosen):
            schemes[id] = dict(zip(names, of_layers, strict=True))
    for id, resource, value in parts(C, C.resource, C.value, order=C.resource):
        costs[id][resource] = value
    for id, metric, value, stderr, samples in parts(
        M, M.metric, M.value, M.stderr, M.samples, order=M.metric
    ):
        metrics[id][metric] = Estimate(value, stderr, samples)
    return [
        Trial(
            schemes=schemes[row.id],
            solver=row.solver,
            predicted=row.predicted,
            bound=row.bound,
            costs=costs[row.id],
            metrics=metrics[row.id],
            seconds=row.seconds,
            settings=row.settings,
            id=row.id,
            created=row.created,
        )
        for row in rows
    ]


def _selection(connection: Connection, study: StudyRecord, request_key: str) -> Selection | None:
    query = _SELECTION.where(
        SelectionRow.study_id == study.id, SelectionRow.request_key == request_key
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else Selection(*row)
