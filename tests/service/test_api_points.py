"""Points of a study's trials, what goes on in studies, and where in a request a value is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from bitfront.service.api.points import part
from bitfront.storage import Store
from bitfront.storage.activity import ACTIVITIES, activities
from bitfront.types import Estimate, Trial
from tests.service.apis import fill, problem, serving

API = "/api/v1/studies"


@pytest.fixture
def client(database: str) -> Iterator[TestClient]:
    with Store.open(database) as store:
        fill(store)
        fill(store, "empty", 0)
    with serving(database) as client:
        yield client


def test_points_are_those_of_the_front(client: TestClient) -> None:
    """Each figure as the route for fronts has it, whatever the two are."""
    for x, y in (("bytes", "kl"), ("bits", "top1"), ("kl", "top1"), ("bytes", "bits")):
        whole = client.get(f"{API}/llama/front", params={"x": x, "y": y, "all": True}).json()
        found = client.get(f"{API}/llama/points", params={"x": x, "y": y}).json()
        assert {p["id"]: [p["x"], p["y"]] for p in found["items"]} == dict(
            zip([t["id"] for t in whole["trials"]], whole["points"], strict=True)
        )
        assert {p["id"]: p["on_front"] for p in found["items"]} == {
            t["id"]: t["on_front"] for t in whole["trials"]
        }
        for name in ("senses", "knee", "study"):
            assert found[name] == whole[name]
        assert found["front"] == sum(t["on_front"] for t in whole["trials"])


def test_what_is_said_of_a_point(client: TestClient) -> None:
    found = client.get(f"{API}/llama/points").json()
    assert found["trials"] == 6
    assert [p["x"] for p in found["items"]] == sorted(p["x"] for p in found["items"])
    first = found["items"][0]
    trial = client.get(f"{API}/llama/trials/{first['id']}").json()
    assert first["stderr"] == trial["metrics"]["kl"]["stderr"]
    for name in ("predicted", "expected", "solver"):
        assert first[name] == trial[name]
    assert first["budgets"] == trial["settings"]["budgets"]
    assert trial["layers"]["a"]["bits"] == 2
    turned = client.get(f"{API}/llama/points", params={"x": "kl", "y": "bytes"}).json()
    assert {p["stderr"] for p in turned["items"]} == {None}


def test_how_many_layers_take_which_scheme(client: TestClient) -> None:
    found = client.get(f"{API}/llama/trials/1/schemes").json()
    assert found == {"trial": 1, "schemes": {"w2": 1, "w8": 1}}
    problem(client.get(f"{API}/llama/trials/7/schemes"), 404, "unknown-name")
    problem(client.get(f"{API}/empty/trials/1/schemes"), 404, "unknown-name")


def test_points_within_limits(client: TestClient) -> None:
    asked = {"within": ["kl<=0.6", "bits<=50"]}
    found = client.get(f"{API}/llama/points", params=asked).json()
    whole = client.get(f"{API}/llama/front", params={**asked, "all": True}).json()
    assert [p["id"] for p in found["items"]] == [t["id"] for t in whole["trials"]]
    none = client.get(f"{API}/llama/points", params={"within": "kl<=0"}).json()
    assert (none["trials"], none["front"], none["knee"], none["items"]) == (0, 0, None, [])


def test_points_of_figures_that_are_not_there(client: TestClient) -> None:
    wrong = problem(client.get(f"{API}/llama/points?x=joules"), 404, "unknown-name")
    assert "joules" in wrong["detail"]
    assert "bytes" in wrong["hint"]
    problem(client.get(f"{API}/empty/points"), 404, "unknown-name")
    problem(client.get(f"{API}/lama/points"), 404, "unknown-name")
    problem(client.get(f"{API}/llama/points?limit=0"), 422, "invalid-input")


def test_of_many_points_some_are_given(database: str) -> None:
    """The whole front where that fits, and a part of the others that has both ends."""
    rng = np.random.default_rng(0)
    with Store.open(database) as store:
        study = store.open_study("many", {}, {"layers": []})
        for i, (x, y) in enumerate(rng.random((60, 2))):
            kl = {"kl": Estimate(float(y), 0.0, 1)}
            store.add_trial(study, Trial({"a": f"w{i}"}, "ilp", 0.0, 0.0, {"bytes": x}, kl, 1.0))
    with serving(database) as client:
        found = client.get(f"{API}/many/points?limit=25").json()
        every = client.get(f"{API}/many/points").json()
    assert (found["trials"], len(found["items"])) == (60, 25)
    assert sum(p["on_front"] for p in found["items"]) == found["front"] == every["front"]
    assert found["items"] == [p for p in every["items"] if p in found["items"]]
    dominated = [p for p in every["items"] if not p["on_front"]]
    assert dominated[0] in found["items"]
    assert dominated[-1] in found["items"]


@given(st.integers(1, 40), st.data())
def test_a_part_of_points(n: int, data: Any) -> None:
    across = np.array(data.draw(st.lists(st.integers(0, 9), min_size=n, max_size=n)), dtype=float)
    best = np.array(sorted(data.draw(st.sets(st.integers(0, n - 1)))), dtype=np.int64)
    limit = data.draw(st.integers(1, n + 2))
    found = part(across, best, limit)
    assert len(found) == len(set(found.tolist())) == min(n, limit)
    assert (np.diff(across[found]) >= 0).all()
    kept = set(best.tolist()) & set(found.tolist())
    assert len(kept) == min(len(best), limit)


def test_what_goes_on_in_studies(database: str) -> None:
    with Store.open(database) as store, serving(database) as client:
        fill(store)
        fill(store, "empty", 0)

        def states() -> dict[str, str]:
            found = client.get(API).json()["items"]
            for line in found:
                one = client.get(f"{API}/{line['name']}").json()
                for name in ("state", "jobs", "updated"):
                    assert one[name] == line[name]
            return {line["name"]: line["state"] for line in found}

        assert states() == {"llama": "idle", "empty": "idle"}
        before = client.get(f"{API}/llama").json()["updated"]
        assert before >= client.get(f"{API}/llama").json()["created"]
        job, _ = store.submit("search", "llama", {})
        store.submit("search", "empty", {})
        assert states() == {"llama": "queued", "empty": "queued"}
        assert client.get(f"{API}/llama").json()["updated"] > before
        claimed = store.claim("w1", 60.0)
        assert claimed is not None
        assert claimed.id == job.id
        assert states()["llama"] == "running"
        store.failed(claimed, "no memory")
        assert states()["llama"] == "failed"
        store.move(job.id, "resume")
        store.move(job.id, "pause")
        assert states()["llama"] == "paused"
        store.move(job.id, "cancel")
        assert states() == {"llama": "idle", "empty": "queued"}
        line = client.get(API, params={"contains": "llama"}).json()["items"][0]
        assert line["jobs"] == {"cancelled": 1}
        assert line["better"] == {"kl": "lower", "calibration/kl": "lower", "top1": "higher"}
        unbegun = activities(store, ["nothing"])["nothing"]
        assert (unbegun.state, unbegun.updated, dict(unbegun.jobs)) == ("idle", "", {})
    assert set(ACTIVITIES) == {"running", "queued", "paused", "failed", "idle"}


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"kind": "search", "schemes": "w2 w99", "budgets": ["3bpw"]}, ["schemes"]),
        ({"kind": "search", "schemes": "w2 w4", "budgets": ["3bpw", "much"]}, ["budgets", 1]),
        ({"kind": "search", "schemes": "w2 w4", "hold": "kl"}, ["hold"]),
        ({"kind": "profile", "schemes": ""}, ["profile", "schemes"]),
        ({"kind": "search", "schemes": "w4", "explore": -1}, ["search", "explore"]),
        (
            {"kind": "profile", "schemes": "w4", "task": {"kind": "language", "arguments": {
                "model": "nowhere", "calibration": "x"}}},
            ["task", "arguments", "model"],
        ),
        (
            {"kind": "profile", "schemes": "w4", "task": {"kind": "language", "arguments": {
                "modell": "nowhere"}}},
            ["task", "arguments", "modell"],
        ),
    ],
)  # fmt: skip
def test_a_problem_says_where_the_value_stands(
    tmp_path: Path, body: dict[str, Any], place: list[str | int]
) -> None:
    with serving(str(tmp_path / "b.db"), roots=(tmp_path,)) as client:
        found = client.post(f"{API}/new/jobs", json=body).json()
    assert [error["location"] for error in found["errors"]] == [["body", *place]]
    assert found["errors"][0]["what"]
