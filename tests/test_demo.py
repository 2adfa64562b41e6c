"""The demonstration, whole: what ``make demo`` runs."""

from __future__ import annotations

from pathlib import Path

import torch

from bitfront import demo
from bitfront.storage import Store
from tests.commands import Commands


def test_the_demo_does_the_main_job(bitfront: Commands, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = bitfront.ok("demo", "--out", out, "--json").document
    page = (out / "front.html").read_text(encoding="utf-8")
    assert "plotly" in page
    with Store.open(out / "bitfront.db") as store:
        study = store.study("digits")
        trials = {t.id: t for t in store.trials(study)}
        [export] = store.exports(study)
    full = next(t for t in trials.values() if t.solver == "full")
    chosen = trials[found["reloaded"]["trial"]]
    assert found["full"]["top1"] == full.metrics["top1"].value > 0.95
    # the same images, the same weights, batches of another size: not one image may flip
    assert found["reloaded"]["top1"] == chosen.metrics["top1"].value
    assert export.bytes == found["reloaded"]["bytes"] == chosen.costs["bytes"]
    sizes = [t["costs"]["bytes"] for t in found["front"]]
    losses = [t["metrics"]["kl"]["value"] for t in found["front"]]
    assert sizes == sorted(sizes)
    assert losses == sorted(losses, reverse=True)

    again = bitfront.ok("demo", "--out", out)
    assert f"trial {chosen.id} reloaded from {out / 'model'}" in again.out
    with Store.open(out / "bitfront.db") as store:
        assert len(store.trials(store.study("digits"))) == len(trials)


def test_the_network_is_trained_the_same_way_each_time() -> None:
    x, y = demo.digits()
    one, two = (demo.trained(x[:200], y[:200], 1).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
