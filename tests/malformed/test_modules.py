"""Tasks of a Python function that returns something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands import Commands
from tests.malformed.cases import (
    MODULE,
    Case,
    Make,
    coded,
    nothing_is_begun,
)


def brought(**changes: str) -> Make:
    """A study of what a function returns: expressions for keys, none for an empty one."""
    keys = {"model": "nn.Linear(4, 3)", "calibration": "[x]", "evaluation": "[x]", **changes}
    items = ", ".join(f"{name!r}: {text}" for name, text in keys.items() if text)
    head = "import torch\nfrom torch import nn\n\nx = torch.ones(6, 4)\n\n"
    return coded(f"{head}def f():\n    return {{{items}}}\n", MODULE)


def labelled(labels: str) -> Make:
    return brought(calibration=f"[{{'input': x, 'labels': {labels}}}]")


MODULES: dict[str, Case] = {
    "no calibration": (brought(calibration=""), "f returned no 'calibration': return a dict with"),
    "no batches": (brought(calibration="[]"), "'calibration' has no batches: give at least one"),
    "no evaluation batches": (brought(evaluation="[]"), "'evaluation' has no batches: give"),
    "one tensor": (brought(calibration="x"), "'calibration' is one Tensor: give a sequence"),
    "a batch of nothing": (
        brought(calibration="[x, x[:0]]"),
        r"calibration batch 1 has no samples, its shape is \(0, 4\): drop it",
    ),
    "no tensors": (brought(calibration="[1]"), "batch 0 is a int without a tensor.*: a batch is"),
    "no Module": (brought(model="torch.relu"), "'model' is a builtin.*: return an nn.Module"),
    "another key": (brought(data="[x]"), "f returned 'data': known keys: model, calibration"),
    "NaN in inputs": (
        brought(calibration="[x * float('nan')]"),
        r"not finite, first at the model itself \(Linear\), whose inputs are not finite either, in "
        "calibration batch 0: check the weights and the input's scale",
    ),
    "inputs of another width": (
        brought(calibration="[x[:, :3]]"),
        "running the model failed: RuntimeError: .*3 and 4x3.*: check that its inputs fit it",
    ),
    "unknown output": (brought(output="'poisson'"), "'output' is 'poisson': use categorical or"),
    "metrics without names": (brought(metrics="[len]"), "'metrics' is a list: give a dict of"),
    "a metric of one number": (
        brought(metrics="{'m': (lambda z, b: z.sum(), 'lower')}"),
        r"metric 'm' gave values of shape \(\): give one finite number for each of the 6 samples",
    ),
    "labels beyond the classes": (
        labelled("torch.full((6,), 3)"),
        "labels from 3 to 3 for 3 classes: labels are class indices from 0 to 2",
    ),
    "too few labels": (
        labelled("torch.zeros(5).long()"),
        r"labels of shape \(5, 1\) for outputs of shape \(6, 1, 3\): give one class index for each",
    ),
    "labels in words": (labelled("['cat']"), "labels of calibration batch 0 failed: .*: give a"),
    "labels that all do not count": (
        labelled("torch.full((6,), -100)"),
        "no position of 'calibration' is scored: give labels other than -100",
    ),
    "groups by name": (brought(groups="['a']"), "'groups' has 'a': give a list of groups"),
    "groups of nothing": (brought(groups="[['a', 'b']]"), "no layer matches 'a': near it"),
}


@pytest.mark.parametrize("case", MODULES)
def test_nothing_is_begun_with(case: str, bitfront: Commands, folder: Path) -> None:
    nothing_is_begun(MODULES[case], bitfront, folder)
