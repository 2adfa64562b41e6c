"""Exported graphs opened again by their runtime, in a fresh process, and compared with the trial.

1. every tensor's bytes, with the digests taken when they were written, and with the costs
2. the weights that each layer's tensors stand for, to the bit, with those that were measured; and
   the grids of inputs and outputs
3. the operator that computes each layer, with what its scheme asks for
4. each layer alone, on the input that the trial's had: the runtime computes what was measured
5. the outputs of the first evaluation batch
6. of graphs with a cache: the same outputs from texts in pieces (``graph_steps``)
7. what it computes between its layers, where no inputs are rounded (``graph_between``)
8. names and order of inputs and outputs, what the manifest says of schemes, and the other files

Outputs are the trial's up to float32: nearer than ``FLOAT`` times their spread, or than ``TWICE``
what the trial's own move by when every layer's outputs are off by a float32's last bit. Where
inputs are rounded, sums in another order move a value across an edge now and then, and more after
it: outputs agree as two draws of the same rounding do. There they may also be off by ``NEARER``
times what the trial's are from the full model's; each layer alone is but for such an edge the same.
Static inputs have the very same codes: such a layer alone is the same up to float32, and where its
outputs are rounded each is a nearest step of what the trial's layer gives before it rounds.
``python -m bitfront.graph_audit FOLDER`` is the fresh process.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bitfront import graph_between, graph_steps
from bitfront.audit import NOTHING, Audit, Quantized, ask
from bitfront.errors import BitfrontError, ExportError
from bitfront.observation import weight_matrix
from bitfront.quant.activations import biased
from bitfront.quant.costs import layer_costs
from bitfront.quant.export_base import read_manifest
from bitfront.quant.export_onnx import FILE, Onnx
from bitfront.quant.exporters import predicted_bytes
from bitfront.quant.formats import dequantize
from bitfront.quant.layers import adapter_of
from bitfront.quant.onnx_file import OnnxFile
from bitfront.quant.onnx_run import Session
from bitfront.quant.onnx_trace import Signature
from bitfront.quant.statistics import call_input
from bitfront.quant.stored import KEEP
from bitfront.quant.surgery import Lazily, applied, channel_axis
from bitfront.quant.tensorfiles import digest
from bitfront.quant.weights import QuantizedLayer
from bitfront.tasks.deployed import signature
from bitfront.tasks.running import ModelTask
from bitfront.types import Layer, Scheme

NEARER = 0.5  # root mean squares: export to trial, over trial to full model
SHAKE = 1e-7  # relative, of a layer's outputs: about the last bit of a float32
TWICE = 2.0  # two draws of such noise from each other, and what these have by chance
FLOAT = 1e-4  # of the spread of outputs: float32 sums in another order
EDGE = 2e-2  # of the spread of a layer's outputs: one rounded input across an edge

SAME = 1e-3  # outputs of the same samples, alone and among others

REFERENCE = "reference.safetensors"
_NAMED = 5  # faults that a failure names


def export(
    task: ModelTask,
    exporter: Onnx,
    layers: Sequence[Layer],
    schemes: Mapping[str, Scheme],
    quantized: Quantized,
    folder: str | Path,
    manifest: Mapping[str, Any],
    *,
    cache: bool = False,
    overwrite: bool = False,
) -> Audit:
    """Write the graph and audit it; ``folder`` appears only when the audit finds no fault.

    cache: of a language task, with the keys and values of earlier tokens. Other arguments and
    errors are those of ``Onnx.write``; ``ExportError`` names the faults.
    """
    called, audits = signature(task, cache=cache), list[Audit]()

    def check(partial: Path) -> None:
        found = compare(task, exporter, called, partial, layers, schemes, quantized)
        audits.append(found)
        if not found.ok:
            raise ExportError(
                f"the {exporter.name} export is not what was measured: {'; '.join(found.failures)}",
                "export it again, keep the named layers, or choose other schemes for them",
            )

    exporter.write(
        task.model, layers, schemes, quantized, called, Path(folder), manifest,
        overwrite=overwrite, check=check,
    )  # fmt: skip
    return audits[0]


def compare(
    task: ModelTask,
    exporter: Onnx,
    called: Signature,
    folder: str | Path,
    layers: Sequence[Layer],
    schemes: Mapping[str, Scheme],
    quantized: Quantized,
) -> Audit:
    """Compare the export in ``folder`` with the model of ``task`` under ``schemes``.

    called: how the model was traced. The task's model is quantized for a while and comes back bit
    for bit.
    """
    begun = time.perf_counter()
    schemes = {layer.name: schemes.get(layer.name, KEEP) for layer in layers}
    with tempfile.TemporaryDirectory(prefix="bitfront-audit-") as name:
        room = Path(name)
        request = {
            "folder": str(Path(folder).absolute()),
            "threads": torch.get_num_threads(),
            "schemes": {name: str(scheme) for name, scheme in schemes.items()},
            "called": [list(called.inputs), list(called.outputs)],
            "layers": {
                la.name: layer_costs(la, schemes[la.name], exporter.stored)["bytes"]
                for la in layers
            },
            "weights": _reference(task, called, layers, schemes, quantized, room / REFERENCE),
            "grids": {name: _grids(quantized(name)) for name, s in schemes.items() if s.activation},
        }
        (room / "request.json").write_text(json.dumps(request))
        answer = ask(room, __name__)
    return Audit(
        answer["max_difference"],
        answer["spread"],
        answer["bytes"],
        predicted_bytes(exporter, task.model, layers, schemes),
        tuple(answer["failures"]),
        time.perf_counter() - begun,
    )


def _grids(q: QuantizedLayer) -> list[float | int | None]:
    """Step and zero point of static inputs, and of outputs that are rounded."""
    scales = [None if s is None else float(s) for s in (q.input_scale, q.output_scale)]
    return [scales[0], q.input_zero, scales[1], q.output_zero]


def _reference(
    task: ModelTask,
    called: Signature,
    layers: Sequence[Layer],
    schemes: Mapping[str, Scheme],
    quantized: Quantized,
    path: Path,
) -> dict[str, str]:
    """Write what the trial's model does to ``path``; name -> digest of each layer's weights."""
    inputs, names = tuple(called.inputs.values()), [layer.name for layer in layers]
    measured = called.measured or (lambda: called.run(*inputs))
    chosen = Lazily([name for name in names if schemes[name] != KEEP], quantized)
    tensors = {f"input.{name}": x for name, x in called.inputs.items()}
    with ExitStack() as stack, torch.no_grad():
        tensors["full"] = measured()
        stack.enter_context(applied(task.model, chosen))
        for name in names:
            module = task.module(name)
            activation = schemes[name].activation
            if activation is not None and activation.output:
                unrounded = _noting_unrounded(tensors, name, quantized(name))
                handle = module.register_forward_hook(unrounded, prepend=True)
                stack.callback(handle.remove)
            before, after = _noting(tensors, name)
            handles = (
                module.register_forward_pre_hook(before, with_kwargs=True, prepend=True),
                module.register_forward_hook(after),
            )
            for handle in handles:
                stack.callback(handle.remove)
        tensors["outputs"] = measured()
        with _shaken(task, names):
            tensors["shaken"] = measured()
        weights = {name: digest(weight_matrix(task.model, name) + 0.0) for name in names}
    save_file({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}, path)
    return weights


@contextmanager
def _shaken(task: ModelTask, names: Sequence[str]) -> Iterator[None]:
    """The outputs of layers off by ``SHAKE``, as sums in another order would have them."""
    generator = torch.Generator().manual_seed(0)

    def hook(module: Any, args: tuple[Any, ...], output: Tensor) -> Tensor:
        noise = torch.randn(output.shape, generator=generator).to(output)
        return output * (1 + SHAKE * noise)

    with ExitStack() as stack:
        for name in names:
            stack.callback(task.module(name).register_forward_hook(hook).remove)
        yield


def _noting(
    tensors: dict[str, Tensor], name: str
) -> tuple[Callable[..., None], Callable[..., None]]:
    """Hooks that note the first sample of a layer's first call: before any rounding, and after."""

    def before(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if f"in.{name}" not in tensors:
            tensors[f"in.{name}"] = call_input(args, kwargs)[:1].clone()

    def after(module: Any, args: tuple[Any, ...], output: Tensor) -> None:
        if f"out.{name}" not in tensors:
            tensors[f"out.{name}"] = output[:1].clone()
            tensors[f"samples.{name}"] = torch.tensor(len(output))

    return before, after


def _noting_unrounded(
    tensors: dict[str, Tensor], name: str, q: QuantizedLayer
) -> Callable[..., None]:
    """A hook that notes what a layer's output is before it is rounded."""

    def hook(module: Any, args: tuple[Any, ...], output: Tensor) -> None:
        if f"unrounded.{name}" not in tensors:
            axis = channel_axis(module, adapter_of(module).kind)
            tensors[f"unrounded.{name}"] = biased(q, output, module.bias, axis)[:1].clone()

    return hook


def respond(room: Path) -> dict[str, Any]:
    """What the fresh process finds for the request in ``room``."""
    request = json.loads((room / "request.json").read_text())
    folder, tensors = Path(request["folder"]), load_file(room / REFERENCE)
    threads: int = request["threads"]
    torch.set_num_threads(threads)
    try:
        manifest = read_manifest(folder)
        file = OnnxFile(folder)
        file.verify(manifest.digests)
        faults = list(_layer_faults(file, manifest.layers, request, tensors))
        faults += [f"tensor {name!r} is used by nothing" for name in file.unused]
        inputs = {name[6:]: x for name, x in tensors.items() if name.startswith("input.")}
        session = Session(folder / FILE, threads)
        faults += _call_faults(session, *request["called"])
        if not faults:
            layers = [layer for layer, _ in manifest.layers]
            faults += graph_between.faults(file, layers, session, tensors)
        outputs, *_ = session(inputs)
        fewer = _fewer(session, inputs)
        pieces = graph_steps.pieces(session, inputs)
    except BitfrontError as error:
        return {**NOTHING, "failures": [str(error)]}
    trial, full = tensors["outputs"].double(), tensors["full"].double()
    spread, difference, limit = float(trial.std()), math.nan, 0.0
    if outputs.shape == trial.shape:
        real = graph_steps.real(inputs, outputs)
        off = (outputs.double() - trial)[real]
        difference, size = float(off.abs().max()), _size(off)
        shaken = _size((tensors["shaken"].double() - trial)[real])
        limit = max(FLOAT * spread, TWICE * shaken)
        if any(Scheme.parse(words).activation for words in request["schemes"].values()):
            limit = max(limit, FLOAT * spread + NEARER * _size((trial - full)[real]))
        if not size <= limit:
            faults.append(f"outputs differ by {size:.3g} (root mean square), more than {limit:.3g}")
        faults += graph_steps.faults(pieces, outputs.double(), trial, real, limit)
    else:
        faults.append(f"outputs are {tuple(outputs.shape)}, not {tuple(trial.shape)}")
    if fewer is not None:
        among = outputs[: len(fewer)]
        same = torch.allclose(fewer, among, rtol=SAME, atol=SAME)
        if not (same or _size(fewer.double() - among) <= limit):
            faults.append(f"outputs of {len(fewer)} samples alone are others")
    faults += manifest.faults(folder, Onnx.name, request["schemes"])
    more = [f"and {len(faults) - _NAMED} more faults"] if len(faults) > _NAMED else []
    return {
        "failures": [*faults[:_NAMED], *more],
        "bytes": file.bytes,
        "max_difference": difference,
        "spread": spread,
    }


def _call_faults(session: Session, inputs: Sequence[str], outputs: Sequence[str]) -> Iterator[str]:
    """Inputs and outputs that have other names than the trial's, or another order."""
    for what, found, asked in (
        ("inputs", session.inputs, inputs), ("outputs", session.outputs, outputs)
    ):  # fmt: skip
        if list(found) != list(asked):
            yield f"its {what} are {', '.join(found)}, not {', '.join(asked)}"


def _layer_faults(
    file: OnnxFile,
    layers: Sequence[tuple[Layer, Scheme]],
    request: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
) -> Iterator[str]:
    if [layer.name for layer, _ in layers] != list(request["layers"]):
        yield "its layers are not the trial's"
        return
    for layer, scheme in layers:
        if not file.calls(layer.name):
            if scheme != KEEP:
                yield f"layer {layer.name!r} is not in the graph"
            continue
        bytes, predicted = file.layer_bytes(layer, scheme), request["layers"][layer.name]
        quantized = file.quantized(layer, scheme)
        weight = dequantize(quantized.weight, torch.float32)
        if bytes != predicted:
            yield f"layer {layer.name!r} has {bytes} bytes where {predicted:.0f} were predicted"
        elif digest(weight + 0.0) != request["weights"][layer.name]:
            yield f"weights of layer {layer.name!r} differ"
        elif scheme.activation and _grids(quantized) != request["grids"][layer.name]:
            yield f"the steps of layer {layer.name!r} differ"
        elif (other := file.other_precision(layer, scheme)) is not None:
            yield f"layer {layer.name!r} as {scheme} is {other}"
        elif (fault := _alone(file, layer, scheme, request["threads"], tensors)) is not None:
            yield f"layer {layer.name!r} as {scheme}, alone, {fault}"


def _alone(
    file: OnnxFile, layer: Layer, scheme: Scheme, threads: int, tensors: Mapping[str, Tensor]
) -> str | None:
    """How the layer's own nodes differ from the trial's layer on the same input, if they do."""
    x, expected = tensors[f"in.{layer.name}"], tensors[f"out.{layer.name}"].double()
    (found,) = Session(file.alone(layer, tuple(x.shape)), threads)({"x": x})
    if found.shape != expected.shape:
        return f"gives {tuple(found.shape)}, not {tuple(expected.shape)}"
    spread = float(expected.std())
    limit = (EDGE if scheme.activation and not scheme.activation.static else FLOAT) * spread
    if scheme.activation and scheme.activation.output:
        step, least, greatest = _output_grid(file.quantized(layer, scheme))
        expected = tensors[f"unrounded.{layer.name}"].double().clamp(least, greatest)
        limit += (0.5 + FLOAT) * step
    off = float((found.double() - expected).abs().max())
    return None if off <= limit else f"differs by {off:.3g}, of a spread of {spread:.3g}"


def _output_grid(q: QuantizedLayer) -> tuple[float, float, float]:
    """Step and ends of the grid of outputs."""
    assert q.output_scale is not None
    assert q.weight.scheme.activation is not None
    bits, step = q.weight.scheme.activation.bits, float(q.output_scale)
    zero = 1 << (bits - 1) if q.output_zero is None else q.output_zero
    return step, -zero * step, ((1 << bits) - 1 - zero) * step


def _fewer(session: Session, inputs: Mapping[str, Tensor]) -> Tensor | None:
    """Outputs of the first samples alone; None where the graph is for one number of samples."""
    varying = session.varying_samples()
    count = min((len(inputs[name]) for name in varying), default=1) // 2
    if not count:
        return None
    given = {name: x[:count] if name in varying else x for name, x in inputs.items()}
    return session(given)[0]


def _size(x: Tensor) -> float:
    """Root mean square."""
    return float(x.square().mean().sqrt())


def main() -> None:
    """The fresh process."""
    room = Path(sys.argv[1])
    (room / "answer.json").write_text(json.dumps(respond(room)))


if __name__ == "__main__":
    main()
