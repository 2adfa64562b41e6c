"""Every kind of job, done as the service does it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import bitfront
from bitfront.documents import answer_document, plain, profile_document
from bitfront.errors import InvalidInput, SchemeError, UnknownName
from bitfront.service.actions import ACTIONS, Host, run
from bitfront.study import silent
from tests import tiny


@pytest.fixture
def function(tmp_path: Path) -> str:
    (tmp_path / "net.py").write_text(tiny.CODE)
    return f"{tmp_path / 'net.py'}:task"


@pytest.fixture
def db(tmp_path: Path) -> str:
    return str(tmp_path / "b.db")


def asked(function: str, **request: Any) -> dict[str, Any]:
    return {"task": {"kind": "module", "arguments": {"function": function}}, **request}


def done(kind: str, request: dict[str, Any], db: str) -> dict[str, Any]:
    return run(kind, "s", request, Host(db), silent)


def test_profile(function: str, db: str) -> None:
    settings = {"draws": 2, "temperatures": [1, 2]}
    profiler = {"name": "fisher", "settings": settings}
    found = done("profile", asked(function, schemes="w2 w4", profiler=profiler), db)
    assert found["settings"]["draws"] == 2
    with bitfront.open_study("s", db=db) as study:
        from bitfront.sensitivity import configured

        used = configured("fisher", settings)
        tables = bitfront.profile(study, "w2 w4", used)
        assert found == plain(profile_document(used, tables))
    until = asked(function, schemes="w2 w4", until=0.5, budgets=["3bpw"])
    assert done("profile", until, db)["until"]["share"] == 0.5


def test_imported_scores_are_profiled_and_searched_by(function: str, db: str) -> None:
    profiler = {"name": "imported"}
    wanted = asked(function, schemes="w4 w8", profiler=profiler)
    file = Path(db).with_name("s.csv")
    rows = [f"{la},{s},{v}" for la in ("conv", "head") for s, v in (("w4", 2), ("w8", 1))]
    file.write_text("\n".join(["layer,scheme,value", *rows]))
    done("profile", asked(function, schemes="w4 w8", profiler={"name": "mse"}), db)
    with bitfront.open_study("s", db=db) as study:
        label = bitfront.import_scores(study, file).label
    found = done("profile", wanted, db)
    assert found["settings"] == {"label": label}
    assert found["tables"][f"score@{label}"]["values"] == [[2.0, 1.0]] * 2
    [answer] = done("search", {**wanted, "budgets": ["6bpw"], "explore": 0}, db)["answers"]
    assert answer["judged"] == "kl"


def test_search_answers_as_the_verb_does(function: str, db: str) -> None:
    budgets, choices = ["3bpw", "4bpw"], {"pins": {"head": "w8"}, "embeddings": True}
    found = done(
        "search",
        asked(function, schemes="w2 w4 w8", budgets=budgets, choices=choices, explore=4),
        db,
    )
    with bitfront.open_study("s", db=db) as study:
        answers = bitfront.search(
            study, "w2 w4 w8", budgets,
            choices=bitfront.Choices(pins={"head": "w8"}, embeddings=True), explore=4,
        )  # fmt: skip
    assert found["answers"] == plain([answer_document(answer) for answer in answers])
    assert all(a["trial"]["schemes"]["head"] == "w8" for a in found["answers"])
    held = done("search", asked(function, schemes="w2 w4 w8", hold="kl<=0.5", explore=3), db)
    assert held["answers"][0]["hold"] == "kl<=0.5"


def test_measure(function: str, db: str) -> None:
    trial = done("measure", asked(function, schemes={"conv": "w4"}), db)["trial"]
    assert trial["schemes"] == {"conv": "w4", "head": "keep"}
    assert {"kl", "calibration/kl"} <= set(trial["metrics"])
    with pytest.raises(UnknownName, match=r"no layer 'convv' takes part: did you mean conv\?"):
        done("measure", asked(function, schemes={"convv": "w4"}), db)
    with pytest.raises(SchemeError, match="layer 'conv' cannot take w4g128"):
        done("measure", asked(function, schemes={"conv": "w4g128"}), db)
    tied = {"groups": "auto"}
    assert done("measure", asked(function, schemes={}, choices=tied), db)["trial"]["solver"]


def test_export_and_report(function: str, db: str, tmp_path: Path) -> None:
    trial = done("measure", asked(function, schemes={"conv": "w4"}), db)["trial"]["id"]
    folder, page = tmp_path / "out", tmp_path / "page.html"
    found = done("export", {"trial": trial, "folder": str(folder)}, db)
    assert (found["folder"], found["bytes"]) == (str(folder), found["predicted_bytes"])
    assert folder.is_dir()
    report = done("report", {"html": str(page)}, db)
    assert report["front"] == [trial]
    assert "<html" in page.read_text()


@pytest.mark.parametrize("kind", ACTIONS)
def test_requests_are_closed_and_have_a_schema(kind: str) -> None:
    body = ACTIONS[kind].request
    schema = body.model_json_schema()
    assert schema["additionalProperties"] is False
    json.dumps(schema)
    needed = dict.fromkeys(schema.get("required", ()), "x")
    with pytest.raises(ValidationError, match="budgetz"):
        body(**needed, budgetz=["3bpw"])


def test_what_cannot_be_done(function: str, db: str) -> None:
    with pytest.raises(UnknownName, match="no kind of job named 'dance'"):
        done("dance", {}, db)
    with pytest.raises(UnknownName, match=r"there is no study 's' yet: to begin it give task"):
        done("search", {"schemes": "w4", "budgets": ["4bpw"]}, db)
    wrong = asked(function, schemes="w4", profiler={"settings": {"drows": 1}})
    with pytest.raises(InvalidInput, match="setting 'drows' of fisher"):
        done("profile", wrong, db)
    costs: dict[str, Any] = {"costs": {"joules": {"layer": {}}}}
    with pytest.raises(InvalidInput, match="'joules' has no object of layers"):
        done("measure", asked(function, schemes={}, choices=costs), db)
