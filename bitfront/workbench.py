"""A task with all that measuring needs, made when it is first asked for; without a database."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property
from typing import TYPE_CHECKING

from bitfront.heldout import CALIBRATION, HELD_BACK
from bitfront.quant.build import Builder
from bitfront.scratch import Scratch
from bitfront.sensitivity import Subject
from bitfront.tasks.evaluation import Evaluator
from bitfront.tasks.views import views

if TYPE_CHECKING:
    from bitfront.tasks.base import Task


class Workbench:
    """A task, its layers quantized on demand, and judges of the model in its present state."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.scratch = Scratch()
        self._judges: dict[tuple[str, ...], Evaluator] = {}
        self._part: Subject | None = None

    @cached_property
    def builder(self) -> Builder:
        """Quantizes layers on demand; statistics come from the calibration data."""

        def run() -> None:
            import torch

            with torch.no_grad():
                for batch in self.task.calibration:
                    self.task.outputs(batch)

        return Builder(self.task.model, self.task.layers, run, self.scratch)

    @cached_property
    def subject(self) -> Subject:
        """What profilers are given."""
        return Subject(self.task, self.builder, self.scratch)

    @cached_property
    def judge(self) -> Evaluator:
        """The real metrics on the evaluation data."""
        return Evaluator(self.task, self.task.evaluation, self.scratch)

    @cached_property
    def calibration_judge(self) -> Evaluator:
        """The real metrics on the calibration data, and views of them for choosing by."""
        return self.subject.evaluator.viewing(views(self.task))

    def calibration_judge_of(self, wholes: Collection[str]) -> Evaluator:
        """As ``calibration_judge``, with metrics of wholes too."""
        if not wholes:
            return self.calibration_judge
        key = tuple(sorted(wholes))
        if key not in self._judges:
            more = {name: self.task.metric(name) for name in key}
            self._judges[key] = self.calibration_judge.viewing(more)
        return self._judges[key]

    @cached_property
    def held_back_judge(self) -> Evaluator:
        """The real metrics on the calibration data held back, and the same views of them."""
        held_back = Evaluator(self.task, self.task.held_back, self.scratch)
        return held_back.viewing(views(self.task))

    def judge_of(self, prefix: str, wholes: Collection[str]) -> Evaluator:
        """The real metrics on a kind of data: ``CALIBRATION``, ``HELD_BACK``, or the evaluation's.

        wholes: metrics of wholes that are measured on the calibration data too.
        """
        if prefix == CALIBRATION:
            return self.calibration_judge_of(wholes)
        return self.held_back_judge if prefix == HELD_BACK else self.judge

    def subject_of(self, used: range | None) -> Subject:
        """What profilers are given: all calibration batches, or some, the last ones asked for."""
        if used is None:
            return self.subject
        if self._part is None or self._part.used != used:
            self._part = self.subject.part(used)
        return self._part

    def close(self) -> None:
        """Remove temporary files."""
        self.scratch.close()
