"""Who does the units of a study's work. The database, not the executor, knows what is done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from bitfront.units import Unit
    from bitfront.workbench import Workbench


class Executor(Protocol):
    """Does units. workers: how many at a time."""

    @property
    def workers(self) -> int: ...

    def map(self, bench: Workbench, units: Sequence[Unit]) -> Iterator[tuple[int, Any]]:
        """Index and result of each of ``units``, as they become known.

        bench: of this process. Raises what a unit raises, once all that were being done have
        ended; the others are then not done.
        """

    def close(self) -> None:
        """End what was started for it."""


class Local:
    """In this process, one after another."""

    workers = 1

    def map(self, bench: Workbench, units: Sequence[Unit]) -> Iterator[tuple[int, Any]]:
        for index, unit in enumerate(units):
            yield index, unit.do(bench)

    def close(self) -> None:
        pass


def executor(processes: int) -> Executor:
    """That of so many processes. Raises ``InvalidInput`` for fewer than one."""
    if processes == 1:
        return Local()
    from bitfront.processes import Processes

    return Processes(processes)
