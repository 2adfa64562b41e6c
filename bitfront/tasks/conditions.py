"""What a diffusion model is asked for: prompts, class labels, or nothing; one for each image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bitfront.errors import DataError, InvalidInput

from .boundary import foreign
from .paths import absolute

Condition = str | int

_REMEDY = "give a text file with one prompt a line, or a list of prompts"


def asked(
    calibration: str | list[str] | None,
    evaluation: str | list[str] | None,
    classes: list[int] | None,
) -> tuple[Sequence[Condition], Sequence[Condition]] | None:
    """Conditions of calibration and of evaluation images, which may be fewer; None for neither.

    Without evaluation prompts both take the same. Raises ``InvalidInput`` for contradictions.
    """
    if classes is not None and (calibration is not None or evaluation is not None):
        raise InvalidInput("both prompts and classes", "give what the model takes")
    if classes is not None:
        return classes, classes
    if calibration is None:
        if evaluation is not None:
            raise InvalidInput("evaluation prompts alone", "give calibration prompts too")
        return None
    first = read_prompts(calibration, "calibration")
    return first, first if evaluation is None else read_prompts(evaluation, "evaluation")


def spelled(prompts: Any, what: str) -> str | list[str] | None:
    """``prompts`` as another process can read them. Raises ``DataError`` for other things."""
    if prompts is None:
        return None
    if isinstance(prompts, str | Path):
        return str(absolute(prompts))
    if not isinstance(prompts, Sequence) or not all(isinstance(p, str) for p in prompts):
        raise DataError(f"{what} is a {type(prompts).__name__}", _REMEDY)
    return list(prompts)


def read_prompts(prompts: str | list[str], what: str) -> tuple[str, ...]:
    """The prompts of ``spelled``; empty lines are none. Raises ``DataError``."""
    lines = prompts
    if isinstance(prompts, str):
        file = Path(prompts)
        if not file.is_file():
            raise DataError(f"no file {prompts!r} of {what} prompts", _REMEDY)
        with foreign(f"reading {file.name}", "save it as UTF-8 text", DataError):
            lines = file.read_text(encoding="utf-8").splitlines()
    found = tuple(line.strip() for line in lines if line.strip())
    if not found:
        raise DataError(f"there are no {what} prompts", _REMEDY)
    return found


def checked_classes(classes: Any) -> list[int] | None:
    """Class labels as given. Raises ``InvalidInput`` for other things than integers from 0."""
    if classes is None:
        return None
    if (
        not isinstance(classes, Sequence)
        or not classes
        or not all(type(c) is int and c >= 0 for c in classes)
    ):
        raise InvalidInput(f"classes {classes!r}", "give class labels like 0,1,2")
    return list(classes)


def in_turn(conditions: Sequence[Condition], count: int) -> tuple[Condition, ...]:
    """One for each of ``count`` images, in turn."""
    return tuple(conditions[i % len(conditions)] for i in range(count))
