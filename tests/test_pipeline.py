"""The main job on a small network: nothing is measured twice, and the database is the truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import bitfront
from bitfront.errors import Infeasible, ProblemError, StudyMismatch
from bitfront.problems import points
from bitfront.sensitivity.base import Profiler
from tests import tiny
from tests.small_tasks import attentive, convolutional

SCHEMES = "w2 w3 w4 w8 keep"


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str, str]]:
    """(profiler, settings, layer, scheme) of every pair that is handed to a profiler."""
    seen: list[tuple[str, str, str, str]] = []
    for kind in Profiler.__subclasses__():
        original = kind.measure

        def measure(self, subject, pairs, checkpoints, original=original):  # type: ignore[no-untyped-def]
            key = self.settings_key
            seen.extend((self.name, key, layer.name, str(scheme)) for layer, scheme in pairs)
            return original(self, subject, pairs, checkpoints)

        monkeypatch.setattr(kind, "measure", measure)
    return seen


def test_a_finished_search_is_answered_from_the_database(
    tmp_path: Path, counted: list[tuple[str, str, str, str]]
) -> None:
    db = tmp_path / "b.db"
    with bitfront.open_study("s", convolutional(), db) as study:
        first = bitfront.search(study, SCHEMES, ["4bpw", "6bpw"])
    assert len(counted) == len(set(counted))
    counted.clear()
    with bitfront.open_study("s", convolutional(), db) as study:
        again = bitfront.search(study, SCHEMES, ["4bpw", "6bpw"])
    assert counted == []
    assert [a.trial.id for a in again] == [a.trial.id for a in first]
    for answer, limit in zip(first, (4, 6), strict=True):
        weights = {"stem": 216, "blocks.0": 576, "blocks.2": 16, "twice": 64, "head": 40}
        assert set(answer.trial.schemes) == set(weights)
        assert answer.trial.costs["bits"] <= limit * sum(weights.values())
        assert answer.trial.metrics["kl"].value > 0


def test_a_new_budget_and_a_new_scheme_measure_only_what_is_new(
    tmp_path: Path, counted: list[tuple[str, str, str, str]]
) -> None:
    with bitfront.open_study("s", convolutional(), tmp_path / "b.db") as study:
        bitfront.search(study, SCHEMES, ["4bpw"])
        counted.clear()
        bitfront.search(study, SCHEMES, ["5bpw"], choices=bitfront.Choices(groups="off"))
        assert not [c for c in counted if c[0] == "fisher"]
        counted.clear()
        bitfront.profile(study, f"{SCHEMES} w6")
        assert {scheme for *_, scheme in counted} == {"w6"}


def test_verified_allocations_rest_on_measured_values(tmp_path: Path) -> None:
    with bitfront.open_study("s", attentive(), tmp_path / "b.db") as study:
        (answer,) = bitfront.search(study, SCHEMES, ["4bpw"])
        assert answer.table != "verified" or answer.unverified == 0
        recorded = study.store.measurements(study.record, "perturb")
        assert {m.layer for m in recorded} == set(answer.trial.schemes)


def test_another_model_is_refused(tmp_path: Path) -> None:
    bitfront.open_study("s", convolutional(), tmp_path / "b.db").close()
    with pytest.raises(StudyMismatch, match="weights"):
        bitfront.open_study("s", attentive(), tmp_path / "b.db")


def test_impossible_budgets_say_the_least_that_would_do(tmp_path: Path) -> None:
    with bitfront.open_study("s", convolutional(), tmp_path / "b.db") as study:
        with pytest.raises(Infeasible, match=r"budget 1bpw .* least possible is 2bpw: raise it"):
            bitfront.search(study, SCHEMES, ["1bpw"])
        assert study.trials() == []


def test_a_layer_without_a_scheme_is_named_with_the_reason(tmp_path: Path) -> None:
    with (
        bitfront.open_study("s", convolutional(), tmp_path / "b.db") as study,
        pytest.raises(ProblemError, match="group size 8 does not divide 27 inputs"),
    ):
        bitfront.search(study, "w4g8 w8g8", ["6bpw"])


def test_budgets_on_one_resource_are_a_sweep() -> None:
    found = [[str(b) for b in point] for point in points(["3bpw", "4bpw", "2GBOPs"])]
    assert found == [["3bpw", "2GBOPs"], ["4bpw", "2GBOPs"]]


def test_models_without_linear_layers_are_counted_as_safetensors_stores_them(
    tmp_path: Path,
) -> None:
    """GPT-2's layers are Conv1D, of which compressed-tensors can hold no quantized one."""
    with bitfront.open_study("s", tiny.gpt2_task(tmp_path), tmp_path / "b.db") as study:
        assert study.container == "safetensors"
        (answer,) = bitfront.search(study, "w4 w8", ["6bpw"])
        audit = bitfront.export(study, answer.trial, tmp_path / "out")
        assert audit.bytes == audit.predicted_bytes == answer.trial.costs["bytes"]
        choices = bitfront.Choices(container="compressed-tensors")
        with pytest.raises(Infeasible, match="cannot take w4: transformers' loader"):
            bitfront.search(study, "w4 w8 keep", ["6bpw"], choices=choices)


def test_a_tied_head_takes_only_what_its_embedding_takes(tmp_path: Path) -> None:
    with bitfront.open_study("s", tiny.language_task(tmp_path), tmp_path / "b.db") as study:
        tied = next(layer for layer in study.task.layers if layer.shares)
        tables = bitfront.profile(study, "w4 w4+gptq")
        for table in tables.values():
            assert np.isnan(table.at(tied.name, "w4+gptq"))
            assert np.isfinite(table.at(tied.name, "w4"))
        choices = bitfront.Choices(embeddings=True, head=True, container="safetensors")
        (answer,) = bitfront.search(study, "w4 w8 w4+gptq", ["6bpw"], choices=choices)
        assert answer.trial.schemes[tied.name] in ("w4", "w8")
