"""Measurements and the checkpoints of the passes that make them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any
from warnings import warn

from numpy.typing import NDArray
from sqlalchemy import Connection, delete, insert, select

from bitfront.errors import BitfrontWarning, StorageError
from bitfront.types import Estimate, Measurement

from .arrays import pack, pack_many, unpack, unpack_many
from .artifacts import NPY, NPZ, Artifacts, Blob
from .models import CheckpointRow, MeasurementRow, MeasurementValueRow, MeasurementVectorRow
from .records import StudyRecord
from .tallies import Tallies

Key = tuple[str, str, str, str]  # profiler, settings, layer, scheme
_KEY = (
    MeasurementRow.profiler,
    MeasurementRow.settings,
    MeasurementRow.layer,
    MeasurementRow.scheme,
)


class Measurements(Artifacts, Tallies):
    """Recording what was profiled, once, and finding it again by its content."""

    def add_measurements(self, study: StudyRecord, measurements: Iterable[Measurement]) -> int:
        """Record those that are new, in one transaction; how many there were.

        A measurement is known by (profiler, settings, layer, scheme); the first one recorded
        stays. Raises ``InvalidInput`` for vectors that are not numbers.
        """
        units = self._prepared(measurements)
        with self.writing(study) as connection:
            return self._add(connection, study, units)

    def measurements(
        self,
        study: StudyRecord,
        profiler: str | None = None,
        settings: str | None = None,
        *,
        vectors: bool = False,
    ) -> list[Measurement]:
        """What was recorded, in that order: of one profiler, of one of its settings, or all.

        ``vectors`` loads the per-sample arrays too (read-only); without, they are left empty.
        """
        chosen = select(MeasurementRow.id, *_KEY, MeasurementRow.seconds)
        chosen = chosen.where(MeasurementRow.study_id == study.id)
        if profiler is not None:
            chosen = chosen.where(MeasurementRow.profiler == profiler)
        if settings is not None:
            chosen = chosen.where(MeasurementRow.settings == settings)
        with self.reading() as connection:
            rows = connection.execute(chosen.order_by(MeasurementRow.id)).all()
            ids = chosen.with_only_columns(MeasurementRow.id)
            values = load_values(connection, ids)
            packed = _packed(connection, ids) if vectors else []
        arrays: dict[int, dict[str, NDArray[Any]]] = defaultdict(dict)
        for identity, name, data, artifact in packed:
            arrays[identity][name] = unpack(self._bytes(data, artifact), f"vector {name!r}")
        return [
            Measurement(
                profiler=row.profiler,
                settings=row.settings,
                layer=row.layer,
                scheme=row.scheme,
                values=values.get(row.id, {}),
                vectors=arrays.get(row.id, {}),
                seconds=row.seconds,
            )
            for row in rows
        ]

    def add_checkpoint(
        self, study: StudyRecord, pass_key: str, index: int, arrays: Mapping[str, NDArray[Any]]
    ) -> None:
        """Record part ``index`` of a long pass. A part that is recorded already stays as it is."""
        blob = self._blob(pack_many(arrays, f"checkpoint {index}"), NPZ)
        row = {"study_id": study.id, "pass_key": pass_key, "position": index, **blob.columns}
        self._write([blob])
        with self.writing(study) as connection:
            self._record([blob], connection)
            connection.execute(self.insert(CheckpointRow), row)

    def checkpoints(self, study: StudyRecord, pass_key: str) -> dict[int, dict[str, NDArray[Any]]]:
        """The recorded parts of a pass, by index, ascending; arrays are read-only."""
        C = CheckpointRow
        query = _parts(study, pass_key, C.position, C.data, C.artifact).order_by(C.position)
        with self.reading() as connection:
            rows = connection.execute(query).all()
        found = {}
        for index, data, artifact in rows:
            try:
                found[index] = unpack_many(self._bytes(data, artifact), f"checkpoint {index}")
            except StorageError:
                with self.reading() as connection:
                    if connection.execute(query).first() is not None:
                        raise
                return {}  # another process has finished the pass meanwhile
        return found

    def drop_checkpoints(self, study: StudyRecord, pass_key: str) -> None:
        """Forget the parts of a pass."""
        with self.writing(study) as connection:
            connection.execute(_dropped(study, pass_key))

    def finish_pass(
        self, study: StudyRecord, pass_key: str, measurements: Iterable[Measurement]
    ) -> int:
        """Record a pass's measurements and forget its parts: both, or on an error neither.

        The parts' files are then removed; a warning says where that is not possible.
        """
        units = self._prepared(measurements)
        with self.writing(study) as connection:
            files = set(connection.scalars(_parts(study, pass_key, CheckpointRow.artifact)))
            connection.execute(_dropped(study, pass_key))
            added = self._add(connection, study, units)
        try:
            self.discard(hash for hash in files if hash is not None)
        except StorageError as error:
            warn(f"parts of a finished pass stay: {error}", BitfrontWarning, stacklevel=2)
        return added

    def _prepared(self, measurements: Iterable[Measurement]) -> dict[Key, Unit]:
        """Content key -> what to record, made before the transaction begins; first ones stay."""
        units: dict[Key, Unit] = {}
        for m in measurements:
            key = (m.profiler, m.settings, m.layer, m.scheme)
            if key in units:
                continue
            values = [
                {
                    "metric": metric,
                    "value": estimate.value,
                    "stderr": estimate.stderr,
                    "samples": estimate.samples,
                }
                for metric, estimate in m.values.items()
            ]
            vectors = {
                name: self._blob(pack(vector, f"vector {name!r} of layer {m.layer!r}"), NPY)
                for name, vector in m.vectors.items()
            }
            units[key] = (m.seconds, values, vectors)
        self._write(blob for _, _, vectors in units.values() for blob in vectors.values())
        return units

    def _add(self, connection: Connection, study: StudyRecord, units: Mapping[Key, Unit]) -> int:
        if not units:
            return 0
        rows = [
            {
                "study_id": study.id,
                "profiler": key[0],
                "settings": key[1],
                "layer": key[2],
                "scheme": key[3],
                "seconds": seconds,
            }
            # in one order everywhere, so that two writers never wait for each other's rows
            for key, (seconds, _, _) in sorted(units.items(), key=lambda item: item[0])
        ]
        added = connection.execute(
            self.insert(MeasurementRow).returning(MeasurementRow.id, *_KEY), rows
        ).all()
        values, vectors = [], []
        blobs: list[Blob] = []
        for identity, *key in added:
            _, of_metric, of_name = units[(key[0], key[1], key[2], key[3])]
            owner = {"measurement_id": identity, "study_id": study.id}
            values += [{**owner, **value} for value in of_metric]
            blobs += of_name.values()
            vectors += [
                {"measurement_id": identity, "name": name, **blob.columns}
                for name, blob in of_name.items()
            ]
        self._count_measurements(connection, study, Counter(row.profiler for row in added))
        self._record(blobs, connection)
        if values:
            connection.execute(insert(MeasurementValueRow), values)
        if vectors:
            connection.execute(insert(MeasurementVectorRow), vectors)
        return len(added)


Unit = tuple[float, list[dict[str, Any]], dict[str, Blob]]  # seconds, values, vectors


def load_values(connection: Connection, ids: Any) -> dict[int, dict[str, Estimate]]:
    """Of the measurements that ``ids`` selects: id -> metric -> value."""
    table = MeasurementValueRow
    query = select(table.measurement_id, table.metric, table.value, table.stderr, table.samples)
    found: dict[int, dict[str, Estimate]] = defaultdict(dict)
    for identity, metric, value, stderr, samples in connection.execute(
        query.where(table.measurement_id.in_(ids)).order_by(table.measurement_id, table.metric)
    ):
        found[identity][metric] = Estimate(value, stderr, samples)
    return found


def _packed(connection: Connection, ids: Any) -> list[Any]:
    """Measurement, name, and the two columns of bytes, of every array."""
    table = MeasurementVectorRow
    query = select(table.measurement_id, table.name, table.data, table.artifact)
    chosen = query.where(table.measurement_id.in_(ids))
    return list(connection.execute(chosen.order_by(table.measurement_id, table.name)))


def _parts(study: StudyRecord, pass_key: str, *columns: Any) -> Any:
    own = (CheckpointRow.study_id == study.id, CheckpointRow.pass_key == pass_key)
    return select(*columns).where(*own)


def _dropped(study: StudyRecord, pass_key: str) -> Any:
    return delete(CheckpointRow).where(
        CheckpointRow.study_id == study.id, CheckpointRow.pass_key == pass_key
    )
