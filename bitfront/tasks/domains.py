"""Language data of several domains: where it comes from, how much of each, metrics of each.

D  domains, in the order in which their calibration data is named; domain k has part k − 1
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import TypeVar

from bitfront.errors import InvalidInput

from .base import Batch
from .metrics import METRICS, Metric, of_part
from .paths import absolute

Source = str | Path | Sequence[str | Path]

T = TypeVar("T")


@dataclass(frozen=True)
class Sources:
    """Where data comes from: absolute paths, or names on the hub.

    calibration: of each domain (D). evaluation: of each domain (D), None for a later part of its
    calibration data; or a single one that is of no domain.
    """

    calibration: tuple[str, ...]
    evaluation: tuple[str | None, ...]


def sources(calibration: Source, evaluation: Source | None) -> Sources:
    """What was named, checked. Evaluation data that is its domain's calibration data becomes None.

    Raises ``InvalidInput`` for none, for one named twice, and for numbers that do not fit.
    """
    first = spelled(calibration)
    second = () if evaluation is None else spelled(evaluation)
    for name, given in (("calibration", first), ("evaluation", second)):
        twice = next((source for source in given if given.count(source) > 1), None)
        if twice is not None:
            raise InvalidInput(f"{name} data {twice!r} is given twice", "give it once")
    if not first:
        raise InvalidInput("no calibration data", "give at least one source")
    if len(second) not in (0, 1, len(first)):
        raise InvalidInput(
            f"{len(second)} sources of evaluation data for {len(first)} of calibration data",
            "give one for each in the same order, one for all, or none",
        )
    for k, source in enumerate(second):
        if source in first and (len(second) < len(first) or first[k] != source):
            raise InvalidInput(
                f"evaluation data {source!r} is calibration data of a domain that it is not for",
                "give one for each in the same order, other data, or none",
            )
    if not second:
        return Sources(first, (None,) * len(first))
    apart = tuple(None if source in first else source for source in second)
    return Sources(first, apart)


def spelled(source: Source) -> tuple[str, ...]:
    """Every source in full, so that another process finds it."""
    given = [source] if isinstance(source, str | Path) else source
    return tuple(t if t.startswith("hub:") else str(absolute(t)) for t in map(str, given))


def shares(samples: int, domains: int, name: str) -> list[int]:
    """Samples of each domain, as equal as can be. Raises ``InvalidInput`` where one has none."""
    if samples < domains:
        raise InvalidInput(f"{name} {samples} of {domains} domains", f"give at least {domains}")
    return [(samples + domains - 1 - k) // domains for k in range(domains)]


def in_turn(drawn: Iterable[Sequence[T]]) -> tuple[list[T], list[int]]:
    """A sample of each domain, then the next of each, and so on; and the part of each."""
    parted = [[(item, k) for item in items] for k, items in enumerate(drawn)]
    mixed = [pair for pair in chain(*zip_longest(*parted)) if pair is not None]
    return [item for item, _ in mixed], [part for _, part in mixed]


def check_left(calibration: Iterable[Batch], given: Sources) -> None:
    """Raises ``InvalidInput`` for a domain of which ``calibration`` has no sample."""
    there = {
        k for batch in calibration for k in ([0] if batch.part is None else batch.part.tolist())
    }
    for k, source in enumerate(given.calibration):
        if k not in there:
            raise InvalidInput(
                f"nothing of {source!r} is left to calibrate on: all of it is held back",
                "give more samples, or a smaller hold_back",
            )


def metrics_of(names: Sequence[str], domains: int) -> dict[str, Metric]:
    """``NAME_d1``, ``NAME_d2`` and so on; none for one domain."""
    if domains < 2:
        return {}
    found = (of_part(METRICS[name], k, "d") for k in range(domains) for name in names)
    return {metric.name: metric for metric in found}
