"""The description of the API: committed, complete, and what the server does.

``BITFRONT_API_EXAMPLES`` is how many requests are tried of each route and kind of test.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode

from bitfront.service.api import Settings, create_app
from bitfront.service.api.openapi import text
from bitfront.storage import Store
from tests.service.apis import fill

TOKEN = "a-token-for-everything"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
ROOT = Path(__file__).resolve().parents[2]
OPERATIONS = [
    (path, method, mode)
    for path, methods in create_app().openapi()["paths"].items()
    for method, route in methods.items()
    for mode in GenerationMode
    if mode == GenerationMode.POSITIVE or "parameters" in route
]
EXAMPLES = int(os.environ.get("BITFRONT_API_EXAMPLES", "6"))


def test_the_committed_description_is_that_of_the_code() -> None:
    committed = (ROOT / "docs" / "openapi.json").read_text()
    assert committed == text(), "run python -m bitfront.service.api.openapi > docs/openapi.json"


def test_every_route_says_what_may_go_wrong() -> None:
    for path, methods in json.loads(text())["paths"].items():
        for method, route in methods.items():
            for status, response in route["responses"].items():
                problem = "application/problem+json" in response.get("content", {})
                assert problem == (status >= "400"), (path, method, status)
            assert route["description"], (path, method)
            assert {"401", "403", "422", "429", "500", "503"} <= set(route["responses"])


def test_names_of_operations_are_distinct() -> None:
    names = [r["operationId"] for m in json.loads(text())["paths"].values() for r in m.values()]
    assert len(names) == len(set(names))


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A database with trials, and jobs in every state, some of which wrote files."""
    folder = tmp_path_factory.mktemp("api")
    out = folder / "out"
    with Store.open(folder / "b.db") as store:
        fill(store)
        for name in ("export-1", "export-2"):
            (out / name).mkdir(parents=True)
            (out / name / "model.safetensors").write_bytes(bytes(1000))
            store.submit("export", "llama", {"trial": 1, "folder": str(out / name)})
            job = store.claim("w1", 60.0)
            assert job is not None
            store.advance(job, "exporting", 1, 1)
            store.succeed(job, {"folder": str(out / name)})
        for i, move in enumerate(("pause", "cancel", "")):
            job, _ = store.submit("search", "llama", {"budgets": [f"{i}bpw"]})
            if move:
                store.move(job.id, move)
    made = create_app(
        Settings(
            db=str(folder / "b.db"), output=out, roots=(folder,), rate=1e6, burst=1 << 30,
            poll=0.001, token=TOKEN,
        )
    )  # fmt: skip
    yield made
    made.state.service.close()


@pytest.fixture(scope="module")
def described(app: Any) -> Any:
    accepted = ["2xx", "400", "401", "403", "404", "409", "422"]  # no schema says what is stored
    config = {"checks": {"positive_data_acceptance": {"expected-statuses": accepted}}}
    return schemathesis.openapi.from_asgi(
        "/api/v1/openapi.json", app, headers=BEARER, config=schemathesis.Config.from_dict(config)
    )


@pytest.mark.parametrize(("path", "method", "mode"), OPERATIONS)
def test_requests_of_every_shape(
    described: Any, path: str, method: str, mode: GenerationMode
) -> None:
    """Every answer is one that the description has, and none is a failure of the server.

    mode: requests that fit the description, and requests that do not.
    """

    @settings(
        max_examples=EXAMPLES, derandomize=True, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(described[path][method].as_strategy(generation_mode=mode))
    def tried(case: Any) -> None:
        case.call_and_validate(headers=BEARER)

    tried()
