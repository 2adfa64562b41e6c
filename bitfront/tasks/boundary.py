"""Where code that is not ours runs: users' files, transformers' loaders, models' forwards.

Such code may raise anything. Whatever it raises becomes one ``ModelError`` of one line that says
where; the original exception stays chained, for ``BITFRONT_DEBUG``.
"""

from __future__ import annotations

import importlib.util
import linecache
import pickle
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from bitfront.errors import BitfrontError, InvalidInput, ModelError

from .paths import absolute

_LONGEST = 300  # characters of a foreign message that are kept
_OURS = str(Path(__file__).parents[1])


@contextmanager
def foreign(doing: str, remedy: str = "", error: type[InvalidInput] = ModelError) -> Iterator[None]:
    """Turn any exception of the block into ``error``: "``doing``: where: type: message".

    A call of ``sys.exit`` too: it would end the program without a word.
    """
    try:
        yield
    except BitfrontError:
        raise
    except (Exception, SystemExit) as cause:
        raise error(f"{doing} failed: {describe(cause)}", remedy) from cause


def describe(error: BaseException) -> str:
    """``file.py:12: KeyError: 'x'``; the place only when a user's own file is involved."""
    said = error.msg if isinstance(error, SyntaxError) else error
    if isinstance(error, pickle.UnpicklingError):  # torch's words would have one run the code
        said = "it holds other things than tensors, or is damaged"
    text = " ".join(str(said).split()).rstrip(".")
    if len(text) > _LONGEST:
        text = text[: _LONGEST - 1] + "…"
    place = _place(error)
    return f"{place}{type(error).__name__}{': ' + text if text else ''}"


def _place(error: BaseException) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name}:{error.lineno}: "
    frames = traceback.extract_tb(error.__traceback__)
    users = [frame for frame in frames if _is_users(frame.filename)]
    return f"{Path(users[-1].filename).name}:{users[-1].lineno}: " if users else ""


_folders: set[Path] = set()  # of the files that ``function_at`` has run


def _is_users(filename: str) -> bool:
    if "site-packages" in filename or filename.startswith(_OURS):
        return False
    return any(folder in Path(filename).parents for folder in _folders)


def function_at(reference: str) -> Callable[..., Any]:
    """The function that ``path/to/file.py:name`` names; its file is run each time anew.

    The file may import its neighbours: its folder comes first while it runs, and last afterwards.
    Raises ``ModelError`` when there is no such file or name, or when the file raises.
    """
    path, _, name = reference.rpartition(":")
    if not path.endswith(".py") or not name.isidentifier():
        raise ModelError(f"{reference!r} names no function", "write it like path/to/file.py:name")
    file = absolute(path)
    if not file.is_file():
        raise ModelError(f"no file {path!r}", "give the path of the Python file that has it")
    module = _run(file)
    found = getattr(module, name, None)
    if not callable(found):
        public = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise ModelError(
            f"{path!r} has no function {name!r}", f"it has {', '.join(public) or 'none at all'}"
        )
    return found


def _run(file: Path) -> ModuleType:
    # importable under a name of its own, so that pickling and dataclasses in the file work
    name = f"bitfront_user_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    folder = str(file.parent)
    _folders.add(file.parent)
    linecache.checkcache(str(file))
    sys.path.insert(0, folder)
    try:
        with foreign(f"running {file.name}", "correct the file, or install what it needs"):
            spec.loader.exec_module(module)
    finally:
        sys.path.remove(folder)
        if folder not in sys.path:
            sys.path.append(folder)
    return module
