"""Keyword arguments of users' functions, as a mapping or as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from bitfront.errors import InvalidInput

_REMEDY = 'write a JSON object like {"depth": 20}'


def parse_arguments(
    arguments: Mapping[str, Any] | str | None, name: str = "arguments"
) -> dict[str, Any]:
    """The arguments; ``name`` is what errors call them. Raises ``InvalidInput``."""
    found: Any = arguments
    if isinstance(arguments, str):
        try:
            found = json.loads(arguments, parse_constant=_no_number)
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"{name} {arguments!r} is not JSON ({error})", _REMEDY) from None
    if found is not None and not isinstance(found, Mapping):
        raise InvalidInput(f"{name} {arguments!r} is no JSON object", _REMEDY)
    return dict(found or {})


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"JSON has no {word}")
