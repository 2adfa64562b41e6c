"""What a job may load: files under the operator's roots, and more only where that was allowed.

Whatever names a file, a model, data or a function among a task's arguments stands in ``NAMED``, by
what kind of name it is. Links are resolved before a path is compared with the roots, and jobs get
the resolved path. The server looks when a job is submitted, a worker that was given roots when it
opens the task. State dicts are safetensors only, and a model's folder must have its weights in
safetensors: nothing is unpickled.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bitfront.errors import Forbidden, InvalidInput

from .places import within_body

# kind of task -> argument -> what it names
NAMED: dict[str, dict[str, str]] = {
    "language": {
        "model": "folder", "calibration": "data", "evaluation": "data", "tokenizer": "tokenizer",
    },
    "vision": {
        "model": "model", "weights": "weights", "calibration": "images", "evaluation": "images",
    },
    "diffusion": {
        "model": "pipeline", "calibration": "file", "evaluation": "file", "score": "function",
    },
    "module": {"function": "function"},
}  # fmt: skip
# the others: numbers and words, and what a function of the operator's is given
_COMMON = "batch hold_back samples eval_samples seed dtype device"
PLAIN: dict[str, frozenset[str]] = {
    kind: frozenset(words.split())
    for kind, words in {
        "language": f"{_COMMON} length layout field trust_remote_code",
        "vision": f"{_COMMON} arguments fold_norms mean std size trust_remote_code",
        "diffusion": f"{_COMMON} arguments classes steps guidance text_encoders timesteps "
        "timestep_groups better",
        "module": "arguments hold_back fold_norms dtype device",
    }.items()
}
_HUB = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
_HUB_DATA = re.compile(r"hub:[\w-][\w.-]*(/[\w-][\w.-]*)?(:[\w.-]*){0,2}")


class Policy:
    """Checks tasks against what an operator allows.

    roots: folders under which files may be. allow_hub: names on the hub. allow_functions: Python
    files under the roots.
    """

    def __init__(
        self, roots: Sequence[Path], allow_hub: bool = False, allow_functions: bool = False
    ) -> None:
        self.roots = tuple(Path(os.path.realpath(root)) for root in roots)
        self.allow_hub, self.allow_functions = allow_hub, allow_functions
        self._checks: dict[str, Callable[[str], str]] = {
            "file": self.path, "data": self._data, "images": self._images,
            "weights": self._weights, "folder": self._folder, "tokenizer": self._tokenizer,
            "model": self._model, "pipeline": self._pipeline, "function": self._function,
        }  # fmt: skip

    def arguments(
        self, kind: str, given: Mapping[str, Any], recorded: Mapping[str, Any]
    ) -> dict[str, Any]:
        """``given`` with its paths resolved.

        recorded: arguments of the study's own that are kept where none is given; they must be
        allowed too. Raises ``InvalidInput`` for what the kind does not take, ``Forbidden`` for what
        is not allowed.
        """
        named = NAMED[kind]
        for name in given:
            if name not in named and name not in PLAIN[kind]:
                taken = ", ".join(sorted({*named, *PLAIN[kind]}))
                with within_body("task", "arguments", name):
                    raise InvalidInput(f"argument {name!r} of a {kind} task", f"it takes {taken}")
        for name, value in recorded.items():
            if name in named and name not in given:
                self._checked(name, named[name], value)
        whole = {**recorded, **given}
        if whole.get("trust_remote_code") and not (self.allow_hub and self.allow_functions):
            raise _refused("code of the hub", "--allow-hub and --allow-functions")
        allowed = dict(given)
        for name in (name for name in given if name in named):
            with within_body("task", "arguments", name):
                allowed[name] = self._checked(name, named[name], given[name])
        return allowed

    def checked(self, recipe: Mapping[str, Any]) -> dict[str, Any]:
        """A task's recipe with its paths resolved. Raises as ``arguments`` does."""
        given = {name: value for name, value in recipe.items() if name != "kind"}
        return {"kind": recipe["kind"], **self.arguments(recipe["kind"], given, {})}

    def _checked(self, name: str, what: str, value: Any) -> Any:
        if value is None:
            return None
        if what == "data" and isinstance(value, list) and value:
            return [self._checked(name, what, item) for item in value]
        if not isinstance(value, str) or not value or not value.isprintable():
            raise InvalidInput(f"{name} {value!r}", "give a path or name as text")
        return self._checks[what](value)

    def path(self, text: str) -> str:
        """The file or folder ``text``, absolute or within a root, without links."""
        places = [os.path.realpath(root / text) for root in self.roots]
        inside = [p for p in places if any(Path(p).is_relative_to(root) for root in self.roots)]
        if not inside:
            raise Forbidden(
                f"{text!r} is not under a root",
                "name a file under one, or let the operator add its folder with --root",
            )
        there = next((place for place in inside if os.path.exists(place)), None)
        if there is None:
            raise InvalidInput(f"no file {text!r} under the roots", "check the path")
        return there

    def _data(self, text: str) -> str:
        if not text.startswith("hub:"):
            return self.path(text)
        if not self.allow_hub:
            raise _refused(f"data {text!r}", "--allow-hub")
        if not _HUB_DATA.fullmatch(text):
            raise InvalidInput(f"data {text!r}", "write hub:NAME[:CONFIG][:SPLIT]")
        return text

    def _images(self, text: str) -> str:
        path, mark, keys = text.rpartition(".npz:")
        return f"{self.path(path + '.npz')}:{keys}" if mark else self.path(text)

    def _weights(self, text: str) -> str:
        found = self.path(text)
        if not found.endswith(".safetensors"):
            raise _refused(f"weights {text!r}", "", "save them as .safetensors: no pickle is read")
        return found

    def _folder(self, text: str) -> str:
        """A transformers model."""
        found = self._hub_or(text)
        if found is not None:
            return found
        found = self.path(text)
        names = ("model.safetensors", "model.safetensors.index.json")
        if not any(os.path.isfile(os.path.join(found, name)) for name in names):
            raise InvalidInput(
                f"model {text!r} has no model.safetensors", "save it so: no pickle is read"
            )
        self._inside(found, text)
        return found

    def _model(self, text: str) -> str:
        return self._function(text) if ".py:" in text else self._folder(text)

    def _pipeline(self, text: str) -> str:
        return self._function(text) if ".py:" in text else self._tokenizer(text)

    def _tokenizer(self, text: str) -> str:
        found = self._hub_or(text)
        if found is not None:
            return found
        found = self.path(text)
        self._inside(found, text)
        return found

    def _function(self, text: str) -> str:
        if not self.allow_functions:
            raise _refused(f"the function {text!r}", "--allow-functions")
        path, _, name = text.rpartition(":")
        if not path.endswith(".py") or not name.isidentifier():
            raise InvalidInput(f"{text!r} names no function", "write it like path/to/file.py:name")
        return f"{self.path(path)}:{name}"

    def _hub_or(self, text: str) -> str | None:
        """A name on the hub, or None for a path: what is there under a root is a path."""
        if not _HUB.fullmatch(text) or any((root / text).exists() for root in self.roots):
            return None
        if not self.allow_hub:
            raise _refused(
                f"{text!r}, which is not under a root, as a name on the hub", "--allow-hub"
            )
        if os.path.exists(text):
            raise _refused(f"{text!r}, which the server's own folder has too,", "", "rename that")
        return text

    def _inside(self, folder: str, text: str) -> None:
        """Refuse a folder with a link that leads out of the roots."""
        for place, folders, files in os.walk(folder):
            for name in (*folders, *files):
                real = Path(os.path.realpath(os.path.join(place, name)))
                if not any(real.is_relative_to(root) for root in self.roots):
                    raise Forbidden(
                        f"{text!r} has a link that leads out of the roots", "copy what it leads to"
                    )


def check_roots(roots: Sequence[Path]) -> None:
    """Raises ``InvalidInput`` for one that is no folder."""
    for root in roots:
        if not root.is_dir():
            raise InvalidInput(f"root {str(root)!r} is no folder", "name a folder")


def _refused(what: str, option: str, hint: str = "") -> Forbidden:
    allowed = hint or f"the operator may allow it with {option}"
    return Forbidden(f"{what} is not allowed here", allowed)
