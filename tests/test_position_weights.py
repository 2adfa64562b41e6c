"""Weights of positions: literal weighted means, what they are equal to, data that brings them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bitfront.errors import DataError
from bitfront.quant.build import Builder
from bitfront.quant.surgery import applied
from bitfront.scratch import Scratch
from bitfront.sensitivity import NoCheckpoints, Subject
from bitfront.sensitivity.lrp import LRP
from bitfront.sensitivity.mse import MSE
from bitfront.tasks import LanguageTask, ModuleTask
from bitfront.tasks.base import Batch
from bitfront.tasks.evaluation import judge
from bitfront.tasks.fidelity import SQNR
from bitfront.tasks.fingerprint import batches_digest
from bitfront.tasks.metrics import METRICS, Metric
from bitfront.types import Scheme
from tests import tiny
from tests.commands import Commands
from tests.small_tasks import Conv

N, P, K = 3, 4, 5
W = torch.tensor([[2.0, 0, 1, 1], [0, 3, 1, 0], [1, 1, 1, 1]])  # integers of equal sums
EVERY: dict[str, Metric] = {**METRICS, "sqnr": SQNR}
FEW = ("--samples", 4, "--eval-samples", 4, "--length", 8, "--batch", 3)


def outputs(seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(N, P, K, generator=torch.Generator().manual_seed(seed), dtype=dtype)


LABELS = torch.arange(N * P).reshape(N, P) % K


@pytest.mark.parametrize("name", list(EVERY))
def test_sums_and_counts_are_the_literal_weighted_ones(name: str) -> None:
    metric, z, y = EVERY[name], outputs(0), outputs(1)
    w = torch.rand(N, P, generator=torch.Generator().manual_seed(2))
    scored = torch.rand(N, P, generator=torch.Generator().manual_seed(3)) > 0.3
    batch = Batch((), samples=N, labels=LABELS, scored=scored, weights=w)
    sums, counts = judge({name: metric}, z, y, batch, "categorical")[name]
    for i in range(N):
        total = count = 0.0
        for p in range(P):
            if not scored[i, p]:
                continue
            place = (z[i, p : p + 1], y[i, p : p + 1], LABELS[i, p : p + 1], "categorical")
            assert metric.positions is not None
            one = 1.0 if metric.weights is None else float(metric.weights(*place))
            total += float(w[i, p]) * float(metric.positions(*place))
            count += float(w[i, p]) * one
        assert sums[i] == pytest.approx(total, rel=1e-12, abs=1e-14)
        assert counts[i] == pytest.approx(count, rel=1e-12)


@pytest.mark.parametrize("name", list(EVERY))
def test_integers_are_repeated_positions_and_zeros_are_not_scored(name: str) -> None:
    metric, z, y = {name: EVERY[name]}, outputs(0), outputs(1)

    def repeated(values: Tensor) -> Tensor:
        return torch.stack(
            [v.repeat_interleave(w.long(), 0) for v, w in zip(values, W, strict=True)]
        )

    weighted = judge(metric, z, y, Batch((), samples=N, labels=LABELS, weights=W), "categorical")
    batch = Batch((), samples=N, labels=repeated(LABELS))
    literal = judge(metric, repeated(z), repeated(y), batch, "categorical")
    np.testing.assert_allclose(weighted[name], literal[name], rtol=1e-12)
    flags = Batch((), samples=N, labels=LABELS, weights=(W > 0).float())
    scored = Batch((), samples=N, labels=LABELS, scored=W > 0)
    y[W == 0] = torch.inf  # whatever is there
    first, second = (judge(metric, z, y, batch, "categorical")[name] for batch in (flags, scored))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("what", ["positions", "samples"])
def test_relevance_of_integer_weights_is_that_of_repeated_data(what: str) -> None:
    generator = torch.Generator().manual_seed(0)
    if what == "positions":  # of a network that takes each by itself
        x, w = torch.randn(N, P, 6, generator=generator), W
        again = torch.stack([v.repeat_interleave(n.long(), 0) for v, n in zip(x, W, strict=True)])
    else:
        x, w = torch.randn(4, 3, 6, 6, generator=generator), torch.tensor([2.0, 0, 1, 3])
        again = x.repeat_interleave(w.long(), 0)
    model: nn.Module = Conv() if what == "samples" else nn.Sequential(
        nn.Linear(6, 9), nn.GELU(), nn.Linear(9, K)
    )  # fmt: skip
    name = "x" if what == "samples" else "input"
    one = relevance(model.eval(), {name: x, "weights": w})
    # sums of float32 products of either sign, in another order
    assert one == pytest.approx(relevance(model, {name: again}), rel=1e-5)


def relevance(model: nn.Module, batch: dict[str, Tensor]) -> list[float]:
    """Mean share of relevance of each layer: what ``lrp`` has, without its other factor."""
    task = ModuleTask(lambda: {"model": model, "calibration": [batch], "evaluation": [batch]})
    with Scratch() as scratch:
        subject = Subject(task, Builder(task.model, task.layers, lambda: None, scratch), scratch)
        pairs = [(layer, Scheme.parse("w3")) for layer in task.layers]
        (found,) = LRP().measure(subject, pairs, NoCheckpoints())
        (errors,) = MSE().measure(subject, pairs, NoCheckpoints())
    both = zip(found, errors, strict=True)
    return [m.values["lrp"].value / e.values["mse"].value for m, e in both]


def test_a_batch_without_weights_keeps_its_digest() -> None:
    args, labels = (torch.arange(6).reshape(2, 3),), torch.tensor([[0], [1]])
    scored = torch.tensor([[True], [False]])
    plain = Batch(args, {"a": 1}, 2, labels=labels, scored=scored)
    # of the version before there were weights
    known = "7596d5de7b943ac0d756693e7756ee55ba11adc432e0dbc4064665802823b11c"
    assert batches_digest([plain]) == known
    ones, twos = (
        Batch(args, {"a": 1}, 2, labels=labels, scored=scored, weights=torch.full((2, 1), w))
        for w in (1.0, 2.0)
    )
    assert len({batches_digest([batch]) for batch in (plain, ones, twos)}) == 3


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (torch.tensor([[1.0], [-2.0]]), "1 weights of positions are negative.*, like -2: give"),
        (torch.tensor([[1.0], [torch.nan]]), "1 weights .* not finite, like nan: give finite"),
        (torch.tensor([[1.0], [torch.inf]]), "1 weights .* not finite, like inf: give finite"),
        (torch.tensor([1.0, 1.0]), r"torch.float32 of shape \(2,\): give .* for 2 samples"),
        (torch.ones(3, 1), r"of shape \(3, 1\): give floating-point .* for 2 samples"),
        (torch.ones(2, 1, dtype=torch.int64), r"are torch.int64 of shape \(2, 1\): give float"),
    ],
)
def test_bad_weights_of_a_batch_are_refused(weights: Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Batch((), samples=2, weights=weights)


# ---------------------------------------------------------------- module tasks


def brought(given: Any, **more: Any) -> ModuleTask:
    """Two batches of three samples and P positions; ``given`` weights in the first."""
    torch.manual_seed(0)
    x = torch.randn(2, N, P, 6)
    pairs = [{"input": x[0], "labels": LABELS, "weights": given}]
    pairs += [{"input": x[1], "labels": LABELS}]
    made = {"model": nn.Linear(6, K), "calibration": pairs, "evaluation": pairs, **more}
    return ModuleTask(lambda: made, device="cpu")


def test_weights_come_with_a_batch_or_from_a_function() -> None:
    task = brought(W.tolist())
    first, second = task.calibration
    assert torch.equal(first.weights, W)  # type: ignore[arg-type]
    assert second.weights is None
    assert task.outputs(first).shape == (N, P, K)  # the model is not given the weights
    task = brought(None, weights=lambda batch: batch["labels"] * 2)
    assert all(torch.equal(b.weights, LABELS * 2.0) for b in task.calibration)  # type: ignore[arg-type]


def test_gaussian_outputs_have_weights_of_samples() -> None:
    x = torch.randn(2, 3, 4, 4)
    batch = {"input": x, "weights": torch.tensor([1.0, 3.0])}
    made = {"model": nn.Conv2d(3, 2, 3), "calibration": [batch], "evaluation": [batch]}
    task = ModuleTask(lambda: made | {"output": "gaussian"})
    z = task.outputs(task.calibration[0]).detach()
    found = judge({"kl": METRICS["kl"]}, z, z + 1, task.calibration[0], "gaussian")
    np.testing.assert_allclose(found["kl"], [[4.0, 12.0], [1.0, 3.0]], rtol=1e-6)


@pytest.mark.parametrize(
    ("weights", "more", "message"),
    [
        (-W, {}, "weights of positions are negative or not finite, like -2"),
        (["heavy"], {}, "reading the weights of calibration batch 0 failed: .*: give a tensor"),
        (torch.ones(N, P, 1), {}, r"weights of calibration batch 0 are .*shape \(3, 4, 1\): give"),
        (torch.ones(N, 2), {}, r"weights of shape \(3, 2\) for outputs of shape \(3, 4, 5\)"),
        (None, {"weights": lambda b: 0 * W}, "no position of 'calibration' is scored: .*weights"),
        (None, {"weights": lambda b: b.mass}, "calling 'weights' failed: AttributeError"),
    ],
)
def test_bad_weights_of_a_module_task_are_one_line(
    weights: Any, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        brought(weights, **more).layers  # noqa: B018


# ---------------------------------------------------------------- language tasks


def token_ids(folder: Path, **arrays: Any) -> Path:
    path = folder / "ids.npz"
    np.savez(path, **arrays)
    return path


def ids_of(size: int) -> Any:
    return np.random.default_rng(0).integers(2, 30, size)


def language(folder: Path, data: Path, **options: Any) -> LanguageTask:
    model = folder / "llama"
    settings = {"samples": 4, "eval_samples": 4, "length": 8, "batch": 3, **options}
    return LanguageTask(model if model.exists() else tiny.llama(model), data, **settings)


@pytest.mark.parametrize("form", ["stream", "rows", "lengths", "rows and lengths"])
def test_each_token_takes_its_weight_along(tmp_path: Path, form: str) -> None:
    """Weights that name their token: id plus a hundredth."""
    ids = ids_of(120)
    arrays: dict[str, Any] = {"ids": ids}
    if "rows" in form:
        arrays["ids"] = ids.reshape(12, 10)
    if form == "lengths":
        arrays["lengths"] = np.array([9, 11] * 6, dtype=np.uint8)
    elif "lengths" in form:
        arrays["lengths"] = np.array([5, 10] * 6)
    task = language(tmp_path, token_ids(tmp_path, **arrays, weights=arrays["ids"] + 0.01))
    for batch in (*task.calibration, *task.evaluation):
        assert batch.labels is not None
        assert batch.weights is not None
        scored = torch.ones_like(batch.labels) > 0 if batch.scored is None else batch.scored
        assert torch.equal(batch.weights[scored], batch.labels[scored] + 0.01)
        assert not batch.weights[~scored].any()


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "shape": ({"weights": np.ones(99)}, r"weights of ids.npz are float64 of shape \(99,\): store"),
    "words": ({"weights": np.full(120, "x")}, "weights of ids.npz are <U1 of shape"),
    "negative": ({"weights": np.full(120, -0.5)}, "120 weights of ids.npz are negative.*like -0.5"),
    "NaN": ({"weights": np.where(np.arange(120) < 3, np.nan, 1)}, "3 weights .*, like nan: store"),
    "too large": ({"weights": np.full(120, 1e300)}, "120 weights .* not finite, like inf"),
    "zero": ({"weights": np.zeros(120)}, "no position of 'calibration' is scored: give some"),
}  # fmt: skip


@pytest.mark.parametrize("case", list(BAD))
def test_bad_weights_of_tokens_are_one_line(tmp_path: Path, case: str) -> None:
    arrays, message = BAD[case]
    with pytest.raises(DataError, match=message):
        language(tmp_path, token_ids(tmp_path, ids=ids_of(120), **arrays))


def test_profile_of_weighted_tokens_on_the_command_line(bitfront: Commands, tmp_path: Path) -> None:
    """KL of one layer at 3 bits, weighted: the command's number, and one written out."""
    w = np.random.default_rng(1).choice([0, 0.5, 2], 240)
    data = token_ids(tmp_path, ids=ids_of(240), weights=w)
    task = language(tmp_path, data)
    words = ["--task", "language", "--model", tmp_path / "llama", "--calibration", data, *FEW]
    words += ["--schemes", "w3", "--json"]
    found = bitfront.ok("profile", "s", *words, "--profiler", "perturb").document["tables"]["kl"]

    (name, *_), total, count = found["layers"], 0.0, 0.0
    with Scratch() as scratch, torch.no_grad():
        builder = Builder(task.model, task.layers, lambda: None, scratch)
        quantized = {name: builder.quantized(name, Scheme.parse("w3"))}
        for batch in task.calibration:
            log_p = torch.log_softmax(task.outputs(batch).double(), -1)
            with applied(task.model, quantized):
                log_q = torch.log_softmax(task.outputs(batch).double(), -1)
            assert batch.weights is not None
            total += float((batch.weights * (log_p.exp() * (log_p - log_q)).sum(-1)).sum())
            count += float(batch.weights.sum())
    # float32 logits, whose differences are some hundred times as small
    assert found["values"][0][0] == pytest.approx(total / count, rel=1e-4)

    bitfront.ok("profile", "s", *words)  # by fisher
    token_ids(tmp_path, ids=ids_of(240), weights=2 * w)
    assert "calibration" in bitfront.refused("profile", "s", *words)
    token_ids(tmp_path, ids=ids_of(240), weights=-w)
    assert "weights of ids.npz are negative" in bitfront.refused("profile", "s", *words)
