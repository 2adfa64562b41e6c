"""Who may import whom, what is packaged, and what ``import bitfront`` loads."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "bitfront"
ROOMS = ("search", "sensitivity", "quant", "storage")  # folders of the root, links in the package
NOUNS = {"types", "errors", "scheme", "budget", "registry", "scratch", "files"}

# part of the package -> the parts it may import besides itself
MAY_IMPORT: dict[str, set[str]] = {
    **dict.fromkeys(NOUNS, NOUNS),
    "quant": NOUNS,
    "tasks": NOUNS | {"quant"},
    "sensitivity": NOUNS | {"quant", "tasks"},
    "search": NOUNS,
    "storage": NOUNS,
    "recipes": NOUNS | {"quant"},
}
TOP = {"cli", "service"}  # nobody below imports these
NO_TENSORS = {"search", "storage"}
TENSORS = {"torch", "transformers", "diffusers", "safetensors", "compressed_tensors"}
HEAVY = TENSORS | {"ortools", "sqlalchemy", "alembic", "optuna", "scipy", "plotly", "pandas"}


def modules() -> dict[str, Path]:
    """Dotted name, without ``bitfront.``, of every module of the project."""
    found: dict[str, Path] = {}
    places = {PACKAGE: "", **{ROOT / room: room for room in ROOMS}}
    for folder, prefix in places.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            if folder == PACKAGE and parts[0] in ROOMS:
                continue  # reached through its link
            names = [prefix, *parts] if prefix else list(parts)
            found[".".join(names).removesuffix(".__init__")] = path
    return found


MODULES = modules()


def imported(name: str, path: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of everything that a module imports, wherever in its text."""
    package = f"bitfront.{name}".split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    if name == "__init__":
        package = ["bitfront"]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{source}.{alias.name}") for alias in node.names)


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_one_way(name: str) -> None:
    part = name.split(".")[0]
    allowed = MAY_IMPORT.get(part)
    wrong = []
    for line, target in imported(name, MODULES[name]):
        words = target.split(".")
        if words[0] in ROOMS:
            wrong.append(f"line {line}: import bitfront.{target}, not {target}")
        if part in NO_TENSORS and words[0] in TENSORS:
            wrong.append(f"line {line}: {part} must do without {words[0]}")
        if words[0] != "bitfront" or len(words) < 2 or words[1].startswith("__"):
            continue
        if allowed is not None and words[1] not in allowed | {part}:
            wrong.append(f"line {line}: {part} may not import bitfront.{words[1]}")
        if part not in TOP | {"__init__", "__main__"} and words[1] in TOP:
            wrong.append(f"line {line}: only {TOP} may import bitfront.{words[1]}")
    assert wrong == []


@pytest.mark.parametrize("name", [n for n in MODULES if n.split(".")[0] in ROOMS])
def test_rooms_import_their_own_modules_relatively(name: str) -> None:
    part = name.split(".")[0]
    wrong = [
        node.lineno
        for node in ast.walk(ast.parse(MODULES[name].read_text()))
        if isinstance(node, ast.ImportFrom)
        and not node.level
        and f"{node.module}.".startswith(f"bitfront.{part}.")
        and "migrations" not in name  # Alembic runs these as files of no package
    ]
    assert wrong == []


def test_what_is_private_stays_in_its_module() -> None:
    private = [
        f"{name}, line {line}: {target}"
        for name, path in MODULES.items()
        for line, target in imported(name, path)
        if target.startswith("bitfront.") and re.search(r"\._[a-z]", target)
    ]
    assert private == []


def test_every_package_is_listed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    packages = {f"bitfront.{name}" for name, path in MODULES.items() if path.name == "__init__.py"}
    packages = {name.removesuffix(".__init__") for name in packages}
    assert packages == set(settings["packages"])
    folders = {str(path.parent.relative_to(ROOT)) for path in MODULES.values()}
    homes = settings["package-dir"]
    listed = {homes.get(name, name.replace(".", "/")) for name in settings["packages"]}
    assert folders == listed


def test_the_links_lead_to_the_rooms() -> None:
    for room in ROOMS:
        link = PACKAGE / room
        assert link.is_symlink()
        assert str(link.readlink()) == f"../{room}"
        assert (link / "__init__.py").is_file()


@pytest.mark.parametrize(
    ("module", "barred"),
    [
        ("bitfront", HEAVY),
        ("bitfront.types", HEAVY),
        ("bitfront.cli", HEAVY),
        ("bitfront.storage.fronts", HEAVY),
        ("bitfront.storage", HEAVY),
        ("bitfront.storage.store", HEAVY - {"sqlalchemy", "alembic"}),
        ("bitfront.queries", HEAVY - {"sqlalchemy", "alembic"}),
        ("bitfront.trialcosts", HEAVY),
        ("bitfront.handover", HEAVY),
        ("bitfront.search", TENSORS | {"sqlalchemy", "alembic"}),
    ],
)
def test_light_modules_load_nothing_heavy(module: str, barred: set[str]) -> None:
    code = f"import sys, {module}; print(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert set(done.stdout.split()) & barred == set()
