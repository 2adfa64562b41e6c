"""The main job on the web page: from a new study to an exported model that loads."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tests import tiny
from tests.service.browsers import SOON, Tab, sync_api
from tests.service.processes import served

if TYPE_CHECKING:
    from playwright.sync_api import Page

DONE = 180_000  # milliseconds in which a worker must have done a job
expect = sync_api().expect
expect.set_options(timeout=SOON)


def test_from_submission_to_an_exported_model(tmp_path: Path, tabs: Callable[..., Tab]) -> None:
    (tmp_path / "net.py").write_text(tiny.CODE)
    words = ("--root", str(tmp_path), "--allow-functions", "--output", str(tmp_path / "out"))
    with served(tmp_path, *words, "--worker") as (address, _):
        tab = tabs(f"{address}/", accept_downloads=True, refused=(404,))
        page = tab.page
        expect(page.get_by_text("No studies yet")).to_be_visible()
        tab.shoot("studies-empty")
        submitted(page)
        tab.shoot("form-study")
        page.get_by_role("button", name="Submit").click()
        expect(page.get_by_role("heading", name="net", exact=True)).to_be_visible()
        job = page.get_by_role("article", name="Job 1")
        expect(job.get_by_text("succeeded")).to_be_visible(timeout=DONE)
        expect(page.get_by_role("heading", name="Front", exact=True)).to_be_visible()
        expect(page.locator(".plot .points path").first).to_be_visible()
        tab.shoot("study")

        point = page.locator(".plot .trace:has(path.js-line) path.point").first
        point.hover(force=True)
        expect(page.locator(".plot .tip")).to_contain_text("on the front")
        expect(page.locator(".plot .tip")).to_contain_text("layers:")
        tab.shoot("study-hover")
        point.click(force=True)
        chosen = page.get_by_role("region", name="Chosen trial")
        expect(chosen.get_by_text("Found for")).to_be_visible()
        expect(chosen.locator(".barlayer path").first).to_be_visible()
        tab.shoot("study-chosen")
        chosen.get_by_role("link", name="Trial").click()
        expect(page.get_by_role("heading", level=1, name="Trial")).to_be_visible()
        page.get_by_text("Table of 2 layers").click()
        expect(page.get_by_role("region", name="Layers").get_by_text("conv2d")).to_be_visible()
        tab.shoot("trial")

        page.get_by_role("link", name="Compare").click()
        expect(page.get_by_role("heading", name="Layers that differ")).to_be_visible()
        second = page.get_by_label("Second trial")
        shown = [page.get_by_label("First trial").input_value(), second.input_value()]
        values = [option.get_attribute("value") for option in second.locator("option").all()]
        second.select_option(next(value for value in values if value not in shown))
        expect(page.get_by_role("region", name="Figures of both trials")).to_be_visible()
        tab.shoot("compare")
        page.go_back()
        page.go_back()

        page.get_by_role("link", name="Export").click()
        page.get_by_role("button", name="Submit").click()
        expect(page.get_by_role("button", name="Download all")).to_be_visible(timeout=DONE)
        tab.shoot("export")
        with page.expect_download() as waiting:
            page.get_by_role("button", name="Download all").click()
        waiting.value.save_as(tmp_path / "model.zip")
        with page.expect_download() as waiting:
            page.get_by_role("button", name="Download bitfront.json").click()
        assert waiting.value.suggested_filename == "bitfront.json"

        page.get_by_role("link", name="net").first.click()
        page.get_by_role("link", name="New job").click()
        page.get_by_label("Report").check()
        page.get_by_role("button", name="Submit").click()
        expect(page.get_by_role("link", name="Open")).to_be_visible(timeout=DONE)
        tab.shoot("report")
        tab.end()
    loads(tmp_path)


def submitted(page: Page) -> None:
    """Fill in the form for a new study, after it has refused what cannot be."""
    page.get_by_role("link", name="New study").click()
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_label("Name of the study")).to_be_focused()
    page.get_by_label("Name of the study").fill("net")
    page.get_by_label("Kind", exact=True).select_option("module")
    page.get_by_label("Function").fill("net.py:task")
    page.get_by_label("Schemes").fill("w2 w4 w8")
    page.get_by_label("Budgets").fill("3bpw 4bpw")
    page.get_by_label("Explore", exact=True).fill("4")


def loads(folder: Path) -> None:
    """The archive that was downloaded is a model."""
    from bitfront.quant.load import load
    from bitfront.tasks.boundary import function_at

    with zipfile.ZipFile(io.BytesIO((folder / "model.zip").read_bytes())) as archive:
        archive.extractall(folder / "model")
    model = function_at(f"{folder / 'net.py'}:task")()["model"]
    loaded = load(model, folder / "model")
    assert {name for name, _ in loaded.named_modules()} >= {"conv", "norm", "head"}
