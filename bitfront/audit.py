"""Every export is opened again, in a fresh process, and compared with what was measured.

Compared are the files' tensors with the digests taken when they were written; their bytes with the
prediction; the weights of every layer and all other parameters and buffers, bit for bit; the steps
of static inputs; the outputs of the first evaluation batch; and, when those differ, the outputs of
each layer; what the manifest says of schemes and of the files beside the tensors. ``python -m
bitfront.audit FOLDER`` is the fresh process: it finds ``request.json`` and the reference in FOLDER
and leaves ``answer.json`` there.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from bitfront.errors import BitfrontError, ExportError
from bitfront.observation import Observation, observe, run_alone, split_call, weight_matrix
from bitfront.quant.export_base import KEEP, read_manifest
from bitfront.quant.exporters import EXPORTERS, Loadable, predicted_bytes
from bitfront.quant.formats import dequantize
from bitfront.quant.layers import adapter_of
from bitfront.quant.surgery import Lazily, applied
from bitfront.quant.tensorfiles import SHARD_BYTES
from bitfront.quant.weights import QuantizedLayer
from bitfront.tasks import from_recipe
from bitfront.tasks.base import Task
from bitfront.tasks.fingerprint import batches_digest
from bitfront.tasks.placement import floating_dtype
from bitfront.types import Layer, Scheme

# Greatest difference of outputs, in standard deviations of the reference's. With the same kernels
# it is 0, and weights are compared to the bit: this only leaves room for sums in another order,
# some tens of roundings of the dtype.
TOLERANCES = {torch.float16: 0.01, torch.bfloat16: 0.05}
TOLERANCE = 1e-4

_NAMED = 5  # layers that a failure names
NOTHING: dict[str, Any] = {
    "bytes": 0, "weights": [], "tensors": [], "max_difference": math.nan, "spread": math.nan,
    "first": None, "manifest": [],
}  # fmt: skip

REFERENCE, WEIGHTS = "reference.safetensors", "weights.safetensors"

Quantized = Callable[[str], QuantizedLayer]


@dataclass(frozen=True)
class Audit:
    """What comparing an export with what was measured gave.

    max_difference: greatest absolute difference of any output. spread: standard deviation of the
    reference outputs. bytes: of all tensors in the files. predicted_bytes: what the costs said.
    failures: one line each; empty when all is well. seconds: what the audit took.
    latency: target -> seconds predicted and measured, of targets that the trial was searched for
    with (``latency_audit``).
    """

    max_difference: float
    spread: float
    bytes: int
    predicted_bytes: int
    failures: tuple[str, ...]
    seconds: float
    latency: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether the export is what was measured."""
        return not self.failures


def export(
    task: Task,
    exporter: Loadable,
    layers: Sequence[Layer],
    schemes: Mapping[str, Scheme],
    quantized: Quantized,
    folder: str | Path,
    manifest: Mapping[str, Any],
    *,
    overwrite: bool = False,
    shard_bytes: int = SHARD_BYTES,
) -> Audit:
    """Write the export and audit it; ``folder`` appears only when the audit finds no fault.

    Arguments and errors are those of ``Loadable.write`` and ``audit``.
    """
    audits: list[Audit] = []

    def check(partial: Path) -> None:
        audits.append(audit(task, exporter, partial, layers, schemes, quantized))

    exporter.write(
        task.model, layers, schemes, quantized, Path(folder), manifest,
        overwrite=overwrite, shard_bytes=shard_bytes, check=check,
    )  # fmt: skip
    return audits[0]


def audit(
    task: Task,
    exporter: Loadable,
    folder: str | Path,
    layers: Sequence[Layer],
    schemes: Mapping[str, Scheme],
    quantized: Quantized,
) -> Audit:
    """Compare the export in ``folder`` with the model of ``task`` under ``schemes``.

    ``layers``, ``schemes`` and ``quantized`` are what ``exporter.write`` was given. The task's
    model is quantized for a while and comes back bit for bit. Raises ``ExportError`` naming the
    layers when the export is another model, and ``ModelError`` when no other process can make the
    task.
    """
    found = compare(task, exporter, folder, layers, schemes, quantized)
    if not found.ok:
        raise ExportError(
            f"the {exporter.name} export is not what was measured: {'; '.join(found.failures)}",
            "export it again, keep the named layers, or choose another exporter",
        )
    return found


def compare(
    task: Task,
    exporter: Loadable,
    folder: str | Path,
    layers: Sequence[Layer],
    schemes: Mapping[str, Scheme],
    quantized: Quantized,
) -> Audit:
    """As ``audit``, but faults are returned instead of raised."""
    begun = time.perf_counter()
    schemes = {layer.name: schemes.get(layer.name, KEEP) for layer in layers}
    predicted = predicted_bytes(exporter, task.model, layers, schemes)
    with tempfile.TemporaryDirectory(prefix="bitfront-audit-") as name:
        room = Path(name)
        request = {
            "exporter": exporter.name,
            "folder": str(Path(folder).absolute()),
            "device": str(task.device),
            "threads": torch.get_num_threads(),
            "expected": {
                **exporter.expected(task.model, layers, schemes),
                "steps": exporter.steps(layers, schemes, quantized),
            },
            "schemes": {name: str(scheme) for name, scheme in schemes.items()},
            **_reference(task, exporter, layers, schemes, quantized, room),
        }
        (room / "request.json").write_text(json.dumps(request))
        answer = ask(room, __name__)
        failures = list(answer["failures"])
        if not failures and answer["bytes"] != predicted:
            failures.append(f"{answer['bytes']} bytes of tensors where {predicted} were predicted")
        for layer in answer["weights"][:_NAMED]:
            make = None if schemes[layer] == KEEP else quantized
            failures.append(_weight_fault(task, layer, make, room))
    if len(answer["weights"]) > _NAMED:
        failures.append(f"and those of {len(answer['weights']) - _NAMED} more layers")
    failures += tensor_faults(answer)
    limit = TOLERANCES.get(floating_dtype(task.model), TOLERANCE) * answer["spread"]
    if not answer["failures"] and not answer["max_difference"] <= limit:
        failures.append(_output_fault(answer))
    failures += answer["manifest"]
    seconds = time.perf_counter() - begun
    found = (answer["max_difference"], answer["spread"], answer["bytes"])
    return Audit(*found, predicted, tuple(failures), seconds)


def _reference(
    task: Task,
    exporter: Loadable,
    layers: Sequence[Layer],
    schemes: Mapping[str, Scheme],
    quantized: Quantized,
    room: Path,
) -> dict[str, Any]:
    """Observe what was measured, into ``room``; what the request says of model and inputs."""
    batch = task.evaluation[0]
    names = [layer.name for layer in layers]
    chosen = Lazily([name for name in names if schemes[name] != KEEP], quantized)
    with applied(task.model, chosen):
        if exporter.stands_alone:
            inputs, values = split_call(batch)
            run = partial(run_alone, task.model, inputs, values, task.device)
            request: dict[str, Any] = {"recipe": None, "values": values}
        else:
            inputs, run = {}, partial(task.outputs, batch)
            request = {"recipe": task.recipe(), "batch": batches_digest([batch])}
        seen = observe(task.model, run, names)
    seen.save(room / REFERENCE, inputs)
    return {**request, "weights": seen.weights, "tensors": seen.tensors}


def ask(room: Path, module: str) -> dict[str, Any]:
    """Run ``module`` in a fresh process on the request in ``room``; its answer."""
    paths = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, "-m", module, str(room)],
        env={**os.environ, "PYTHONPATH": paths, "TRANSFORMERS_VERBOSITY": "error"},
        capture_output=True,
        text=True,
        errors="replace",
    )
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        cause = lines[-1] if lines else f"exit code {done.returncode}"
        return {**NOTHING, "failures": [f"it does not open: {cause}"]}
    answer: dict[str, Any] = json.loads((room / "answer.json").read_text())
    return answer


def _weight_fault(task: Task, name: str, quantized: Quantized | None, room: Path) -> str:
    """How far the weights of a layer are off, which the fresh process left in ``room``."""
    matrix = adapter_of(task.module(name)).matrix(task.module(name)).cpu()
    if quantized is not None:
        matrix = dequantize(quantized(name).weight, matrix.dtype).cpu()
    found = load_file(room / WEIGHTS).get(name)
    if found is None:
        return f"weights of layer {name!r} differ"
    if found.shape != matrix.shape:
        return f"weights of layer {name!r} are {tuple(found.shape)}, not {tuple(matrix.shape)}"
    off = float((found.double() - matrix.double()).abs().max())
    return f"weights of layer {name!r} differ by up to {off:.3g}"


def tensor_faults(answer: Mapping[str, Any]) -> list[str]:
    """What is said where parameters and buffers besides layers' weights differ."""
    wrong = answer["tensors"]
    return [f"tensor {wrong[0]!r} differs, of {len(wrong)}"] if wrong else []


def _output_fault(answer: Mapping[str, Any]) -> str:
    fault = (
        f"outputs differ by up to {answer['max_difference']:.3g}, their spread is"
        f" {answer['spread']:.3g}"
    )
    first = answer["first"]
    return fault if first is None else f"{fault}; the first layer to differ is {first!r}"


def respond(room: Path) -> dict[str, Any]:
    """What the fresh process finds for the request in ``room``."""
    request = json.loads((room / "request.json").read_text())
    exporter, folder = EXPORTERS[request["exporter"]], Path(request["folder"])
    assert isinstance(exporter, Loadable)
    torch.set_num_threads(request["threads"])
    try:
        size = exporter.verify(folder, request["expected"])
        seen, model = _reopened(exporter, folder, request, room)
    except BitfrontError as error:
        return {**NOTHING, "failures": [str(error)]}
    reference = Observation.load(room / REFERENCE, request["weights"], request["tensors"])
    wrong = reference.other_weights(seen)
    named = {name: weight_matrix(model, name).cpu().contiguous() for name in wrong[:_NAMED]}
    save_file({name: matrix.clone() for name, matrix in named.items()}, room / WEIGHTS)
    return {
        "failures": [],
        "bytes": size,
        "weights": wrong,
        "tensors": reference.other_tensors(seen),
        "max_difference": reference.difference(seen),
        "spread": float(reference.outputs.double().std()),
        "first": reference.first_other_layer(seen),
        "manifest": list(read_manifest(folder).faults(folder, exporter.name, request["schemes"])),
    }


def _reopened(
    exporter: Loadable, folder: Path, request: Mapping[str, Any], room: Path
) -> tuple[Observation, nn.Module]:
    device, names = torch.device(request["device"]), list(request["weights"])
    if request["recipe"] is None:
        model = exporter.open(folder).to(device)
        inputs = Observation.load(room / REFERENCE, {}).inputs
        run = partial(run_alone, model, inputs, request["values"], device)
        return observe(model, run, names), model
    task = from_recipe(request["recipe"])
    batch = task.evaluation[0]
    if batches_digest([batch]) != request["batch"]:
        raise ExportError(
            "the task, made anew, has another first evaluation batch", "make its data reproducible"
        )
    model = exporter.open(folder, task.model)
    return observe(model, partial(task.outputs, batch), names), model


def main() -> None:
    """The fresh process."""
    room = Path(sys.argv[1])
    (room / "answer.json").write_text(json.dumps(respond(room)))


if __name__ == "__main__":
    main()
