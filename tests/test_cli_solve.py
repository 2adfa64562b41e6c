"""The command line's frame, and ``bitfront solve``, as separate processes."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitfront import __version__
from bitfront.cli import output
from bitfront.errors import StorageError
from bitfront.search import INTERACTING, read_problem, write_arrays

ROOT = Path(__file__).resolve().parents[1]
PROBLEM = {
    "name": "any other key is ignored",
    "schemes": ["int4", "int8"],
    "loss": [[0.4, 0.1], [0.3, 0.1], [0.2, 0.1], [0.5, -0.1]],
    "costs": {"size": [[1, 2], [1, 2], [1, 2], [2, 4]], "bops": [[1, 4], [1, 4], [2, 8], [2, 8]]},
    "tied": [[0, 2]],
}


def run(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from bitfront.cli import main; main()", *words],
        cwd=ROOT, capture_output=True, text=True, timeout=60, env={**os.environ, **variables},
    )  # fmt: skip


@pytest.fixture
def problem(tmp_path: Path) -> Path:
    path = tmp_path / "problem.json"
    path.write_text(json.dumps(PROBLEM))
    return path


def test_json(problem: Path) -> None:
    done = run("solve", str(problem), "--limit", "size=8", "--limit", "bops=15", "--json")
    assert done.returncode == 0
    assert done.stderr == ""
    answer = json.loads(done.stdout)
    assert answer.pop("seconds") > 0
    assert answer == {
        "choice": ["int4", "int8", "int4", "int8"],
        "loss": pytest.approx(0.6),
        "costs": {"size": 8.0, "bops": 15.0},
        "bound": pytest.approx(0.6),
        "gap": 0.0,
        "optimal": True,
    }


@pytest.mark.parametrize("solver", ["ilp", "greedy", "lagrange"])
def test_table(problem: Path, solver: str) -> None:
    done = run("solve", str(problem), "--limit", "size=8", "--solver", solver, "--time-limit", "9")
    assert done.returncode == 0
    for word in ("layer3", "int8", "size", "bops", "loss", solver):
        assert word in done.stdout


def test_several(problem: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["solve", str(problem), "--limit", "size=8", "--count", "4", "--distance", "2"]
    answer = json.loads(in_process([*words, "--json"], capfd).stdout)
    found = answer["allocations"]
    assert [one["choice"] for one in found] == [
        ["int4", "int8", "int4", "int8"],
        ["int8", "int8", "int8", "int4"],
        ["int4", "int4", "int4", "int4"],
    ]
    assert [one["loss"] for one in found] == pytest.approx([0.6, 0.8, 1.4])
    assert all(one["optimal"] for one in found)
    text = in_process(words, capfd).stdout
    assert "3 of 4: no more that differ so" in text
    assert "2: loss" in text


def test_the_least_cost_within_a_loss(problem: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["solve", str(problem), "--minimize", "size", "--max-loss", "0.8", "--limit", "bops=15"]
    answer = json.loads(in_process([*words, "--json"], capfd).stdout)
    assert answer.pop("seconds") > 0
    assert answer == {
        "choice": ["int4", "int4", "int4", "int8"],
        "loss": pytest.approx(0.8),
        "costs": {"size": 7.0, "bops": 12.0},
        "bound": None,
        "gap": None,
        "optimal": True,
    }
    assert "loss 0.8 (size proven least)" in in_process(words, capfd).stdout


def test_a_floor_and_a_limit_of_a_class(
    problem: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "classes.json"
    path.write_text(json.dumps({**PROBLEM, "classes": {"ends": [0, 3], "rest": [1, 2]}}))
    words = ["solve", str(path), "--limit", "size[ends]<=4", "--limit", "size >= 7"]
    answer = json.loads(in_process([*words, "--json"], capfd).stdout)
    assert answer["choice"] == ["int8", "int8", "int8", "int4"]  # 0 and 2 are tied
    assert answer["costs"] == {"size": 8.0, "bops": 18.0, "size[ends]": 4.0}
    text = in_process(words, capfd).stdout
    assert "at least" in text
    wrong = in_process([*words, "--limit", "size[ends]>=5"], capfd)
    refused(wrong, "size[ends] of at least 5 and at most 4: no total is both")
    refused(in_process([*words, "--limit", "bops[middle]=5"], capfd), "a limit on 'bops[middle]'")
    least = ["--minimize", "size", "--max-loss", "2", "--limit", "size>=5.5"]
    found = json.loads(in_process(["solve", str(problem), *least, "--json"], capfd).stdout)
    assert found["costs"]["size"] == 6.0


def test_help_and_version_are_quick_and_light() -> None:
    assert run("--version").stdout == f"bitfront {__version__}\n"
    assert "solve" in run("--help").stdout
    assert "solve" in run().stdout
    heavy = ["torch", "transformers", "ortools", "scipy", "sqlalchemy", "optuna", "numpy"]
    code = (
        "import sys; from bitfront.cli.app import app\n"
        "try: app(['--help'], standalone_mode=True)\n"
        f"except SystemExit: print('HEAVY', [m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "HEAVY []" in done.stdout


def test_a_gap_to_stop_at(problem: Path) -> None:
    words = ("solve", str(problem), "--limit", "size=8", "--limit", "bops=15", "--json")
    exact = json.loads(run(*words).stdout)
    near = json.loads(run(*words, "--gap", "0.5").stdout)
    assert near["gap"] <= 0.5 * near["loss"]
    assert near["bound"] <= exact["loss"] <= near["loss"]
    for extra, message in ((["--count", "2"], "proven in full"), ([], "a gap of -1")):
        refused(run(*words, "--gap", "-1" if not extra else "0.5", *extra), message)


def test_a_solver_that_needs_interactions_is_refused(problem: Path) -> None:
    for name in INTERACTING:
        refused(
            run("solve", str(problem), "--limit", "size=8", "--solver", name),
            f"solver {name} on a file, which holds no interactions",
        )


def test_arrays_in_a_file(problem: Path, tmp_path: Path) -> None:
    path = tmp_path / "problem.npz"
    write_arrays(read_problem(problem), path)
    words = ("--limit", "size=8", "--limit", "bops=15", "--json")
    found, same = (json.loads(run("solve", str(p), *words).stdout) for p in (path, problem))
    assert {**found, "seconds": 0} == {**same, "seconds": 0}


MALFORMED: dict[str, tuple[str, str]] = {
    "empty": ("", "not JSON"),
    "not json": ("{'schemes': []}", "not JSON"),
    "a list": ("[]", "list instead of an object"),
    "no loss": ('{"schemes": ["a"], "costs": {}}', "'loss' is missing"),
    "deep": ("[" * 100_000, "not JSON"),
}
BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "schemes are a word": ({"schemes": "int4"}, "list of names"),
    "no schemes": ({"schemes": []}, "schemes is empty"),
    "schemes repeat": ({"schemes": ["int4", "int4"]}, "int4 twice"),
    "loss is empty": ({"loss": []}, "loss is not a list of rows"),
    "ragged": ({"loss": [[1, 2], [1], [1, 2], [1, 2]]}, "row 1 of loss has 1 entries"),
    "nan": ({"loss": [[float("nan"), 2]] * 4}, "layer 0 under 'int4' is NaN"),
    "infinite": ({"loss": [[1, float("inf")]] * 4}, "layer 0 under 'int8' is Infinity"),
    "words for numbers": ({"loss": [["1", 2]] * 4}, "is \"1\""),
    "true is no number": ({"loss": [[True, 2]] * 4}, "is true"),
    "beyond doubles": ({"loss": [[10**400, 2]] * 4}, "finite number"),
    "costs are a list": ({"costs": [[1, 2]] * 4}, "costs are not an object"),
    "costs of other length": ({"costs": {"size": [[1, 2]] * 3}}, "size has 3 rows"),
    "tied to nothing": ({"tied": [[0, 9]]}, "tied names layer 9"),
    "tied by name": ({"tied": [["a", "b"]]}, 'tied names layer "a"'),
    "tied is flat": ({"tied": [0, 1]}, "not a list of lists"),
    "too few names": ({"layers": ["a", "b"]}, "2 layers are named"),
    "classes are a list": ({"classes": [[0]]}, "classes are not an object"),
    "a class of no layer": ({"classes": {"a": [0, 4]}}, "class 'a' is [0, 4]: list layer indices"),
    "a class is empty": ({"classes": {"a": []}}, "class 'a' is []"),
    "a class by name": ({"classes": {"a": ["conv1"]}}, "class 'a' is [\"conv1\"]"),
    "too large": ({"loss": [[1e308, 1e308]] * 4}, "larger unit"),
}  # fmt: skip


def refused(done: subprocess.CompletedProcess[str], words: str) -> None:
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert words in done.stderr


def in_process(words: list[str], capfd: pytest.CaptureFixture[str]) -> Any:
    """As ``run``, without the start of a process."""
    from bitfront.cli import main

    hook = sys.excepthook
    with pytest.raises(SystemExit) as left:
        main(words)
    sys.excepthook = hook
    out, err = capfd.readouterr()
    return subprocess.CompletedProcess(words, left.value.code, out, err)  # type: ignore[arg-type]


@pytest.mark.parametrize("case", MALFORMED)
def test_refuses_malformed_files(
    case: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text, words = MALFORMED[case]
    path = tmp_path / "problem.json"
    path.write_text(text)
    refused(in_process(["solve", str(path), "--json"], capfd), words)


@pytest.mark.parametrize("case", BROKEN)
def test_refuses_broken_problems(
    case: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    change, words = BROKEN[case]
    path = tmp_path / "problem.json"
    path.write_text(json.dumps({**PROBLEM, **change}))
    refused(in_process(["solve", str(path), "--json"], capfd), words)


def test_refuses_what_is_no_text_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    refused(in_process(["solve", str(tmp_path / "binary")], capfd), "not a text file")
    refused(in_process(["solve", str(tmp_path)], capfd), "directory")
    refused(in_process(["solve", str(tmp_path / "none")], capfd), "No such file")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--limit", "size"], "NAME=NUMBER"),
        (["--limit", "=3"], "NAME=NUMBER"),
        (["--limit", "size=much"], "'much' is not a number"),
        (["--limit", "size=nan"], "not finite"),
        (["--limit", "size=8", "--limit", "size=9"], "two limits on 'size'"),
        (["--limit", "energy=8"], "the problem has size, bops"),
        (["--limit", "size>=8", "--limit", "size>=9"], "two limits on 'size'"),
        (["--limit", "size>=9", "--limit", "size=8"], "of at least 9 and at most 8"),
        (["--limit", "size>=11"], "size must be at least 11, the greatest possible is 10: lower"),
        (["--limit", "size>=inf"], "not finite"),
        (["--limit", ">=3"], "NAME=NUMBER"),
        (["--limit", "size>3"], "NAME=NUMBER"),
        (["--limit", "size=4"], "the least possible is 5"),
        (["--limit", "size=9", "--limit", "bops=5"], "the least possible is 6"),
        (["--solver", "magic"], "choose from"),
        (["--time-limit", "0"], "positive"),
        (["--time-limit", "soon"], "--time-limit"),
        (["--count", "0"], "--count"),
        (["--count", "2", "--distance", "0"], "--distance"),
        (["--distance", "2"], "give --count too"),
        (["--minimize", "size"], "give both"),
        (["--max-loss", "1"], "give both"),
        (["--minimize", "size", "--max-loss", "nan"], "the limit on loss is nan"),
        (["--minimize", "size", "--max-loss", "-1"], "the least possible is 0.2"),
        (["--minimize", "energy", "--max-loss", "1"], "the problem has size, bops"),
        (["--minimize", "size", "--max-loss", "1", "--count", "2"], "the one cheapest"),
        (["--minimize", "size", "--max-loss", "1", "--solver", "greedy"], "by ilp"),
        (["--count", "2", "--solver", "greedy"], "only ilp"),
        (["--colour"], "--colour"),
    ],
)
def test_refuses_wrong_options(
    problem: Path, words: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    refused(in_process(["solve", str(problem), *words], capfd), message)


def test_usage(capfd: pytest.CaptureFixture[str]) -> None:
    refused(in_process(["solve"], capfd), "Missing argument")
    refused(in_process(["frobnicate"], capfd), "frobnicate")


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "error: interrupted"),
        (PermissionError(13, "Permission denied", "study.db"), 2, "study.db: Permission denied"),
        (MemoryError(), 2, "out of memory"),
        (StorageError("a message\nof two lines", "try again"), 2, "two lines: try again"),
    ],
)
def test_errors_become_one_line(
    problem: Path,
    error: BaseException,
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(importlib.import_module("bitfront.search"), "allocate", fail)
    done = in_process(["solve", str(problem)], capfd)
    assert done.returncode == code
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_bug_is_one_line_too() -> None:
    code = "import sys; sys.argv = ['bitfront', '--version']; from bitfront.cli import app, main\n"
    code += "app.app = lambda *a, **k: {}['missing']\nmain()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: unexpected KeyError")
    assert done.stderr.count("\n") == 1


def test_debug_shows_the_traceback(problem: Path) -> None:
    done = run("solve", str(problem), "--limit", "size=4", BITFRONT_DEBUG="1")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "Infeasible" in done.stderr


def test_quiet_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    with output.quiet_stdout():
        os.write(1, b"a library in C\n")
        print("Python")
    os.write(1, b"{}\n")
    out, err = capfd.readouterr()
    assert out == "{}\n"
    assert "a library in C" in err


def test_json_has_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    output.emit(
        {"a": float("nan"), "b": np.float64(2), "c": (np.int64(1), np.array([np.inf, 1.0]))}
    )
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": 2.0, "c": [1, [None, 1.0]]}


def test_documentation(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The problem file and the Python lines of docs/allocators.md work as they stand."""
    text = (ROOT / "docs" / "allocators.md").read_text()
    (example,) = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    (tmp_path / "problem.json").write_text(example)
    words = ["solve", str(tmp_path / "problem.json"), "--limit", "size=7", "--limit", "bops=12"]
    assert in_process(words, capfd).returncode == 0
    (python,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {}
    exec(python.replace("problem.json", str(tmp_path / "problem.json")), names)
    assert names["best"].optimal
    assert all(
        f"`{name}`" in text for name in importlib.import_module("bitfront.search").ALLOCATORS
    )
