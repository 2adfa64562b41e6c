"""What a graph computes between its layers, given the trial's own outputs of each.

No inputs are rounded there, so norms, attention and sums are the trial's up to float32, however
much roundings move the outputs of the whole. Compared is one sample: what each layer is given, and
the graph's first output. Nothing is compared of graphs for one number of samples, and of models
with layers that are called twice or see samples otherwise than one after another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from bitfront.quant.onnx_file import OnnxFile
from bitfront.quant.onnx_run import Session
from bitfront.types import Layer

from . import graph_steps

FLOAT = 2e-5  # of a tensor's root mean square: float32 sums in another order


def faults(
    file: OnnxFile, layers: Sequence[Layer], session: Session, tensors: Mapping[str, Tensor]
) -> Iterator[str]:
    """Tensors that differ by a root mean square of more than ``FLOAT``.

    tensors: what the trial's model did: ``input.NAME``; ``outputs``; and of each layer ``in.NAME``
    and ``out.NAME`` of the first sample, and ``samples.NAME``, how many there were.
    """
    inputs = {name[6:]: x for name, x in tensors.items() if name.startswith("input.")}
    varying = session.varying_samples()
    samples = {len(inputs[name]) for name in varying}
    names = [layer.name for layer in layers if file.calls(layer.name)]
    counts = {int(tensors[f"samples.{n}"]) for n in names if f"samples.{n}" in tensors}
    if not varying or counts != samples or any(f"out.{n}" not in tensors for n in names):
        return
    ends = {name: file.ends(name) for name in names}
    if any(end is None for end in ends.values()):
        return
    known = {end[1]: tensors[f"out.{n}"] for n, end in ends.items() if end is not None}
    asked = {n: end[0] for n, end in ends.items() if end is not None and end[0] not in inputs}
    first = {name: x[:1] if name in varying else x for name, x in inputs.items()}
    indices = {x: not tensors[f"in.{n}"].is_floating_point() for n, x in asked.items()}
    graph = file.between({y: tuple(x.shape) for y, x in known.items()}, indices)
    cut = Session(graph, 1)
    given = {name: x for name, x in {**first, **known}.items() if name in cut.inputs}
    found = dict(zip(cut.outputs, cut(given), strict=True))
    pairs = {f"the input of layer {n!r}": (found[x], tensors[f"in.{n}"]) for n, x in asked.items()}
    pairs["the output"] = (found[session.outputs[0]], tensors["outputs"][:1])
    real = first["attention_mask"][0].bool() if graph_steps.has_cache(inputs) else None
    for what, (x, expected) in pairs.items():
        if x.numel() != expected.numel():
            continue
        x, y = x.reshape(expected.shape).double(), expected.double()
        if real is not None and y.ndim > 2:  # padding means nothing
            x, y = x[:, real], y[:, real]
        off, size = (float(t.square().mean().sqrt()) for t in (x - y, y))
        if not off <= FLOAT * size:
            yield (
                f"{what}, given the trial's outputs of the layers before it, differs by "
                f"{off:.3g} (root mean square), of {size:.3g}"
            )
            return
