"""Integer convolutions in ONNX Runtime: ResNet-20 of the assets, and one four times as wide.

    python -m benchmarks.convolutions --threads 1 > benchmarks/results/convolutions.json

JSON on standard output, a table on standard error. Batch norms are folded; the same scheme for all
convolutions, the first one and the head as the row says. Graphs of ResNet-20 are audited.

    bytes             of all tensors
    top1, kl          of ONNX Runtime's own outputs on the 1000 test images; KL to the full model
    seconds           by batch: least and median of interleaved calls, one thread
    ratio             of these over the float32 graph's

The wider network has random weights, so only its latency says anything.
"""

from __future__ import annotations

import importlib.util
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.common import arguments, head, parsed, show, write
from bitfront import graph_audit
from bitfront.quant.build import Builder
from bitfront.quant.export_onnx import FILE, Onnx
from bitfront.quant.onnx_file import OnnxFile
from bitfront.quant.onnx_run import Session
from bitfront.tasks import ModuleTask, VisionTask
from bitfront.tasks.deployed import signature
from bitfront.tasks.running import ModelTask
from bitfront.types import Scheme

# schemes of the convolutions, the first of them, the head
ROWS = (
    ("keep", "keep", "keep"),
    ("w8a8so", "keep", "keep"),
    ("w8a8szo", "keep", "keep"),
    ("w8a8szo", "keep", "w8a8sz"),
    ("w8a8szo", "w8a8szo", "w8a8sz"),
    ("w4a8szo", "keep", "w8a8sz"),
)
CALLS = {1: 400, 32: 60}  # batch -> timed calls of each graph


def resnet(assets: Path) -> ModelTask:
    images = next((assets / "cifar10").glob("*.npz"))
    return VisionTask(
        f"{assets / 'archs.py'}:ResNetCIFAR",
        f"{images}:x_train,y_train",
        f"{images}:x_test,y_test",
        arguments={"depth": 20},
        weights=next((assets / "cifar10_resnet20").glob("*.safetensors")),
        mean=[0.485, 0.456, 0.406],
        std=[0.229, 0.224, 0.225],
        fold_norms=True,
    )


def wider(assets: Path, factor: int = 4) -> ModelTask:
    """ResNet-20 with ``factor`` times the channels, random weights and images."""
    spec = importlib.util.spec_from_file_location("archs", assets / "archs.py")
    assert spec is not None
    assert spec.loader is not None
    archs: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(archs)

    def make() -> dict[str, Any]:
        torch.manual_seed(0)
        model = archs.ResNetCIFAR(20)
        widths = [16 * factor, 32 * factor, 64 * factor]
        model.conv1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        model.bn1 = nn.BatchNorm2d(widths[0])
        before = widths[0]
        for k, width in enumerate(widths, 1):
            blocks = []
            for j in range(3):
                blocks.append(archs._Basic(before, width, 2 if j == 0 and k > 1 else 1))
                before = width
            setattr(model, f"layer{k}", nn.Sequential(*blocks))
        model.linear = nn.Linear(widths[-1], 10)
        x = torch.randn(64, 3, 32, 32)
        return {"model": model.eval(), "calibration": [x[:32]], "evaluation": [x[32:]]}

    return ModuleTask(make, hold_back=0, fold_norms=True)


def measured(task: ModelTask, name: str, folder: Path, judged: bool) -> list[dict[str, Any]]:
    builder = Builder(task.model, task.layers, lambda: [task.outputs(b) for b in task.calibration])
    rows: list[dict[str, Any]] = []
    sessions: list[Session] = []
    for body, stem, last in ROWS:
        schemes = {la.name: Scheme.parse(body) for la in task.layers}
        schemes[task.layers[0].name] = Scheme.parse(stem)
        schemes[task.layers[-1].name] = Scheme.parse(last)
        builder.prepare(schemes.items())
        place = folder / f"{name}-{len(rows)}"
        if judged:
            graph_audit.export(
                task, Onnx(), task.layers, schemes, _made(builder, schemes), place, {}
            )
        else:
            Onnx().write(
                task.model,
                task.layers,
                schemes,
                _made(builder, schemes),
                signature(task),
                place,
                {},
            )
        sessions.append(Session(place / FILE, 1))
        row: dict[str, Any] = {"network": name, "convolutions": body, "first": stem, "head": last}
        rows.append(
            {
                **row,
                "bytes": OnnxFile(place).bytes,
                **(_judged(task, sessions[-1]) if judged else {}),
            }
        )
    for batch, calls in CALLS.items():
        for row, times in zip(rows, _times(task, sessions, batch, calls), strict=True):
            row[f"seconds at {batch}"] = [float(np.min(times)), float(np.median(times))]
        for row in rows:
            pairs = zip(row[f"seconds at {batch}"], rows[0][f"seconds at {batch}"], strict=True)
            row[f"ratio at {batch}"] = [mine / full for mine, full in pairs]
    return rows


def _made(builder: Builder, schemes: Mapping[str, Scheme]) -> Callable[[str], Any]:
    return lambda name: builder.quantized(name, schemes[name])


def _judged(task: ModelTask, session: Session) -> dict[str, float]:
    right, kl, count = 0.0, 0.0, 0
    for batch in task.evaluation:
        with torch.no_grad():
            full = task.outputs(batch)[:, 0].log_softmax(-1)
        found = _outputs(session, batch.args[0] if batch.args else batch.kwargs["x"])
        assert batch.labels is not None
        right += float((found.argmax(-1) == batch.labels[:, 0]).sum())
        kl += float((full.exp() * (full - found.log_softmax(-1))).sum())
        count += batch.samples
    return {"top1": right / count, "kl": kl / count}


def _outputs(session: Session, x: Tensor) -> Tensor:
    return session({"x": x})[0]


def _times(
    task: ModelTask, sessions: Sequence[Session], batch: int, calls: int
) -> list[list[float]]:
    """Seconds of each call of each graph, in turn, so that all see the same neighbours."""
    given = task.evaluation[0]
    x = (given.args[0] if given.args else given.kwargs["x"])[:batch].float()
    found: list[list[float]] = [[] for _ in sessions]
    for call in range(calls + 5):
        for session, times in zip(sessions, found, strict=True):
            begun = time.perf_counter()
            _outputs(session, x)
            if call >= 5:
                times.append(time.perf_counter() - begun)
    return found


def main() -> None:
    options = parsed(arguments(__doc__), threads=1)
    with tempfile.TemporaryDirectory(prefix="bitfront-") as folder:
        rows = measured(resnet(options.assets), "ResNet-20", Path(folder), judged=True)
        rows += measured(wider(options.assets), "4 times wider", Path(folder), judged=False)
    columns = ("network", "convolutions", "first", "head", "bytes", "top1", "kl")
    ratios = [f"ratio at {batch}" for batch in CALLS]
    titles = [*columns, *(f"{r}, {kind}" for r in ratios for kind in ("least", "median"))]
    show("Integer convolutions, ONNX Runtime, one thread", titles, [
        [*(row.get(c) for c in columns), *(v for r in ratios for v in row[r])] for row in rows
    ])  # fmt: skip
    write({**head(), "onnxruntime": version("onnxruntime"), "rows": rows})


if __name__ == "__main__":
    main()
