"""The contract of explorers: allocations worth measuring, learnt from those that were measured.

    ask() ──> allocation ──> (whoever measures) ──> tell(allocation, loss) ──> ask() ...

An explorer is made of the points of a sweep (``problems``: the same tables, other limits and
floors), of what was measured already (``starts``), and of a seed. It
- asks for allocations within the limits of at least one point (conversions between layers aside,
  ``Problem.conversions``), never for one twice, nor for one
  that was told; None when it finds nothing new;
- may be asked again before it was told (several workers): what it asked for and was not told is
  pending, and counts as asked;
- is told losses in any order, also of allocations that it did not ask for, or was told before
  (then the first stays). Less is better; a loss that is not finite is taken for a very great one;
- is deterministic: an equal sequence of calls gives equal proposals, in any process. So whoever
  resumes makes it anew and calls it again with what is recorded;
- prints nothing, and keeps nothing outside of itself.

A new explorer is one file here that registers its factory, and one import in ``__init__``. The
same contract runs as tests over every registered one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from bitfront.registry import Registry
from bitfront.types import Allocation, Problem


class Explorer(Protocol):
    """Ask and tell: allocations that are worth measuring, learnt from those that were."""

    def ask(self) -> Allocation | None:
        """A new allocation within the limits of some point, or None when none is found."""

    def tell(self, allocation: Allocation, loss: float) -> None:
        """What an allocation came to. Raises ``ProblemError`` for one that is barred."""


class ExplorerFactory(Protocol):
    def __call__(
        self,
        problems: Sequence[Problem],
        starts: Sequence[tuple[Allocation, float]] = (),
        *,
        seed: int = 0,
    ) -> Explorer:
        """Raises ``ProblemError`` for points that differ in more than limits, or for none.

        Raises ``Infeasible`` for a point that nothing meets, and ``InvalidInput`` for a seed below
        0.
        """


EXPLORERS: Registry[ExplorerFactory] = Registry("explorer")
