"""Studies, measurements, trials and fronts over HTTP, as the verbs give them."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from bitfront import queries
from bitfront.documents import front_document, plain, shown_document, trial_document
from bitfront.service.api.cursors import cursor, position
from bitfront.service.api.problems import Problem
from bitfront.storage import Store
from bitfront.storage.pages import some_trials
from bitfront.types import Estimate, Trial
from tests.service.apis import fill, problem, serving

API = "/api/v1/studies"


@pytest.fixture
def client(database: str) -> Iterator[TestClient]:
    with Store.open(database) as store:
        fill(store)
        fill(store, "a/b%c d", 0)
    with serving(database) as client:
        yield client


def walked(client: TestClient, address: str, limit: int = 2, **query: Any) -> list[Any]:
    """Every item of a list, page by page."""
    found: list[Any] = []
    at = None
    while True:
        more: dict[str, str] = {} if at is None else {"cursor": at}
        page = client.get(address, params={**query, "limit": limit, **more})
        assert page.status_code == 200, page.text
        assert len(page.json()["items"]) <= limit
        found += page.json()["items"]
        at = page.json()["next"]
        if at is None:
            return found


def test_studies(client: TestClient) -> None:
    names = [s["name"] for s in walked(client, API, 1)]
    assert names == ["llama", "a/b%c d"]
    assert [s["name"] for s in walked(client, API, 1, order="-created")] == names[::-1]
    assert [s["name"] for s in walked(client, API, 1, order="name")] == names[::-1]
    assert [s["name"] for s in walked(client, API, contains="lla")] == ["llama"]
    found = client.get(f"{API}/llama").json()
    assert (found["trials"], found["profilers"]) == (6, {"fisher": 6})
    assert [layer["name"] for layer in found["layers"]] == ["a", "b/c"]
    kl, top1 = found["metrics"]["kl"], found["metrics"]["top1"]
    assert (kl["better"], kl["best_trial"], kl["greatest_trial"]) == ("lower", 6, 1)
    assert (top1["better"], top1["best_trial"], top1["trials"]) == ("higher", 6, 5)
    assert found["costs"]["bytes"]["least"] == 100.0
    strange = client.get(f"{API}/a%2Fb%25c%20d").json()
    assert (strange["name"], strange["trials"], strange["metrics"]) == ("a/b%c d", 0, {})
    assert client.get(f"{API}/a%2Fb%25c%20d/trials").json()["items"] == []
    near = problem(client.get(f"{API}/lama"), 404, "unknown-name")
    assert near["hint"].startswith("did you mean 'llama'")


def test_measurements(client: TestClient) -> None:
    address = f"{API}/llama/measurements"
    found = walked(client, address, 4)
    assert [m["id"] for m in found] == sorted(m["id"] for m in found)
    assert len(found) == 6
    assert found[0]["values"]["kl"]["stderr"] == 0.1
    some = walked(client, address, layer="b/c", order="-kl")
    assert [(m["layer"], m["values"]["kl"]["value"]) for m in some] == [
        ("b/c", 0.5), ("b/c", 0.25), ("b/c", 0.125),
    ]  # fmt: skip
    assert len(walked(client, address, scheme="w4", profiler="fisher")) == 2
    assert walked(client, address, profiler="perturb") == []
    problem(client.get(address, params={"order": "nll"}), 404, "unknown-name")


def test_trials(client: TestClient) -> None:
    address = f"{API}/llama/trials"
    assert [t["id"] for t in walked(client, address)] == [1, 2, 3, 4, 5, 6]
    assert [t["id"] for t in walked(client, address, order="-id")] == [6, 5, 4, 3, 2, 1]
    assert [t["id"] for t in walked(client, address, order="kl")] == [6, 5, 4, 2, 3, 1]
    assert [t["id"] for t in walked(client, address, order="-bytes")] == [6, 5, 4, 3, 2, 1]
    # the first trial has no top1: it is last whichever way
    assert [t["id"] for t in walked(client, address, order="top1")] == [2, 3, 4, 5, 6, 1]
    assert [t["id"] for t in walked(client, address, order="-top1")] == [6, 5, 4, 3, 2, 1]
    assert [t["id"] for t in walked(client, address, solver="ilp")] == [2, 4, 6]
    some = walked(client, address, within=["kl<=0.5", "bytes<=500"], order="-kl")
    assert [t["id"] for t in some] == [2, 4, 5]
    assert [t["id"] for t in walked(client, address, within=["attention:4bpw"])] == [1, 2, 3]
    assert walked(client, address, within=["kl<=0.0"]) == []
    assert "schemes" not in some[0]
    problem(client.get(address, params={"order": "speed"}), 404, "unknown-name")
    problem(client.get(address, params={"within": "kl"}), 422, "invalid-input")


def test_a_trial_is_shown_as_the_verb_shows_it(client: TestClient, database: str) -> None:
    found = client.get(f"{API}/llama/trials/3").json()
    assert found == plain(shown_document(queries.show("llama", 3, db=database)))
    assert list(found["layers"]) == ["a", "b/c"]
    assert found["layers"]["a"]["estimated"] == 0.25
    problem(client.get(f"{API}/llama/trials/99"), 404, "unknown-name")
    problem(client.get(f"{API}/llama/trials/3?metric=x"), 404, "unknown-name")


def test_a_front_is_that_of_the_verb(client: TestClient, database: str) -> None:
    address = f"{API}/llama/front"
    for within in ((), ("kl<=0.5",), ("attention:6bpw", "bytes>=200")):
        front = queries.front("llama", db=database, within=within)
        for everything in (False, True):
            found = client.get(address, params={"within": within, "all": everything}).json()
            points = found.pop("points")
            assert found == plain(front_document(front, everything))
            figures = [[t["costs"]["bytes"], t["metrics"]["kl"]["value"]] for t in found["trials"]]
            assert points == figures
    swapped = client.get(address, params={"x": "top1", "y": "bits", "z": ["kl"]}).json()
    assert swapped["objectives"] == ["top1", "bits", "kl"]
    assert swapped["senses"] == ["max", "min", "min"]
    first = swapped["trials"][0]
    assert swapped["points"][0] == [
        first["metrics"]["top1"]["value"], first["costs"]["bits"], first["metrics"]["kl"]["value"],
    ]  # fmt: skip
    assert swapped["knee"] is None
    problem(client.get(address, params={"within": "kl<=0"}), 422, "invalid-input")
    problem(client.get(address, params={"x": "speed"}), 404, "unknown-name")


def test_trials_without_their_layers_are_otherwise_the_same(database: str) -> None:
    with Store.open(database) as store:
        fill(store)
        fill(store, "other", 2)
        whole = store.trials(store.study("llama"))
        ids = [trial.id for trial in reversed(whole)]
        lines = some_trials(store, ids, layers=False)
        assert [plain(trial_document(t)) | {"schemes": {}} for t in reversed(whole)] == [
            plain(trial_document(t)) for t in lines
        ]
        assert [t.schemes for t in some_trials(store, ids)] == [t.schemes for t in reversed(whole)]


def test_a_front_as_csv(client: TestClient) -> None:
    address = f"{API}/llama/front"
    asked = client.get(address, params={"format": "csv", "all": True})
    assert asked.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(asked.text)))
    assert [row["trial"] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    assert [row["on_front"] for row in rows] == ["1", "1", "0", "1", "1", "1"]
    assert sum(row["knee"] == "1" for row in rows) == 1
    accepted = client.get(address, params={"all": True}, headers={"accept": "text/csv"})
    assert accepted.text == asked.text
    json = client.get(address, params={"format": "json"}, headers={"accept": "text/csv"})
    assert json.json()["knee"] == int(next(row["trial"] for row in rows if row["knee"] == "1"))


def test_lists_as_csv(client: TestClient) -> None:
    address = f"{API}/llama/trials"
    first = client.get(address, params={"limit": 4, "format": "csv", "order": "kl"})
    rows = list(csv.DictReader(io.StringIO(first.text)))
    link = first.headers["link"]
    assert link.endswith('>; rel="next"')
    after = client.get(address + link.removeprefix("<").partition(">")[0])
    rows += csv.DictReader(io.StringIO(after.text))
    assert "link" not in after.headers
    documents = client.get(address, params={"order": "kl"}).json()["items"]
    assert [int(row["id"]) for row in rows] == [t["id"] for t in documents]
    for row, t in zip(rows, documents, strict=True):
        assert float(row["bytes"]) == t["costs"]["bytes"]
        assert float(row["kl stderr"]) == t["metrics"]["kl"]["stderr"]
        assert row["top1"] == str(t["metrics"].get("top1", {}).get("value", ""))
    measured = client.get(f"{API}/llama/measurements", headers={"accept": "text/csv"})
    rows = list(csv.DictReader(io.StringIO(measured.text)))
    assert [row["scheme"] for row in rows] == ["w2", "w4", "w8"] * 2
    assert {row["kl stderr"] for row in rows} == {"0.1"}


def test_pages_neither_repeat_nor_leave_out(database: str) -> None:
    """Whatever the figures: equal ones, and ones that are not known."""
    rng = random.Random(0)
    values = [rng.choice([0.1, 0.2, 0.3, float("nan")]) for _ in range(40)]
    with Store.open(database) as store:
        study = store.open_study("s", {}, {})
        for i, value in enumerate(values):
            trial = Trial(
                {"a": f"w{i}"}, "ilp", 0.0, 0.0, {"bytes": 1.0},
                {} if i % 7 == 0 else {"kl": Estimate(value, 0.0, 1)}, 1.0,
            )  # fmt: skip
            store.add_trial(study, trial)
    with serving(database) as client:
        for order in ("kl", "-kl", "id", "-id", "bytes", "-bytes"):
            whole = [t["id"] for t in walked(client, f"{API}/s/trials", 500, order=order)]
            for limit in (1, 3, 7):
                paged = walked(client, f"{API}/s/trials", limit, order=order)
                assert [t["id"] for t in paged] == whole
            assert sorted(whole) == list(range(1, 41))
        kls = [(t["metrics"].get("kl") or {}).get("value")
               for t in walked(client, f"{API}/s/trials", 500, order="kl")]  # fmt: skip
        known = [kl for kl in kls if kl is not None]
        assert known == sorted(known)
        assert all(kl is None for kl in kls[len(known) :])
        assert np.isfinite(known).all()


@pytest.mark.parametrize("at", ["x", "", "e30", "bnVsbA", "WzEsMl0", "=", "\ud7ff", "a" * 5000])
def test_a_cursor_that_is_none(tmp_path: Path, at: str) -> None:
    with serving(str(tmp_path / "b.db")) as client:
        found = problem(client.get("/api/v1/jobs", params={"cursor": at}), 400, "bad-request")
        assert found["detail"].startswith("the cursor is wrong")


def test_a_cursor_of_another_query(client: TestClient) -> None:
    address = f"{API}/llama/trials"
    at = client.get(address, params={"limit": 1}).json()["next"]
    assert client.get(address, params={"limit": 3, "cursor": at}).status_code == 200
    found = client.get(address, params={"cursor": at, "order": "kl"})
    assert "of another query" in problem(found, 400, "bad-request")["detail"]


@given(st.text(), st.floats(allow_nan=False), st.integers(0, 1 << 62))
def test_a_cursor_gives_back_what_it_was_given(name: str, value: float, id: int) -> None:
    query = {"study": name}
    text = cursor(query, [value, id])
    assert text.replace("-", "a").replace("_", "a").isalnum()
    assert position(text, query, float, int) == [value, id]
    with pytest.raises(Problem):
        position(text, {"study": name + "x"}, float, int)
    with pytest.raises(Problem):
        position(text, query, int, int)
