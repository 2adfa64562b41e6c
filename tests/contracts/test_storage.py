"""What every database must do: the same on SQLite and PostgreSQL."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from bitfront.errors import InvalidInput, StudyMismatch, UnknownName
from bitfront.storage import Store, StudyRecord
from bitfront.storage.firsts import first_values
from bitfront.types import Estimate, Measurement, Trial

FINGERPRINT = {"weights": "sha256:" + "ab" * 32, "calibration": "text of 128 lines"}


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    with Store.open(database) as opened:
        yield opened


@pytest.fixture
def study(store: Store) -> StudyRecord:
    return store.open_study("llama", FINGERPRINT, {"seed": 0})


def measurement(
    layer: str = "a", scheme: str = "w4", value: float = 0.25, **other: Any
) -> Measurement:
    made: dict[str, Any] = {
        "profiler": "fisher",
        "settings": "key",
        "layer": layer,
        "scheme": scheme,
        "values": {"kl": Estimate(value, 0.1, 32)},
        "seconds": 1.5,
    }
    return Measurement(**{**made, **other})


def trial(schemes: dict[str, str], kl: float = 0.5, **other: Any) -> Trial:
    made: dict[str, Any] = {
        "schemes": schemes,
        "solver": "ilp",
        "predicted": 0.4,
        "bound": 0.4,
        "costs": {"bytes": 1000.0, "bits": 4000.0},
        "metrics": {"kl": Estimate(kl, 0.01, 64)},
        "seconds": 2.0,
        "settings": {"budgets": ["3.5bpw"], "seed": 0},
    }
    return Trial(**{**made, **other})


def same(a: Measurement, b: Measurement) -> bool:
    return repr(a) == repr(b)  # nan equals nan


# studies


def test_a_study_is_found_again_as_it_was_created(store: Store, study: StudyRecord) -> None:
    again = store.open_study("llama", dict(reversed(FINGERPRINT.items())), {"seed": 1})
    assert again == study == store.study("llama")
    assert study.fingerprint == FINGERPRINT
    assert study.settings == {"seed": 0}
    assert study.created.endswith("+00:00")


def test_another_fingerprint_is_refused_naming_every_field_that_differs(
    store: Store, study: StudyRecord
) -> None:
    other = {"weights": "sha256:" + "cd" * 32, "dtype": "bfloat16"}
    with pytest.raises(StudyMismatch) as caught:
        store.open_study("llama", other, {})
    message = str(caught.value)
    assert "calibration was 'text of 128 lines' and is now absent" in message
    assert "dtype was absent and is now 'bfloat16'" in message
    assert "weights was sha256:abababababab… and is now sha256:cdcdcdcdcdcd…" in message
    assert store.study("llama") == study


def test_an_unknown_study_lists_the_near_names(store: Store, study: StudyRecord) -> None:
    store.open_study("resnet", {}, {})
    with pytest.raises(UnknownName, match="no study named 'lama': did you mean 'llama'"):
        store.study("lama")
    with pytest.raises(UnknownName, match="did you mean 'llama', 'resnet'"):
        store.study("zzz")


def test_an_empty_database_says_so(store: Store) -> None:
    with pytest.raises(UnknownName, match="no studies yet"):
        store.study("llama")
    assert store.studies() == []


@pytest.mark.parametrize("settings", [{"x": math.nan}, {"x": {1, 2}}, {"x": np.arange(3)}])
def test_settings_that_json_cannot_hold_are_refused(store: Store, settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="the settings of study 'x' cannot be recorded"):
        store.open_study("x", {}, settings)
    assert store.studies() == []


def test_a_study_without_a_name_is_refused(store: Store) -> None:
    with pytest.raises(InvalidInput, match="study name"):
        store.open_study(" ", {}, {})


def test_summaries_count_and_give_ranges(store: Store, study: StudyRecord) -> None:
    empty = store.open_study("other", {}, {})
    store.add_measurements(study, [measurement("a"), measurement("b")])
    store.add_trial(study, trial({"a": "w4"}, kl=0.5))
    store.add_trial(study, trial({"a": "w8"}, kl=0.1, costs={"bytes": 2000.0}))
    store.add_trial(study, trial({"a": "w2"}, kl=math.nan, costs={}))
    first, second = store.studies()
    assert (first.name, first.measurements, first.trials) == ("llama", 2, 3)
    assert first.metrics == {"kl": (0.1, 0.5)}
    assert first.costs == {"bytes": (1000.0, 2000.0), "bits": (4000.0, 4000.0)}
    assert (second.name, second.measurements, second.trials) == (empty.name, 0, 0)
    assert second.metrics == {}


def test_ends_of_metrics_are_of_trials_that_quantize(store: Store, study: StudyRecord) -> None:
    store.add_trial(study, trial({"a": "keep"}, kl=0.0, costs={"bytes": 4000.0}))
    assert store.studies()[0].metrics == {"kl": (0.0, 0.0)}
    store.add_trial(study, trial({"a": "w4"}, kl=0.5))
    store.add_trial(study, trial({"a": "w8"}, kl=0.1))
    assert store.studies()[0].metrics == {"kl": (0.1, 0.5)}
    assert store.studies()[0].costs["bytes"] == (1000.0, 4000.0)


# measurements


def test_measurements_come_back_as_they_were(store: Store, study: StudyRecord) -> None:
    odd = {
        "kl": Estimate(0.1 + 0.2, math.nan, 10**12),
        "flips": Estimate(math.inf, 0.0, 0),
        "top1": Estimate(-5e-324, 1e308, 1),
    }
    given = [measurement("b"), measurement("a", values=odd), measurement("ünï", seconds=math.nan)]
    assert store.add_measurements(study, given) == 3
    found = {m.layer: m for m in store.measurements(study)}
    assert found.keys() == {"a", "b", "ünï"}
    for m in given:
        kept = found[m.layer]
        assert {k: repr(v) for k, v in kept.values.items()} == {
            k: repr(v) for k, v in m.values.items()
        }
        assert repr(kept.seconds) == repr(m.seconds)


def test_the_first_measurement_of_a_pair_stays(store: Store, study: StudyRecord) -> None:
    assert store.add_measurements(study, [measurement(value=1.0), measurement(value=2.0)]) == 1
    assert store.add_measurements(study, [measurement(value=3.0), measurement("b")]) == 1
    assert [m.values["kl"].value for m in store.measurements(study)] == [1.0, 0.25]
    assert store.add_measurements(study, []) == 0


def test_each_part_of_the_key_makes_another_measurement(store: Store, study: StudyRecord) -> None:
    other = store.open_study("other", {}, {})
    variants = [
        measurement(),
        measurement(layer="b"),
        measurement(scheme="w8"),
        measurement(profiler="mse"),
        measurement(settings="else"),
    ]
    assert store.add_measurements(study, variants) == 5
    assert store.add_measurements(other, variants) == 5
    assert len(store.measurements(study)) == 5
    assert len(store.measurements(study, "fisher")) == 4
    assert len(store.measurements(study, "fisher", "else")) == 1
    assert store.measurements(study, "nobody") == []


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.bool_])
def test_vectors_come_back_only_when_asked_for(
    store: Store, study: StudyRecord, dtype: type[np.generic]
) -> None:
    vector = np.arange(6).reshape(2, 3).astype(dtype)
    if np.issubdtype(dtype, np.floating):
        vector[0, 0], vector[1, 1] = math.nan, math.inf
    store.add_measurements(study, [measurement(vectors={"s": vector, "empty": vector[:0]})])
    assert store.measurements(study)[0].vectors == {}
    found = store.measurements(study, vectors=True)[0].vectors
    assert found["s"].dtype == dtype
    np.testing.assert_array_equal(found["s"], vector)
    assert found["empty"].shape == (0, 3)
    assert not found["s"].flags.writeable


def test_a_vector_of_objects_is_refused_and_nothing_is_recorded(
    store: Store, study: StudyRecord
) -> None:
    bad = measurement("b", vectors={"s": np.array([object()])})
    with pytest.raises(InvalidInput, match="vector 's' of layer 'b' is an array of objects"):
        store.add_measurements(study, [measurement(), bad])
    assert store.measurements(study) == []


def test_many_measurements_in_one_call(store: Store, study: StudyRecord) -> None:
    vector = np.ones(16, np.float32)
    many = [
        measurement(f"layer.{i}", f"w{b}", vectors={"s": vector})
        for i in range(400)
        for b in range(2, 9)
    ]
    assert store.add_measurements(study, many) == 2800
    assert store.add_measurements(study, many) == 0
    found = store.measurements(study, vectors=True)
    assert len(found) == 2800
    assert all(len(m.values) == len(m.vectors) == 1 for m in found)


def test_the_first_of_what_was_measured_again(store: Store, study: StudyRecord) -> None:
    other = store.open_study("other", {}, {})
    store.add_measurements(other, [measurement(value=9.0)])
    recorded = [
        measurement("b", settings="2", value=0.1),
        measurement("a", settings="2", values={"other": Estimate(7.0, 0.0, 1)}),
        measurement("a", settings="1", value=math.nan),
        measurement("b", settings="1", value=0.3),
        measurement("a", "w8", settings="1", value=0.4),
        measurement("a", "w2", settings="1", value=0.5),
        measurement("a", settings="3", value=0.6),
        measurement("a", settings="1", profiler="mse", value=0.7),
    ]
    for one in recorded:
        store.add_measurements(study, [one])
    expected: dict[tuple[str, str], Estimate] = {}
    for m in recorded:
        if m.profiler == "fisher" and m.scheme in ("w4", "w8") and "kl" in m.values:
            expected.setdefault((m.layer, m.scheme), m.values["kl"])
    found = first_values(store, study, "fisher", "kl", {"w8", "w4", "w3"})
    assert repr(list(found.items())) == repr(list(expected.items()))  # nan equals nan
    assert first_values(store, study, "fisher", "kl", []) == {}


# checkpoints


def test_checkpoints_are_kept_until_their_pass_is_finished(
    store: Store, study: StudyRecord
) -> None:
    arrays = {"s": np.arange(4.0), "a/b.npy": np.array(3, np.float32)}
    for index in (2, 0, 1):
        store.add_checkpoint(study, "pass", index, arrays)
    store.add_checkpoint(study, "pass", 1, {"s": np.zeros(1)})  # is there already
    store.add_checkpoint(study, "another", 0, {})
    found = store.checkpoints(study, "pass")
    assert list(found) == [0, 1, 2]
    np.testing.assert_array_equal(found[1]["s"], arrays["s"])
    assert found[1]["a/b.npy"] == np.float32(3)
    assert store.finish_pass(study, "pass", [measurement()]) == 1
    assert store.checkpoints(study, "pass") == {}
    assert store.checkpoints(study, "another") == {0: {}}
    assert len(store.measurements(study)) == 1
    store.drop_checkpoints(study, "another")
    assert store.checkpoints(study, "another") == {}


def test_a_pass_that_cannot_be_finished_keeps_its_checkpoints(
    store: Store, study: StudyRecord
) -> None:
    store.add_checkpoint(study, "pass", 0, {"s": np.arange(4.0)})
    missing = StudyRecord(study.id + 1, "gone", "", {}, {})
    with pytest.raises(UnknownName, match="no study 'gone'"):
        store.finish_pass(missing, "pass", [measurement()])
    bad = measurement(vectors={"s": np.array(["x", None])})
    with pytest.raises(InvalidInput):
        store.finish_pass(study, "pass", [bad])
    assert list(store.checkpoints(study, "pass")) == [0]


# trials


def test_a_trial_comes_back_as_it_was(store: Store, study: StudyRecord) -> None:
    given = trial({"z": "w4g32+gptq", "a": "keep"}, predicted=math.nan, bound=-math.inf)
    recorded = store.add_trial(study, given, "on the test set")
    assert recorded.id > 0
    for found in (
        recorded,
        store.trial(study, recorded.id),
        store.trial(None, recorded.id),
        store.trials(study)[0],
        store.find_trial(study, {"a": "keep", "z": "w4g32+gptq"}, "on the test set"),
    ):
        assert found is not None
        assert list(found.schemes.items()) == list(given.schemes.items())
        assert found.key == given.key
        assert math.isnan(found.predicted)
        assert found.bound == -math.inf
        assert (found.solver, found.seconds) == ("ilp", 2.0)
        assert dict(found.costs) == dict(given.costs)
        assert dict(found.metrics) == dict(given.metrics)
        assert dict(found.settings) == dict(given.settings)
        assert (found.id, found.created) == (recorded.id, recorded.created)


def test_the_first_trial_of_an_allocation_stays(store: Store, study: StudyRecord) -> None:
    first = store.add_trial(study, trial({"a": "w4", "b": "w8"}, kl=0.5), "key")
    again = store.add_trial(study, trial({"b": "w8", "a": "w4"}, kl=0.9), "key")
    assert (again.id, again.metrics["kl"].value) == (first.id, 0.5)
    elsewhere = store.add_trial(study, trial({"a": "w4", "b": "w8"}, kl=0.9), "other")
    assert elsewhere.id != first.id
    other = store.open_study("other", {}, {})
    assert store.find_trial(other, first.schemes, "key") is None
    assert store.find_trial(study, first.schemes) is None
    assert store.add_trial(other, trial({"a": "w4", "b": "w8"}), "key").id != first.id


def test_further_costs_of_a_trial_are_recorded_and_may_change(
    store: Store, study: StudyRecord
) -> None:
    first = store.add_trial(study, trial({"a": "w4"}))
    more = store.set_costs(study, first.id, {"seconds@cpu:b1": 0.5, "joules": 3.0})
    assert more.costs == {**first.costs, "seconds@cpu:b1": 0.5, "joules": 3.0}
    assert store.set_costs(study, first.id, {"joules": 4.0}).costs == {**more.costs, "joules": 4.0}
    assert store.set_costs(study, first.id, {}).costs["joules"] == 4.0
    with pytest.raises(UnknownName):
        store.set_costs(store.open_study("other", {}, {}), first.id, {"joules": 1.0})


def test_a_trial_is_completed_and_what_it_has_stays(store: Store, study: StudyRecord) -> None:
    schemes = {"a": "w4", "b": "w8"}
    first = trial(schemes, metrics={"calibration/kl": Estimate(0.5, 0.1, 4)})
    began = store.add_trial(study, first, vectors={"kl": np.array([0.1, 0.2])})
    both = {"calibration/kl": Estimate(9.0, 9.0, 9), "kl": Estimate(0.7, 0.2, 8)}
    done = store.add_trial(
        study, trial(schemes, metrics=both), vectors={"kl": np.zeros(2), "count": np.ones(2)}
    )
    assert done.id == began.id
    assert dict(done.metrics) == {**both, "calibration/kl": Estimate(0.5, 0.1, 4)}
    found = store.trial_vectors(study, done.id)
    assert {name: v.tolist() for name, v in found.items()} == {"count": [1, 1], "kl": [0.1, 0.2]}
    assert not found["kl"].flags.writeable
    with pytest.raises(UnknownName):
        store.trial_vectors(store.open_study("other", {}, {}), done.id)
    objects = {"kl": np.array([None])}
    with pytest.raises(InvalidInput, match="'kl' of a trial"):
        store.add_trial(study, trial({"a": "w2"}), vectors=objects)
    assert len(store.trials(study)) == 1


def test_trials_are_paged_by_id(store: Store, study: StudyRecord) -> None:
    other = store.open_study("other", {}, {})
    ids = []
    for i in range(7):
        ids.append(store.add_trial(study, trial({"a": f"w{i}", "b": "w8"})).id)
        store.add_trial(other, trial({"a": f"w{i}"}))
    assert [t.id for t in store.trials(study)] == ids == sorted(ids)
    pages: list[list[Trial]] = []
    after = None
    while page := store.trials(study, limit=3, after=after):
        pages.append(page)
        after = page[-1].id
    assert [[t.id for t in page] for page in pages] == [ids[:3], ids[3:6], ids[6:]]
    assert [t.schemes["a"] for page in pages for t in page] == [f"w{i}" for i in range(7)]
    assert all(len(t.schemes) == 2 and len(t.metrics) == 1 for page in pages for t in page)


def test_an_unknown_trial_lists_what_there_is(store: Store, study: StudyRecord) -> None:
    with pytest.raises(UnknownName, match="no trial 9 in study 'llama': there are none yet"):
        store.trial(study, 9)
    here = store.add_trial(study, trial({"a": "w4"}))
    other = store.open_study("other", {}, {})
    with pytest.raises(UnknownName, match=f"no trial 999 in the database: there are {here.id}"):
        store.trial(None, 999)
    with pytest.raises(UnknownName, match="in study 'other'"):
        store.trial(other, here.id)


# selections and exports


def test_a_request_is_answered_once(store: Store, study: StudyRecord) -> None:
    one = store.add_trial(study, trial({"a": "w4"}))
    two = store.add_trial(study, trial({"a": "w8"}))
    assert store.selection(study, "3bpw") is None
    first = store.add_selection(study, "3bpw", one.id, {"rounds": 2})
    assert store.add_selection(study, "3bpw", two.id, {}) == first
    assert store.selection(study, "3bpw") == first
    assert (first.trial_id, first.details) == (one.id, {"rounds": 2})


def test_exports_are_a_history(store: Store, study: StudyRecord) -> None:
    one = store.add_trial(study, trial({"a": "w4"}))
    made = [
        store.add_export(study, one.id, "safetensors", "out", 5 * 10**9, {"max_difference": 0.0})
        for _ in range(2)
    ]
    assert store.exports(study) == made
    assert made[0].bytes == 5 * 10**9


def test_only_a_trial_of_the_study_is_selected_or_exported(
    store: Store, study: StudyRecord
) -> None:
    other = store.open_study("other", {}, {})
    foreign = store.add_trial(other, trial({"a": "w4"}))
    with pytest.raises(UnknownName, match=f"no trial {foreign.id} in study 'llama'"):
        store.add_selection(study, "key", foreign.id, {})
    with pytest.raises(UnknownName, match="in study 'llama'"):
        store.add_export(study, foreign.id, "safetensors", "out", 1, {})
    assert store.exports(study) == []


def test_a_study_that_is_gone_is_refused_everywhere(store: Store) -> None:
    gone = StudyRecord(12345, "gone", "", {}, {})
    for add in (
        lambda: store.add_measurements(gone, [measurement()]),
        lambda: store.add_checkpoint(gone, "pass", 0, {}),
        lambda: store.add_trial(gone, trial({"a": "w4"})),
    ):
        with pytest.raises(UnknownName, match="no study 'gone' in database"):
            add()


# several at once


def test_what_was_written_is_there_when_opened_again(database: str) -> None:
    with Store.open(database) as store:
        store.add_measurements(store.open_study("llama", {}, {}), [measurement()])
    with Store.open(database) as store:
        assert len(store.measurements(store.study("llama"))) == 1


def test_threads_that_write_the_same_things_record_them_once(database: str) -> None:
    rounds, errors = 8, []
    start = threading.Barrier(4)
    added: list[int] = []
    ids: list[int] = []

    def work(store: Store, order: int) -> None:
        try:
            start.wait()
            study = store.open_study("llama", FINGERPRINT, {})
            for r in range(rounds):
                batch = [measurement(f"{r}.{i}") for i in range(20)][::order]
                added.append(store.add_measurements(study, batch))
                ids.append(store.add_trial(study, trial({"a": f"w{r}"})).id)
        except Exception as error:  # noqa: BLE001 (handed to the test's own thread)
            errors.append(error)

    # two threads share a store; each of the others has its own, as another process would
    with Store.open(database) as shared, Store.open(database) as b, Store.open(database) as c:
        stores = [(shared, 1), (shared, -1), (b, 1), (c, -1)]
        threads = [threading.Thread(target=work, args=pair) for pair in stores]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert sum(added) == len(shared.measurements(shared.study("llama"))) == rounds * 20
        assert len(set(ids)) == len(shared.trials(shared.study("llama"))) == rounds
        (counted,) = shared.studies()
        assert (counted.measurements, counted.trials) == (rounds * 20, rounds)
