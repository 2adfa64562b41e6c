"""Exported pipelines opened again by diffusers, in a fresh process, and compared with the trial.

1. every tensor's bytes, with the digests taken when they were written, and with the costs
2. the denoiser's outputs for the first evaluation batch
3. the first evaluation image, sampled by the opened pipeline from the same seed
4. the weights of each layer, and all else that the denoiser holds, to the bit, with what was
   measured
5. what the manifest says of schemes, and the files beside the tensors

``python -m bitfront.pipeline_audit FOLDER`` is the fresh process.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from bitfront.audit import (
    NOTHING,
    REFERENCE,
    TOLERANCE,
    TOLERANCES,
    Audit,
    Quantized,
    ask,
    tensor_faults,
)
from bitfront.errors import BitfrontError, DataError, ExportError
from bitfront.observation import Observation, observe
from bitfront.quant.export_base import read_manifest
from bitfront.quant.export_diffusers import Diffusers, dequantized, needs_sdnq, open_pipeline
from bitfront.quant.exporters import predicted_bytes
from bitfront.quant.stored import KEEP
from bitfront.quant.surgery import Lazily, applied
from bitfront.quant.tensorfiles import TensorFolder, tensor_bytes
from bitfront.tasks.base import Batch, Task
from bitfront.tasks.diffusion import DiffusionTask
from bitfront.tasks.pipeline_sampling import PipelineSampler
from bitfront.tasks.placement import floating_dtype, moved
from bitfront.tasks.trajectories import Plan, prediction, sampled
from bitfront.types import Layer, Scheme

# Greatest difference of pixels, from 0 to 1. With the same kernels it is 0 or some last bits: this
# leaves room for sums in another order, which every step of sampling makes larger. A grey level is
# 1 / 255.
GREY = 1 / 255
GREYS = {torch.float16: 16, torch.bfloat16: 64}  # levels; float32: 1

_IMAGE = "image"  # among the reference's inputs, whose names are numbers
_NAMED = 5  # layers that a failure names


def export(
    task: Task,
    exporter: Diffusers,
    layers: Sequence[Layer],
    schemes: Mapping[str, Scheme],
    quantized: Quantized,
    folder: str | Path,
    manifest: Mapping[str, Any],
    *,
    overwrite: bool = False,
) -> Audit:
    """Write the pipeline and audit it; ``folder`` appears only when the audit finds no fault.

    Arguments and errors are those of ``Exporter.write``; ``ExportError`` names the faults, and a
    task that samples by no pipeline.
    """
    if not isinstance(task, DiffusionTask) or task.pipeline is None:
        raise ExportError(
            f"a pipeline of a {task.kind} task without one",
            "study the pipeline's folder (--task diffusion), or use safetensors",
        )
    needs_sdnq()
    audits: list[Audit] = []

    def check(partial_folder: Path) -> None:
        found = compare(task, exporter, partial_folder, layers, schemes, quantized)
        audits.append(found)
        if not found.ok:
            raise ExportError(
                f"the {exporter.name} export is not what was measured: {'; '.join(found.failures)}",
                "export it again, keep the named layers, or choose another exporter",
            )

    exporter.write(
        task.model, layers, schemes, quantized, Path(folder), manifest,
        overwrite=overwrite, check=check,
    )  # fmt: skip
    return audits[0]


def compare(
    task: DiffusionTask,
    exporter: Diffusers,
    folder: str | Path,
    layers: Sequence[Layer],
    schemes: Mapping[str, Scheme],
    quantized: Quantized,
) -> Audit:
    """Compare the export in ``folder`` with the pipeline of ``task`` under ``schemes``.

    The task's model is quantized for a while and comes back bit for bit.
    """
    begun = time.perf_counter()
    schemes = {layer.name: schemes.get(layer.name, KEEP) for layer in layers}
    batch, plan = task.evaluation[0], task.plan(1)
    with tempfile.TemporaryDirectory(prefix="bitfront-audit-") as name:
        room = Path(name)
        tensors, call = _flattened(batch)
        chosen = Lazily([n for n, scheme in schemes.items() if scheme != KEEP], quantized)
        with applied(task.model, chosen), without_gradients(task.model), torch.no_grad():
            seen = observe(task.model, partial(task.outputs, batch), list(schemes))
            tensors[_IMAGE] = task.generated(first=1)
        seen.save(room / REFERENCE, tensors)
        request = {
            "folder": str(Path(folder).absolute()),
            "device": str(task.device),
            "threads": torch.get_num_threads(),
            "call": call,
            "options": task.pipeline,
            "plan": [plan.seeds, plan.conditions, plan.size],
            "weights": seen.weights,
            "tensors": seen.tensors,
            "schemes": {name: str(scheme) for name, scheme in schemes.items()},
        }
        (room / "request.json").write_text(json.dumps(request))
        answer = ask(room, __name__)
    failures = list(answer["failures"])
    predicted = predicted_bytes(exporter, task.model, layers, schemes)
    if not failures:
        failures += _faults(answer, predicted, floating_dtype(task.model))
    found = (answer["max_difference"], answer["spread"], answer["bytes"])
    return Audit(*found, predicted, tuple(failures), time.perf_counter() - begun)


@contextmanager
def without_gradients(model: nn.Module) -> Iterator[None]:
    """``model`` with parameters that want no gradients, like those of opened pipelines.

    torch multiplies strided inputs in another order where a weight wants one, ``no_grad`` or not.
    """
    wanting = [p for p in model.parameters() if p.requires_grad]
    try:
        for parameter in wanting:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in wanting:
            parameter.requires_grad_(True)


def _faults(answer: Mapping[str, Any], predicted: int, dtype: torch.dtype) -> list[str]:
    faults = []
    if answer["bytes"] != predicted:
        faults.append(f"{answer['bytes']} bytes of tensors where {predicted} were predicted")
    wrong = answer["weights"]
    faults += [f"weights of layer {layer!r} differ" for layer in wrong[:_NAMED]]
    if len(wrong) > _NAMED:
        faults.append(f"and those of {len(wrong) - _NAMED} more layers")
    faults += tensor_faults(answer)
    off, spread = answer["max_difference"], answer["spread"]
    if not off <= TOLERANCES.get(dtype, TOLERANCE) * spread:
        faults.append(f"outputs differ by up to {off:.3g}, their spread is {spread:.3g}")
        if answer["first"] is not None:
            faults[-1] += f"; the first layer to differ is {answer['first']!r}"
    if not answer["image"] <= GREYS.get(dtype, 1) * GREY:
        faults.append(f"an image from the same seed differs by up to {answer['image']:.3g}")
    return [*faults, *answer["manifest"]]


def respond(room: Path) -> dict[str, Any]:
    """What the fresh process finds for the request in ``room``."""
    request = json.loads((room / "request.json").read_text())
    folder, device = Path(request["folder"]), torch.device(request["device"])
    torch.set_num_threads(request["threads"])
    reference = Observation.load(room / REFERENCE, request["weights"], request["tensors"])
    try:
        manifest = read_manifest(folder)
        TensorFolder(folder).verify(manifest.digests)
        pipeline, component = open_pipeline(folder)
        pipeline.safety_checker = None  # as in the task: it blackens images
        sampler = PipelineSampler((pipeline.to(device), component), **request["options"])
        seeds, conditions, size = request["plan"]
        with torch.no_grad():
            image = sampled(sampler, Plan(tuple(seeds), conditions and tuple(conditions), size))
        run = partial(_outputs, sampler, reference.inputs, request["call"], device)
        found = observe(sampler.denoiser, run, list(request["weights"]))
    except BitfrontError as error:
        return {**NOTHING, "failures": [str(error)]}
    return {
        "failures": [],
        "bytes": tensor_bytes(folder),
        "weights": reference.other_weights(found),
        "tensors": reference.other_tensors(found),
        "max_difference": reference.difference(found),
        "spread": float(reference.outputs.double().std()),
        "first": reference.first_other_layer(found),
        "image": float((image - reference.inputs[_IMAGE]).abs().max()),
        "manifest": list(manifest.faults(folder, Diffusers.name, request["schemes"])),
    }


def _flattened(batch: Batch) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A batch's arguments: tensors by their place among the leaves, and all else as JSON."""
    leaves, spec = pytree.tree_flatten((tuple(batch.args), dict(batch.kwargs)))
    tensors = {str(i): leaf for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)}
    values = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
    try:
        json.dumps(values)
        return tensors, {"values": values, "spec": pytree.treespec_dumps(spec)}
    except (TypeError, NotImplementedError) as error:
        raise DataError(
            f"a call of the denoiser cannot be handed to another process: {error}",
            "give the pipeline plain arguments",
        ) from None


def _outputs(
    sampler: PipelineSampler,
    tensors: Mapping[str, Tensor],
    call: Mapping[str, Any],
    device: torch.device,
) -> Tensor:
    """The denoiser's prediction for the arguments of ``_flattened``, as its task shapes it.

    Leaves its layers with the weights that they stand for.
    """
    leaves = [tensors.get(str(i), value) for i, value in enumerate(call["values"])]
    args, kwargs = pytree.tree_unflatten(leaves, pytree.treespec_loads(call["spec"]))
    output = prediction(sampler.denoiser(*moved(args, device, None), **moved(kwargs, device, None)))
    dequantized(sampler.denoiser)
    return output[:, : sampler.channels].reshape(len(output), 1, -1)


def main() -> None:
    """The fresh process."""
    room = Path(sys.argv[1])
    (room / "answer.json").write_text(json.dumps(respond(room)))


if __name__ == "__main__":
    main()
