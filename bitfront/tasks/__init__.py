"""Tasks: models with the data and the metrics to judge them by.

``TASKS`` maps each kind of task to ``module:class``; a class is imported when it is first asked
for, so that naming tasks costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from inspect import signature
from typing import TYPE_CHECKING, Any

from bitfront.errors import InvalidInput
from bitfront.registry import Registry

if TYPE_CHECKING:
    from bitfront.tasks.base import Batch, Task
    from bitfront.tasks.diffusion import DiffusionTask
    from bitfront.tasks.evaluation import Evaluator, Measured
    from bitfront.tasks.language import LanguageTask
    from bitfront.tasks.module import ModuleTask
    from bitfront.tasks.selection import Selection, select
    from bitfront.tasks.vision import VisionTask

__all__ = [
    "TASKS",
    "Batch",
    "DiffusionTask",
    "Evaluator",
    "LanguageTask",
    "Measured",
    "ModuleTask",
    "Selection",
    "Task",
    "VisionTask",
    "from_recipe",
    "select",
    "task_class",
]

TASKS: Registry[str] = Registry("kind of task")
TASKS["language"] = "bitfront.tasks.language:LanguageTask"
TASKS["vision"] = "bitfront.tasks.vision:VisionTask"
TASKS["diffusion"] = "bitfront.tasks.diffusion:DiffusionTask"
TASKS["module"] = "bitfront.tasks.module:ModuleTask"

_LAZY = {
    "Batch": "base",
    "DiffusionTask": "diffusion",
    "Evaluator": "evaluation",
    "LanguageTask": "language",
    "Measured": "evaluation",
    "ModuleTask": "module",
    "Selection": "selection",
    "Task": "base",
    "VisionTask": "vision",
    "select": "selection",
}


def task_class(kind: str) -> type[Task]:
    """The class of a kind of task. Raises ``UnknownName`` for a kind that is not registered."""
    module, _, name = TASKS[kind].partition(":")
    found: type[Task] = getattr(import_module(module), name)
    return found


def from_recipe(recipe: Mapping[str, Any]) -> Task:
    """The task that ``Task.recipe`` described: same model, same batches, same order.

    A recipe that does not say what is held back is of a time when nothing was.
    """
    arguments = dict(recipe)
    if "kind" not in arguments:
        raise InvalidInput("a task's recipe without its kind", f"known kinds: {', '.join(TASKS)}")
    make = task_class(arguments.pop("kind"))
    if "hold_back" in signature(make).parameters:
        arguments.setdefault("hold_back", 0.0)
    return make(**arguments)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
