"""Texts and token ids that cannot be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.commands import Commands
from tests.malformed.cases import (
    LANGUAGE,
    Case,
    Make,
    arrays,
    nothing_is_begun,
    search,
    written,
)


def text(name: str, content: str | bytes, **changes: object) -> Make:
    """A study of a language model on this file."""
    changes = {"calibration": f"@/{name}", **changes}
    return search(LANGUAGE, written(name, content), **changes)


TEXTS: dict[str, Case] = {
    "no such file": (
        search(LANGUAGE, calibration="@/none.txt"),
        r"data '.*none\.txt' does not exist: give a \.txt, \.jsonl, \.json or \.npz file",
    ),
    "no such evaluation file": (
        search(LANGUAGE, evaluation="@/none.txt"),
        r"data '.*none\.txt' does not exist: give a",
    ),
    "a folder": (search(LANGUAGE, calibration="@/llama"), "data '.*llama' is a folder: give a"),
    "a file of nobody's": (
        search(LANGUAGE, calibration="~nobody-at-all/text.txt"),
        r"data '.*nobody-at-all/text\.txt' does not exist: give a",
    ),
    "empty": (text("e.txt", ""), r"e\.txt is empty: give a file with text"),
    "too short": (
        text("e.txt", "a few words"),
        r"e\.txt has 1 windows of 12 tokens .* 6 for calibration and 4 .*: give more data",
    ),
    "too short for so many samples": (
        search(LANGUAGE, samples=1000),
        r"text\.txt has 166 windows .* where 1000 for calibration .*: give more data",
    ),
    "not UTF-8": (
        text("e.txt", bytes(range(1, 256)) * 9),
        r"e\.txt is not UTF-8 text \(byte 127\): convert it",
    ),
    "binary": (text("e.txt", bytes(4000)), r"e\.txt is binary .*: give a text file, or token ids"),
    "a broken line": (
        text("e.jsonl", '{"text": "a b c"}\n{"text": \n'),
        r"e\.jsonl:2 is not JSON .*: correct or remove it",
    ),
    "no such field": (
        text("e.jsonl", '{"body": "a b c"}\n' * 9),
        r"e\.jsonl:1 has no text in 'text': it has body: name the field",
    ),
    "a field of another kind": (
        text("e.jsonl", '{"text": 3}\n' * 9),
        r"'text' of e\.jsonl:1 is a int: store text there, or name another field",
    ),
    "lines of nothing": (text("e.jsonl", '{"text": ""}\n' * 9), r"e\.jsonl is empty: give a file"),
    "no list": (text("e.json", '{"text": "a"}'), r"e\.json holds no list: write a JSON list"),
    "a list without end": (text("e.json", "[" * 100_000), r"e\.json is not JSON .*: correct"),
    "unknown layout": (search(LANGUAGE, layout="rows"), "unknown layout 'rows': use auto, joined"),
    "no ids": (arrays(LANGUAGE, tokens=np.ones(99, int)), r"d\.npz has no 'ids': it has tokens"),
    "ids that are not whole": (
        arrays(LANGUAGE, ids=np.ones(99)),
        r"ids of d\.npz are float64 of shape \(99,\): store integers",
    ),
    "ids beyond the vocabulary": (
        arrays(LANGUAGE, ids=np.full(900, 32)),
        "token ids from 32 to 32 for a vocabulary of 32: use the ids, or the tokenizer, of this",
    ),
    "negative ids": (arrays(LANGUAGE, ids=np.full(900, -1)), "token ids from -1 to -1 .*: use the"),
    "lengths that do not fit": (
        arrays(LANGUAGE, ids=np.ones(99, int), lengths=np.array([5, 6])),
        r"lengths of d\.npz sum to 11: there are 99 ids",
    ),
    "lengths that are not whole": (
        arrays(LANGUAGE, ids=np.ones(12, int), lengths=np.array([5.5, 6.5])),
        r"lengths of d\.npz are float64 .*: store one row of integers",
    ),
    "hub without its package": (
        search(LANGUAGE, calibration="hub:wikitext"),
        r"'hub:wikitext' needs the package datasets: pip install",
    ),
    "hub without a name": (
        search(LANGUAGE, calibration="hub:a:b:c:d"),
        r"cannot read data 'hub:a:b:c:d': write hub:NAME\[:CONFIG\]\[:SPLIT\]",
    ),
    "no data": (
        search(LANGUAGE, calibration=None),
        "task without --calibration: give --calibration",
    ),
    "data without a name": (
        search(LANGUAGE, calibration=""),
        "--calibration is empty: give a value",
    ),
}


@pytest.mark.parametrize("case", TEXTS)
def test_nothing_is_begun_with(case: str, bitfront: Commands, folder: Path) -> None:
    nothing_is_begun(TEXTS[case], bitfront, folder)
