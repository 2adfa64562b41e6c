"""Problem files: .npz and Parquet say what JSON says, and are refused as clearly."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitfront.errors import InvalidInput, ProblemError
from bitfront.search import allocate, read_problem, write_arrays
from bitfront.types import Problem
from tests.disk import file_limit

PLAIN: dict[str, Any] = {
    "schemes": ["int4", "int8"],
    "loss": [[0.4, 0.1], [0.3, 0.1], [0.2, 0.1], [0.5, -0.1]],
    "costs": {"size": [[1, 2], [1, 2], [1, 2], [2, 4]], "bops": [[1, 4], [1, 4], [2, 8], [2, 8]]},
    "tied": [[0, 2]],
    "layers": ["stem", "a", "b", "head"],
}
LIMITS = {"size": 8.0, "bops": 15.0}


def arrays(**changes: Any) -> dict[str, Any]:
    whole: dict[str, Any] = {
        "schemes": np.array(PLAIN["schemes"]),
        "layers": np.array(PLAIN["layers"]),
        "loss": np.array(PLAIN["loss"]),
        "cost_size": np.array(PLAIN["costs"]["size"]),  # integers
        "costs/bops": np.array(PLAIN["costs"]["bops"], dtype=np.float32),
        "tied": np.array(PLAIN["tied"]),
        "anything": np.array([1, 2, 3]),
    }
    return {k: v for k, v in {**whole, **changes}.items() if v is not None}


def frame(**changes: Any) -> dict[str, list[Any]]:
    pairs = [(i, c) for i in range(4) for c in range(2)]
    whole: dict[str, Any] = {
        "layer": [PLAIN["layers"][i] for i, _ in pairs],
        "scheme": [PLAIN["schemes"][c] for _, c in pairs],
        "loss": [PLAIN["loss"][i][c] for i, c in pairs],
        "size": [PLAIN["costs"]["size"][i][c] for i, c in pairs],
        "bops": [PLAIN["costs"]["bops"][i][c] for i, c in pairs],
        "group": ["x" if i in (0, 2) else None for i, _ in pairs],
    }
    return {k: v for k, v in {**whole, **changes}.items() if v is not None}


def parquet(path: Path, columns: dict[str, list[Any]]) -> Path:
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed: bitfront[parquet]")
    import pyarrow.parquet

    pyarrow.parquet.write_table(arrow.table(columns), path)
    return path


@pytest.fixture
def plain(tmp_path: Path) -> Problem:
    path = tmp_path / "plain.json"
    path.write_text(json.dumps(PLAIN))
    return read_problem(path, LIMITS)


def same(found: Problem, expected: Problem) -> None:
    assert (found.layers, found.schemes) == (expected.layers, expected.schemes)
    assert (found.loss == expected.loss).all()
    assert {k: v.tolist() for k, v in found.costs.items()} == {
        k: v.tolist() for k, v in expected.costs.items()
    }
    assert (found.limits, found.groups) == (expected.limits, expected.groups)
    assert allocate(found).choice == allocate(expected).choice


@pytest.mark.parametrize(
    "changes", [{}, {"tied": None, "group": np.array([7, -1, 7, 3])}], ids=["tied", "group"]
)
def test_npz_reads_as_json_does(plain: Problem, tmp_path: Path, changes: Any) -> None:
    path = tmp_path / "problem.npz"
    np.savez_compressed(path, **arrays(**changes))
    same(read_problem(path, LIMITS), plain)


def test_npz_without_names_and_ties(tmp_path: Path) -> None:
    path = tmp_path / "problem.NPZ"
    with path.open("wb") as file:
        np.savez(file, **arrays(layers=None, tied=None))
    found = read_problem(path)
    assert found.layers == ("layer0", "layer1", "layer2", "layer3")
    assert found.groups == ()


def test_what_is_written_is_read(plain: Problem, tmp_path: Path) -> None:
    path = tmp_path / "written.npz"
    write_arrays(plain, path)
    same(read_problem(path, LIMITS), plain)
    allowed = np.ones((4, 2), dtype=bool)
    allowed[1, 0] = False
    barred = Problem(
        plain.layers, plain.schemes, plain.loss, plain.costs, plain.limits, allowed=allowed
    )
    with pytest.raises(ProblemError, match="barred"):
        write_arrays(barred, path)


def test_a_file_that_cannot_be_written_leaves_the_old_one(plain: Problem, tmp_path: Path) -> None:
    path = tmp_path / "written.npz"
    write_arrays(plain, path)
    before, files = path.read_bytes(), set(tmp_path.iterdir())
    with file_limit(len(before) // 2), pytest.raises(OSError, match="File too large"):
        write_arrays(plain, path)
    assert path.read_bytes() == before
    assert set(tmp_path.iterdir()) == files


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "no loss": ({"loss": None}, "'loss' is missing"),
    "no schemes": ({"schemes": None}, "'schemes' is missing"),
    "schemes are numbers": ({"schemes": np.array([4, 8])}, "schemes is an array of int64"),
    "schemes repeat": ({"schemes": np.array(["a", "a"])}, "schemes names a twice"),
    "layers repeat": ({"layers": np.array(list("abca"))}, "layers names a twice"),
    "too few layers": ({"layers": np.array(["a", "b"])}, "2 layers are named"),
    "pickled": ({"schemes": np.array(["a", None], dtype=object)}, "not an .npz file of plain"),
    "loss is text": ({"loss": np.array([["1", "2"]] * 4)}, "loss is an array of <U1"),
    "loss is flat": ({"loss": np.ones(8)}, r"loss has shape \(8,\): give a row of 2 schemes"),
    "loss is empty": ({"loss": np.ones((0, 2))}, r"loss has shape \(0, 2\)"),
    "nan": ({"loss": np.array([[1, np.nan]] * 4)}, "loss of layer 0 under 'int8' is nan"),
    "costs of other length": ({"cost_size": np.ones((3, 2))}, "size has 3 rows: loss has 4"),
    "costs twice": ({"costs/size": np.ones((4, 2))}, "two tables of size"),
    "tied to nothing": ({"tied": np.array([[0, 9]])}, "tied names layer 9"),
    "tied below": ({"tied": np.array([[0, -1]])}, "tied names layer -1"),
    "tied is flat": ({"tied": np.array([0, 1])}, "give pairs of layer indices"),
    "tied are fractions": ({"tied": np.array([[0.0, 1.0]])}, "tied is an array of float64"),
    "tied and group": ({"group": np.zeros(4, dtype=int)}, "both tied and group"),
    "short group": ({"tied": None, "group": np.zeros(3, dtype=int)}, "give one integer for each"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_refuses_broken_arrays(case: str, tmp_path: Path) -> None:
    changes, words = BROKEN[case]
    path = tmp_path / "problem.npz"
    np.savez(path, **arrays(**changes))
    with pytest.raises(ProblemError, match=words) as caught:
        read_problem(path, LIMITS)
    assert "problem.npz" in caught.value.what


@pytest.mark.parametrize("kind", ["bytes", "empty", "zip of text", "one array", "cut"])
def test_refuses_what_is_no_npz(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "problem.npz"
    if kind == "zip of text":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("loss.npy", "no array")
    elif kind == "one array":
        with path.open("wb") as file:
            np.save(file, np.ones((2, 2)))
    elif kind == "cut":
        np.savez(path, **arrays())
        path.write_bytes(path.read_bytes()[:-200])
    else:
        path.write_bytes(b"" if kind == "empty" else bytes(range(200)))
    with pytest.raises(ProblemError, match="save schemes"):
        read_problem(path)


@pytest.mark.parametrize("suffix", [".npz", ".parquet", ".json"])
def test_says_when_there_is_no_file(suffix: str, tmp_path: Path) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed: bitfront[parquet]")
    with pytest.raises(ProblemError, match=r"cannot read .*none.*No such file"):
        read_problem(tmp_path / f"none{suffix}")


def test_parquet_reads_as_json_does(plain: Problem, tmp_path: Path) -> None:
    same(read_problem(parquet(tmp_path / "p.parquet", frame()), LIMITS), plain)
    order = [3, 0, 1, 2, 4, 5, 6, 7]  # rows may come in any order; names keep their first
    mixed = {k: [column[i] for i in order] for k, column in frame().items()}
    found = read_problem(parquet(tmp_path / "mixed.parquet", mixed), LIMITS)
    assert found.layers == ("a", "stem", "b", "head")
    assert found.schemes == ("int8", "int4")
    assert found.loss.tolist() == [[0.1, 0.3], [0.1, 0.4], [0.1, 0.2], [-0.1, 0.5]]
    assert found.groups == ((1, 2),)


UNSTACKED: dict[str, tuple[dict[str, Any], str]] = {
    "no loss": ({"loss": None}, "column 'loss' is missing"),
    "no layer": ({"layer": None}, "column 'layer' is missing"),
    "layers are numbers": ({"layer": [0, 0, 1, 1, 2, 2, 3, 3]}, "'layer' is int64: give text"),
    "empty layer": ({"layer": ["a", None, *"bbccdd"]}, "'layer' has empty entries"),
    "a pair is missing": ({"scheme": [*"xyxyxyxz"]}, "0 rows for layer 'stem' under 'z'"),
    "a pair twice": ({"scheme": ["x", "x"] * 4}, "2 rows for layer 'stem' under 'x'"),
    "loss is text": ({"loss": ["1"] * 8}, "column 'loss' is string: give numbers"),
    "loss is missing": ({"loss": [1.0, None] * 4}, "loss of layer 0 under 'int8' is nan"),
    "cost is infinite": ({"size": [1.0, float("inf")] * 4}, "costs of size of layer 0"),
    "two groups": ({"group": ["x", "y"] + [None] * 6}, "layer 'stem' is in groups x and y"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNSTACKED)
def test_refuses_broken_tables(case: str, tmp_path: Path) -> None:
    changes, words = UNSTACKED[case]
    path = parquet(tmp_path / "problem.parquet", frame(**changes))
    with pytest.raises(ProblemError, match=words):
        read_problem(path, LIMITS)


def test_refuses_what_is_no_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed: bitfront[parquet]")
    path = tmp_path / "problem.parquet"
    for content in (b"", b"PAR1 and nothing else"):
        path.write_bytes(content)
        with pytest.raises(ProblemError, match=r"not a Parquet file.*columns layer, scheme, loss"):
            read_problem(path)


def test_says_what_parquet_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(InvalidInput, match=r"needs pyarrow: pip install 'bitfront\[parquet\]'"):
        read_problem(tmp_path / "problem.parquet")
