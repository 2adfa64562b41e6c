"""Interactions from recorded scores against gradients of single samples, pair by pair."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from bitfront.errors import InvalidInput
from bitfront.quant.build import Builder
from bitfront.quant.formats import dequantize
from bitfront.quant.layers import adapter_of
from bitfront.quant.suitability import takes
from bitfront.scratch import Scratch
from bitfront.sensitivity import NoCheckpoints, Subject
from bitfront.sensitivity.fisher import Fisher
from bitfront.sensitivity.interactions import interactions, reliability
from bitfront.types import Measurement, Scheme
from tests.reference.test_fisher_literal import exact_kl, literal_scores, task_of
from tests.small_tasks import TASKS

SCHEMES = [Scheme.parse(s) for s in ("w2", "w4")]


def measured(subject: Subject, profiler: Fisher) -> tuple[list[Measurement], list[str], list[str]]:
    layers = subject.task.layers
    pairs = [(la, s) for la in layers for s in SCHEMES if takes(la, s) is None]
    (found,) = profiler.measure(subject, pairs, NoCheckpoints())
    return found, [la.name for la in layers], [str(s) for s in SCHEMES]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", list(TASKS))
def test_products_are_those_of_single_samples(kind: str, weighted: bool) -> None:
    """v[l,c] · v[m,d] = Σ_i s[l,c,i] s[m,d,i] / Σ_i w_i with one draw, sample by sample."""
    task = task_of(kind, weighted)
    with Scratch() as scratch:
        subject = Subject(task, Builder(task.model, task.layers, lambda: None, scratch), scratch)
        found, layers, schemes = measured(subject, Fisher(temperatures=(2.0,), seed=3))
        known = interactions(found, layers, schemes, 2.0)
        weight = sum(
            float(batch.samples * np.prod(task.outputs(batch).shape[1:-1]))
            if batch.weights is None
            else float(batch.weights.sum())
            for batch in task.calibration
        )
        scores = {}
        for m in found:
            q = subject.builder.quantized(m.layer, Scheme.parse(m.scheme))
            parts = [
                literal_scores(task, batch, index, m.layer, q, 2.0, 3)[0]
                for index, batch in enumerate(task.calibration)
            ]
            scores[layers.index(m.layer), schemes.index(m.scheme)] = np.concatenate(parts)
    v = known.vectors.astype(np.float64)
    for a, b in itertools.combinations(scores, 2):
        size = np.sqrt((scores[a] ** 2).sum() * (scores[b] ** 2).sum()) / weight
        assert v[a] @ v[b] == pytest.approx(scores[a] @ scores[b] / weight, abs=1e-3 * size)


@pytest.mark.parametrize("kind", list(TASKS))
def test_many_draws_approach_the_joint_quadratic_form(kind: str) -> None:
    """½ |Σ_l v_l|² is the second-order KL of all layers at once."""
    task = task_of(kind, weighted=False, dtype="float64")
    with Scratch() as scratch:
        subject = Subject(task, Builder(task.model, task.layers, lambda: None, scratch), scratch)
        draws = 256
        found, layers, schemes = measured(subject, Fisher(temperatures=(1.0,), draws=draws))
        known = interactions(found, layers, schemes, 1.0)
        total, count, step = 0.0, 0.0, 1e-5
        for batch in task.calibration:
            with torch.no_grad():
                z = task.outputs(batch)
                kept = {}
                for name in layers:
                    module = task.module(name)
                    adapter = adapter_of(module)
                    kept[name] = adapter.matrix(module).clone()
                    q = subject.builder.quantized(name, SCHEMES[0])
                    changed = dequantize(q.weight, kept[name].dtype) - kept[name]
                    adapter.assign(module, kept[name] + step * changed)
                dz = (task.outputs(batch) - z) / step
                for name, W in kept.items():
                    adapter_of(task.module(name)).assign(task.module(name), W)
            w = torch.ones(z.shape[:2])
            total += sum(exact_kl(z[i], dz[i], w[i]) for i in range(len(z)))
            count += float(w.sum())
    chosen = known.vectors[:, 0].astype(np.float64)
    # as for single pairs: relative spread √2 of one draw, four sigma
    assert 0.5 * np.square(chosen.sum(0)).sum() == pytest.approx(
        total / count, rel=4 * (2 / draws) ** 0.5
    )
    joint = 0.5 * np.square(chosen).sum() + replace(known, shrink=1.0).of([0] * len(layers))
    assert joint == pytest.approx(0.5 * np.square(chosen.sum(0)).sum())


def literal_reliability(S: np.ndarray, layer: np.ndarray, weights: np.ndarray) -> float:
    """Every pair, every half, one by one; the same halves."""
    rng = np.random.default_rng(0)
    rng.permutation(len(S))
    kept = [i for i, w in enumerate(weights) if w > 0]
    S, weights = S[..., kept].astype(np.float64), weights[kept]
    found = []
    for _ in range(8):
        order = rng.permutation(len(weights))
        entries: list[list[float]] = []
        for half in np.array_split(order, 2):
            mine = []
            for p, q in itertools.combinations(range(len(S)), 2):
                if layer[p] != layer[q]:
                    whole = np.sqrt((S[p] ** 2).sum() * (S[q] ** 2).sum())
                    some = sum((S[p][d][i] * S[q][d][i]) for d in range(S.shape[1]) for i in half)
                    mine.append(some / weights[half].sum() / whole)
            entries.append(mine)
        a, b = entries
        top = sum(x * y for x, y in zip(a, b, strict=True))
        found.append(top / np.sqrt(sum(x * x for x in a) * sum(y * y for y in b)))
    r = max(float(np.mean(found)), 0.0)
    return 2 * r / (1 + r)


@pytest.mark.parametrize("common", [0.0, 0.5, 2.0])
def test_reliability_is_that_of_its_definition(common: float) -> None:
    rng = np.random.default_rng(1)
    drawn = rng.standard_normal((9, 2, 21)) + common * rng.standard_normal(21)
    S = (drawn * rng.lognormal(0, 2, (9, 1, 1))).astype(np.float32)
    layer = np.repeat(np.arange(3), 3)
    weights = rng.integers(0, 4, 21).astype(float)
    S[..., weights == 0] = 0
    expected = literal_reliability(S, layer, weights)
    assert reliability(S, layer, weights) == pytest.approx(expected, rel=1e-9)


def test_reliability_tells_what_is_common_from_noise() -> None:
    """It is the factor of least squared error on correlations that are known."""
    rng = np.random.default_rng(0)
    K, N = 40, 200
    for strength in (0.0, 0.15, 0.4):
        mixing = strength * rng.standard_normal((K, 3))
        S = mixing @ rng.standard_normal((3, N)) + rng.standard_normal((K, N))
        truth = mixing @ mixing.T + np.eye(K)
        size = np.sqrt(np.diag(truth))
        found = S @ S.T / N
        off = ~np.eye(K, dtype=bool)
        estimate, real = (found / np.outer(size, size))[off], (truth / np.outer(size, size))[off]
        best = float(estimate @ real / (estimate @ estimate))
        got = reliability(S[:, None].astype(np.float32), np.arange(K), np.ones(N))
        assert got == pytest.approx(best, abs=0.06)


@pytest.mark.parametrize("N", [1, 3])
def test_too_few_samples_are_not_believed(N: int) -> None:
    assert reliability(np.ones((4, 1, N), np.float32), np.arange(4), np.ones(N)) == 0


def test_one_layer_has_nothing_to_interact_with() -> None:
    S = np.ones((4, 1, 20), np.float32)
    assert reliability(S, np.zeros(4, dtype=np.intp), np.ones(20)) == 0


def test_a_temperature_that_was_not_scored_is_refused() -> None:
    with pytest.raises(InvalidInput, match="temperature 4"):
        interactions([], ["a"], ["w4"], 4.0)
