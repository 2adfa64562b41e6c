"""Who does the units of a study's work. The database, not the executor, knows what is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import signature
from typing import TYPE_CHECKING, Any, Protocol

from bitfront.budget import parse_bytes
from bitfront.errors import InvalidInput
from bitfront.registry import Registry

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


EXECUTORS: Registry[Callable[..., Executor]] = Registry("executor")


@EXECUTORS.register("local")
def _local(processes: int = 1) -> Executor:
    if processes == 1:
        return Local()
    from bitfront.processes import Processes

    return Processes(processes)


@EXECUTORS.register("ray")
def _ray(
    ray_address: str = "auto",
    unit_cpus: int = 1,
    unit_gpus: float = 0.0,
    unit_memory: str | int = 0,
) -> Executor:
    from bitfront.cluster import Cluster

    memory = unit_memory if isinstance(unit_memory, int) else parse_bytes(unit_memory)
    return Cluster(ray_address, unit_cpus, unit_gpus, memory)


@dataclass(frozen=True)
class Wanted:
    """An executor that is to be made, once for each study that is opened.

    settings: by the names that its maker has for them. spelled: how its user writes such a name.
    Raises ``UnknownName`` for an executor that there is not, and ``InvalidInput`` for settings that
    it does not take.
    """

    name: str = "local"
    settings: Mapping[str, Any] = field(default_factory=dict)
    spelled: Callable[[str], str] = str

    def __post_init__(self) -> None:
        known = signature(EXECUTORS[self.name]).parameters
        for name, value in self.settings.items():
            if name not in known:
                raise InvalidInput(
                    f"{self.spelled(name)} {value} with executor {self.name}",
                    f"it takes {', '.join(map(self.spelled, known))}",
                )

    def made(self) -> Executor:
        """Raises ``InvalidInput`` for values that cannot be used."""
        return EXECUTORS[self.name](**self.settings)
