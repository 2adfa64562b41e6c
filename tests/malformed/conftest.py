"""Good files of every kind of task, and a database of studies of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import bitfront as library
from bitfront.pipeline import Choices
from bitfront.tasks import ModuleTask
from tests import tiny
from tests.commands import Commands


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good files of every kind of task."""
    folder = tmp_path_factory.mktemp("good")
    tiny.language_task(folder)
    tiny.vision_task(folder)
    tiny.code(folder / "bring.py")
    return folder


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    """A copy of them that may be spoiled."""
    return Path(shutil.copytree(good, tmp_path / "files"))


@pytest.fixture(scope="session")
def studies(good: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    """A database with study ``m`` of a module, ``l`` of a language model with zero points, and
    ``bare`` without trials; a trial of each."""
    db, found = tmp_path_factory.mktemp("studies") / "bitfront.db", {}
    module = ModuleTask(f"{good}/bring.py:task")
    for name, task, schemes, choices in (
        ("m", module, "w4 w8", Choices()),
        ("l", tiny.language_task(good), "w4z w8z", Choices(container="safetensors")),
    ):
        with library.open_study(name, task, db) as study:
            answers = library.search(study, schemes, ["6bpw"], choices=choices, verify=False)
            found[f"#{name}"] = answers[0].trial.id
    library.open_study("bare", module, db).close()
    return db, found


@pytest.fixture
def begun(bitfront: Commands, studies: tuple[Path, dict[str, int]]) -> Commands:
    """The command line with a copy of that database."""
    shutil.copy(studies[0], bitfront.db)
    return bitfront
