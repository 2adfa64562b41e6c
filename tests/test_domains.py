"""Language data of several domains: drawn in equal shares, measured apart, gone on with."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import bitfront
from bitfront.errors import DataError, InvalidInput, StudyMismatch
from bitfront.quant.surgery import applied
from bitfront.sensitivity.decoupled import Decoupled
from bitfront.tasks import Batch, Evaluator, LanguageTask, from_recipe
from bitfront.tasks.domains import in_turn, shares, sources
from bitfront.types import Scheme
from tests import tiny
from tests.commands import Commands

FIRST, SECOND = range(2, 14), range(14, 27)  # the token ids of each domain, apart


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("domains")
    tiny.llama(folder / "llama")
    rng = np.random.default_rng(0)
    for name, ids in (("a", FIRST), ("b", SECOND), ("a2", FIRST), ("b2", SECOND)):
        np.savez(folder / f"{name}.npz", ids=rng.choice(np.array(ids), 600))
    letters = tiny.WORDS[2:-1]
    (folder / "c.txt").write_text("".join(rng.choice(letters, 600)), encoding="utf-8")
    lines = ["".join(rng.choice(letters, n)) for n in (5, 30, 8, 40, 12) * 4]
    (folder / "d.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return folder


def task(
    folder: Path, calibration: Any = ("a.npz", "b.npz"), evaluation: Any = None, **options: Any
) -> LanguageTask:
    def placed(given: Any) -> Any:
        return [folder / name for name in given] if isinstance(given, tuple) else folder / given

    settings = {
        "samples": 9, "eval_samples": 6, "length": 12, "batch": 4, "hold_back": 0, "device": "cpu",
        **options,
    }  # fmt: skip
    other = None if evaluation is None else placed(evaluation)
    return LanguageTask(folder / "llama", placed(calibration), other, **settings)


def ids_and_parts(batches: Any) -> tuple[list[list[int]], list[int]]:
    rows: list[list[int]] = []
    parts: list[int] = []
    for batch in batches:
        rows += batch.kwargs["input_ids"].tolist()
        parts += batch.part.tolist()
    return rows, parts


def test_samples_are_in_equal_shares_and_say_their_part(folder: Path) -> None:
    found = task(folder)
    for batches, count in ((found.calibration, 9), (found.evaluation, 6)):
        rows, parts = ids_and_parts(batches)
        assert parts == [i % 2 for i in range(count)]
        for row, part in zip(rows, parts, strict=True):
            assert set(row) <= set((FIRST, SECOND)[part])
    assert [batch.samples for batch in found.calibration] == [4, 4, 1]
    used, judged = (ids_and_parts(b)[0] for b in (found.calibration, found.evaluation))
    assert not {*map(tuple, used)} & {*map(tuple, judged)}, "a later part that nothing draws from"


def test_the_first_domain_is_drawn_as_it_is_alone(folder: Path) -> None:
    both, alone = task(folder, samples=8), task(folder, "a.npz", samples=4, eval_samples=3)
    rows, parts = ids_and_parts(both.calibration)
    first = [row for row, part in zip(rows, parts, strict=True) if part == 0]
    assert [row for b in alone.calibration for row in b.kwargs["input_ids"].tolist()] == first


def test_one_source_has_no_domains(folder: Path) -> None:
    plain, listed = task(folder, "a.npz"), task(folder, ("a.npz",))
    assert plain.metrics == listed.metrics == ("kl", "nll", "perplexity")
    assert all(batch.part is None for batch in listed.calibration)
    assert listed.recipe() == plain.recipe()
    assert listed.fingerprint() == plain.fingerprint()


def test_shares_and_turns() -> None:
    assert shares(9, 2, "samples") == [5, 4]
    assert shares(128, 3, "samples") == [43, 43, 42]
    assert shares(3, 3, "samples") == [1, 1, 1]
    assert in_turn(["abc", "de", "fg"]) == (list("adfbegc"), [0, 1, 2, 0, 1, 2, 0])


def nats(model: torch.nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """log p of every class, log-likelihood of the next token, which positions count."""
    z = model(**batch.kwargs, use_cache=False).logits[:, :-1].double()
    assert batch.labels is not None
    scored = torch.ones_like(batch.labels, dtype=torch.bool)
    log_p = F.log_softmax(z, -1)
    return (
        log_p,
        log_p.gather(-1, batch.labels[..., None]).squeeze(-1),
        scored if batch.scored is None else batch.scored,
    )


def test_metrics_of_each_domain(folder: Path, tmp_path: Path) -> None:
    """Against the literal means, on windows and padded documents together."""
    found = task(folder, ("c.txt", "d.jsonl"))
    assert found.metrics == (
        "kl", "nll", "perplexity", "kl_d1", "nll_d1", "perplexity_d1",
        "kl_d2", "nll_d2", "perplexity_d2",
    )  # fmt: skip
    body = [layer.name for layer in found.layers if layer.role == "body"]
    with bitfront.open_study("s", found, tmp_path / "b.db") as study:
        w2 = {name: study.builder.quantized(name, Scheme.parse("w2")) for name in body}
        judge = Evaluator(found, found.calibration)
        with torch.no_grad():
            full = [nats(found.model, batch) for batch in found.calibration]
            with applied(found.model, w2):
                made = [nats(found.model, batch) for batch in found.calibration]
                estimates = judge.measure().estimates()
    for k, mark in ((None, ""), (0, "_d1"), (1, "_d2")):
        kl, nll, count = 0.0, 0.0, 0
        for batch, (p, _, scored), (q, likelihood, _) in zip(
            found.calibration, full, made, strict=True
        ):
            assert batch.part is not None
            here = scored if k is None else scored & (batch.part == k)[:, None]
            kl += float((p.exp() * (p - q)).sum(-1)[here].sum())
            nll -= float(likelihood[here].sum())
            count += int(here.sum())
        assert estimates[f"kl{mark}"].value == pytest.approx(kl / count, rel=1e-4)
        assert estimates[f"nll{mark}"].value == pytest.approx(nll / count, rel=1e-5)
        perplexity = estimates[f"perplexity{mark}"].value
        assert perplexity == pytest.approx(math.exp(nll / count), rel=1e-5)
        assert estimates[f"kl{mark}"].samples == {None: 9, 0: 5, 1: 4}[k]
    assert found.metric("perplexity_d2").unit == found.metric("perplexity").unit


def test_tables_trials_and_fronts_of_each_domain(folder: Path, tmp_path: Path) -> None:
    found = task(folder, ("c.txt", "d.jsonl"), hold_back=0.34)
    assert [batch.samples for batch in found.held_back] == [4]
    db = tmp_path / "b.db"
    with bitfront.open_study("s", found, db) as study:
        tables = bitfront.profile(study, "w2 w4", "perturb")
        (answer,) = bitfront.search(
            study, "w2 w4 w8", ["4bpw"], profiler="perturb", metric="kl_d2", explore=4
        )
    counts = [0.0, 0.0]
    for batch in found.calibration:
        assert batch.part is not None
        assert batch.labels is not None
        scored = torch.ones_like(batch.labels) if batch.scored is None else batch.scored
        for k in (0, 1):
            counts[k] += float(scored[batch.part == k].sum())
    for metric in ("kl", "nll"):
        parts = [tables[f"{metric}_d{k + 1}"].values * counts[k] for k in (0, 1)]
        mean = (parts[0] + parts[1]) / sum(counts)
        np.testing.assert_allclose(mean, tables[metric].values, rtol=1e-12)
        assert not np.allclose(parts[0] / counts[0], parts[1] / counts[1])
    assert set(found.metrics) <= answer.trial.metrics.keys()
    assert {f"held-back/{name}" for name in found.metrics} <= answer.trial.metrics.keys()
    front = bitfront.front("s", metrics=("kl_d1", "perplexity_d2"), db=db)
    assert answer.trial.id in {t.id for t in front.trials}
    shown = bitfront.show("s", answer.trial.id, "kl_d2", db=db)
    assert shown.sides["kl_d2"].calibration is not None
    assert any(line.measured is not None for line in shown.lines)


def test_evaluation_of_each_domain_or_one_for_all(folder: Path) -> None:
    each = task(folder, evaluation=("a2.npz", "b2.npz"))
    rows, parts = ids_and_parts(each.evaluation)
    assert parts == [0, 1, 0, 1, 0, 1]
    assert all(set(r) <= set((FIRST, SECOND)[p]) for r, p in zip(rows, parts, strict=True))
    mixed = task(folder, evaluation=("a.npz", "b2.npz"))  # the first is cut in two
    own = task(folder)
    assert ids_and_parts(mixed.calibration)[0][::2] == ids_and_parts(own.calibration)[0][::2]
    assert ids_and_parts(mixed.calibration)[0] != ids_and_parts(own.calibration)[0]
    one = task(folder, evaluation="c.txt")
    assert all(batch.part is None for batch in one.evaluation)
    assert set(Evaluator(one, one.evaluation).metrics) == {"kl", "nll", "perplexity"}
    assert set(Evaluator(one, one.calibration).metrics) == set(one.metrics)


def test_one_evaluation_for_all_leaves_domains_to_the_calibration(
    folder: Path, tmp_path: Path
) -> None:
    with bitfront.open_study("s", task(folder, evaluation="c.txt"), tmp_path / "b.db") as study:
        (answer,) = bitfront.search(study, "w2 w8", ["4bpw"], explore=0)
    found = answer.trial.metrics.keys()
    assert {"kl", "calibration/kl_d1", "calibration/perplexity_d2"} <= found
    assert not {"kl_d1", "perplexity_d2"} & found
    page = bitfront.report("s", tmp_path / "out.html", metric="kl_d1", db=tmp_path / "b.db")
    assert page.missing == ("none of the 5 trials has bytes and evaluation kl_d1",)


def test_the_recipe_and_the_fingerprint(folder: Path, tmp_path: Path) -> None:
    found = task(folder, evaluation=("a2.npz", "b.npz"))
    recipe = json.loads(json.dumps(found.recipe()))
    assert recipe["calibration"] == [str(folder / "a.npz"), str(folder / "b.npz")]
    again = from_recipe(recipe)
    assert again.fingerprint() == found.fingerprint()
    assert again.recipe() == found.recipe()
    assert again.metrics == found.metrics
    db = tmp_path / "b.db"
    bitfront.open_study("s", found, db).close()
    with bitfront.open_study("s", db=db) as study:
        assert study.task.metrics == found.metrics
    turned = task(folder, ("b.npz", "a.npz"), ("b.npz", "a2.npz"))
    with pytest.raises(StudyMismatch, match="calibration was"):
        bitfront.open_study("s", turned, db)


@pytest.mark.parametrize(
    ("calibration", "evaluation", "message"),
    [
        (("a.npz", "a.npz"), None, r"calibration data '.*a.npz' is given twice"),
        (("a.npz", "./a.npz"), None, "is given twice"),
        (("a.npz", "b.npz"), ("a2.npz", "a2.npz"), "evaluation data .* is given twice"),
        ((), None, "no calibration data"),
        ("a.npz", ("a2.npz", "b2.npz"), "2 sources of evaluation data for 1 of calibration"),
        (("a.npz", "b.npz"), ("a2.npz", "b2.npz", "c.txt"), "3 sources of evaluation data for 2"),
        (("a.npz", "b.npz", "c.txt"), ("a2.npz", "b2.npz"), "one for each in the same order"),
        (("a.npz", "b.npz"), ("b.npz", "a.npz"), "is calibration data of a domain that it is not"),
        (("a.npz", "b.npz"), "a.npz", "is calibration data of a domain that it is not for"),
    ],
)
def test_sources_that_do_not_fit(
    folder: Path, calibration: Any, evaluation: Any, message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        task(folder, calibration, evaluation)


def test_other_bad_input(folder: Path) -> None:
    with pytest.raises(DataError, match=r"nothing\.txt' does not exist"):
        task(folder, ("a.npz", "nothing.txt"))
    with pytest.raises(InvalidInput, match="samples 1 of 2 domains: give at least 2"):
        task(folder, samples=1)
    with pytest.raises(InvalidInput, match="eval_samples 1 of 2 domains"):
        task(folder, eval_samples=1)
    with pytest.raises(DataError, match=r"a\.npz has 50 windows"):
        task(folder, samples=120)
    with pytest.raises(InvalidInput, match=r"nothing of '.*' is left to calibrate on"):
        task(folder, samples=2, batch=1, hold_back=0.5)
    assert task(folder, samples=2, eval_samples=2, batch=1).metrics[-1] == "perplexity_d2"


def test_names_on_the_hub_are_left_as_they_are() -> None:
    found = sources(["hub:one", "hub:two::test"], "hub:three")
    assert found.calibration == ("hub:one", "hub:two::test")
    assert found.evaluation == ("hub:three",)


def test_on_the_command_line(bitfront: Commands, folder: Path, tmp_path: Path) -> None:
    data = ["--calibration", folder / "c.txt", "--calibration", folder / "d.jsonl"]
    words = [
        "--task", "language", "--model", folder / "llama", *data,
        "--samples", 8, "--eval-samples", 4, "--length", 12, "--batch", 4,
    ]  # fmt: skip
    search = ["--schemes", "w2 w8", "--budget", "4bpw", "--explore", 0, "--json"]
    [answer] = bitfront.ok("search", "lm", *words, *search).document["answers"]
    metrics = answer["trial"]["metrics"]
    assert {"kl_d1", "perplexity_d2", "calibration/kl_d2", "kl"} <= metrics.keys()
    assert bitfront.ok("search", "lm", *search).document["answers"] == [answer]
    assert bitfront.ok("search", "lm", *words, *search).document["answers"] == [answer]
    printed = bitfront.ok("front", "lm", "--metric", "kl_d1", "--metric", "kl_d2").out
    assert "kl_d2" in printed
    assert "kl_d1" in bitfront.ok("show", "lm", answer["trial"]["id"], "--metric", "kl_d1").out
    one = ["--calibration", folder / "c.txt"]
    assert "calibration was" in bitfront.refused("search", "lm", *one, *search)
    twice = ["--task", "vision", "--model", "net.py:Net", *data]
    assert "several --calibration for a vision task" in bitfront.refused(
        "search", "v", *twice, *search
    )
    assert "--calibration is empty" in bitfront.refused(
        "search", "lm", "--calibration", "", *search
    )
    assert "--calibration is empty" in bitfront.refused(
        "search", "lm", *data, "--calibration", "", *search
    )


def test_layers_may_be_scored_by_the_domain_where_they_hurt(folder: Path, tmp_path: Path) -> None:
    """kl_d* for the feed-forward layers, kl for the rest; the search shares out the budget."""
    by_domain = Decoupled(metrics="feed-forward=kl_d*, *=kl")
    with bitfront.open_study("s", task(folder), tmp_path / "b.db") as study:
        tables = bitfront.profile(study, "w2 w4", by_domain)
        rows = np.array([cls == "feed-forward" for cls in tables["decoupled"].classes])
        assert rows.any()
        assert not rows.all()
        worst = np.maximum(tables["kl_d1"].values, tables["kl_d2"].values)[rows]
        assert (worst > tables["kl"].values[rows]).all()  # their mean, and they are not equal
        rate = tables["kl"].values[rows].sum() / worst.sum()
        np.testing.assert_allclose(tables["decoupled"].values[rows], rate * worst)
        np.testing.assert_allclose(tables["decoupled"].values[~rows], tables["kl"].values[~rows])
        (answer,) = bitfront.search(study, "w2 w4", ["3bpw"], profiler=by_domain, shares=4)
    assert {"kl", "perplexity_d1", "perplexity_d2"} <= set(answer.trial.metrics)
