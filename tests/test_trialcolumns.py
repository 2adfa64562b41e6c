"""Columns of a database's trials are those of the same trials at hand, however they came there."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from bitfront.documents import front_document, plain
from bitfront.errors import BitfrontError, UnknownName
from bitfront.queries import Front, front_in, front_of
from bitfront.storage import Store, StudyRecord
from bitfront.storage import columns as storage_columns
from bitfront.storage.columns import Figure
from bitfront.storage.overviews import Span, overview
from bitfront.storage.pages import Order, trial_places
from bitfront.trialcolumns import OfStudy, OfTrials, placed_among
from bitfront.types import Estimate, Layer, Trial

LAYERS = [asdict(Layer(name, "linear", 8, 16)) for name in ("a", "b", "c.d")]
SETTINGS = {
    "layers": LAYERS, "container": "safetensors",
    "classes": {"a": "attention", "b": "feed-forward", "c.d": "attention"},
    "metrics": {"kl": {"better": "lower"}, "top1": {"better": "higher"}},
}  # fmt: skip
LIMITS = (
    (), ("kl<=0.5",), ("kl>=0.5", "25B"), ("50%",), ("5bpw", "top1>=0.2"), ("attention:4bpw",),
    ("feed-forward:>=4bpw", "c*:50%"), ("attention:bits<=1024",), ("both<=30",),
)  # fmt: skip


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    with Store.open(database) as opened:
        yield opened


def add(store: Store, study: StudyRecord, rng: random.Random, count: int) -> None:
    """Trials with equal figures, and figures that some lack; metrics and costs of earlier ones."""
    for _ in range(count):
        names = ["a", "b", "c.d"][: 3 if rng.random() < 0.8 else 2]
        schemes = {name: rng.choice(["w2", "w4", "w8", "keep"]) for name in names}
        bits = sum(32 if s == "keep" else int(s[1]) for s in schemes.values())
        costs = {"bytes": float(bits), "bits": 8.0 * bits, "both": rng.choice([bits, math.nan])}
        metrics = {
            name: Estimate(rng.choice([0.1, 0.25, 0.5, 1.0, math.nan]), 0.0, 4)
            for name in ("kl", "top1", "both")
            if rng.random() < 0.8
        }
        settings = {"weights": 20.0} if rng.random() < 0.7 else {"container": "safetensors"}
        solver = rng.choice(["ilp", "greedy"])
        made = Trial(schemes, solver, 0.0, 0.0, costs, metrics, 1.0, settings)
        trial = store.add_trial(study, made, str(rng.random()))
        if rng.random() < 0.3:
            store.set_costs(study, trial.id, {"bytes": 1.0, "seconds@cpu": 2.0})
        if rng.random() < 0.3:
            store.add_trial(study, made, "")


def check(store: Store, study: StudyRecord) -> None:
    trials = store.trials(study)
    here, there = OfTrials(study, trials), OfStudy(store, study)
    np.testing.assert_array_equal(there.ids, here.ids)
    assert (there.costs, there.metrics) == (here.costs, here.metrics)
    for name in here.costs:
        np.testing.assert_array_equal(there.cost(name), here.cost(name))
        np.testing.assert_array_equal(there.whole(name), here.whole(name))
    for name in here.metrics:
        np.testing.assert_array_equal(there.metric(name), here.metric(name))
    np.testing.assert_array_equal(there.weights(), here.weights())
    assert there.solved_by("ilp").tolist() == [t.solver == "ilp" for t in trials]
    spans = overview(store, study)
    assert spans.trials == len(trials)
    assert spans.costs == spans_of(trials, {name: here.cost(name) for name in here.costs})
    by_metric = {name: here.metric(name) for name in here.metrics}
    assert spans.metrics == spans_of(trials, by_metric, quantizing=True)
    numbers = [t.id for t in trials[::-2]]
    assert repr(store.held_trials(study, numbers)) == repr(trials[::-2])
    assert sorted(there.allocations(), key=lambda row: row.id) == list(here.allocations())
    for limits in LIMITS:
        for everything in (False, True):
            asked = ("bytes", "kl", "top1")
            found = told(everything, front_in, store, study.name, asked, limits, everything)
            costs, metrics = asked[:1], asked[1:]
            assert found == told(everything, front_of, study, trials, costs, metrics, limits)


def spans_of(
    trials: list[Trial], columns: dict[str, Any], quantizing: bool = False
) -> dict[str, Span]:
    """quantizing: ends are of trials that quantize something, where one has the figure."""
    found = {}
    for name, column in columns.items():
        every = [(v, t) for v, t in zip(column.tolist(), trials, strict=True) if not math.isnan(v)]
        some = [(v, t) for v, t in every if set(t.schemes.values()) != {"keep"}]
        known = [(v, t.id) for v, t in (some if quantizing and some else every)]
        if known:
            least, greatest = min(known), max(known, key=lambda pair: (pair[0], -pair[1]))
            found[name] = Span(len(every), *least, *greatest)
    return found


def told(everything: bool, ask: Callable[..., Front], *given: Any) -> Any:
    """What a front says, or why there is none."""
    try:
        front = ask(*given)
    except BitfrontError as error:
        return str(error)
    points = front.points[front.listed(everything)]
    return plain(front_document(front, everything)), points.tolist()


def test_columns_follow_what_is_recorded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read at once, a few trials later, and after more than are read one by one."""
    monkeypatch.setattr(storage_columns, "FEW", 4)
    monkeypatch.setattr(storage_columns, "TRIALS", 6)
    rng = random.Random(0)
    study, other = (store.open_study(name, {}, SETTINGS) for name in ("s", "other"))
    for count in (10, 1, 0, 2, 8):
        add(store, study, rng, count)
        add(store, other, rng, 1)
        check(store, study)
    check(store, other)


def test_another_process_writes(database: str, store: Store) -> None:
    study = store.open_study("s", {}, SETTINGS)
    rng = random.Random(1)
    with Store.open(database) as writer:
        for _ in range(3):
            add(writer, study, rng, 2)
            check(store, study)


def test_pages_within_limits_are_those_of_the_database(store: Store) -> None:
    study = store.open_study("s", {}, SETTINGS)
    add(store, study, random.Random(2), 25)
    columns = OfStudy(store, study)
    every = np.ones(len(columns.ids), np.bool_)
    for by in (None, "bytes", "kl", "seconds@cpu"):
        for descending in (False, True):
            order, after = Order(by, descending), None
            whole = trial_places(store, study, order)
            for begin in range(0, len(whole), 6):
                expected = repr(whole[begin : begin + 6])  # nan equals nan
                assert repr(placed_among(columns, every, order, after, 6)) == expected
                assert repr(trial_places(store, study, order, after=after, limit=6)) == expected
                after = whole[begin : begin + 6][-1]
    with pytest.raises(UnknownName, match="the figure 'speed': there are bits, both, bytes"):
        placed_among(columns, every, Order("speed"), None, 4)


def test_few_studies_and_columns_are_held(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_columns, "STUDIES", 2)
    monkeypatch.setattr(storage_columns, "COLUMNS", 1)
    studies = [store.open_study(name, {}, SETTINGS) for name in ("a", "b", "c")]
    asked = [Figure("cost", "bytes"), Figure("cost", "bits")]
    for study in studies:
        add(store, study, random.Random(3), 2)
        count = len(store.trials(study))
        assert [len(column) for column in store.columns(study, asked)[1]] == [count] * 2
        assert [len(column) for column in store.columns(study, asked[:1])[1]] == [count]
    assert [len(held.columns) for held in store._held.values()] == [1, 1]
    with pytest.raises(ValueError, match="read-only"):
        store.columns(studies[0], asked)[1][0][0] = 1.0
