"""A profiler with settings that come as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from bitfront.errors import InvalidInput

from .base import PROFILERS, Profiler


def configured(name: str, settings: Mapping[str, Any]) -> Profiler:
    """The profiler ``name``, with ``settings`` in JSON's types; docs/profilers.md lists them.

    Raises ``UnknownName`` for a profiler, ``InvalidInput`` for a setting that it does not have, and
    for a value of another type than the default's.
    """
    kind = PROFILERS[name]
    known = {field.name: field.default for field in fields(kind)}  # type: ignore[arg-type]  # a dataclass
    for setting in settings:
        if setting not in known:
            there = ", ".join(known) or "none"
            raise InvalidInput(
                f"setting {setting!r} of {name}", f"the settings of {name} are {there}"
            )
    return kind(**{n: _typed(n, value, known[n]) for n, value in settings.items()})


def _typed(name: str, value: Any, default: Any) -> Any:
    """``value`` in the type of ``default``."""
    found = value
    if isinstance(found, int) and not isinstance(found, bool) and isinstance(default, float):
        found = float(found)
    if isinstance(default, tuple) and isinstance(found, list):
        found = tuple(found)
        same = all(isinstance(part, int | float) for part in found)
    else:
        same = type(found) is type(default)
    if not same:
        raise InvalidInput(
            f"setting {name}={json.dumps(value)}",
            f"write a value like {name}={json.dumps(default)}",
        )
    return found
