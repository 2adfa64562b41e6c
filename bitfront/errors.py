"""Every error that Bitfront raises on purpose.

    BitfrontError
    ├── InvalidInput         (ValueError)    a value that was given cannot be used
    │   ├── SchemeError                      a scheme's spelling, or a layer that cannot take it
    │   ├── BudgetError                      a budget's spelling or resource
    │   ├── ProblemError                     an allocation problem that does not hold together
    │   ├── DataError                        calibration or evaluation data
    │   └── ModelError                       a model, its weights or its outputs
    ├── UnknownName          (LookupError)   no such study, trial, layer, solver, profiler, ...
    ├── Infeasible           (ValueError)    no allocation fits the budgets
    ├── StudyMismatch        (ValueError)    a study is resumed with other weights, data or settings
    ├── IllegalMove          (ValueError)    a job in this state cannot be paused, resumed, ...
    ├── Forbidden            (ValueError)    the operator does not let a job load this
    ├── StorageError         (RuntimeError)  the database cannot be opened, read or written
    ├── ClusterError         (RuntimeError)  a Ray cluster cannot be reached, or was lost
    └── ExportError          (RuntimeError)  an export cannot be written, or differs from its trial

A message is one line: what was wrong with which value, then what to do about it. Results that
should be taken with care are announced by ``BitfrontWarning`` (a ``UserWarning``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class BitfrontError(Exception):
    """Root of Bitfront's errors. ``what`` names the value at fault, ``remedy`` says what to do."""

    def __init__(self, what: str, remedy: str = "") -> None:
        self.what = what
        self.remedy = remedy
        super().__init__(what, remedy)

    def __str__(self) -> str:
        return f"{self.what}: {self.remedy}" if self.remedy else self.what


class BitfrontWarning(UserWarning):
    """Something was done as asked, but its result should be taken with care."""


class InvalidInput(BitfrontError, ValueError):
    """A value that was given cannot be used."""


class SchemeError(InvalidInput):
    """A scheme is misspelled, or a layer cannot take it."""


class BudgetError(InvalidInput):
    """A budget is misspelled, or names a resource that is not counted."""


class ProblemError(InvalidInput):
    """An allocation problem does not hold together."""


class DataError(InvalidInput):
    """Calibration or evaluation data is missing, empty, or of the wrong shape."""


class ModelError(InvalidInput):
    """A model cannot be loaded, run, or differentiated."""


class UnknownName(BitfrontError, LookupError):
    """No such study, trial, layer, solver, profiler, quantizer, format or exporter."""


class Infeasible(BitfrontError, ValueError):
    """No allocation fits the budgets.

    ``binding`` maps each resource whose limit alone cannot be met to ``(limit, least)``, in the
    resource's own unit; ``least`` is the smallest total that any allocation has. ``short`` maps
    each whose floor cannot be reached to ``(floor, greatest)``. Where limits and floors can each be
    met, but not together, ``clash`` has for each what would do while the others stay:
    ``(resource, 1 for a limit or -1 for a floor, total)``.
    """

    def __init__(
        self,
        what: str,
        remedy: str = "",
        binding: Mapping[str, tuple[float, float]] | None = None,
        short: Mapping[str, tuple[float, float]] | None = None,
        clash: Sequence[tuple[str, int, float]] = (),
    ) -> None:
        super().__init__(what, remedy)
        self.binding = dict(binding or {})
        self.short = dict(short or {})
        self.clash = tuple(clash)


class StudyMismatch(BitfrontError, ValueError):
    """A study is resumed with other weights, data or settings than it was begun with."""


class IllegalMove(BitfrontError, ValueError):
    """A job cannot make this move from the state that it is in."""


class Forbidden(BitfrontError, ValueError):
    """A job would load what the operator does not allow: a file, a name on the hub, code."""


class StorageError(BitfrontError, RuntimeError):
    """The database cannot be opened, read or written. ``passing``: it may be, a little later."""

    passing = False


class ClusterError(BitfrontError, RuntimeError):
    """A Ray cluster cannot be reached, has no room for a unit, or was lost."""


class ExportError(BitfrontError, RuntimeError):
    """An export cannot be written, or does not give its trial's outputs."""
