"""Who may ask, how often, and that no token is ever written down."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import pytest
from starlette.datastructures import Headers

from bitfront.errors import InvalidInput
from bitfront.service.api.guard import CLIENTS, Guard
from bitfront.service.api.problems import Problem
from bitfront.service.api.serving import Redacted
from bitfront.service.api.settings import HIDDEN, Settings, secret
from tests.service.apis import problem, serving

TOKEN, READ = "a-token/for+everything", "another-token-for-reading"
BEARER = {"authorization": f"Bearer {TOKEN}"}
BODY: dict[str, Any] = {"kind": "report"}
JOBS = "/api/v1/studies/s/jobs"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "example.org", ""])
def test_other_addresses_need_a_token(host: str) -> None:
    with pytest.raises(InvalidInput, match="without a token"):
        Settings(host=host)
    Settings(host=host, read_token=READ)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.3.2.1"])
def test_loopback_needs_none(host: str) -> None:
    assert not Settings(host=host).guarded


@pytest.mark.parametrize("token", ["short", "", "with spaces in the middle", "ünïcödé-tokens-here"])
def test_tokens_that_are_none(token: str) -> None:
    with pytest.raises(InvalidInput):
        Settings(token=token)
    with pytest.raises(InvalidInput, match="the same"):
        Settings(token=TOKEN, read_token=TOKEN)


def test_a_token_comes_from_a_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BITFRONT_TOKEN", raising=False)
    assert secret(None, "BITFRONT_TOKEN") is None
    monkeypatch.setenv("BITFRONT_TOKEN", READ)
    assert secret(None, "BITFRONT_TOKEN") == READ
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    assert secret(tmp_path / "token", "BITFRONT_TOKEN") == TOKEN
    (tmp_path / "token").write_text("\n")
    with pytest.raises(InvalidInput, match="is empty"):
        secret(tmp_path / "token", "BITFRONT_TOKEN")
    with pytest.raises(InvalidInput, match="cannot read"):
        secret(tmp_path / "none", "BITFRONT_TOKEN")


def test_tokens(tmp_path: Path) -> None:
    with serving(str(tmp_path / "b.db"), token=TOKEN, read_token=READ, host="0.0.0.0") as client:
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 200
        for address in ("/api/v1/meta", "/api/v1/studies", "/api/v1/openapi.json", "/api/v1/no"):
            refused = client.get(address)
            problem(refused, 401, "unauthorized")
            assert refused.headers["www-authenticate"] == "Bearer"
        for wrong in (TOKEN[:-1], TOKEN + "x", "", TOKEN.upper()):
            headers = {"authorization": f"Bearer {wrong}"}
            problem(client.get("/api/v1/meta", headers=headers), 401, "unauthorized")
        basic = {"authorization": f"Basic {TOKEN}"}
        problem(client.get("/api/v1/meta", headers=basic), 401, "unauthorized")
        problem(client.get(f"/api/v1/meta?token={TOKEN}"), 401, "unauthorized")
        odd = {"authorization": b"Bearer \xff\xfe"}
        problem(client.get("/api/v1/meta", headers=odd), 401, "unauthorized")  # type: ignore[arg-type]
        reading = {"authorization": f"bearer {READ}"}
        for headers in (BEARER, reading):
            assert client.get("/api/v1/meta", headers=headers).status_code == 200
        problem(client.post(JOBS, json=BODY, headers=reading), 403, "forbidden")
        problem(client.post(JOBS, json=BODY, headers=BEARER), 404, "unknown-name")
        problem(client.post("/api/v1/jobs/1/cancel", headers=reading), 403, "forbidden")
        other = {**BEARER, "host": "bitfront.example.org"}
        assert client.get("/api/v1/meta", headers=other).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "10.0.0.1:8765", "[::"])
def test_a_name_that_leads_here_by_rebinding(tmp_path: Path, host: str) -> None:
    with serving(str(tmp_path / "b.db")) as client:
        for address in ("/api/v1/studies", "/readyz"):
            problem(client.get(address, headers={"host": host}), 421, "misdirected")


@pytest.mark.parametrize("host", ["localhost", "localhost:8765", "[::1]:8765", "127.0.0.1"])
def test_names_of_this_machine(tmp_path: Path, host: str) -> None:
    with serving(str(tmp_path / "b.db")) as client:
        assert client.get("/api/v1/studies", headers={"host": host}).status_code == 200


def test_pages_of_others_change_nothing(tmp_path: Path) -> None:
    with serving(str(tmp_path / "b.db")) as client:
        for headers in (
            {"origin": "https://evil.example"}, {"origin": "null"},
            {"origin": "http://127.0.0.1:9999"}, {"sec-fetch-site": "cross-site"},
        ):  # fmt: skip
            problem(client.post(JOBS, json=BODY, headers=headers), 403, "forbidden")
            problem(client.post("/api/v1/jobs/1/cancel", headers=headers), 403, "forbidden")
        own = {"origin": "http://127.0.0.1:8765", "sec-fetch-site": "same-origin"}
        problem(client.post(JOBS, json=BODY, headers=own), 404, "unknown-name")


def test_rates_are_capped(tmp_path: Path) -> None:
    now = [0.0]
    guard = Guard(Settings(rate=2.0, burst=3), lambda: now[0])

    def asked(client: str = "a") -> int:
        try:
            guard.check("GET", "/api/v1/meta", Headers({"host": "localhost"}), client)
        except Problem as refused:
            return refused.status_code
        return 200

    assert [asked() for _ in range(5)] == [200, 200, 200, 429, 429]
    assert asked("b") == 200
    now[0] = 1.0
    assert [asked() for _ in range(3)] == [200, 200, 429]
    for i in range(CLIENTS + 10):
        asked(str(i))
    assert len(guard._buckets) == CLIENTS
    with serving(str(tmp_path / "b.db"), rate=0.001, burst=2) as client:
        codes = [client.get("/api/v1/meta").status_code for _ in range(4)]
        assert codes == [200, 200, 429, 429]
        refused = client.get("/api/v1/meta")
        problem(refused, 429, "too-many-requests")
        assert int(refused.headers["retry-after"]) >= 1
        assert client.get("/healthz").status_code == 200


def test_no_line_of_the_log_has_a_token(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Wherever it was written: header, query, path, body, another header."""
    quoted = "a-token%2Ffor%2Beverything"
    with (
        serving(str(tmp_path / "b.db"), token=TOKEN, read_token=READ) as client,
        caplog.at_level(logging.DEBUG),
    ):
        for headers in (BEARER, {"authorization": f"Bearer {READ}"}, {"cookie": TOKEN}, {}):
            for address in (
                "/api/v1/meta", f"/api/v1/studies/{quoted}", f"/api/v1/studies/{READ}",
                f"/api/v1/jobs?token={quoted}", f"/{TOKEN}", f"/api/v1/jobs/{READ}%0d%0aforged",
            ):  # fmt: skip
                client.get(address, headers=headers)
        client.post(JOBS, json={"kind": TOKEN}, headers=BEARER)
    lines = [r.getMessage() for r in caplog.records if r.name.startswith("bitfront")]
    assert len(lines) == 25
    for line in lines:
        assert TOKEN not in line
        assert READ not in line
        assert quoted not in line
        assert "\n" not in line
        assert "?" not in line
    assert sum(HIDDEN in line for line in lines) == 16


def test_settings_do_not_show_their_tokens() -> None:
    shown = repr(Settings(token=TOKEN, read_token=READ))
    assert TOKEN not in shown
    assert READ not in shown


def test_no_traceback_has_a_token() -> None:
    try:
        raise RuntimeError(f"GET /api?token={TOKEN}")
    except RuntimeError:
        failed = sys.exc_info()
    record = logging.LogRecord("x", logging.ERROR, "", 0, "bug of %s", (READ,), failed)
    line = Redacted(Settings(token=TOKEN, read_token=READ)).format(record)
    assert "RuntimeError: GET /api?token=[token]" in line
    assert "bug of [token]" in line
    assert TOKEN not in line
