"""What a database must say of kernels that were timed: what was recorded, by place, and once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from bitfront.storage import Store
from bitfront.storage.timings import FEW
from bitfront.types import Place, Timing

HERE = Place("ort-cpu", "onnxruntime 1.32.0", "a processor", 2)
FIRST = Timing(1.5e-5, 2e-7, 50)


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    with Store.open(database) as opened:
        yield opened


def test_nothing_is_known_at_first(store: Store) -> None:
    assert store.timings(HERE, ["linear 4x4"]) == {}
    assert store.timings(HERE, []) == {}


def test_what_was_timed_is_found_by_its_kernel(store: Store) -> None:
    given = {("linear 4x4", "w4"): FIRST, ("linear 4x4", "w8"): Timing(1.0, 0.0, 1)}
    store.add_timings(HERE, {**given, ("linear 8x4", "w4"): Timing(2.0, 0.5, 3)})
    assert store.timings(HERE, ["linear 4x4", "linear 4x4", "none"]) == given


@pytest.mark.parametrize(
    "other",
    [
        replace(HERE, target="llama.cpp"),
        replace(HERE, runtime="onnxruntime 1.33.0"),
        replace(HERE, device="another"),
        replace(HERE, threads=1),
    ],
)
def test_another_place_knows_nothing_of_it(store: Store, other: Place) -> None:
    store.add_timings(HERE, {("linear 4x4", "w4"): FIRST})
    assert store.timings(other, ["linear 4x4"]) == {}


def test_the_first_timing_stays(store: Store) -> None:
    store.add_timings(HERE, {("linear 4x4", "w4"): FIRST})
    store.add_timings(HERE, {("linear 4x4", "w4"): Timing(9.0, 9.0, 9)})
    assert store.timings(HERE, ["linear 4x4"]) == {("linear 4x4", "w4"): FIRST}


def test_many_kernels_are_asked_for_at_once(store: Store) -> None:
    names = [f"linear {i}" for i in range(2 * FEW + 1)]
    store.add_timings(HERE, {(name, "w4"): FIRST for name in names})
    assert len(store.timings(HERE, names)) == len(names)


def test_they_outlive_the_store(database: str) -> None:
    with Store.open(database) as store:
        store.add_timings(HERE, {("linear 4x4", "w4"): FIRST})
    with Store.open(database) as store:
        assert store.timings(HERE, ["linear 4x4"]) == {("linear 4x4", "w4"): FIRST}
