"""Jobs on the web page: live progress, pause, resume and cancel, failures, history."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bitfront.storage import Job, Store
from tests.service.apis import fill
from tests.service.browsers import SOON, Tab, sync_api

expect = sync_api().expect
expect.set_options(timeout=SOON)
REQUEST = {"schemes": "w2 w4", "budgets": ["3bpw"]}


@pytest.fixture
def db(tmp_path: Path) -> str:
    path = str(tmp_path / "b.db")
    with Store.open(path) as store:
        fill(store)
    return path


def claimed(store: Store) -> Job:
    job = store.claim("w1", 600.0)
    assert job is not None
    return job


def test_a_job_is_followed_paused_resumed_and_cancelled(
    db: str, serve: Callable[..., str], tabs: Callable[..., Tab]
) -> None:
    with Store.open(db) as store:
        address = serve(db)
        store.submit("search", "llama", REQUEST)
        tab = tabs(f"{address}#/studies/llama")
        job = tab.page.get_by_role("article", name="Job 1")
        expect(job).to_contain_text("Waits for a worker")
        running = claimed(store)
        store.advance(running, "measuring allocations", 3, 12)
        expect(job).to_contain_text("measuring allocations: 3 of 12")
        expect(job.get_by_role("progressbar")).to_have_js_property("value", 3)
        store.advance(running, "measuring allocations", 9, 12)
        expect(job).to_contain_text("measuring allocations: 9 of 12")
        expect(job).to_contain_text("left")
        expect(tab.page.locator(".state.running").first).to_be_visible()
        tab.shoot("jobs-running")

        job.get_by_role("button", name="Pause job 1").click()
        expect(job.get_by_role("button", name="Resume job 1")).to_be_focused()
        expect(tab.page.get_by_role("status")).to_have_text("Job 1 is paused")
        assert store.job(1).state == "paused"
        store.stopped(running)
        job.get_by_role("button", name="Resume job 1").click()
        expect(job).to_contain_text("Waits for a worker")
        assert store.job(1).state == "queued"
        job.get_by_role("button", name="Cancel job 1").click()
        expect(job).to_contain_text("cancelled")
        assert store.job(1).state == "cancelled"


def test_a_job_that_was_moved_by_another_is_refused_in_words(
    db: str, serve: Callable[..., str], tabs: Callable[..., Tab]
) -> None:
    with Store.open(db) as store:
        address = serve(db)
        store.submit("search", "llama", REQUEST)
        tab = tabs(f"{address}#/jobs/1", refused=(409,))
        pause = tab.page.get_by_role("button", name="Pause job 1")
        expect(pause).to_be_visible()
        tab.page.route(
            "**/api/v1/jobs/1/pause", lambda route: (store.move(1, "cancel"), route.continue_())
        )
        pause.click()
        expect(tab.page.get_by_role("article").get_by_role("alert")).to_contain_text(
            "Job 1 is cancelled, and cannot pause"
        )


def test_a_failure_and_the_history(
    db: str, serve: Callable[..., str], tabs: Callable[..., Tab]
) -> None:
    with Store.open(db) as store:
        address = serve(db)
        store.submit("search", "llama", REQUEST)
        running = claimed(store)
        store.advance(running, "measuring allocations", 1, 4)
        store.failed(running, "no room on the device", "give a smaller batch", "layer 3 of 4")
        tab = tabs(f"{address}#/jobs/1")
        page = tab.page
        expect(page.get_by_role("article")).to_contain_text("No room on the device. Give a smaller")
        lines = page.locator(".history li")
        expect(lines).to_have_count(4)
        assert [lines.nth(i).locator("strong").inner_text() for i in range(4)] == [
            "submitted", "claimed", "stage", "failed",
        ]  # fmt: skip
        page.get_by_text("The request").click()
        expect(page.locator("pre")).to_contain_text('"schemes": "w2 w4"')
        tab.shoot("job-failed")
        page.get_by_role("button", name="Resume job 1").click()
        expect(page.get_by_role("article")).to_contain_text("queued")


def test_jobs_under_way_stand_beside_the_studies(
    db: str, serve: Callable[..., str], tabs: Callable[..., Tab]
) -> None:
    with Store.open(db) as store:
        address = serve(db)
        for study in ("llama", "new"):
            store.submit("search", study, REQUEST)
        running = claimed(store)
        store.advance(running, "profiling", 1, 2)
        tab = tabs(address, refused=(404,))  # of a study that is not begun
        page = tab.page
        expect(page.get_by_role("article")).to_have_count(2)
        expect(page.get_by_role("row", name="llama").locator(".state")).to_have_text("running")
        page.get_by_role("article", name="Job 2").get_by_role("link", name="new").click()
        expect(page.get_by_role("heading", name="Not begun yet")).to_be_visible()
        page.go_back()
        store.succeed(running, {"answers": []})
        expect(page.get_by_role("article")).to_have_count(1)
