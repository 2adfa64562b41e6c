"""One idiom for all that comes in kinds: a dict, a decorator, a miss that lists the names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, NoReturn, TypeVar

from bitfront.errors import UnknownName

T = TypeVar("T")


class Registry(dict[str, T], Generic[T]):
    """Names to implementations of one ``kind`` of thing, in order of registration."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that files an implementation under ``name``."""

        def file(item: T) -> T:
            self[name] = item
            return item

        return file

    def __missing__(self, name: str) -> NoReturn:
        raise UnknownName(f"no {self.kind} named {name!r}", f"choose from {', '.join(self)}")


def check_names(*asked: tuple[Registry[Any], str | None]) -> None:
    """Raises ``UnknownName`` for a name that is not registered, before anything long is begun."""
    for registry, name in asked:
        if name is not None:
            _ = registry[name]
