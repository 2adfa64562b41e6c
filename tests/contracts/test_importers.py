"""What every format of imported scores promises, over each registered one."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bitfront
from bitfront.errors import BitfrontError
from bitfront.importers import IMPORTERS, Source, read
from bitfront.pipeline import Choices
from bitfront.scheme import Scheme
from bitfront.sensitivity.imported import Imported
from tests.imports import EXAMPLES, task, written

every = pytest.mark.parametrize("format", IMPORTERS)
JSON = [name for name, example in EXAMPLES.items() if not isinstance(example, str)]
MORE: dict[str, Any] = {
    "mlx-lm": {"schemes": "w4g8z w8g8z"}
}  # its default groups do not fit the network

# what is put in place of each value of a file
JUNK: tuple[Any, ...] = (
    None, True, "", "x", [], {}, [1, 2], [[]], {"a": 1}, -1, 0.5, 10**400, math.nan, math.inf,
)  # fmt: skip


@every
def test_it_is_recognised_as_itself_alone(format: str, tmp_path: Path) -> None:
    source = Source(written(tmp_path / "s", EXAMPLES[format]))
    assert [name for name in IMPORTERS if IMPORTERS[name]().recognises(source)] == [format]
    assert IMPORTERS[format].name == format


@every
def test_it_says_finite_scores_of_named_layers(format: str, tmp_path: Path) -> None:
    _, scores = read([written(tmp_path / "s", EXAMPLES[format])])
    assert scores.scores
    assert scores.unit
    assert "@" not in scores.metric
    for score in scores.scores:
        assert score.layers
        assert all(score.layers)
        assert math.isfinite(score.value)
        assert isinstance(score.scheme, Scheme | str)


@every
@pytest.mark.parametrize("other", EXAMPLES)
def test_a_file_of_another_format_is_refused(format: str, other: str, tmp_path: Path) -> None:
    path = written(tmp_path / "s", EXAMPLES[other])
    if other == format:
        assert read([path], format)[0] == format
        return
    with pytest.raises(BitfrontError, match=r"^'.*': .+: .+") as caught:
        read([path], format)
    assert "\n" not in str(caught.value)


@every
@pytest.mark.parametrize("content", [b"hello", b"17", b"\xff\xfe\x00\x01", b"PK\x03\x04", b"[[]]"])
def test_what_is_none_is_refused(format: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "s").write_bytes(content)
    with pytest.raises(BitfrontError, match=r"^'.*': .+: .+"):
        read([tmp_path / "s"], format)


@every
def test_a_study_is_searched_by_it(format: str, tmp_path: Path) -> None:
    path = written(tmp_path / "s", EXAMPLES[format])
    with bitfront.open_study("s", task(), tmp_path / "b.db") as study:
        found = bitfront.import_scores(study, path, **MORE.get(format, {}))
        assert (found.format, found.new) == (format, found.pairs)
        assert bitfront.import_scores(study, path, **MORE.get(format, {})).new == 0
        (answer,) = bitfront.search(
            study, f"{' '.join(found.schemes)} keep", ["90%"], profiler=Imported(found.label),
            explore=2, choices=Choices(pins=dict.fromkeys(found.without, "keep")),
        )  # fmt: skip
        assert math.isfinite(answer.predicted)
        assert answer.judged == "kl"


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in JSON."""
    yield path
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(item, (*path, key))


def read_or_refused(file: Path, format: str) -> None:
    """Either finite scores, or one line with a remedy; any other exception fails the test."""
    try:
        _, scores = read([file], format)
    except BitfrontError as error:
        refusal: BitfrontError | None = error
    else:
        refusal = None
        assert all(math.isfinite(score.value) for score in scores.scores)
    if refusal is not None:
        assert "\n" not in str(refusal)
        assert refusal.remedy


@pytest.mark.parametrize("format", JSON)
def test_whatever_stands_in_it_no_library_raises(format: str, tmp_path: Path) -> None:
    """Each of its values, replaced by each of ``JUNK``."""
    file, example = tmp_path / "s", json.dumps(EXAMPLES[format])
    for path in places(EXAMPLES[format]):
        for junk in JUNK:
            spoiled = [json.loads(example)]
            at: Any = spoiled
            *before, last = (0, *path)
            for key in before:
                at = at[key]
            at[last] = junk
            file.write_text(json.dumps(spoiled[0]))
            read_or_refused(file, format)


@every
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(share=st.floats(0, 0.99))
def test_a_cut_file_is_refused_or_read(format: str, tmp_path: Path, share: float) -> None:
    example = EXAMPLES[format]
    text = example if isinstance(example, str) else json.dumps(example)
    file = tmp_path / "s"
    file.write_text(text[: int(len(text) * share)])
    read_or_refused(file, format)
