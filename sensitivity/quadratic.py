"""½ c ‖ΔW‖²: what one number for the curvature of each layer says of every scheme.

    c_l      of a layer's Hessian block, of the mean loss per scored position: its mean eigenvalue
             (hutchinson.py) or its largest (eigen.py)                     nats per squared weight
    ΔW_lc    change of layer l's weight under scheme c

The change of a tensor that several layers use counts once, with the layer that it belongs to: the
others score 0. Inputs that a scheme rounds too are not seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bitfront.quant.formats import dequantize
from bitfront.quant.surgery import original
from bitfront.types import Estimate, Measurement

from .base import Arrays, Float, Pair, Profiler, Subject
from .bootstrap import ratios
from .curvature import METRICS
from .taps import evaluating, no_gradient

Vectors = Mapping[str, NDArray[Any]]


def squared_changes(subject: Subject, pairs: Sequence[Pair]) -> list[float]:
    """‖ΔW‖² of each pair, summed in float64; 0 for a layer that uses another one's weight."""
    with evaluating(subject.task.model):
        subject.builder.prepare([(layer.name, scheme) for layer, scheme in pairs])
    found = []
    for layer, scheme in pairs:
        q = subject.builder.quantized(layer.name, scheme)
        W = original(layer.name, subject.task.module(layer.name))
        dW = dequantize(q.weight, W.dtype).to(W.device).double() - W.double()
        found.append(0.0 if layer.shares else float(torch.linalg.vector_norm(dW)) ** 2)
    return found


def refuse_unreached(key: str, owners: Sequence[str], parts: Sequence[Arrays]) -> None:
    """Raises ``ModelError`` for owners that no batch has a ``KEY/OWNER`` of: no loss needs them."""
    layers = [name for name in owners if not any(f"{key}/{name}" in part for part in parts)]
    if layers:
        raise no_gradient(layers)


def loss_read(measurements: Iterable[Measurement]) -> str:
    """The loss that recorded measurements are of; ``kl`` for none."""
    names = {name for m in measurements for name in m.values}
    return next((loss for loss, metric in METRICS.items() if metric in names), "kl")


def scaled(
    profiler: Profiler,
    metric: str,
    pairs: Sequence[Pair],
    changes: Iterable[float],
    curvature: Mapping[str, tuple[Estimate, Vectors]],
) -> list[Measurement]:
    """½ c ‖ΔW‖² of each pair. curvature: owner -> c, and arrays (batches,) to record with it."""
    found = []
    for (layer, scheme), change in zip(pairs, changes, strict=True):
        c, vectors = curvature[layer.shares or layer.name]
        factor = change / 2
        stderr = factor * c.stderr if factor else 0.0  # 0 is exact, also where the error is unknown
        values = {metric: Estimate(factor * c.value, stderr, c.samples)}
        key = profiler.settings_key
        found.append(Measurement(profiler.name, key, layer.name, str(scheme), values, vectors))
    return found


def redrawn(measurement: Measurement, metric: str, curvature: str, W: Float) -> Float:
    """The value under each draw of batches, (B,). curvature: the vector that holds it."""
    v, value = measurement.vectors, measurement.values[metric].value
    whole = v[curvature].sum() / v["count"].sum()
    c = ratios(W, v[curvature], v["count"])
    return value * c / whole if whole else np.full(len(W), value)
