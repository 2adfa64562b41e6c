"""Questions to a database: fronts by the right sense, layers without a model, tasks made anew."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest

import bitfront
from bitfront.errors import InvalidInput, ModelError, UnknownName
from bitfront.files import write_text
from bitfront.queries import front_of
from bitfront.storage import Store, StudyRecord
from bitfront.study import recorded_task
from bitfront.types import Estimate, Measurement, Trial
from tests import tiny
from tests.small_tasks import convolutional

NAN = float("nan")
RECORD = StudyRecord(1, "s", "", {}, {"metrics": {"top1": {"better": "higher", "unit": "share"}}})


def trial(id: int, size: float, kl: float, top1: float) -> Trial:
    metrics = {"kl": Estimate(kl, 0.0, 4), "top1": Estimate(top1, 0.0, 4)}
    metrics["calibration/top1"] = metrics["top1"]
    return Trial({"a": f"w{id}"}, "ilp", kl, kl, {"bytes": size}, metrics, 1.0, id=id)


TRIALS = [trial(2, 100, 0.5, 0.4), trial(3, 200, 0.1, 0.3), trial(4, 300, 0.2, 0.9)]


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        (("kl",), [2, 3]),
        (("top1",), [2, 4]),  # more is better
        (("calibration/top1",), [2, 4]),
        (("kl", "top1"), [2, 3, 4]),
    ],
)
def test_a_front_knows_which_way_is_better(metrics: tuple[str, ...], expected: list[int]) -> None:
    found = front_of(RECORD, TRIALS, ("bytes",), metrics)
    assert [found.trials[i].id for i in found.best] == expected
    assert found.points.shape == (3, 1 + len(metrics))


def test_trials_without_a_figure_are_left_out() -> None:
    found = front_of(RECORD, [*TRIALS, trial(5, 50, NAN, 0.1)], ("bytes",), ("kl",))
    assert [t.id for t in found.trials] == [2, 3, 4]
    with pytest.raises(InvalidInput, match="no trial has all"):
        front_of(RECORD, [trial(5, 50, NAN, 0.1)], ("bytes",), ("kl",))


def test_a_front_within_limits_is_of_the_trials_that_keep_them() -> None:
    found = front_of(RECORD, TRIALS, ("bytes",), ("kl",), ("top1>=0.35",))
    assert [t.id for t in found.trials] == [2, 4]
    assert [found.trials[i].id for i in found.best] == [2, 4]  # what 3 dominates otherwise
    assert found.within == ("top1>=0.35",)
    with pytest.raises(UnknownName, match="cost 'joules'"):  # before the limits are looked at
        front_of(RECORD, TRIALS, ("joules",), ("kl",), ("bytes<=1",))


def test_a_front_of_two_objectives_has_its_knee() -> None:
    trials = [*TRIALS, trial(5, 120, 0.15, 0.1), trial(6, 150, 0.14, 0.35)]
    assert front_of(RECORD, trials, ("bytes",), ("kl",)).knee_id == 5
    assert front_of(RECORD, trials, ("bytes",), ("kl",), ("bytes>=150",)).knee_id is None
    assert front_of(RECORD, trials, ("bytes",), ("kl", "top1")).knee_id is None
    better = [trial(1, 100, 1, 0.1), trial(2, 110, 1, 0.8), trial(3, 200, 1, 0.9)]
    assert front_of(RECORD, better, ("bytes",), ("top1",)).knee_id == 2


def test_what_cannot_be_asked_is_said() -> None:
    with pytest.raises(InvalidInput, match="no trials yet: run a search"):
        front_of(RECORD, [], ("bytes",), ("kl",))
    with pytest.raises(UnknownName, match="no trial has the cost 'joules': there are bytes"):
        front_of(RECORD, TRIALS, ("joules",), ("kl",))
    with pytest.raises(InvalidInput, match="without objectives"):
        front_of(RECORD, TRIALS, (), ())


def test_layers_are_known_without_the_model(tmp_path: Path) -> None:
    with bitfront.open_study("s", convolutional(), tmp_path / "b.db") as study:
        layers = {layer.name: layer for layer in study.task.layers}
        assert study.record.layers == layers
        bitfront.search(study, "w4 w8", ["6bpw"])
    shown = bitfront.show("s", 2, db=tmp_path / "b.db")
    for line in shown.lines:
        bits = int(line.scheme[1])
        layer = layers[line.name]
        codes = layer.rows * -(-layer.cols * bits // 8)
        assert line.bytes == codes + 2 * layer.rows  # codes in whole bytes a row, float16 scales
        assert line.full_bytes == 4 * layer.weights
        assert line.estimated is not None


def test_layers_whose_rank_is_inside_the_noise_are_marked(tmp_path: Path) -> None:
    def measured(layer: str, scheme: str, value: float, settings: str = "first") -> Measurement:
        estimate = Estimate(value, 0.1, 9)
        return Measurement("fisher", settings, layer, scheme, {"sample@1": estimate})

    schemes = {"a": "w4", "b": "w4", "c": "w8", "d": "w4", "e": "keep"}
    with Store.open(tmp_path / "b.db") as store:
        study = store.open_study("s", {"weights": "1"}, {})
        w4 = [measured(n, "w4", v) for n, v in {"a": 1.0, "b": 1.1, "c": 1.5, "d": 3.0}.items()]
        w8 = [measured("b", "w8", 0.2), measured("c", "w8", 0.5)]
        later = [measured("d", "w4", 1.05, settings="second")]
        store.add_measurements(study, [*w4, *w8])
        store.add_measurements(study, later)
        source = {"profiler": "fisher", "estimates": "sample@1"}
        store.add_trial(study, Trial(schemes, "ilp", 1.0, 0.0, {}, {}, 1.0, settings=source))
    lines = bitfront.show("s", 1, db=tmp_path / "b.db").lines
    # a and b are next to each other under w4; c stands apart under w8, which is what it has
    assert {line.name for line in lines if line.inside_noise} == {"a", "b"}


def test_a_recorded_task_is_made_anew(tmp_path: Path) -> None:
    task = tiny.module_task(tmp_path)
    bitfront.open_study("s", task, tmp_path / "b.db").close()
    again = recorded_task("s", tmp_path / "b.db", device="cpu")
    assert again.fingerprint() == task.fingerprint()
    with bitfront.open_study("s", db=tmp_path / "b.db") as study:
        assert study.task.layers == task.layers
    bitfront.open_study("live", convolutional(), tmp_path / "b.db").close()
    with pytest.raises(ModelError, match="begun with a live model or data"):
        recorded_task("live", tmp_path / "b.db")
    with pytest.raises(UnknownName, match="no study named 'other'"):
        recorded_task("other", tmp_path / "b.db")


def test_files_are_there_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "page.html"
    write_text(path, "one\nä")
    assert path.read_bytes() == "one\nä".encode()
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_text(path, "two")
    assert path.read_text(encoding="utf-8") == "one\nä"
    assert os.listdir(tmp_path) == ["page.html"]


def test_points_are_as_measured() -> None:
    found = front_of(RECORD, TRIALS, ("bytes",), ("kl",))
    assert np.array_equal(found.points, [[100, 0.5], [200, 0.1], [300, 0.2]])
