"""Timings side by side: medians, what a slow machine has in common, what does not count."""

from __future__ import annotations

import gc
import os
import threading
from functools import partial

import numpy as np
import pytest

from bitfront import interleaving
from bitfront.interleaving import (
    COMMON,
    COPIES,
    ENOUGH,
    LEAST,
    MOST,
    SMALL,
    copies,
    interleaved,
    pinned,
    timings,
)


def test_each_is_run_once_a_round_in_turn() -> None:
    order: list[int] = []
    found = interleaved([partial(order.append, i) for i in range(3)], seconds=0.0)
    assert len(found) == 3
    assert len(order) % 3 == 0
    assert order == [0, 1, 2] * (len(order) // 3)
    assert all(ENOUGH <= t.repeats <= LEAST for t in found)
    assert interleaved([]) == []


def test_what_is_called_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[int] = []
    clock = [0.0]

    def run(i: int) -> None:
        clock[0] += 2.0 + i if order[-1:] == [i] else 50.0
        order.append(i)

    monkeypatch.setattr(interleaving.time, "perf_counter", lambda: clock[0])
    found = interleaved([partial(run, i) for i in range(3)], seconds=0.0, warm=True)
    assert order == [0, 0, 1, 1, 2, 2] * (len(order) // 6)
    assert [t.seconds for t in found] == [2.0, 3.0, 4.0]


def test_of_a_large_model_one_copy_is_timed() -> None:
    assert (copies(SMALL), copies(SMALL + 1)) == (COPIES, 1)


def test_rounds_go_on_for_the_time_given_but_not_for_ever() -> None:
    assert interleaved([lambda: None], seconds=60.0)[0].repeats <= MOST
    assert gc.isenabled()


def test_garbage_collection_waits_and_comes_back_after_a_failure() -> None:
    states: list[bool] = []

    def run() -> None:
        states.append(gc.isenabled())
        if len(states) == 10:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interleaved([run], seconds=0.0)
    assert states[-1] is False
    assert gc.isenabled()


def test_what_is_slow_for_all_is_taken_out() -> None:
    base = np.array([1.0, 2.0, 3.0, 4.0])
    pace = np.where(np.arange(20) % 3 == 0, 5.0, 1.0)
    found = timings(base * pace[:, None])
    assert [t.seconds for t in found] == pytest.approx(base.tolist())
    assert [t.spread for t in found] == pytest.approx([0.0] * 4)


def test_few_have_nothing_in_common() -> None:
    times = np.array([[1.0, 10.0], [3.0, 10.0], [2.0, 40.0], [4.0, 10.0], [5.0, 10.0]])
    assert times.shape[1] < COMMON
    first, second = timings(times)
    assert (first.seconds, first.spread, first.repeats) == (3.0, 1.0, 5)
    assert (second.seconds, second.spread) == (10.0, 0.0)


def test_runs_that_were_put_off_do_not_count_while_others_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    switched, rounds = [0], [0]

    def run() -> None:
        rounds[0] += 1
        switched[0] += rounds[0] % 2  # every other one

    monkeypatch.setattr(interleaving, "_switches", lambda: switched[0])
    (found,) = interleaved([run], seconds=0.0)
    assert ENOUGH <= found.repeats < LEAST

    def always() -> None:
        switched[0] += 1

    (found,) = interleaved([always], seconds=0.0)
    assert found.repeats == LEAST  # nothing else there is


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no processors to choose from")
def test_pinned_threads_and_those_they_begin() -> None:
    before = os.sched_getaffinity(0)
    seen: list[int] = []
    with pinned(1):
        thread = threading.Thread(target=lambda: seen.append(len(os.sched_getaffinity(0))))
        thread.start()
        thread.join()
        assert len(os.sched_getaffinity(0)) == 1
    assert seen == [1]
    assert os.sched_getaffinity(0) == before
