"""A task as somebody outside of Python gives it, and the study that it begins or goes on with."""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bitfront.errors import InvalidInput, UnknownName

if TYPE_CHECKING:
    from bitfront.executors import Wanted
    from bitfront.storage import Store
    from bitfront.study import Progress, Study


@dataclass(frozen=True)
class Given:
    """What a command line or a request says of a task.

    kind: None where the study says it. arguments: by their names in Python. spelled: how its user
    writes such a name.
    """

    kind: str | None
    arguments: Mapping[str, Any]
    spelled: Callable[[str], str] = str

    def open(
        self,
        study: str,
        db: str | None,
        progress: Progress,
        executor: Wanted | None = None,
        check: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None,
    ) -> Study:
        """The study: gone on with as it is recorded, or begun with what is given.

        What is given for a recorded study replaces the recorded arguments; the study is then
        refused unless it comes to the same. executor: that does its units; by default this process.
        check: the task's recipe as it is to be loaded; raises for one that is not. Raises
        ``InvalidInput`` for arguments that the kind does not take or lacks, and what making the
        executor and opening the study raise.
        """
        from bitfront.storage import Store
        from bitfront.study import open_study
        from bitfront.tasks import from_recipe

        made = None if executor is None else executor.made()
        with Store.open(db) as store:
            recipe = self._recipe(store, study)
        if check is not None:
            recipe = check(recipe)
        progress("loading model and data", 0, 1)
        task = from_recipe(recipe)
        progress("loading model and data", 1, 1)
        opened = open_study(study, task, db, made)
        for note in task.notes:
            print("note:", note, file=sys.stderr)
        return opened

    def known(self, store: Store, study: str) -> tuple[str, dict[str, Any]]:
        """The task's kind, and what the study has recorded of a task of this kind.

        Raises ``InvalidInput`` where the kind is not known, ``UnknownName`` where the study is not.
        """
        from bitfront.storage.studies import check_name
        from bitfront.tasks import TASKS

        check_name(study)
        names = store.names()
        begun = study in names
        recorded = dict(store.study(study).settings.get("recipe") or {}) if begun else {}
        kind = self.kind or recorded.get("kind")
        if kind is not None:
            return kind, recorded if recorded.get("kind") == kind else {}
        ask = f"give {self.spelled('task')} ({', '.join(TASKS)}) and its options"
        if begun:
            raise InvalidInput(
                f"study {study!r} was begun in Python with a live model or data",
                f"open it there, or {ask}",
            )
        near = difflib.get_close_matches(study, names, 1)
        meant = f" (did you mean {near[0]!r}?)" if near else ""
        raise UnknownName(f"there is no study {study!r} yet{meant}", f"to begin it {ask}")

    def _recipe(self, store: Store, study: str) -> dict[str, Any]:
        from bitfront.tasks import task_class

        kind, recorded = self.known(store, study)
        known = inspect.signature(task_class(kind)).parameters
        for name in self.arguments:
            if name not in known:
                taken = ", ".join(map(self.spelled, known))
                raise InvalidInput(f"{self.spelled(name)} for a {kind} task", f"it takes {taken}")
        for name in ("calibration", "evaluation"):  # a list would be taken for prompts
            if kind != "language" and isinstance(self.arguments.get(name), list):
                raise InvalidInput(f"several {self.spelled(name)} for a {kind} task", "give one")
        defaults = {n: p.default for n, p in known.items() if p.default is not p.empty}
        recipe = {**(recorded or defaults), **self.arguments, "kind": kind}
        for name, parameter in known.items():
            if parameter.default is parameter.empty and name not in recipe:
                raise InvalidInput(
                    f"a {kind} task without {self.spelled(name)}", f"give {self.spelled(name)}"
                )
        return recipe
