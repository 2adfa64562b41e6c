"""README and docs against the code: commands parse, options exist, the main job runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

from bitfront.cli.app import app
from bitfront.errors import BitfrontError
from tests import tiny

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS: Any = typer.main.get_command(app)


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language (none: plain ones)."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.M | re.S)


def lines() -> list[tuple[str, str]]:
    """(page, command line) of every complete ``bitfront`` command in a plain block."""
    found = []
    for page in PAGES:
        for block in blocks(page, ""):
            joined = block.replace("\\\n", " ")
            found += [(page.name, x) for x in joined.splitlines() if x.startswith("bitfront ")]
    return [(name, line) for name, line in found if "   " not in line or "--" in line]


@pytest.mark.parametrize(("page", "line"), lines())
def test_command_lines_are_understood(page: str, line: str) -> None:
    _, *words = shlex.split(line)
    if words[0] == "--server":
        words = words[2:]
    command, *words = words
    COMMANDS.commands[command].make_context(command, words, resilient_parsing=False)


def test_every_command_is_described() -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    for name in COMMANDS.commands:
        assert f"bitfront {name}" in text, name


def test_the_errors_documented_are_those_of_the_code() -> None:
    text = (ROOT / "bitfront" / "errors.py").read_text()
    for kind in BitfrontError.__subclasses__():
        assert kind.__name__ in text.split('"""')[1]


def test_readmes_main_job_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.llama(tmp_path / "model")
    tiny.text(tmp_path / "train.txt", 4000)
    tiny.text(tmp_path / "valid.txt", 4000)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BITFRONT_DB", str(tmp_path / "b.db"))
    [code] = [b for b in blocks(ROOT / "README.md", "python") if "open_study" in b]
    code = code.replace("path/to/model", "model").replace("g32", "g8")
    code = code.replace('evaluation="valid.txt"', 'evaluation="valid.txt", samples=4, length=12')
    exec(compile(code, "README.md", "exec"), {})
    assert len(capsys.readouterr().out.splitlines()) == 2
    from transformers import AutoModelForCausalLM

    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").config.vocab_size == len(
        tiny.WORDS
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_snippets_compile(page: Path) -> None:
    for block in blocks(page, "python"):
        compile(block, page.name, "exec")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target
