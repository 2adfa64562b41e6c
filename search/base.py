"""The contract of allocators: one frozen problem in, one allocation out.

An allocator is a function ``(problem, *, time_limit=None, gap=0.0) -> Allocation``. It
- chooses one allowed scheme for each layer, the same one throughout a group, within every limit
  and floor (least total);
- is deterministic, prints nothing, keeps nothing between calls;
- reports loss and costs as correctly rounded sums over layers, and a ``bound`` that is below the
  loss of every allocation within the limits (nan if it proves none); ``quadratic`` means by loss,
  bound and gap its own objective, ``Problem.objective``;
- raises ``Infeasible`` when it finds that nothing fits, saying which limit binds and the least
  that would do (of a floor, the greatest), and ``ProblemError`` when some group has no scheme that
  all its layers may take;
- counts ``Problem.conversions`` if it is one of ``CONVERTING``; with any other ``allocate`` deals
  with them (``converting``);
- given ``time_limit`` (seconds), returns the best found until then; given ``gap``, may stop once
  the loss is proven to be within that part of it from the least; heuristics may ignore both.

A new allocator is one file here that registers itself, and one import in ``__init__``; if its
objective is of interactions, it is one of ``INTERACTING`` too. The same contract runs as tests over
every registered one.
"""

from __future__ import annotations

import math
from typing import Protocol

from bitfront.errors import InvalidInput
from bitfront.registry import Registry
from bitfront.types import Allocation, Problem

from .converting import converting


class Allocator(Protocol):
    def __call__(
        self, problem: Problem, *, time_limit: float | None = None, gap: float = 0.0
    ) -> Allocation: ...


ALLOCATORS: Registry[Allocator] = Registry("solver")
INTERACTING: set[str] = set()  # the solvers that minimize ``Problem.objective``
CONVERTING: set[str] = set()  # the solvers that count ``Problem.conversions``


def allocate(
    problem: Problem, solver: str = "ilp", *, time_limit: float | None = None, gap: float = 0.0
) -> Allocation:
    """One scheme per layer, by the allocator named ``solver``.

    ``gap`` is relative to the loss: at 1e-4 a solver may stop where no allocation is better by more
    than a ten-thousandth; at 0 ``ilp`` goes on to the proven optimum.

    Raises ``UnknownName`` for a solver that is not registered, ``InvalidInput`` for a gap that is
    negative or not finite, and what the allocator raises.
    """
    if not (math.isfinite(gap) and gap >= 0):
        raise InvalidInput(f"a gap of {gap}", "give a part of the loss, like 1e-4, or 0")
    chosen = ALLOCATORS[solver]
    if solver in CONVERTING:
        return chosen(problem, time_limit=time_limit, gap=gap)
    return converting(problem, lambda p, t: chosen(p, time_limit=t, gap=gap), time_limit)


def require_additive(solver: str, place: str, remedy: str) -> None:
    """Refuse a solver of ``INTERACTING`` (``InvalidInput``) where there are no interactions.

    place: where that is, to go on with after the solver's name. remedy: what to do instead.
    """
    if solver in INTERACTING:
        raise InvalidInput(f"solver {solver} {place}", remedy)
