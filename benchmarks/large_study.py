"""A large study, made and not measured: what storage, service and pages are tried with.

    python -m benchmarks.large_study --db URL [--trials 100000] [--measurements 1000000]

50 layers, 20 schemes. Trials lie about a trade-off of bytes and KL, each with four costs and five
metrics; the first one is the full model. Measurements are of five profilers under many settings.
``--studies`` small ones and a job that runs are beside it. Equal arguments give equal figures.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import text

from benchmarks.common import arguments, write
from bitfront.quant.costs import cost_tables
from bitfront.quant.stored import STORED
from bitfront.storage import Store, StudyRecord
from bitfront.storage.engine import now
from bitfront.storage.models import (
    MeasurementRow,
    MeasurementTallyRow,
    MeasurementValueRow,
    TrialCostRow,
    TrialLayerRow,
    TrialMetricRow,
    TrialRow,
    TrialTallyRow,
)
from bitfront.types import Costs, Estimate, Layer, Measurement, Scheme, Trial, content_key

STUDY, CONTAINER = "large", "safetensors"
SCHEMES = [
    "keep", *(f"w{bits}" for bits in range(2, 9)),
    *(f"w{bits}g{size}" for size in (32, 64) for bits in (2, 3, 4, 5, 6, 8)),
]  # fmt: skip
PROFILERS = ("fisher", "perturb", "mse", "hutchinson", "eigen")
METRICS = ("kl", "calibration/kl", "nll", "top1", "flips")
CHUNK = 2000  # trials written at a time


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument(
        "--db", required=True, help="a new SQLite file, or URL of an empty database"
    )
    parser.add_argument("--trials", type=int, default=100_000)
    parser.add_argument("--measurements", type=int, default=1_000_000)
    parser.add_argument("--studies", type=int, default=50, help="small ones")
    options = parser.parse_args()
    write(make(options.db, options.trials, options.measurements, options.studies))


def make(db: str, trials: int, measurements: int, studies: int = 50) -> dict[str, Any]:
    """Fill the new database ``db``; how many bytes it has then, and how long it took."""
    began = time.monotonic()
    rng = np.random.default_rng(0)
    layers = layers_of(50)
    costs = cost_tables(layers, [Scheme.parse(s) for s in SCHEMES], STORED[CONTAINER], 0)
    with Store.open(db) as store:
        for number in range(studies):
            small(store, f"small {number}", layers[:2], costs)
        study = store.open_study(STUDY, {"weights": "sha256:0"}, settings(layers))
        add_measurements(store, study, layers, measurements, rng)
        print(f"measurements: {time.monotonic() - began:.0f} s", file=sys.stderr)
        add_trials(store, study, layers, costs, trials, rng)
        job(store, study)
        size = finished(store)
    return {"trials": trials, "measurements": measurements, "bytes": size,
            "seconds": time.monotonic() - began}  # fmt: skip


def layers_of(count: int) -> list[Layer]:
    sizes = itertools.cycle(((256, 256), (256, 768), (768, 256)))
    return [
        Layer(name=f"blocks.{i}.fc", kind="linear", rows=rows, cols=cols, macs=rows * cols)
        for i, (rows, cols) in zip(range(count), sizes, strict=False)
    ]


def settings(layers: Sequence[Layer]) -> dict[str, Any]:
    """What a study of these layers has recorded."""
    return {
        "layers": [asdict(layer) for layer in layers],
        "container": CONTAINER,
        "classes": {
            layer.name: "attention" if i % 3 == 0 else "feed-forward"
            for i, layer in enumerate(layers)
        },
        "metrics": {
            "kl": {"better": "lower", "unit": "nats"}, "nll": {"better": "lower", "unit": "nats"},
            "top1": {"better": "higher", "unit": "share"},
            "flips": {"better": "lower", "unit": "share"},
        },
    }  # fmt: skip


def small(store: Store, name: str, layers: Sequence[Layer], costs: Costs) -> None:
    """A study of six trials and as many measurements."""
    study = store.open_study(name, {"weights": "sha256:1"}, settings(layers))
    for bits in range(2, 8):
        schemes = {layer.name: f"w{bits}" for layer in layers}
        kl = Estimate(4.0**-bits, 0.0, 64)
        total = {"bytes": 1000.0 * bits, "bits": 8000.0 * bits}
        store.add_trial(study, Trial(schemes, "ilp", 0.0, 0.0, total, {"kl": kl}, 1.0))
        unit = Measurement("fisher", "", layers[0].name, f"w{bits}", {"kl": kl}, seconds=0.1)
        store.add_measurements(study, [unit])


def job(store: Store, study: StudyRecord) -> None:
    """A job that runs, with a history."""
    store.submit("search", study.name, {"schemes": "w2 w4 w8"})
    claimed = store.claim("worker", 1e6)
    assert claimed is not None
    for stage in range(20):
        store.advance(claimed, f"stage {stage}", stage, 20)


def add_measurements(
    store: Store, study: StudyRecord, layers: Sequence[Layer], count: int, rng: np.random.Generator
) -> None:
    """``count`` rows, with two metrics each."""
    per = len(layers) * len(SCHEMES) * len(PROFILERS)
    keys = itertools.islice(
        itertools.product(PROFILERS, range(-(-count // per)), (la.name for la in layers), SCHEMES),
        count,
    )
    rows = [
        (i, study.id, profiler, content_key(setting)[:16], layer, scheme, 0.5)
        for i, (profiler, setting, layer, scheme) in enumerate(keys, start=1 + last(store))
    ]
    names = ("id", "study_id", "profiler", "settings", "layer", "scheme", "seconds")
    insert(store, MeasurementRow, names, rows)
    values = rng.lognormal(-4.0, 2.0, (count, 2)).tolist()
    figures = (
        (row[0], study.id, metric, value, 0.1 * value, 512)
        for row, two in zip(rows, values, strict=True)
        for metric, value in zip(("kl", "nll"), two, strict=True)
    )
    columns = ("measurement_id", "study_id", "metric", "value", "stderr", "samples")
    insert(store, MeasurementValueRow, columns, figures)
    counted = Counter(row[2] for row in rows)
    tally = [(study.id, profiler, number) for profiler, number in counted.items()]
    insert(store, MeasurementTallyRow, ("study_id", "profiler", "measurements"), tally)


def add_trials(
    store: Store,
    study: StudyRecord,
    layers: Sequence[Layer],
    costs: Costs,
    count: int,
    rng: np.random.Generator,
) -> None:
    """Allocations about the best ones, from 2 to 16 bits."""
    names = [layer.name for layer in layers]
    bits = costs.tables["bits"] / np.array([[layer.rows * layer.cols] for layer in layers])
    loss = rng.lognormal(0.0, 1.0, (len(layers), 1)) * 4.0**-bits  # (L, C)
    loss[:, 0] = 0.0  # keep
    first = 1 + last(store, "trial")
    moment, weights = now(), float(sum(layer.rows * layer.cols for layer in layers))
    told = f'{{"budgets": ["4bpw"], "profiler": "fisher", "estimates": "kl", "weights": {weights}}}'
    for begin in range(0, count, CHUNK):
        n = min(CHUNK, count - begin)
        price = 10.0 ** rng.uniform(-9.5, -5.5, (n, 1, 1))
        noisy = loss * rng.lognormal(0.0, 0.7, (n, *loss.shape))
        chosen = (noisy + price * costs.tables["bytes"]).argmin(2)  # (n, L)
        if begin == 0:
            chosen[0] = 0
        own = np.arange(len(layers))
        totals = {r: t[own, chosen].sum(1) for r, t in costs.tables.items()}
        kl = loss[own, chosen].sum(1) * rng.lognormal(0.0, 0.1, n)
        figures = np.stack([kl, kl * 0.9, 2 + kl, 0.7 * np.exp(-kl), 1 - np.exp(-kl)], 1)  # (n, M)
        ids = range(first + begin, first + begin + n)
        words = [[SCHEMES[c] for c in row] for row in chosen.tolist()]
        write_trials(store, study, ids, names, words, totals, figures.tolist(), (moment, told))
        print(f"\r{begin + n} trials", end="", file=sys.stderr)
    print(file=sys.stderr)
    insert(store, TrialTallyRow, ("study_id", "trials", "revision"), [(study.id, count, 0)])


def write_trials(
    store: Store,
    study: StudyRecord,
    ids: range,
    names: Sequence[str],
    words: Sequence[Sequence[str]],
    totals: dict[str, Any],
    figures: Sequence[Sequence[float]],
    common: tuple[str, str],
) -> None:
    """Rows of all tables of trials. words: (n, L) schemes. common: time and settings."""
    rows = [
        (id, study.id, content_key(dict(zip(names, w, strict=True))), str(id), common[0], "ilp",
         f[0], 0.0, 2.0, common[1], sum(scheme != "keep" for scheme in w))
        for id, w, f in zip(ids, words, figures, strict=True)
    ]  # fmt: skip
    columns = (
        "id", "study_id", "key", "measured_by", "created", "solver", "predicted", "bound",
        "seconds", "settings", "quantized",
    )  # fmt: skip
    insert(store, TrialRow, columns, rows)
    layers = (
        (id, i, name, scheme)
        for id, w in zip(ids, words, strict=True)
        for i, (name, scheme) in enumerate(zip(names, w, strict=True))
    )
    insert(store, TrialLayerRow, ("trial_id", "position", "layer", "scheme"), layers)
    of_cost = (
        (id, study.id, resource, value)
        for resource, column in totals.items()
        for id, value in zip(ids, column.tolist(), strict=True)
    )
    insert(store, TrialCostRow, ("trial_id", "study_id", "resource", "value"), of_cost)
    of_metric = (
        (id, study.id, metric, value, 0.02 * value, 512)
        for id, row in zip(ids, figures, strict=True)
        for metric, value in zip(METRICS, row, strict=True)
    )
    named = ("trial_id", "study_id", "metric", "value", "stderr", "samples")
    insert(store, TrialMetricRow, named, of_metric)


# databases


def insert(store: Store, table: Any, names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Many rows, the fast way of each database."""
    into = f"{table.__tablename__} ({', '.join(names)})"
    with store.writing() as connection:
        driver: Any = connection.connection.driver_connection
        if connection.dialect.name == "sqlite":
            places = ", ".join("?" * len(names))
            driver.executemany(f"INSERT INTO {into} VALUES ({places})", rows)
        else:
            with driver.cursor() as cursor, cursor.copy(f"COPY {into} FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)


def last(store: Store, table: str = "measurement") -> int:
    """The greatest id of a table."""
    with store.reading() as connection:
        return connection.scalar(text(f"SELECT max(id) FROM {table}")) or 0


def finished(store: Store) -> int:
    """As the database is some time after: numbers go on, PostgreSQL has vacuumed. Its bytes."""
    with store.writing() as connection:
        if connection.dialect.name == "sqlite":
            return sum(path.stat().st_size for path in files(store))
        for table in ("measurement", "trial"):
            connection.execute(
                text(
                    f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), {last(store, table)})"
                )
            )
    with store.reading() as connection:
        driver: Any = connection.connection.driver_connection
        driver.rollback()
        driver.autocommit = True
        driver.execute("VACUUM ANALYZE")
        (size,) = driver.execute("SELECT pg_database_size(current_database())").fetchone()
        driver.autocommit = False
        return int(size)


def files(store: Store) -> Iterator[Path]:
    path = Path(str(store.url.database))
    return path.parent.glob(f"{path.name}*")


if __name__ == "__main__":
    main()
