"""What cannot be asked of studies that are there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands import Commands
from tests.malformed.cases import (
    AGAIN,
    UP,
    Case,
    Make,
    Spoil,
    Words,
    command,
    contents,
    export,
    refusal,
    trials,
    weighted,
)


def after(spoil: Spoil, make: Make) -> Make:
    def spoiled(folder: Path) -> Words:
        spoil(folder)
        return make(folder)

    return spoiled


STUDIES: dict[str, Case] = {
    "front of an unknown study": (
        command("front", "nope"),
        "no study named 'nope': did you mean 'bare', 'l', 'm'",
    ),
    "front of a misspelled study": (
        command("front", "bear"),
        r"no study named 'bear': did you mean 'bare'\?",
    ),
    "front of a study without trials": (
        command("front", "bare"),
        "study 'bare' has no trials yet: run a search first",
    ),
    "unknown cost": (
        command("front", "m", cost="joules"),
        "no trial has the cost 'joules': there are bits, bops, bytes",
    ),
    "unknown metric": (
        command("front", "m", metric="bleu"),
        "no trial has the metric 'bleu': there are agreement",
    ),
    "front within an unknown cost": (
        command("front", "m", within="joules<=3"),
        "no trial has the cost or metric 'joules': there are agreement",
    ),
    "front within no number": (
        command("front", "m", within="kl<0.1"),
        "cannot read limit 'kl<0.1': write a name, <= or >= and a number, like kl<=0.1",
    ),
    "front within no unit": (
        command("front", "m", within="3"),
        "unknown unit in budget '3': write a number and a unit",
    ),
    "front within time that was not counted": (
        command("front", "m", within="3ms"),
        "budget '3ms' limits seconds, which no trial has: choose a budget on one of bits, bops, by",
    ),
    "front within too little": (
        command("front", "m", within="1B"),
        "none of [0-9]+ trials is within 1B: loosen a limit, or search for more trials",
    ),
    "front to no folder": (
        command("front", "m", csv="@/no/f.csv"),
        "--csv '.*f.csv': no folder '.*no': create it",
    ),
    "page over a folder": (
        command("front", "m", html="@/llama"),
        "--html '.*llama' is a folder: name a file in it",
    ),
    "page with an endless name": (
        command("front", "m", html="@/" + "x" * 300),
        "x+: File name too long: give a shorter name",
    ),
    "unknown study shown": (command("show", "nope", 1), "no study named 'nope': did you mean"),
    "unknown trial": (command("show", "m", 999), r"no trial 999 in study 'm': there are 1, 2"),
    "trial of another study": (command("show", "m", "#l"), r"no trial \d in study 'm': there are"),
    "endless trial": (command("show", "m", 10**30), "no trial 10+ in study 'm': there are 1, 2"),
    "trial in words": (
        command("show", "m", "best"),
        "'TRIAL'.* not 'best': bitfront show --help shows",
    ),
    "unknown metric shown": (
        command("show", "m", "#m", metric="bleu"),
        "no metric 'bleu' in 'm': it has kl, nll",
    ),
    "search in a misspelled study": (
        command("search", "bear", **AGAIN),
        r"no study 'bear' yet \(did you mean 'bare'\?\): to begin it give --task",
    ),
    "export of an unknown study": (export("nope"), "no study named 'nope': did you mean 'bare'"),
    "export of an unknown trial": (export("m", 999), "no trial 999 in study 'm': there are 1"),
    "export of another study's trial": (
        export("l", "#m"),
        r"no trial \d in study 'l': there are",
    ),
    "export to a folder with files": (
        export(to="@/llama"),
        "'.*llama' is there and not empty: choose another, or overwrite it",
    ),
    "export over what is no export": (
        command("export", "m", "#m", "@/llama", "--overwrite"),
        "'.*llama' is no export, it has no bitfront.json: choose another, or remove it yourself",
    ),
    "export into no folder": (
        export(to="@/no/out"),
        "no folder '.*no' to write into: create it first",
    ),
    "export over a file": (
        export(to="@/text.txt"),
        r"'.*text\.txt' is a file: give the name of a folder",
    ),
    "export to a link to itself": (
        after(lambda folder: (folder / "loop").symlink_to(folder / "loop"), export(to="@/loop")),
        "cannot write 'loop' .*: choose another place",
    ),
    "export with an endless name": (
        export(to="@/" + "x" * 300),
        r"cannot write 'x+' \(File name too long\): give a shorter name",
    ),
    "unknown format": (
        export(format="gguff"),
        "no exporter named 'gguff': choose from safetensors, compressed-tensors",
    ),
    "format of another kind of model": (
        export(format="compressed-tensors"),
        "compressed-tensors cannot hold a Net: .*use safetensors",
    ),
    "format without zero points": (
        export("l", "#l", format="compressed-tensors"),
        "compressed-tensors cannot hold 'model.layers.0.* as w.z: .*use symmetric schemes",
    ),
    "export of other weights": (
        after(
            weighted(lambda tensors: tensors[UP][0].mul_(2)),
            export("l", "#l", model="@/llama"),
        ),
        "study 'l' was begun with something else: weights was .* and is now .*…: restore what",
    ),
    "other weights": (
        after(
            weighted(lambda tensors: tensors[UP][0].mul_(2)),
            command("search", "l", model="@/llama", **AGAIN),
        ),
        "study 'l' was begun with something else: weights was .* and is now .*…: restore what",
    ),
    "other data": (
        command("search", "l", samples=5, **AGAIN),
        "begun with something else: calibration was .*; evaluation was .*: restore what",
    ),
    "another kind of task": (
        command("search", "l", task="module", function="@/bring.py:task", **AGAIN),
        "task was 'language' and is now 'module'.*: restore what it was begun with",
    ),
    "code that is gone": (
        command("search", "m", function="@/gone.py:task", **AGAIN),
        r"no file '.*gone\.py': give the path of the Python file",
    ),
}


@pytest.mark.parametrize("case", STUDIES)
def test_nothing_is_changed_by(
    case: str, begun: Commands, folder: Path, studies: tuple[Path, dict[str, int]]
) -> None:
    make, line = STUDIES[case]
    words = [studies[1].get(str(word), word) for word in make(folder)]
    before, known = contents(folder), trials(begun)
    refusal(begun, words, line)
    assert contents(folder) == before
    assert trials(begun) == known
