"""Files of scores that a model cannot use."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands import Commands
from tests.malformed.cases import MODULE, Case, Make, Words, nothing_is_begun, refusal, typed

HEAD = "layer,scheme,metric,value\n"
OPTIONS = {name: MODULE[name] for name in ("task", "function", "device")}


def scores(*rows: str, **options: object) -> Make:
    """A CSV file of these rows, for a study of the module task."""

    def make(folder: Path) -> Words:
        (folder / "s.csv").write_text(HEAD + "".join(f"{row}\n" for row in rows))
        return typed(folder, ["import", "@/s.csv"], {"study": "s", **OPTIONS, **options})

    return make


IMPORTS: dict[str, Case] = {
    "no layer of the model": (
        scores("a.q,w4,kl,1", "b.q,w4,kl,1"),
        "the model has none of the 2 layers of these scores, like 'a.q': rename them; its layers",
    ),
    "no scheme": (
        scores("conv,int4,kl,1", "head,int4,kl,1"),
        "Bitfront has no scheme for any of its formats, like 'int4': import scores of formats in",
    ),
    "no scheme that a layer can take": (
        scores("conv,w4g5,kl,1"),
        r"can take none of the schemes \(group size 5 does not divide 27 inputs\): import scores",
    ),
    "two scores that disagree": (
        scores("conv,w4,kl,1", "conv.weight,w4,kl,2"),
        "layer 'conv' has two scores under w4, 1 and 2: leave one of the two",
    ),
    "nothing but nan": (
        scores("conv,w4,kl,nan", "conv,w8,kl,"),
        r"it has no score \(it has no value\): give a file with at least one",
    ),
    "infinite": (scores("conv,w4,kl,-inf"), "line 2 has the value '-inf': give a finite number"),
    "no study": (scores("conv,w4,kl,1", study=" "), "study name ' ': give the study a name"),
}


@pytest.mark.parametrize("name", IMPORTS)
def test_is_refused(name: str, bitfront: Commands, folder: Path) -> None:
    nothing_is_begun(IMPORTS[name], bitfront, folder)


def test_a_label_that_is_taken(bitfront: Commands, folder: Path) -> None:
    bitfront.ok(*scores("conv,w4,kl,1", label="mine")(folder))
    words = scores("conv,w4,kl,2", label="mine")(folder)
    line = "study 's' has other scores under the label 'mine': give another label"
    refusal(bitfront, words, line)
    refusal(bitfront, scores("conv,w8,kl,1", label="mine")(folder), line)


def test_searches_by_scores_that_are_not_there(bitfront: Commands, folder: Path) -> None:
    words = typed(folder, ["search", "s"], {**MODULE, "profiler": "imported"})
    refusal(
        bitfront, words, "study 's' has no imported scores: import scores with: bitfront import"
    )
    bitfront.ok(*scores("conv,w4,kl,1", "conv,w8,kl,0.5", label="mine")(folder))
    refusal(
        bitfront, words, "import 'mine' has no score of layer 'head' under w4, w8: pin it to keep"
    )
    refusal(bitfront, [*words, "--setting", "label=x"], "no import 'x': choose from mine")
    refusal(
        bitfront, [*words, "--metric", "top1"], "imported gives no table of metric 'top1': choose"
    )
