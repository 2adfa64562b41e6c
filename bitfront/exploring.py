"""The loop around an explorer: ask, measure, tell, within an allowance of measurements."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from bitfront.search import Explorer
from bitfront.tasks.numbers import require
from bitfront.types import Allocation


def explore(
    explorer: Explorer,
    measure: Callable[[Allocation], float],
    allowance: int,
    *,
    pending: int = 1,
) -> list[tuple[Allocation, float]]:
    """At most ``allowance`` measured allocations with their losses, in the order of asking.

    measure: the loss of an allocation (less is better); one that was measured before may return at
    once, so a run that was cut off goes on with the same call: the explorer is asked and told the
    same again, and what is recorded is not measured twice. pending: how many are measured at the
    same time, each in a thread; a single one in the caller's. Losses are told in the order of
    asking, so with any ``pending`` the same proposals follow, however long each measurement takes.

    Ends early when the explorer has nothing new. Raises ``InvalidInput`` for an allowance below 0
    or ``pending`` below 1, and what ``measure`` raises.
    """
    require(0, allowance=allowance)
    require(1, pending=pending)
    found: list[tuple[Allocation, float]] = []
    with ThreadPoolExecutor(pending) as pool:
        submit = pool.submit if pending > 1 else _at_once
        running: deque[tuple[Allocation, Future[float]]] = deque()
        while True:
            while len(running) < pending and len(found) + len(running) < allowance:
                asked = explorer.ask()
                if asked is None:
                    break
                running.append((asked, submit(measure, asked)))
            if not running:
                return found
            allocation, future = running.popleft()
            try:
                loss = future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
            explorer.tell(allocation, loss)
            found.append((allocation, loss))


def _at_once(measure: Callable[[Allocation], float], allocation: Allocation) -> Future[float]:
    """As an executor's ``submit``, in this thread."""
    done: Future[float] = Future()
    done.set_result(measure(allocation))
    return done
