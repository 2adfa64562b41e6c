"""What every profiler promises, over every registered one and two kinds of network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from bitfront.quant.build import Builder
from bitfront.quant.suitability import takes
from bitfront.scratch import Scratch
from bitfront.sensitivity import PROFILERS, NoCheckpoints, Subject
from bitfront.sensitivity.base import Pair
from bitfront.tasks import ModuleTask
from bitfront.types import Measurement, Scheme
from tests.profiling import MEASURING
from tests.small_tasks import TASKS, uneven, with_weights

SCHEMES = [
    Scheme.parse(s)
    for s in ("w2", "w4", "w8", "w4a8", "w4a6b", "w4g4a8g", "w4g4z", "w4a8szo", "fp8a8", "fp8a8s")
]


class Kept:
    """Checkpoints in a dict, which fails at the batch ``until`` to stand for a kill."""

    def __init__(self, until: int | None = None) -> None:
        self.parts: dict[int, dict[str, NDArray[Any]]] = {}
        self.saved: list[int] = []
        self.until = until

    def load(self) -> dict[int, dict[str, NDArray[Any]]]:
        return dict(self.parts)

    def save(self, index: int, arrays: Mapping[str, NDArray[Any]]) -> None:
        if index == self.until:
            raise KeyboardInterrupt
        self.parts[index] = dict(arrays)
        self.saved.append(index)


@pytest.fixture(params=list(TASKS))
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    with subject_of(TASKS[request.param]()) as subject:
        yield subject


@contextmanager
def subject_of(task: ModuleTask) -> Iterator[Subject]:
    def run() -> None:
        with torch.no_grad():
            for batch in task.calibration:
                task.outputs(batch)

    with Scratch() as scratch:
        yield Subject(task, Builder(task.model, task.layers, run, scratch), scratch)


def pairs_of(subject: Subject) -> list[Pair]:
    return [(la, s) for la in subject.task.layers for s in SCHEMES if takes(la, s) is None]


def measured(name: str, subject: Subject, pairs: list[Pair]) -> dict[tuple[str, str], Measurement]:
    parts = PROFILERS[name]().measure(subject, pairs, NoCheckpoints())
    return {(m.layer, m.scheme): m for part in parts for m in part}


@pytest.mark.parametrize("name", MEASURING)
def test_every_pair_is_measured_with_an_error_bar(name: str, subject: Subject) -> None:
    pairs = pairs_of(subject)
    found = measured(name, subject, pairs)
    assert set(found) == {(la.name, str(s)) for la, s in pairs}
    for m in found.values():
        assert m.values
        for estimate in m.values.values():
            assert np.isfinite(estimate.value)
            assert np.isfinite(estimate.stderr)
            assert estimate.samples >= 1


@pytest.mark.parametrize("name", MEASURING)
def test_coarser_schemes_hurt_more_in_total(name: str, subject: Subject) -> None:
    found = measured(name, subject, pairs_of(subject))
    table = next(iter(PROFILERS[name]().tables(
        found.values(), [la.name for la in subject.task.layers], ["w2", "w4", "w8"]
    ).values()))  # fmt: skip
    w2, w4, w8 = table.values.sum(0)
    assert w2 > w4 > w8 > 0


@pytest.mark.parametrize("name", MEASURING)
def test_a_pair_does_not_depend_on_the_others(name: str, subject: Subject) -> None:
    pairs = pairs_of(subject)
    alone = measured(name, subject, pairs[3:4])
    together = measured(name, subject, pairs)
    (key,) = alone
    for value in alone[key].values:  # other matrix shapes may round the last bits differently
        assert alone[key].values[value].value == pytest.approx(
            together[key].values[value].value, rel=1e-5
        )


@pytest.mark.parametrize("name", MEASURING)
def test_the_model_is_left_as_it_was(name: str, subject: Subject) -> None:
    model = subject.task.model
    model.train()
    next(model.parameters()).requires_grad_(False)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    flags = [p.requires_grad for p in model.parameters()]
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]

    generator = PROFILERS[name]().measure(subject, pairs_of(subject), Kept(until=1))
    if PROFILERS[name].one_pass:
        with pytest.raises(KeyboardInterrupt):
            next(generator)
    else:  # stopped between two pairs
        next(generator)
    generator.close()  # type: ignore[attr-defined]

    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(p.grad is None for p in model.parameters())
    assert all(m.training for m in model.modules())
    assert [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()] == hooks


@pytest.mark.parametrize("name", [n for n in MEASURING if PROFILERS[n].one_pass])
def test_an_interrupted_pass_goes_on_after_its_last_batch(name: str, subject: Subject) -> None:
    pairs, kept = pairs_of(subject), Kept(until=1)
    with pytest.raises(KeyboardInterrupt):
        list(PROFILERS[name]().measure(subject, pairs, kept))
    assert kept.saved == [0]
    kept.until = None
    (resumed,) = PROFILERS[name]().measure(subject, pairs, kept)
    assert kept.saved == list(range(len(subject.batches)))
    straight = measured(name, subject, pairs)
    for m in resumed:
        assert m.values == straight[m.layer, m.scheme].values


@pytest.mark.parametrize("name", MEASURING)
def test_tables_are_made_again_of_what_was_recorded(name: str, subject: Subject) -> None:
    kind, recorded = PROFILERS[name], measured(name, subject, pairs_of(subject)).values()
    layers, schemes = [la.name for la in subject.task.layers], ["w2", "w4"]
    again = kind.reader(recorded).tables(recorded, layers, schemes)
    straight = kind().tables(recorded, layers, schemes)
    assert list(again) == list(straight)
    for table, given in zip(again.values(), straight.values(), strict=True):
        assert np.array_equal(table.values, given.values, equal_nan=True)


def values_of(name: str, task: ModuleTask) -> dict[tuple[str, str, str], float]:
    """(layer, scheme, value) -> what was measured."""
    with subject_of(task) as subject:
        found = measured(name, subject, pairs_of(subject))
    return {(*pair, v): e.value for pair, m in found.items() for v, e in m.values.items()}


def masked(task: ModuleTask, weigh: Callable[[int, int], Tensor]) -> ModuleTask:
    """The positions scored that have a weight, in place of weights."""
    task = with_weights(task, weigh)
    task.calibration = [replace(b, scored=b.counts(1) > 0, weights=None) for b in task.calibration]
    return task


@pytest.mark.parametrize("kind", list(TASKS))
@pytest.mark.parametrize("name", MEASURING)
def test_weights_of_one_and_zero_are_a_mask(name: str, kind: str) -> None:
    def weigh(samples: int, positions: int) -> Tensor:
        return (uneven(samples, positions) > 1.5).float()

    weighted = values_of(name, with_weights(TASKS[kind](), weigh))
    assert weighted == pytest.approx(values_of(name, masked(TASKS[kind](), weigh)), rel=1e-9)


@pytest.mark.parametrize("kind", list(TASKS))
@pytest.mark.parametrize("name", MEASURING)
def test_only_ratios_of_weights_matter(name: str, kind: str) -> None:
    once = values_of(name, with_weights(TASKS[kind](), uneven))
    more = values_of(name, with_weights(TASKS[kind](), lambda n, p: 4 * uneven(n, p)))
    # where weights enter a sum of float32 products, the last bits may round differently
    assert more == pytest.approx(once, rel=1e-5)
    if name != "mse":  # of layers' outputs, which have no weights
        assert once != pytest.approx(values_of(name, TASKS[kind]()), rel=1e-4)


@pytest.mark.parametrize("name", MEASURING)
def test_drawing_every_sample_once_gives_the_estimate(name: str, subject: Subject) -> None:
    recorded = measured(name, subject, pairs_of(subject))
    layers = [layer.name for layer in subject.task.layers]
    for table_name, table in PROFILERS[name]().tables(recorded.values(), layers, ["w2"]).items():
        for layer in layers:
            m = recorded[layer, "w2"]
            (N,) = {v.shape[-1] for v in m.vectors.values()}
            drawn = PROFILERS[name]().resampled(m, table_name, np.ones((2, N)))
            if table_name == "decoupled":  # at rates of all pairs: rests on standard errors
                assert drawn is None
                continue
            assert drawn == pytest.approx(table.at(layer, "w2"), rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("name", [n for n in MEASURING if PROFILERS[n].one_pass])
def test_a_pass_over_a_part_is_the_beginning_of_the_whole(name: str, subject: Subject) -> None:
    pairs, kept = pairs_of(subject), Kept()
    part = subject.part(range(1))
    list(PROFILERS[name]().measure(part, pairs, kept))
    assert kept.saved == [0]
    (grown,) = PROFILERS[name]().measure(subject, pairs, kept)
    assert kept.saved == list(range(len(subject.batches)))
    straight = measured(name, subject, pairs)
    for m in grown:
        assert m.values == straight[m.layer, m.scheme].values
    (again,) = PROFILERS[name]().measure(part, pairs, kept)  # with more at hand than it uses
    assert kept.saved == list(range(len(subject.batches)))
    assert all(e.samples <= part.batches[0].samples for m in again for e in m.values.values())


@pytest.mark.parametrize("name", [n for n in MEASURING if not PROFILERS[n].one_pass])
def test_measurements_on_parts_join_to_the_bit(name: str, subject: Subject) -> None:
    pairs, last = pairs_of(subject), len(subject.batches)
    parts = [measured(name, subject.part(r), pairs) for r in (range(1), range(1, last))]
    for pair, m in measured(name, subject, pairs).items():
        joined = PROFILERS[name]().joined([part[pair] for part in parts])
        assert joined.values == m.values
        assert all(np.array_equal(joined.vectors[n], v) for n, v in m.vectors.items())


@pytest.mark.parametrize("name", MEASURING)
def test_a_finer_profiler_is_another_one_of_the_kind(name: str) -> None:
    finer = PROFILERS[name]().finer()
    if finer is not None:
        assert type(finer) is PROFILERS[name]
        assert finer.settings_key != PROFILERS[name]().settings_key
