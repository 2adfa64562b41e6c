"""Malformed requests: a problem that says which value is wrong and what to do."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from bitfront.storage import Store
from tests.malformed.asked import (
    JSON,
    READING,
    WHOLE,
    Asked,
    get,
    job,
    only,
    post,
    raw,
    signed,
    task,
)
from tests.malformed.cases import contents
from tests.service.apis import fill, made, problem, serving

NAMED, AGAIN = ": correct what is named", ": use next as it was given, or begin anew"
UNIT = ": write a number and a unit, like 700MB"
ROUTES = ": the routes are in openapi.json"
T, F, M = "/studies/llama/trials", "/studies/llama/front", "/studies/llama/measurements"
FILE = "/jobs/1/files/model.safetensors"
LONG = "x" * 700
BEARER = ": send the header Authorization: Bearer TOKEN"

QUERIES = [
    get("/studies?limit=0", 422, r'limit: .*greater than or equal to 1, not "0"' + NAMED),
    get("/studies?limit=501", 422, r'limit: .*less than or equal to 500, not "501"' + NAMED),
    get("/studies?limit=many", 422, r'limit: .*valid integer.*, not "many"' + NAMED),
    get("/studies?limit=1.5", 422, r'limit: .*valid integer.*, not "1\.5"' + NAMED),
    get("/studies?limit=", 422, r'limit: .*valid integer.*, not ""' + NAMED),
    get("/studies?order=kl", 422, "order: .*'created', '-created'.*, not \"kl\"" + NAMED),
    get("/studies?contains=", 422, r'contains: .*at least 1 character, not ""' + NAMED),
    get("/studies?contains=%00", 422, r"contains: use characters that can be printed, not .*"
        + NAMED),
    get("/studies?cursor=x", 400, "the cursor is wrong: it cannot be read" + AGAIN),
    get("/studies?cursor=", 400, "the cursor is wrong: it cannot be read" + AGAIN),
    get("/studies?cursor=AAAA", 400, "the cursor is wrong: it cannot be read" + AGAIN),
    get("/studies?cursor=%ff", 400, "the cursor is wrong: it cannot be read" + AGAIN),
    get("/studies?cursor=WyIwMTIzIiwiYSIsImIiXQ", 400, "it is of another query" + AGAIN),
    get("/jobs?cursor=WzEsMl0", 400, "it is of another query" + AGAIN),
    get(f"{M}?cursor=eyJ", 400, "the cursor is wrong: it cannot be read" + AGAIN),
    get(f"{T}?order=speed", 404, "no.* has the figure 'speed': there are bits, bytes, cal"),
    get(f"{T}?order=", 422, 'order: .*at least 1 character, not ""' + NAMED),
    get(f"{T}?order=-", 404, "has the figure '': there are bits"),
    get(f"{T}?order=--kl", 404, "has the figure '-kl': there are bits"),
    get(f"{T}?within=kl", 422, "cannot read budget 'kl'" + UNIT),
    get(f"{T}?within=3", 422, "unknown unit in budget '3'" + UNIT),
    get(f"{T}?within=3bits", 422, "unknown unit in budget '3bits'" + UNIT),
    get(f"{T}?within=kl<0.1", 422, "cannot read limit 'kl<0.1': write a name, <= or >="),
    get(f"{T}?within=kl<=nan", 422, "cannot read limit 'kl<=nan': write a name, <= or >="),
    get(f"{T}?within=joules<=3", 404, "no trial has the cost or metric 'joules': there are bits"),
    get(f"{T}?within=3ms", 422, "'3ms' limits seconds, which no trial has: choose .* bits, bytes"),
    get(f"{T}?within=1B&within=", 422, r'within\.1: .*at least 1 character, not ""' + NAMED),
    get(f"{T}?{'&'.join(['within=1B'] * 21)}", 422, "at most 20 items .*, not 21" + NAMED),
    get(f"{T}?within=conv:3bpw", 422, "called 'conv': classes are attention, feed-forward"),
    get(f"{T}?within=-3bpw", 422, "cannot read budget '-3bpw'" + UNIT),
    get(f"{T}?within=nanbpw", 422, "cannot read budget 'nanbpw'" + UNIT),
    get(f"{T}?within=1e999B", 422, "cannot read budget '1e999B'" + UNIT),
    get(f"{T}?within=0%25", 422, "budget '0%' is not a positive number" + UNIT),
    get("/studies/bare/trials?within=3bpw", 422, "'3bpw' limits bits, which no trial has: mea"),
    get("/studies/bare/trials?order=kl", 404, "has the figure 'kl': there are none yet"),
    get(f"{T}?limit=-1", 422, 'limit: .*than or equal to 1, not "-1"' + NAMED),
    get(f"{T}?format=xml", 422, "format: .*'json' or 'csv', not \"xml\"" + NAMED),
    get(f"{T}?solver=", 422, 'solver: .*at least 1 character, not ""' + NAMED),
    get(f"{T}/1?metric=bleu", 404, "no metric 'bleu' in 'llama': it has kl, top1"),
    get(f"{T}/1?metric=", 422, 'metric: .*at least 1 character, not ""' + NAMED),
    get(f"{T}/1?metric=a%0Ab", 422, r'metric: use characters .*, not "a\\nb"' + NAMED),
    get(f"{F}?x=joules", 404, "no trial has the metric 'joules': there are calibration/kl, kl"),
    get(f"{F}?y=bleu", 404, "no trial has the metric 'bleu': there are calibration/kl, kl"),
    get(f"{F}?z=speed", 404, "no trial has the metric 'speed': there are calibration/kl, kl"),
    get(f"{F}?x=", 422, 'x: .*at least 1 character, not ""' + NAMED),
    get(f"{F}?{'&'.join(f'z={i}' for i in range(9))}", 422, "at most 8 items .*, not 9" + NAMED),
    get(f"{F}?all=maybe", 422, 'all: .*valid boolean.*, not "maybe"' + NAMED),
    get(f"{F}?within=1B", 422, "none of 6 trials is within 1B: loosen a limit"),
    get(f"{F}?within=700XB", 422, "unknown unit in budget '700XB'" + UNIT),
    get(f"{F}?within=kl>=high", 422, "cannot read limit 'kl>=high': write a name, <= or >="),
    get(f"{F}?format=html", 422, "format: .*'json' or 'csv', not \"html\"" + NAMED),
    get("/studies/bare/front", 422, "study 'bare' has no trials yet: run a search first"),
    get(f"{M}?order=speed", 404, "has the figure 'speed': there are kl"),
    get(f"{M}?layer=", 422, 'layer: .*at least 1 character, not ""' + NAMED),
    get(f"{M}?scheme=%01", 422, "scheme: use characters that can be printed, not .*" + NAMED),
    get("/jobs?state=runing", 422, "state.0: .*'queued', 'running', .*, not \"runing\"" + NAMED),
    get(f"/jobs?{'&'.join(['state=queued'] * 11)}", 422, "at most 10 items .*, not 11" + NAMED),
    get("/jobs?kind=train", 422, "kind: .*'profile', 'search', .*, not \"train\"" + NAMED),
    get("/jobs?study=", 422, 'study: .*at least 1 character, not ""' + NAMED),
    get("/jobs/1/events?after=-1", 422, 'after: .*or equal to 0, not "-1"' + NAMED),
    get("/jobs/1/events?after=x", 422, 'after: .*valid integer.*, not "x"' + NAMED),
    get("/jobs/1/events?after=99999999999", 422, 'after: .*, not "99999999999"' + NAMED),
]  # fmt: skip
PATHS = [
    get("/nothing", 404, "no route '/api/v1/nothing'" + ROUTES, "not-found"),
    get("/studies//", 404, "no route '/api/v1/studies//'" + ROUTES, "not-found"),
    get("/studies/../llama", 404, "no route '/api/v1/llama'" + ROUTES, "not-found"),
    get("/jobs/1/nothing", 404, "no route '/api/v1/jobs/1/nothing'" + ROUTES, "not-found"),
    get("/workers/w1", 404, "no route '/api/v1/workers/w1'" + ROUTES, "not-found"),
    get("/studies/nope", 404, "no study named 'nope': did you mean"),
    get("/studies/lama", 404, r"no study named 'lama': did you mean 'llama'\?"),
    get("/studies/llama%2F", 404, r"no study named 'llama/': did you mean 'llama'\?"),
    get("/studies/%20", 422, "study name ' ': give the study a name"),
    get("/studies/a%00b", 422, r"study name 'a\\x00b': use characters that can be printed"),
    get(f"/studies/{LONG}", 422, "name: .*at most 600 characters" + NAMED),
    get("/studies/nope/front", 404, "no study named 'nope': did you mean"),
    get("/studies/nope/measurements", 404, "no study named 'nope': did you mean"),
    get(f"{T}/0", 422, 'trial: .*than or equal to 1, not "0"' + NAMED),
    get(f"{T}/7", 404, "no trial 7 in study 'llama': there are 1, 2, 3, 4, 5, 6"),
    get(f"{T}/best", 422, 'trial: .*valid integer.*, not "best"' + NAMED),
    get(f"{T}/{10**20}", 422, f'trial: .*to 2147483647, not "{10**20}"' + NAMED),
    get("/jobs/0", 422, 'id: .*than or equal to 1, not "0"' + NAMED),
    get("/jobs/99", 404, "no job 99: see 'bitfront jobs list'"),
    get("/jobs/one", 422, 'id: .*valid integer.*, not "one"' + NAMED),
    get("/jobs/1e3", 422, 'id: .*valid integer.*, not "1e3"' + NAMED),
    get(f"/jobs/{1 << 31}", 422, 'id: .*to 2147483647, not "2147483648"' + NAMED),
    get("/jobs/99/events", 404, "no job 99: see 'bitfront jobs list'"),
    get("/jobs/99/files", 404, "no job 99: see 'bitfront jobs list'"),
    get("/jobs/2/files", 404, "2 is a search, which writes no files: ask for those", "no-files"),
    get("/jobs/2/archive", 404, "2 is a search, which writes no files: ask for", "no-files"),
    get("/jobs/4/files", 409, "job 4 is queued: its files are there when it succ", "no-files"),
    get("/jobs/1/files/nope", 404, "job 1 wrote no file 'nope': see its files"),
    get("/jobs/1/files/..%2F..%2Fb.db", 404, r"no file '\.\./\.\./b\.db': see its files"),
    get("/jobs/1/files/%2Fetc%2Fpasswd", 404, "no file '/etc/passwd': see its files"),
    post("/jobs/99/pause", 404, "no job 99: see 'bitfront jobs list'"),
    post("/jobs/x/pause", 422, 'id: .*valid integer.*, not "x"' + NAMED),
    post("/jobs/2/stop", 404, "no route '/api/v1/jobs/2/stop'" + ROUTES, "not-found"),
    post("/jobs/1/pause", 409, "job 1 is succeeded, and cannot pause: submit another job"),
    post("/jobs/1/cancel", 409, "job 1 is succeeded, and cannot cancel: submit another job"),
    post("/jobs/3/pause", 409, "job 3 is cancelled, and cannot pause: it can resume"),
    post("/jobs/2/resume", 409, "job 2 is queued, and cannot resume: it can pause or cancel"),
    post("/studies", 405, "POST is no method of '/api/v1/studies': use a method"),
    get("/jobs/1/pause", 405, "GET is no method of '/api/v1/jobs/1/pause': use a method"),
    Asked("DELETE", "/jobs/1", 405, "DELETE is no method of '/api/v1/jobs/1': use a method"),
    Asked("PUT", "/studies/llama", 405, "PUT is no method of '/api/v1/stud.*': use a method"),
]
HEADERS = [
    get(FILE, 416, "'bytes=1000-' of a file of 1000 bytes: ask for", range="bytes=1000-"),
    get(FILE, 416, "'bytes=-0' of a file of 1000 bytes: ask for", range="bytes=-0"),
    get("/jobs/1/events", 422, 'last-event-id: .*integer.*, not "x"' + NAMED, last_event_id="x"),
    get("/jobs/1/events", 422, 'last-event-id: .*, not "-1"' + NAMED, last_event_id="-1"),
    get("/studies", 421, "not answer for host 'evil.example': ask for local", host="evil.example"),
    get("/studies", 421, "not answer for host '': ask for localhost", host=""),
    get("/studies", 421, "for host '127.0.0.1.a.b': ask for localhost", host="127.0.0.1.a.b"),
    post("/jobs/2/pause", 403, "a page of 'http://a.b' may not change anything here: ask the op",
         origin="http://a.b"),
    post("/jobs/2/pause", 403, "a page of 'cross-site' may not change anything here: ask the op",
         sec_fetch_site="cross-site"),
    post("/studies/new/jobs", 415, "a body of type '': send JSON, with", body=b"{}"),
    post("/studies/new/jobs", 415, "a body of type 'text/plain': send JSON, with", body=b"{}",
         content_type="text/plain"),
    post("/studies/new/jobs", 413, "a body of more than 1048576 bytes: send less",
         body=b'"' + b"x" * (1 << 21) + b'"', **JSON),
    signed(401, "a token is needed" + BEARER),
    signed(401, "a token is needed" + BEARER, "Bearer"),
    signed(401, "a token is needed" + BEARER, f"Basic {WHOLE}"),
    signed(401, "a token is needed" + BEARER, WHOLE),
    signed(401, "the token is not one of this server's" + BEARER, "Bearer x"),
    signed(401, "the token is not one of this server's" + BEARER, f"Bearer {WHOLE[:-1]}"),
    signed(401, "the token is not one of this server's" + BEARER, b"Bearer \xff"),
    signed(403, "this token is for reading only: use the token for everything",
           f"Bearer {READING}", "POST"),
]  # fmt: skip
OPERATOR = ": name a file under one, or let the operator add its folder with --root"
PATH = "forbidden-path"
BODIES = [
    raw(b"", 422, "body: it is missing" + NAMED),
    raw(b'{"kind": "search"', 400, "not JSON: Expecting ',' delimiter at character 17: correct"),
    raw(b"kind=search", 400, "not JSON: Expecting value at character 0: correct the request"),
    raw(b"[]", 422, "body: give an object" + NAMED),
    raw(b"null", 422, "body: give an object, not null" + NAMED),
    raw(b"3", 422, "body: give an object, not 3" + NAMED),
    raw(b"[" * 100_000, 400, "not JSON: .*nested too deeply: correct the request"),
    raw(b'{"kind": "\xe9"}', 400, "not JSON: it is no text in UTF-8.*: correct the request"),
    raw(b"{}", 422, "body: kind is missing" + NAMED),
    job(422, "kind is one of 'profile', 'search', .*, not 'train'" + NAMED, kind="train"),
    job(422, r"kind is one of .*, not '\[\]'" + NAMED, kind=[]),
    job(422, "no schemes and no target were given: give schemes", schemes=None),
    job(422, "schemes: .*valid string" + NAMED, schemes=["w4"]),
    job(422, 'schemes: .*at least 1 character, not ""' + NAMED, schemes=""),
    job(422, "unknown scheme 'int4': spell it like w4", schemes="int4"),
    job(422, "scheme 'w9': integer weights of 9 bits: use one of 2, 3", schemes="w4 w9"),
    job(422, r"'w4\+awq': quantizer 'awq': use one of rtn", schemes="w4+awq"),
    job(422, "no schemes were given: spell it like w4", schemes=" , "),
    job(422, "no budget was given: give at least one, like 40%, or hold", budgets=[]),
    job(422, "unknown unit in budget '3'" + UNIT, budgets=["3"]),
    job(422, "cannot read budget '-3bpw'" + UNIT, budgets=["-3bpw"]),
    job(422, 'budgets: .*valid list, not "3bpw"' + NAMED, budgets="3bpw"),
    job(422, "budgets.0: .*valid string, not 3" + NAMED, budgets=[3]),
    job(422, "budgets: .*at most 1000 items .*, not 1001" + NAMED, budgets=["3bpw"] * 1001),
    job(422, "cannot read limit 'kl<0.1': write a name, <= or >=", hold="kl<0.1"),
    job(422, "cannot read limit 'kl': write a name, <= or >=", hold="kl"),
    job(422, "explore: .*than or equal to 0, not -1" + NAMED, explore=-1),
    job(422, "explore: .*equal to 100000, not 1000000" + NAMED, explore=10**6),
    job(422, 'explore: .*valid integer, not "20"' + NAMED, explore="20"),
    job(422, r"explore: .*valid integer, not 1\.5" + NAMED, explore=1.5),
    job(422, "explore: .*valid integer, not true" + NAMED, explore=True),
    job(422, "shares: .*than or equal to 0, not -1" + NAMED, shares=-1),
    job(422, 'verify: .*valid boolean, not "maybe"' + NAMED, verify="maybe"),
    job(422, 'metric: .*at least 1 character, not ""' + NAMED, metric=""),
    job(422, r'metric: .*string.*, not "\\udcff"' + NAMED, metric="\udcff"),
    job(422, "the request has a NUL character: leave it out", metric="a\0b"),
    job(422, "max_measurements: .*or equal to 0, not -1" + NAMED, max_measurements=-1),
    job(422, "search.colour: there is no such field" + NAMED, colour="red"),
    job(404, "no solver named 'magic': choose from ilp, greedy, .*lagrange", solver="magic"),
    job(404, "no explorer named 'drill': choose from refine, .*evolution", explorer="drill"),
    job(404, "no exporter named 'gguff': choose from safetensors", choices={"container": "gguff"}),
    only(404, "no exporter named 'onyx': choose from safetensors", kind="export", trial=1,
         format="onyx", task={"kind": "language", "arguments": {"model": "model"}}),
    only(404, "no solver named 'magic': choose from ilp", kind="profile", schemes="w4",
         solver="magic"),
    job(422, 'profiler: give an object, not "fisher"' + NAMED, profiler="fisher"),
    job(422, "scheme 'w9': integer weights of 9 bits: use one", choices={"pins": {"a": "w9"}}),
    job(422, "groups: .*'auto' or 'off', not \"some\"" + NAMED, choices={"groups": "some"}),
    job(422, "choices.layers: there is no such field" + NAMED, choices={"layers": 1}),
    job(422, "'x' has no object of layers: see docs/search.md", choices={"costs": {"x": 1}}),
    only(422, "until: .*less than 1, not 2" + NAMED, kind="profile", schemes="w4", until=2),
    only(422, "until without budgets, or these without it: give both, or neither", study="new",
         kind="profile", schemes="w4", until=0.1),
    only(422, "until without budgets, or these without it: give both, or neither",
         kind="profile", schemes="w4", budgets=["4bpw"]),
    only(422, "'llama' was begun in Python .*: open it there, or give task.kind",
         kind="profile", schemes="w4"),
    only(404, "there is no study 'lama' yet .*did you mean 'llama'.*: to begin it give task.kind",
         study="lama", kind="profile", schemes="w4"),
    only(422, "study name ' ': give the study a name", study="%20", kind="report"),
    only(422, "of 300 characters: use at most 200", study="x" * 300, kind="report"),
    only(404, "no study named 'nope': did you mean", study="nope", kind="report"),
    only(404, "no metric 'bleu' in 'llama': it has kl, top1", kind="report", metric="bleu"),
    only(422, "metric: .*valid string, not 3" + NAMED, kind="report", metric=3),
    only(422, "edition: .*at most 200 characters" + NAMED, kind="report", edition="x" * 300),
    only(422, "trial: it is missing" + NAMED, kind="export"),
    only(422, "trial: .*than or equal to 1, not 0" + NAMED, kind="export", trial=0),
    only(422, "folder: there is no such field" + NAMED, kind="export", trial=1, folder="/etc"),
    only(404, "no trial 99 in study 'llama': there are 1, 2", kind="export", trial=99,
         task={"kind": "language", "arguments": {"model": "model"}}),
    only(422, "scheme 'w9': integer weights of 9 bits: use", kind="measure", schemes={"a": "w9"},
         task={"kind": "language"}),
    only(422, 'schemes: give an object, not "w4"' + NAMED, kind="measure", schemes="w4"),
    job(422, "kind: .*'language', 'vision', .*, not \"audio\"" + NAMED, task={"kind": "audio"}),
    job(422, 'task: give an object, not "language"' + NAMED, task="language"),
    job(404, "there is no study 'new' yet: to begin it give task.kind", task={}),
    task(422, "argument 'colour' of a language task: it takes batch, calibration", colour=1),
    task(403, "'/etc' is not under a root" + OPERATOR, PATH, model="/etc"),
    task(403, "'../../etc' is not under a root" + OPERATOR, PATH, calibration="../../etc"),
    task(403, "'link.txt' is not under a root" + OPERATOR, PATH, calibration="link.txt"),
    task(403, "'org/name', .*not allowed here: .* with --allow-hub", PATH, model="org/name"),
    task(403, "'hub:org/d' is not allowed here: .*--allow-hub", PATH, calibration="hub:org/d"),
    task(403, "code of the hub is not allowed here: .* with", PATH, trust_remote_code=True),
    task(403, "function 'net.py:task' is not allowed here: .*--allow-functions", PATH,
         kind="module", function="net.py:task"),
    task(403, r"weights 'w.pt' is not allowed here: save them as \.safetensors", PATH,
         kind="vision", weights="w.pt"),
    task(422, "no file 'none.txt' under the roots: check the path", calibration="none.txt"),
    task(422, "model 'folder' has no model.safetensors: save it so", model="folder"),
    task(422, "model 3: give a path or name as text", model=3),
    task(422, r"model 'model\\x00': give a path or name as text", model="model\0"),
]  # fmt: skip
ASKED = [*QUERIES, *PATHS, *HEADERS, *BODIES]


@dataclass(frozen=True)
class Served:
    """Two servers of one database, the second with tokens."""

    open: TestClient
    guarded: TestClient
    folder: Path

    def state(self) -> tuple[list[str], dict[str, bytes]]:
        """All rows, and all files but the database's."""
        with closing(sqlite3.connect(self.folder / "b.db")) as connection:
            rows = list(connection.iterdump())
        files = contents(self.folder)
        return rows, {name: data for name, data in files.items() if not name.startswith("b.db")}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("http")
    root, out, db = folder / "root", folder / "out", str(folder / "b.db")
    made(root / "model")
    (root / "folder").mkdir()
    (root / "link.txt").symlink_to("/etc/passwd")
    for name in ("text.txt", "net.py", "w.pt"):
        (root / name).write_text("")
    (out / "export-1").mkdir(parents=True)
    (out / "export-1" / "model.safetensors").write_bytes(bytes(1000))
    with Store.open(db) as store:
        fill(store)
        store.open_study("bare", {}, {})
        store.submit("export", "llama", {"trial": 1})
        claimed = store.claim("w1", 60.0)
        assert claimed is not None
        store.succeed(claimed, {"folder": str(out / "export-1")})
        for number, kind in enumerate(("search", "search", "export")):
            store.submit(kind, "llama", {"number": number})
        store.move(3, "cancel")
    with ExitStack() as stack:
        yield Served(
            stack.enter_context(serving(db, roots=(root,), output=out)),
            stack.enter_context(serving(db, token=WHOLE, read_token=READING)),
            folder,
        )


@pytest.mark.parametrize("asked", ASKED, ids=lambda asked: f"{asked.method} {asked.path[:60]}")
def test_a_request_is_refused(asked: Asked, served: Served) -> None:
    before = served.state()
    client = served.guarded if asked.guarded else served.open
    response = client.request(
        asked.method, f"/api/v1{asked.path}", content=asked.body, headers=dict(asked.headers)
    )
    found = problem(response, asked.status, asked.problem)
    said = f"{found['detail']}: {found['hint']}"
    assert ": " in asked.says, "a case says what the remedy is"
    assert re.search(asked.says, said), said
    assert len(said) < 700
    assert not re.search("Traceback|a bug|Errno|pydantic", response.text)
    assert served.state() == before


def test_a_kind_of_job_that_is_not_taken(served: Served) -> None:
    for kind, more in (("report", {}), ("export", {"trial": 1, "task": {"kind": "module"}})):
        response = served.guarded.post(
            "/api/v1/studies/llama/jobs", json={"kind": kind, **more},
            headers={"authorization": f"Bearer {WHOLE}"},
        )  # fmt: skip
        found = problem(response, 403, "forbidden")
        assert found["detail"] == f"{kind} jobs are not taken here"
        assert found["hint"] == "the operator may give --output"
