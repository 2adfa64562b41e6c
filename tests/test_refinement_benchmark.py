"""The benchmark of refinement without its models: its weights, its cells, its ratios."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.clipped import RATIOS, clipped, rounded
from benchmarks.refinement import (
    EARLIER,
    METHODS,
    MODELS,
    STUDY,
    Bench,
    Model,
    mean_ratio,
    ratios,
)
from bitfront import Choices, open_study
from bitfront.quant.quantizers import QUANTIZERS
from bitfront.types import Scheme
from tests.small_tasks import many_images


def literally(values: list[float], bits: int) -> tuple[list[int], float]:
    """Codes and scale of one group, ratio by ratio and weight by weight."""
    most = 2 ** (bits - 1) - 1
    largest = max(abs(v) for v in values) or 1.0
    best: tuple[float, list[int], float] | None = None
    for step in range(29):
        scale = float(np.float32((0.3 + 0.025 * step) * largest / most))
        codes = [min(max(round(v / scale), -most - 1), most) for v in values]
        error = sum((c * scale - v) ** 2 for c, v in zip(codes, values, strict=True))
        if best is None or error < best[0]:
            best = error, codes, scale
    assert best is not None
    return best[1:]


@pytest.mark.parametrize("scheme", ["w2", "w3", "w4g8", "w8g8"])
def test_clipped_weights_are_those_of_a_literal_search(scheme: str) -> None:
    parsed = Scheme.parse(scheme)
    M = torch.randn(5, 24, generator=torch.Generator().manual_seed(0))
    M[1, 3] = 9.0  # worth clipping
    M[2] = 0.0
    width = parsed.group or M.shape[1]
    found = rounded(M, parsed)
    assert found.scale is not None
    assert found.scale.shape == (5, 24 // width)
    for i, row in enumerate(M.double().tolist()):
        for g in range(24 // width):
            part = slice(g * width, (g + 1) * width)
            codes, scale = literally(row[part], parsed.bits)
            assert found.codes[i, part].tolist() == codes
            # a ratio that is off by a rounding in float64 may round otherwise in float32
            assert found.scale[i, g].item() == pytest.approx(scale, rel=2**-23)


def test_weights_are_clipped_for_a_while() -> None:
    own = QUANTIZERS["rtn"]

    def stopped() -> None:
        with clipped():
            assert QUANTIZERS["rtn"].run is rounded
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert QUANTIZERS["rtn"] is own
    with clipped(False):
        assert QUANTIZERS["rtn"] is own
    assert len(RATIOS) == 29


SMALL = Model(lambda assets, samples, seed: many_images(), Choices(groups="off"), False, 0)


def test_cells_are_searched_alone_and_found_again(tmp_path: Path) -> None:
    bench = Bench(SMALL, many_images(), tmp_path)
    bench.profile()
    alone = [method for method in METHODS if method != "together"]
    cells = {}
    for method in alone:
        (cells[method],) = bench.cells(method, 3 * (method != "ilp"), [3.5])
    for method, cell in cells.items():
        assert cell["trials"] <= cells["ilp"]["trials"] + cell["explore"]
        assert cell["calibration kl"] > 0
        name = f"{method}-{cell['explore']}-3.5"
        assert {p.suffix for p in tmp_path.glob(f"{name}.*")} == {".db", ".json"}
        assert bench.cells(method, cell["explore"], [3.5]) == [cell]
    (tmp_path / "refine-3-3.5.json").unlink()  # as if stopped before it was written
    (again,) = bench.cells("refine", 3, [3.5])
    assert {**again, "seconds": 0} == {**cells["refine"], "seconds": 0}
    assert cells["refine"]["evaluations"] > cells["ilp"]["evaluations"]


def test_budgets_are_searched_together(tmp_path: Path) -> None:
    bench = Bench(SMALL, many_images(), tmp_path)
    bench.profile()
    cells = bench.cells("together", 6, [3.0, 4.0])
    assert [cell["bits"] for cell in cells] == [3.0, 4.0]
    assert {p.name for p in tmp_path.glob("together*")} == {"together-6.db", "together-6.json"}
    with bench.open("together-6") as study:
        assert sum(cell["trials"] for cell in cells) == len(study.trials()) - 1  # the full model
    assert bench.cells("together", 6, [3.0, 4.0]) == cells


def test_a_copy_has_the_large_arrays_too(tmp_path: Path) -> None:
    bench = Bench(SMALL, many_images(), tmp_path)
    with open_study(STUDY, bench.task, tmp_path / "profiled.db") as study:
        study.store.add_checkpoint(study.record, "pass", 0, {"s": np.arange(1e4)})
    for _ in range(2):
        with bench.open("copy") as study:
            assert study.store.checkpoints(study.record, "pass")[0]["s"].sum() == 49_995_000
            study.store.drop_checkpoints(study.record, "pass")
            assert study.store.collect(grace=0.0).files == 1
        (tmp_path / "copy.db").unlink()  # as if stopped before it was whole


def test_ratios() -> None:
    kl = {("ilp", 0): (0.4, 0.1), ("refine", 60): (0.1, 0.1)}
    cells = [
        {"method": method, "explore": explore, "bits": bits, "kl": value}
        for (method, explore), values in kl.items()
        for bits, value in zip((3.0, 4.0), values, strict=True)
    ]
    first, second = ratios(cells, {3.0: 0.2})
    assert (first["/ ilp"], second["/ ilp"]) == (1.0, pytest.approx(0.5))
    assert (first["/ prototype"], second["/ prototype"]) == (pytest.approx(2), pytest.approx(0.5))
    assert ratios(cells[2:], {})[0]["/ ilp"] is None
    assert mean_ratio({3.0: 1.0}, {4.0: 1.0}) is None


def test_every_model_has_figures_to_compare_with() -> None:
    assert set(EARLIER) == set(MODELS)
