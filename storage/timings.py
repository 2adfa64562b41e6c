"""What was timed on targets: kernels, and whole models; no study's own, so that the next one reuses
them."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sqlalchemy import select

from bitfront.types import Place, Timing

from .engine import Database, now
from .models import TimingRow

FEW = 500  # kernels that one query asks for; databases limit values of a query


class Timings(Database):
    """Seconds by place (target, runtime, device, threads), kernel and scheme."""

    def add_timings(self, place: Place, timings: Mapping[tuple[str, str], Timing]) -> None:
        """Record what was timed of (kernel, scheme). What is recorded already stays as it is."""
        rows = [
            {
                **_place(place), "kernel": kernel, "scheme": scheme, "seconds": timing.seconds,
                "spread": timing.spread, "repeats": timing.repeats, "created": now(),
            }
            for (kernel, scheme), timing in timings.items()
        ]  # fmt: skip
        if rows:
            with self.writing() as connection:
                connection.execute(self.insert(TimingRow), rows)

    def timings(self, place: Place, kernels: Collection[str]) -> dict[tuple[str, str], Timing]:
        """(kernel, scheme) -> what is recorded of ``kernels`` at a place."""
        T, wanted = TimingRow, sorted(set(kernels))
        found = {}
        with self.reading() as connection:
            for begin in range(0, len(wanted), FEW):
                query = select(T.kernel, T.scheme, T.seconds, T.spread, T.repeats).where(
                    *(getattr(T, name) == value for name, value in _place(place).items()),
                    T.kernel.in_(wanted[begin : begin + FEW]),
                )
                for kernel, scheme, seconds, spread, repeats in connection.execute(query):
                    found[kernel, scheme] = Timing(seconds, spread, repeats)
        return found


def _place(place: Place) -> dict[str, str | int]:
    return {
        "target": place.target, "runtime": place.runtime, "device": place.device,
        "threads": place.threads,
    }  # fmt: skip
