"""Kernels and whole models timed in ONNX Runtime: once, found again, as costs of a search."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bitfront
from bitfront import Choices, latency
from bitfront.costfile import GivenCosts
from bitfront.errors import ExportError, InvalidInput, SchemeError
from bitfront.interleaving import COPIES, Run
from bitfront.latency import timed
from bitfront.pipeline import cost
from bitfront.residual import Residual, Whole
from bitfront.smallest import smallest
from bitfront.study import Study
from bitfront.targets import TARGETS, Timed, aimed
from bitfront.tasks import LanguageTask
from bitfront.tasks.deployed import signature
from bitfront.tasks.pretrained import context_length
from bitfront.tasks.running import ModelTask
from bitfront.tasks.sized import layer_calls, sized
from bitfront.timingbench import Bench, described
from bitfront.types import Timing, Trial, parse_schemes
from tests import tiny
from tests.commands import Commands
from tests.small_tasks import TASKS

SCHEMES = parse_schemes("w8a8 w8a8s w4 keep")
B2 = aimed("ort-cpu:b2t1")


class Counted:
    """Stands in for ``interleaved``: notes how many are timed, and takes them for equally fast but
    for the call that does nothing."""

    def __init__(self) -> None:
        self.timed: list[int] = []

    def __call__(
        self, runs: Sequence[Run], seconds: float | None = None, **more: Any
    ) -> list[Timing]:
        assert bool(more) == (seconds is not None)
        self.timed.append(len(runs))
        for run in runs:
            run()
        if seconds is not None:  # whole models
            return [Timing(1e-2, 1e-6, 9)] * len(runs)
        return [Timing(1e-6, 1e-9, 9), *[Timing(1e-3, 1e-6, 9)] * (len(runs) - 1)]


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Study]:
    with bitfront.open_study("s", TASKS["convolutional"](), tmp_path / "s.db") as opened:
        yield opened


def stand_in(monkeypatch: pytest.MonkeyPatch, fake: Callable[..., list[Timing]]) -> None:
    """For ``interleaved``, wherever it is called."""
    for module in ("interleaving", "timingbench"):
        monkeypatch.setattr(f"bitfront.{module}.interleaved", fake)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    fake = Counted()
    stand_in(monkeypatch, fake)
    return fake


def own(study: Study) -> ModelTask:
    assert isinstance(study.task, ModelTask)
    return study.task


def test_inputs_of_other_sizes() -> None:
    task = TASKS["attentive"]()
    called = signature(task)
    (ids,) = sized(called, 5, None).values()
    (given,) = called.inputs.values()
    assert ids.shape == (5, *given.shape[1:])
    assert torch.equal(ids[: len(given)], given[:5])
    with pytest.raises(InvalidInput, match="tokens of a model without"):
        sized(called, 1, 7)


def test_tokens_of_a_language_model(tmp_path: Path) -> None:
    task = tiny.MAKERS["language"](tmp_path)
    assert isinstance(task, ModelTask)
    called = signature(task)
    for x in sized(called, 3, 9).values():
        assert x.shape[:2] == (3, 9)
    with torch.no_grad():
        assert called.run(*sized(called, 3, 9).values()).shape[:2] == (3, 9)


def test_what_layers_get(study: Study) -> None:
    task = own(study)
    called = signature(task)
    found = layer_calls(task.model, task.layers, called, sized(called, 2, None))
    assert [len(x) for x in found.values()] == [1, 1, 1, 2, 1]  # one is called twice
    assert found["stem"][0].given.shape[:2] == (2, 3)


def test_positions_that_do_more_than_look_up_are_not_timed(
    tmp_path: Path, counted: Counted
) -> None:
    """An OPT's: they are part of the rest, and kept in full precision."""
    from transformers import OPTConfig, OPTForCausalLM

    config = OPTConfig(
        vocab_size=40, hidden_size=16, ffn_dim=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=16, word_embed_proj_dim=16,
    )  # fmt: skip
    OPTForCausalLM(config).save_pretrained(tmp_path / "opt")
    np.savez(tmp_path / "ids.npz", ids=np.random.default_rng(0).integers(3, 40, (12, 8)))
    task = LanguageTask(tmp_path / "opt", tmp_path / "ids.npz", samples=4, eval_samples=4, length=8)
    positions = "model.decoder.embed_positions"
    with bitfront.open_study("s", task, tmp_path / "s.db") as opened:
        found = latency.latency(opened, parse_schemes("w8 keep"), aimed("ort-cpu:b1s8t1"), mixes=2)
        choices = Choices(targets=("ort-cpu:b1s8t1",), embeddings=True)
        answers = bitfront.search(opened, None, ["60%"], choices=choices, explore=0)
    assert found.given.layers[positions] == {"keep": 0.0}
    assert found.given.layers["model.decoder.embed_tokens"].keys() == {"w8", "keep"}
    assert answers[0].trial.schemes.get(positions, "keep") == "keep"


def test_kernels_are_told_apart_by_all_that_matters(study: Study) -> None:
    task = own(study)
    called = signature(task)
    found = layer_calls(task.model, task.layers, called, sized(called, 2, None))
    texts = [described(la, task.module(la.name), found[la.name][0].given) for la in task.layers]
    assert len(set(texts)) == len(texts)
    assert texts[0] == "conv2d 8x27 k3x3 s1x1 p1x1 d1x1 g1 zeros [2,3,6,6] bias"
    assert texts[-1] == "linear 5x8 [2,8] bias"


def test_real_timings_become_costs(study: Study) -> None:
    found = latency.latency(study, SCHEMES, B2, mixes=2)
    task = own(study)
    assert found.place.runtime.startswith("onnxruntime")
    assert found.given.full == found.wholes[0].seconds > 0
    assert len(found.wholes) >= len(SCHEMES)
    assert len(found.residual.errors) == len(found.wholes)
    for layer in task.layers:
        able = {str(s) for s in SCHEMES if TARGETS["ort-cpu"].reason(layer, s) is None}
        assert found.given.layers[layer.name].keys() == able
        assert all(seconds >= 0 for seconds in found.given.layers[layer.name].values())
    assert found.alike["keep"].layers == len(task.layers)
    assert found.alike["w8a8"].layers == 2  # linear ones
    assert found.alike["w4"].measured > 0


def test_a_search_counts_what_changing_layouts_takes(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted, in place of a fit: stem hands over to block, so that one alone in integers costs
    more than both."""
    real = latency.fitted

    def planted(wholes: Sequence[Whole]) -> Residual:
        return replace(real(wholes), element=1e-5)

    monkeypatch.setattr("bitfront.latency.fitted", planted)
    found = latency.latency(study, parse_schemes("w8a8szo keep"), B2)  # as the search does
    assert found.given.handovers
    assert found.given.apart["stem"] == ("keep",)
    target, choices = str(B2), Choices(targets=(str(B2),))
    (answer,) = bitfront.search(
        study, "w8a8szo keep", [f"5000%@{target}", "90%"], choices=choices, explore=0, verify=False
    )
    predicted = answer.trial.costs[f"seconds@{target}"]
    assert predicted == pytest.approx(found.given.total(answer.trial.schemes))


def test_what_is_recorded_is_not_timed_again(tmp_path: Path, counted: Counted) -> None:
    db = tmp_path / "s.db"
    with bitfront.open_study("one", TASKS["convolutional"](), db) as study:
        first = latency.latency(study, SCHEMES, B2, mixes=2)
        kernels, wholes = counted.timed
        assert wholes == COPIES * len(first.wholes) >= COPIES * len(SCHEMES)
        again = latency.latency(study, SCHEMES, B2, mixes=2)
        assert len(counted.timed) == 2
        assert again.given == first.given
    with bitfront.open_study("two", TASKS["convolutional"](), db) as study:  # another study
        assert latency.latency(study, SCHEMES, B2, mixes=2).given == first.given
        assert len(counted.timed) == 2
        more = parse_schemes("w8a8 w8a8s w4 w2 keep")
        latency.latency(study, more, B2, mixes=0)
        # the layers anew in full precision, to compare with, and under what is new; and a nothing
        assert counted.timed[2] < kernels


def test_quantizers_and_caches_change_no_kernel(study: Study, counted: Counted) -> None:
    latency.latency(study, parse_schemes("w4 w8a8"), B2, mixes=0)
    found = latency.latency(study, parse_schemes("w4+gptq w8a8+gptq"), B2, mixes=0)
    assert len(counted.timed) == 2
    assert found.given.layers["head"].keys() == {"w4+gptq", "w8a8+gptq", "keep"}


def test_a_slower_machine_does_not_favour_what_was_timed_before(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    pace = [1.0]

    def fake(runs: Sequence[Run], *_: float, **__: object) -> list[Timing]:
        return [Timing(1e-9, 0.0, 9), *[Timing(pace[0] * 2e-3, 1e-5, 9)] * (len(runs) - 1)]

    stand_in(monkeypatch, fake)
    bench = Bench(study, B2)
    before = bench.kernels(parse_schemes("w8 keep"))
    pace[0] = 10.0
    after = bench.kernels(parse_schemes("w8 w4 keep"))
    assert {k: v for k, v in after.items() if k[1] != "w4"} == before
    assert after["stem", "w4"] == pytest.approx(before["stem", "w8"])


def test_whole_models_are_set_against_several(
    study: Study, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of which the full one, for where it lies in memory, is slower than it was."""
    latency.latency(study, SCHEMES, B2, mixes=2)
    bench = Bench(study, B2)
    made = list[int]()

    def fake(runs: Sequence[Run], *_: float, **__: object) -> list[Timing]:
        made.append(len(runs))
        of_a_copy = [2.2e-2, *[2e-2] * (len(runs) // COPIES - 1)]
        slow = [1.3 * of_a_copy[-1]]  # one copy of what is asked for, for where it lies
        return [Timing(t, 1e-6, 9) for t in (of_a_copy * COPIES)[:-1] + slow]

    stand_in(monkeypatch, fake)
    name = own(study).layers[0].name
    (found,) = bench.wholes([{name: "w4"}])
    # all were 1e-2 when they were timed first, as the three with layers alike are
    assert made == [COPIES * (1 + 3 + 1)]
    assert found.seconds == pytest.approx(1e-2)


def test_a_run_that_was_killed_keeps_what_it_timed(
    study: Study, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bitfront.timingbench.ROOM", 1)  # one layer, and one model, at a time

    def broken(*_: Any) -> Any:
        raise KeyboardInterrupt

    real = counted.__call__

    def three(runs: Sequence[Run], *given: float, **more: Any) -> list[Timing]:
        return broken() if len(counted.timed) == 3 else real(runs, *given, **more)

    stand_in(monkeypatch, three)
    with pytest.raises(KeyboardInterrupt):
        latency.latency(study, SCHEMES, B2, mixes=2)
    stand_in(monkeypatch, counted)
    found = latency.latency(study, SCHEMES, B2, mixes=2)
    assert len(counted.timed) == len(own(study).layers) + len(found.wholes)


def test_a_search_within_seconds(study: Study, counted: Counted) -> None:
    target = str(B2)
    choices = Choices(targets=(target,))
    costs = cost(study, SCHEMES, choices)
    assert "seconds@ort-cpu:b2t1" in costs.tables
    assert costs.reasons["stem", "w8a8"]
    full = costs.full["seconds@ort-cpu:b2t1"]
    (answer,) = bitfront.search(
        study, None, [f"150%@{target}", "90%"], choices=choices, explore=0, verify=False
    )
    assert answer.trial.costs["seconds@ort-cpu:b2t1"] <= 1.5 * full
    assert answer.trial.costs["latency@ort-cpu:b2t1"] > 0
    assert answer.trial.settings["container"] == "onnx"
    (again,) = bitfront.search(
        study, None, [f"150%@{target}", "90%"], choices=choices, explore=0, verify=False
    )
    assert again.trial.id == answer.trial.id


def test_the_fastest_whose_metric_holds(study: Study, counted: Counted) -> None:
    target, choices = "ort-cpu:b2t1", Choices(targets=("ort-cpu:b2t1",))

    def fastest() -> Trial:
        found = smallest(
            study, None, "kl<=0.5", resource=f"seconds@{target}", choices=choices, explore=6
        )
        return found.trial

    trial = fastest()
    full = cost(study, "keep", choices).full[f"seconds@{target}"]
    assert trial.costs[f"seconds@{target}"] <= full
    assert trial.costs[f"latency@{target}"] > 0
    made = len(counted.timed)
    again = fastest()
    assert (again.id, again.costs) == (trial.id, trial.costs)
    assert len(counted.timed) == made


def test_an_export_is_timed_where_it_was_searched_for(study: Study, tmp_path: Path) -> None:
    choices = Choices(targets=(str(B2),))
    (answer,) = bitfront.search(
        study, "w8 w8a8 keep", [f"500%@{B2}", "90%"], choices=choices, explore=0, verify=False
    )
    audit = bitfront.export(study, answer.trial, tmp_path / "out")
    ((target, (predicted, measured)),) = audit.latency.items()
    assert target == "ort-cpu:b2t1"
    assert predicted == answer.trial.costs["seconds@ort-cpu:b2t1"]
    assert 0 < measured < 1.0
    (recorded,) = study.store.exports(study.record)
    assert recorded.audit["latency"] == {target: [predicted, measured]}


def test_a_trial_that_the_target_cannot_run_is_refused(study: Study, counted: Counted) -> None:
    (answer,) = bitfront.search(study, "w3g4a4 keep", ["60%"], explore=0, verify=False)
    with pytest.raises(SchemeError, match="ort-cpu cannot run trial"):
        timed(study, [B2], [answer.trial])


def test_bad_wishes(study: Study) -> None:
    with pytest.raises(InvalidInput, match="no schemes and no target"):
        bitfront.search(study, None, ["50%"])
    with pytest.raises(InvalidInput, match="container safetensors with target"):
        cost(study, "w8", Choices(targets=("ort-cpu",), container="safetensors"))
    with pytest.raises(SchemeError, match="ort-cpu cannot run fp8"):
        cost(study, "fp8 keep", Choices(targets=("ort-cpu",)))
    with pytest.raises(InvalidInput, match="without a shape"):
        Bench(study, aimed("ort-cpu"))
    with pytest.raises(InvalidInput, match="tokens of a model without"):
        latency.latency(study, SCHEMES, aimed("ort-cpu:b1s7"))
    with pytest.raises(InvalidInput, match=r"4096 threads on \d+ processors: use t"):
        latency.latency(study, SCHEMES, aimed("ort-cpu:b1t4096"))


def test_more_tokens_than_positions(tmp_path: Path, counted: Counted) -> None:
    task = tiny.language_task(tmp_path)
    assert isinstance(task, ModelTask)
    most = context_length(task.model)
    assert most is not None
    with bitfront.open_study("s", task, tmp_path / "s.db") as opened:
        for sizes in (f"s{most + 1}", f"s1p{most}"):
            with pytest.raises(InvalidInput, match=f"{most + 1} tokens in a model with {most}"):
                latency.latency(opened, SCHEMES, aimed(f"ort-cpu:b1{sizes}t1"))
        assert not counted.timed
        latency.latency(opened, SCHEMES, aimed(f"ort-cpu:b1s1p{most - 1}t1"), mixes=0)
    assert counted.timed


def test_models_that_a_target_does_not_load(tmp_path: Path, counted: Counted) -> None:
    task = tiny.language_task(tmp_path, dtype="bfloat16")
    with bitfront.open_study("s", task, tmp_path / "s.db") as halved:
        for target in ("ort-cpu", "ort-cpu:b1s8t1"):
            with pytest.raises(ExportError, match="in bfloat16; load it with dtype float32"):
                bitfront.search(halved, None, ["50%"], choices=Choices(targets=(target,)))
        with pytest.raises(ExportError, match="weights in bfloat16"):
            latency.latency(halved, SCHEMES, aimed("ort-cpu:b1s8t1"))
        assert not halved.trials()
    assert not counted.timed


def test_a_target_whose_packages_are_missing(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import PackageNotFoundError

    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("bitfront.targets.ort_cpu.version", missing)
    with pytest.raises(ExportError, match=r"onnxruntime is not installed.*pip install"):
        latency.latency(study, SCHEMES, B2)


def test_stand_ins_run_in_every_scheme_that_is_offered(study: Study) -> None:
    target = TARGETS["ort-cpu"]
    assert isinstance(target, Timed)
    task = own(study)
    called = signature(task)
    inputs = layer_calls(task.model, task.layers, called, sized(called, 1, None))
    for layer in task.layers:
        for scheme in parse_schemes(
            "w2 w3z w4g4 w8 w8a8 w5a8s w8a8sz w8a8so w4a8szo bf16 fp16 keep"
        ):
            if target.reason(layer, scheme) is None:
                module, x = task.module(layer.name), inputs[layer.name][0].given
                target.kernel(layer, module, scheme, x, 1)()


def test_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], counted: Counted
) -> None:
    bitfront = Commands(tmp_path / "s.db", capsys)
    function = f"{tiny.code(tmp_path / 'bring.py')}:task"
    task = ["--task", "module", "--function", function]
    words = ["latency", "conv", *task, "--batch", 2, "--threads", 1, "--mixes", 2]
    costs = tmp_path / "costs.csv"
    done = bitfront.ok(*words, "--csv", costs, "--json").document
    assert done["target"] == "ort-cpu:b2t1"
    assert done["resource"] == "seconds@ort-cpu:b2t1"
    assert {one["scheme"] for one in done["alike"]} >= {"keep", "w8a8"}
    ((name, given),) = GivenCosts.read(costs).resources.items()
    assert name == done["resource"]
    assert given.layers == done["layers"]
    assert [list(one) for one in given.handovers] == done["handovers"]
    assert given.full == done["full"]["seconds"]
    assert "of full" in bitfront.ok(*words).out
    search = ["search", "conv", "--target", "ort-cpu:b2t1", "--budget", "150%@ort-cpu:b2t1"]
    found = bitfront.ok(*search, "--explore", 0, "--no-verify", "--json").document
    trial = found["answers"][0]["trial"]
    assert "latency@ort-cpu:b2t1" in trial["costs"]
    shown = bitfront.ok("latency", "conv", *words[4:], "--trial", trial["id"], "--json").document
    assert shown["trials"][0]["id"] == trial["id"]
    assert "and a shape besides" in bitfront.refused(*words, "--target", "ort-cpu:b2")
    assert "no target named 'tpu'" in bitfront.refused(*words, "--target", "tpu")
    assert "neither schemes nor a target" in bitfront.refused("search", "conv", "--budget", "50%")
