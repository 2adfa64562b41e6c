"""A study's trials as an Optuna study in a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from sqlalchemy.pool import NullPool

from bitfront.errors import InvalidInput, UnknownName
from bitfront.optunafile import LAYERS, write_optuna
from bitfront.queries import front
from bitfront.storage import Store
from bitfront.types import Estimate, Trial
from tests.commands import Commands

SETTINGS = {"metrics": {"kl": {"better": "lower"}, "top1": {"better": "higher"}}}


def layers(count: int, weights: int = 100) -> list[dict[str, Any]]:
    return [{"name": f"l{i}", "kind": "linear", "rows": weights, "cols": 1} for i in range(count)]


def filled(path: Path, count: int) -> Path:
    """A database with one study of ``count`` layers and four trials, one of them without KL."""
    figures = [(100.0, 0.5, 0.4), (200.0, 0.1, 0.3), (300.0, 0.2, 0.9), (400.0, None, 0.1)]
    with Store.open(path) as store:
        record = store.open_study("s", {}, {**SETTINGS, "layers": layers(count)})
        for n, (size, kl, top1) in enumerate(figures):
            metrics = {"top1": Estimate(top1, 0.0, 4)}
            metrics |= {} if kl is None else {"kl": Estimate(kl, 0.01, 4)}
            schemes = {f"l{i}": "w4" if i < n else "w2" for i in range(count)}
            trial = Trial(
                schemes, "ilp", float("nan") if n else 0.4, 0.3, {"bytes": size}, metrics, 2.5,
                settings={"budgets": ["3bpw"]},
            )  # fmt: skip
            store.add_trial(record, trial)
    return path


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return filled(tmp_path / "b.db", 4)


@pytest.fixture(autouse=True)
def said_nothing() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(before)


def loaded(path: Path) -> optuna.Study:
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}", engine_kwargs={"poolclass": NullPool})
    return optuna.load_study(study_name="s", storage=storage)


@pytest.mark.parametrize("metrics", [("kl",), ("top1",), ("kl", "top1")])
def test_its_best_trials_are_the_front(
    database: Path, tmp_path: Path, metrics: tuple[str, ...]
) -> None:
    write_optuna("s", tmp_path / "o.db", metrics=metrics, db=database)
    study = loaded(tmp_path / "o.db")
    ours = front("s", metrics=metrics, db=database)
    assert sorted(t.user_attrs["trial"] for t in study.best_trials) == sorted(
        ours.trials[i].id for i in ours.best
    )
    assert study.metric_names == ["bytes", *metrics]
    assert [d.name.lower()[:3] for d in study.directions] == list(ours.senses)


def test_says_what_is_known_of_a_trial(database: Path, tmp_path: Path) -> None:
    write_optuna("s", tmp_path / "o.db", db=database)
    study = loaded(tmp_path / "o.db")
    with Store.open(database) as store:
        ours = store.trials(store.study("s"))
    assert [t.user_attrs["trial"] for t in study.trials] == [1, 2, 3]  # the fourth has no KL
    for trial, of in zip(study.trials, ours, strict=False):
        assert trial.params == of.schemes == trial.user_attrs["schemes"]
        assert trial.values == [of.costs["bytes"], of.metrics["kl"].value]
        assert trial.user_attrs["solver"] == "ilp"
        assert trial.user_attrs["budgets"] == ["3bpw"]
        assert trial.user_attrs["top1"] == of.metrics["top1"].value
        assert trial.datetime_complete is not None
        assert trial.datetime_complete.isoformat() == of.created[:26].replace("Z", "").removesuffix(
            "+00:00"
        )
        assert trial.duration is not None
        assert trial.duration.total_seconds() == 2.5
    assert study.trials[0].user_attrs["predicted"] == 0.4
    assert "predicted" not in study.trials[1].user_attrs


def test_many_layers_become_shares_of_the_weights(tmp_path: Path) -> None:
    count = LAYERS + 8
    write_optuna("s", tmp_path / "o.db", db=filled(tmp_path / "b.db", count))
    for n, trial in enumerate(loaded(tmp_path / "o.db").trials):
        assert trial.params == pytest.approx(
            {"share of w4": n / count, "share of w2": 1 - n / count}
        )


def test_replaces_a_file_only_when_asked(database: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.db"
    out.write_text("mine")
    with pytest.raises(InvalidInput, match="exists"):
        write_optuna("s", out, db=database)
    assert out.read_text() == "mine"
    with pytest.raises(UnknownName):
        write_optuna("other", out, db=database, overwrite=True)
    assert out.read_text() == "mine"
    write_optuna("s", out, db=database, overwrite=True)
    assert len(loaded(out).trials) == 3
    assert sorted(p.name for p in tmp_path.glob("*o.db*")) == ["o.db"]


def test_leaves_nothing_behind_when_it_fails(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any, **__: Any) -> None:
        raise OSError(28, "no space left")

    monkeypatch.setattr(optuna.Study, "add_trials", failing)
    with pytest.raises(OSError, match="no space"):
        write_optuna("s", tmp_path / "o.db", db=database)
    assert list(tmp_path.glob("*o.db*")) == []


def test_the_command(database: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bitfront, out = Commands(database, capsys), tmp_path / "o.db"
    done = bitfront("optuna", "s", "--out", out)
    assert done.code == 0, done
    assert "3 trials, 2 of them best" in done.out
    again = bitfront("optuna", "s", "--out", out)
    assert again.code == 2
    assert "exists" in again.err
    document = bitfront("optuna", "s", "--out", out, "--overwrite", "--json").document
    assert document == {"file": str(out), "study": "s", "trials": 3, "best": [1, 2]}
