"""Groups of options that several commands share, each made into one value for the command."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection
from typing import Any

Command = Callable[..., Any]


def with_options(**groups: Callable[..., Any]) -> Callable[[Command], Command]:
    """Decorator: the options of each group take the place of the parameter of its name.

    ``with_options(choices=layer_options)`` gives a command all options of ``layer_options`` and
    passes as ``choices`` what ``layer_options`` makes of them.
    """

    def decorate(command: Command) -> Command:
        parameters = _parameters(command, leave=groups)
        members: dict[str, list[str]] = {}
        for group, make in groups.items():
            options = _parameters(make)
            members[group] = list(options)
            parameters |= {
                n: p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for n, p in options.items()
            }

        @functools.wraps(command)
        def run(**given: Any) -> Any:
            made = {
                group: make(**{name: given.pop(name) for name in members[group]})
                for group, make in groups.items()
            }
            return command(**given, **made)

        # what typer reads instead of the wrapped function's own
        ordered = sorted(parameters.values(), key=lambda p: p.kind)
        run.__signature__ = inspect.Signature(ordered)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in ordered}
        return run

    return decorate


def without(options: Callable[..., Any], *names: str) -> Callable[..., Any]:
    """A group without some of its options, whose names a command has for something else."""

    @functools.wraps(options)
    def made(**given: Any) -> Any:
        return options(**given)

    parameters = inspect.signature(options).parameters
    kept = [p for name, p in parameters.items() if name not in names]
    made.__signature__ = inspect.Signature(kept)  # type: ignore[attr-defined]
    return made


def _parameters(
    function: Callable[..., Any], leave: Collection[str] = ()
) -> dict[str, inspect.Parameter]:
    """Name -> parameter with its annotation evaluated, but for those of the names to ``leave``.

    These may be annotated with types that are imported for type checkers alone.
    """
    found = inspect.signature(function).parameters
    scope = inspect.unwrap(function).__globals__
    return {
        name: p.replace(annotation=eval(p.annotation, scope))
        for name, p in found.items()
        if name not in leave
    }
