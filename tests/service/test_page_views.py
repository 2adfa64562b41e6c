"""Views of the web page: studies, front and budget, tokens, prefixes, keys, a server away."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bitfront.figures import amount, figure
from bitfront.quant.exporters import EXPORTERS
from bitfront.search import ALLOCATORS, EXPLORERS
from bitfront.sensitivity import PROFILERS
from bitfront.service.api.bodies import ExportJob, ReportJob
from bitfront.service.api.page import tag
from bitfront.service.policy import NAMED, PLAIN
from bitfront.service.requests import (
    ChoicesBody,
    MeasureBody,
    ProfileBody,
    ProfilerBody,
    SearchBody,
)
from bitfront.storage import Store
from bitfront.types import Estimate
from tests.service.apis import fill
from tests.service.browsers import NARROW, SOON, Tab, living, sync_api

if TYPE_CHECKING:
    from playwright.sync_api import Page

expect = sync_api().expect
expect.set_options(timeout=SOON)
TOKEN, READ = "a-token-for-everything", "another-token-for-reading"


@pytest.fixture
def db(tmp_path: Path) -> str:
    path = str(tmp_path / "b.db")
    with Store.open(path) as store:
        fill(store, "llama", 7)
        fill(store, "a/b%c d", 0)
    return path


def test_studies_are_found_and_opened(
    db: str, serve: Callable[..., str], tabs: Callable[..., Tab]
) -> None:
    with Store.open(db) as store:
        address = serve(db)
        for i in range(51):
            fill(store, f"more {i}", 0)
        tab = tabs(address)
        page = tab.page
        rows = page.get_by_role("region", name="Studies").locator("tbody tr")
        expect(rows).to_have_count(50)
        page.get_by_role("button", name="Next page").click()
        expect(rows).to_have_count(3)
        page.get_by_role("button", name="Earlier page").click()
        expect(rows).to_have_count(50)
        page.get_by_label("Name has").fill("llama")
        expect(rows).to_have_count(1)
        expect(rows).to_contain_text("top1 0.56")
        page.get_by_label("Name has").fill("nothing")
        expect(rows).to_contain_text("No study has “nothing” in its name.")
        page.get_by_label("Name has").fill("/b%")
        page.get_by_role("link", name="a/b%c d").click()
        expect(page.get_by_role("heading", name="a/b%c d")).to_be_visible()
        expect(page.get_by_role("heading", name="No trials yet")).to_be_visible()
        page.reload()
        expect(page.get_by_role("heading", name="a/b%c d")).to_be_visible()


def test_the_front_and_a_budget(
    db: str, serve: Callable[..., str], tabs: Callable[..., Tab]
) -> None:
    address = serve(db)
    tab = tabs(f"{address}#/studies/llama")
    page = tab.page
    best = page.locator(".best")
    expect(best).to_have_text("Best: trial 7, kl 0.1429 at bytes 700 B")
    expect(page.locator(".plot .points path").first).to_be_visible()
    line, box = page.locator(".limit").bounding_box(), page.locator(".plot").bounding_box()
    assert line is not None
    assert box is not None
    page.mouse.move(line["x"] + 10, line["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, line["y"] + 100, steps=5)
    page.mouse.up()
    expect(best).to_contain_text("Best within it: trial")
    assert "trial 7" not in best.inner_text()
    slider = page.get_by_label("Budget on bytes")
    said = slider.get_attribute("aria-valuetext")
    slider.press("ArrowLeft")
    expect(slider).not_to_have_attribute("aria-valuetext", said or "")
    shown = page.get_by_role("region", name="Trials on the front").locator("tbody tr:visible")
    before = shown.count()
    page.get_by_label("Feasible only").check()
    expect(shown).not_to_have_count(before)
    slider.press("Home")
    expect(best).to_have_text("No trial is within this budget.")
    slider.press("End")
    expect(shown).to_have_count(before)
    page.get_by_label("Up", exact=True).select_option("top1")
    expect(best).to_have_text("Best: trial 7, top1 0.56 at bytes 700 B")
    expect(page.get_by_label("Predicted")).to_be_hidden()
    assert page.url.endswith("#/studies/llama?x=bytes&y=top1")
    page.get_by_label("Only within").fill("bytes<=500")
    page.get_by_label("Only within").press("Enter")
    expect(best).to_have_text("Best: trial 5, top1 0.54 at bytes 500 B")
    page.reload()
    expect(best).to_have_text("Best: trial 5, top1 0.54 at bytes 500 B")
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Table (CSV)").click()
    assert "top1" in waiting.value.path().read_text().splitlines()[0]


def test_limits_that_cannot_be_read(
    db: str, serve: Callable[..., str], tabs: Callable[..., Tab]
) -> None:
    address = serve(db)
    page = tabs(f"{address}#/studies/llama", refused=(422,)).page
    page.get_by_label("Only within").fill("much")
    page.get_by_label("Only within").press("Enter")
    expect(page.locator(".trouble")).to_contain_text("much")


def test_by_keys_alone(db: str, serve: Callable[..., str], tabs: Callable[..., Tab]) -> None:
    """From the list to a trial and its comparison, never with the mouse."""
    address = serve(db)
    tab = tabs(address)
    page = tab.page
    expect(page.get_by_role("link", name="llama")).to_be_visible()
    to(page, "Skip to the content")
    page.keyboard.press("Enter")
    to(page, "llama")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    expect(page.locator(".plot .points path").first).to_be_visible()
    to(page, "Scatter of trials")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("status")).to_contain_text("Trial 2: bytes 200 B, kl 0.5")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1, name="Trial 2")).to_be_visible()
    to(page, "Compare")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Trials 2 and 7")).to_be_visible()


def to(page: Page, name: str) -> None:
    """Tab on until the focus is at what has this name."""
    for _ in range(60):
        page.keyboard.press("Tab")
        found = page.evaluate(
            "document.activeElement.getAttribute('aria-label') ?? document.activeElement.innerText"
        )
        if found.startswith(name):
            return
    raise AssertionError(f"no key leads to {name!r}")


def test_a_token_is_asked_for(
    db: str, tmp_path: Path, serve: Callable[..., str], tabs: Callable[..., Tab]
) -> None:
    settings: dict[str, Any] = {"token": TOKEN, "read_token": READ, "output": tmp_path / "out"}
    address = serve(db, **settings)
    tab = tabs(f"{address}#/studies/llama", refused=(401,))
    page = tab.page
    dialog = page.get_by_role("dialog", name="A token is needed")
    page.get_by_label("Token", exact=True).fill("not-the-token-of-this-server")
    page.get_by_role("button", name="Use it").click()
    expect(dialog).to_contain_text("The token is not one of this server's.")
    tab.shoot("token")
    page.get_by_label("Token", exact=True).fill(READ)
    page.get_by_role("button", name="Use it").click()
    expect(page.get_by_role("heading", name="llama")).to_be_visible()
    expect(page.get_by_text("Reading only", exact=True)).to_be_visible()
    expect(page.get_by_text("This token is for reading only").first).to_be_visible()
    expect(page.get_by_role("link", name="New job")).to_have_count(0)
    page.reload()
    expect(page.get_by_role("heading", name="llama")).to_be_visible()
    assert READ not in page.content()
    assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
    page.get_by_role("button", name="Forget the token").click()
    page.get_by_label("Token", exact=True).fill(TOKEN)
    page.get_by_role("button", name="Use it").click()
    expect(page.get_by_role("link", name="New job")).to_be_visible()
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Table (CSV)").click()
    assert "kl" in waiting.value.path().read_text()
    assert TOKEN not in page.url


def test_behind_a_prefix(db: str, serve: Callable[..., str], tabs: Callable[..., Tab]) -> None:
    address = serve(db, prefix="/models/bitfront")
    tab = tabs(address.removesuffix("/"))
    asked: list[str] = []
    tab.page.on("request", lambda request: asked.append(request.url))
    tab.page.get_by_role("link", name="llama").click()
    expect(tab.page.locator(".plot .points path").first).to_be_visible()
    assert asked
    assert [url for url in asked if not url.startswith(address)] == []


def test_a_server_that_is_away_for_a_while(
    db: str, serve: Callable[..., str], tabs: Callable[..., Tab]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with living(db, port=port) as address:
        tab = tabs(address)
        page = tab.page
        expect(page.get_by_role("link", name="llama")).to_be_visible()
    page.get_by_role("link", name="llama").click()
    expect(page.locator("#away")).to_contain_text("The server does not answer")
    tab.shoot("away")
    with living(db, port=port):
        expect(page.get_by_role("heading", name="llama")).to_be_visible()
        expect(page.locator("#away")).to_be_hidden()
        tab.end()
    wanted = ("ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE")
    tab.troubles = [t for t in tab.troubles if not any(word in t for word in wanted)]


def test_problems_stand_at_their_fields(
    db: str, tmp_path: Path, serve: Callable[..., str], tabs: Callable[..., Tab]
) -> None:
    address = serve(db, roots=(tmp_path,))
    tab = tabs(f"{address}#/new", refused=(422, 403))
    page = tab.page
    page.get_by_label("Name of the study").fill("new")
    page.get_by_label("Model", exact=False).first.fill("nowhere")
    page.get_by_label("Calibration data").fill("nowhere.txt")
    page.get_by_label("Budgets").fill("3bpw much")
    page.get_by_role("button", name="Submit").click()
    budgets = page.get_by_label("Budgets")
    expect(budgets).to_have_attribute("aria-invalid", "true")
    expect(budgets).to_be_focused()
    described = budgets.get_attribute("aria-describedby") or ""
    assert "much" in page.locator(f"#{described.split()[-1]}").inner_text()
    tab.shoot("form-wrong")
    budgets.fill("3bpw")
    page.get_by_role("button", name="Submit").click()
    expect(page.locator("#task-model")).to_have_attribute("aria-invalid", "true")
    page.get_by_label("More arguments", exact=True).fill("{")
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_text("This is not JSON")).to_be_visible()
    expect(page.get_by_label("Export a trial")).to_be_disabled()


def test_a_name_that_is_markup_is_text(
    tmp_path: Path, serve: Callable[..., str], tabs: Callable[..., Tab]
) -> None:
    name = "<img src=x onerror=alert(1)>&amp;"
    with Store.open(tmp_path / "b.db") as store:
        fill(store, name, 4)
    address = serve(str(tmp_path / "b.db"))
    page = tabs(address).page
    page.get_by_role("link", name=name).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(name)
    expect(page.locator(".plot .points path").first).to_be_visible()
    assert page.locator("img[src=x]").count() == 0


def test_figures_are_written_as_on_the_command_line(
    db: str, serve: Callable[..., str], tabs: Callable[..., Tab]
) -> None:
    values = [0.0, 1e-9, 0.00012345, 0.12345, 1.0, 99.995, 1234.56, 123456.7, 2.5e9, 7e13]
    costs = [(name, v) for name in ("bytes", "bits", "bops", "seconds", "joules") for v in values]
    estimates = [(v, e) for v in values for e in (0.0, 0.0123, 45.6)]
    address = serve(db)
    page = tabs(address).page
    found = page.evaluate(
        f"""async ([costs, estimates]) => {{
        const words = await import("{address}page/{tag()}/words.js");
        return [costs.map(([name, v]) => words.amount(name, v)),
                estimates.map(([value, stderr]) => words.figure({{value, stderr}}))];
    }}""",
        [costs, estimates],
    )
    assert found[0] == [amount(name, v) for name, v in costs]
    assert found[1] == [figure(Estimate(v, e, 1)) for v, e in estimates]


def test_the_forms_have_names_that_the_api_takes(
    db: str, serve: Callable[..., str], tabs: Callable[..., Tab]
) -> None:
    address = serve(db)
    page = tabs(address).page
    script = f'async () => {{ const m = await import("{address}page/{tag()}/fields.js"); '
    forms = json.loads(page.evaluate(script + "return JSON.stringify([m.FIELDS, m.TASKS]); }"))
    jobs, tasks = forms
    bodies: dict[str, Any] = {
        "search": SearchBody, "profile": ProfileBody, "measure": MeasureBody, "export": ExportJob,
        "report": ReportJob,
    }  # fmt: skip
    inner: dict[str, Any] = {"profiler": ProfilerBody, "choices": ChoicesBody}
    assert set(jobs) == set(bodies)
    options: dict[str, list[str]] = {}
    for kind, fields in jobs.items():
        for field in fields:
            first, _, second = field["name"].partition(".")
            assert not first or first in bodies[kind].model_fields, (kind, field)
            assert not second or second in inner[first].model_fields
            options |= {field["name"]: field["options"]} if "options" in field else {}
    assert sorted(options["solver"]) == sorted(ALLOCATORS)
    assert sorted(options["explorer"]) == sorted([*EXPLORERS, "refine"])
    assert sorted(options["profiler.name"]) == sorted(PROFILERS)
    assert sorted(options["format"]) == sorted(["", *EXPORTERS])
    assert set(tasks) == set(NAMED)
    for kind, fields in tasks.items():
        names = {field["name"] for field in fields}
        assert names <= {*NAMED[kind], *PLAIN[kind]}
        assert set(NAMED[kind]) <= names


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("narrow", [False, True], ids=["wide", "narrow"])
def test_every_view_can_be_read(
    db: str,
    tmp_path: Path,
    serve: Callable[..., str],
    tabs: Callable[..., Tab],
    dark: bool,
    narrow: bool,
) -> None:
    """Names, headings, contrast, and nothing that sticks out of a narrow screen."""
    audit = (Path(__file__).parent / "readable.js").read_text()
    with Store.open(db) as store:
        store.submit("search", "llama", {"schemes": "w2 w4", "budgets": ["3bpw"]})
    views = {
        "studies": "", "study": "#/studies/llama", "trial": "#/studies/llama/trials/6",
        "compare": "#/studies/llama/compare/6/7", "new": "#/new",
        "form": "#/studies/llama/new?kind=export&trial=6", "job": "#/jobs/1",
        "nothing": "#/nothing",
    }  # fmt: skip
    size = {"size": NARROW} if narrow else {}
    address = serve(db, output=tmp_path / "out")
    tab = tabs(address, dark=dark, **size)
    for name, place in views.items():
        tab.page.goto(f"{address}{place}")
        expect(tab.page.locator(".loading")).to_have_count(0)
        expect(tab.page.get_by_role("heading", level=1)).to_have_count(1)
        if name in ("study", "trial"):
            expect(tab.page.locator(".plot .point path, .plot path.point").first).to_be_visible()
        assert tab.page.evaluate(audit) == [], name
        tab.shoot(f"{name}{'-dark' if dark else ''}{'-narrow' if narrow else ''}")
    tab.page.get_by_label("Theme").select_option("light" if dark else "dark")
    ground = "rgb(244, 246, 248)" if dark else "rgb(15, 17, 20)"
    assert tab.page.evaluate("getComputedStyle(document.body).backgroundColor") == ground
