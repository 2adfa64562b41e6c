"""A study's model on a target's bench: what was timed of it, and what has to be.

Each (layer's shape, scheme) is timed once and kept in the database, by target, runtime, device and
threads, so the next model with such layers times nothing anew. What a kernel takes is that of its
call, less what a call takes that computes nothing.

Later timings are set against what was timed before, timed anew beside them: of a kernel the same
layer in full precision; of a whole model the full one and some with all layers alike, since one
model alone was seen to be some per cent slower in one session than in another, all its runs long.
So a machine that has become slower does not favour what was timed before.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from statistics import median
from typing import Any

from torch import Tensor, nn

from bitfront.errors import ExportError, InvalidInput, ModelError
from bitfront.interleaving import copies, interleaved, pinned, processors, quickest
from bitfront.quant.exporters import EXPORTERS
from bitfront.quant.onnx_trace import Signature
from bitfront.residual import Whole
from bitfront.scheme import KEEP, Scheme
from bitfront.study import Progress, Study, silent
from bitfront.targets import Aimed, Handover, Shape, Timed
from bitfront.tasks.deployed import signature
from bitfront.tasks.fingerprint import architecture_digest
from bitfront.tasks.pretrained import context_length
from bitfront.tasks.running import ModelTask
from bitfront.tasks.sized import Call, layer_calls, sized
from bitfront.types import Layer, Timing, content_key, parse_schemes

EACH = 1.5  # seconds that a whole model is run for, at least as often as a kernel
ROOM = 1 << 30  # bytes of weights that are timed side by side
ANCHORS = 5  # whole models that are timed anew beside later ones, at most
KERNELS, WHOLES = "timing kernels", "timing models"

Pair = tuple[str, str]  # kernel and scheme


class Bench:
    """aim: a target that can be timed, with a shape. Raises ``InvalidInput`` for another, and
    ``ExportError`` for a model that it does not load."""

    def __init__(self, study: Study, aim: Aimed) -> None:
        if aim.shape is None or not isinstance(aim.target, Timed):
            raise InvalidInput(f"target {aim} without a shape", "write it like ort-cpu:b1")
        if not isinstance(study.task, ModelTask):
            raise ModelError("a task without a model", "time another")
        _check(aim.shape, study.task.model)
        EXPORTERS[aim.target.container].require(study.task.model)
        self.study, self.aim, self.target, self.shape = study, aim, aim.target, aim.shape
        self.task, self.layers = study.task, study.task.layers
        self.place = aim.target.place(aim.shape.used)

    def kernels(
        self, schemes: Sequence[Scheme], progress: Progress = silent
    ) -> dict[tuple[str, str], float]:
        """(layer, scheme) -> seconds of all its calls alone; for pairs that the target runs."""
        pairs = [
            (layer, scheme)
            for layer in self.layers
            for scheme in schemes
            if self.target.reason(layer, scheme) is None
        ]
        wanted: dict[Pair, tuple[Layer, Scheme, Tensor]] = {}
        for layer, scheme in pairs:
            for text, x in self._calls[layer.name]:
                wanted.setdefault((text, str(scheme)), (layer, scheme, x))
        recorded = self._recorded({text for text, _ in wanted})
        missing = [pair for pair in wanted if pair not in recorded]
        blocks = _blocks(missing, wanted)
        progress(KERNELS, len(wanted) - len(missing), len(wanted))
        for block in blocks:
            found = self._timed(block, wanted, recorded)
            self.study.store.add_timings(self.place, found)
            recorded |= found
            progress(KERNELS, sum(pair in recorded for pair in wanted), len(wanted))
        return {
            (layer.name, str(scheme)): math.fsum(
                recorded[text, str(scheme)].seconds for text, _ in self._calls[layer.name]
            )
            for layer, scheme in pairs
        }

    def wholes(
        self, allocations: Sequence[Mapping[str, str]], progress: Progress = silent
    ) -> list[Timing]:
        """What the whole model takes under each; layers that are not named are kept."""
        allocations = [_kernels_of(allocation) for allocation in allocations]
        kernel = f"warm model {architecture_digest(self.task.model)[:16]} {self.shape.sizes}"
        keys = [allocation_key(allocation) for allocation in allocations]
        recorded = {key: t for (_, key), t in self._recorded({kernel}).items()}
        missing = {k: a for k, a in zip(keys, allocations, strict=True) if k not in recorded}
        room = max(1, ROOM // max(copies(self._size) * self._size, 1))
        progress(WHOLES, len(keys) - len(missing), len(keys))
        for block in _parts(list(missing), room):
            anchors = self._anchors(recorded, min(room, ANCHORS))
            timed = {**anchors, **{key: missing[key] for key in block}}
            makes = [partial(self._model, allocation) for allocation in timed.values()]
            with pinned(self.shape.used):
                wholes = quickest(makes, self._size, EACH * len(makes))
            found = dict(zip(timed, wholes, strict=True))
            found = _against(found, list(anchors), recorded)
            self.study.store.add_timings(self.place, {(kernel, k): t for k, t in found.items()})
            recorded = {**found, **recorded}
            progress(WHOLES, sum(key in recorded for key in keys), len(keys))
        return [recorded[key] for key in keys]

    def part(
        self, allocation: Mapping[str, str], alone: Mapping[tuple[str, str], float], whole: Timing
    ) -> Whole:
        """A whole model, for the fit."""
        seconds: dict[str, float] = {}
        calls: Counter[str] = Counter()
        for layer in self.layers:
            scheme = allocation.get(layer.name, KEEP)
            operator = self.operator(layer, scheme)
            seconds[operator] = seconds.get(operator, 0.0) + alone[layer.name, scheme]
            calls[operator] += self.calls(layer)
        return Whole(seconds, calls, whole.seconds, self.moved(allocation))

    def moved(self, allocation: Mapping[str, str]) -> float:
        """Elements that neighbours hand over between different layouts."""
        apart = {
            la.name: self.target.apart(la, Scheme.parse(allocation.get(la.name, KEEP)))
            for la in self.layers
        }
        return math.fsum(n for one, other, n in self.handovers if apart[one] != apart[other])

    @cached_property
    def handovers(self) -> list[Handover]:
        """Where layers meet of which one at least may be in another layout than most."""
        called = self._called.items()
        inputs = {name: [call.given.numel() for call in calls] for name, calls in called}
        outputs = {name: [call.made for call in calls] for name, calls in called}
        schemes = parse_schemes(self.target.candidates)
        may = {la.name for la in self.layers if any(self.target.apart(la, s) for s in schemes)}
        found = self.target.handovers(self._frame, inputs, outputs) if may else []
        return [one for one in found if one.one in may or one.other in may]

    def alike(self, scheme: Scheme) -> dict[str, str]:
        """All layers that can take ``scheme`` under it."""
        can = (layer for layer in self.layers if self.target.reason(layer, scheme) is None)
        return {layer.name: str(scheme) for layer in can}

    def operator(self, layer: Layer, scheme: str) -> str:
        return self.target.operator(layer, Scheme.parse(scheme))

    def calls(self, layer: Layer) -> int:
        """How often the model calls a layer."""
        return len(self._calls[layer.name])

    @property
    def _size(self) -> int:
        """Bytes of the layers' weights in full precision."""
        return sum(4 * layer.weights for layer in self.layers)

    @cached_property
    def _signature(self) -> Signature:
        """With a cache, where the model has one of keys and values."""
        if self.task.kind == "language":
            try:
                return signature(self.task, cache=True)
            except ExportError:
                if self.shape.past is not None:
                    raise
        return signature(self.task)

    @cached_property
    def _inputs(self) -> dict[str, Tensor]:
        shape = self.shape
        return sized(self._signature, shape.batch, shape.tokens, shape.past)

    @cached_property
    def _calls(self) -> dict[str, list[tuple[str, Tensor]]]:
        """Layer -> the kernel, and the input, of each call."""
        return {
            layer.name: [
                (described(layer, self.task.module(layer.name), call.given), call.given)
                for call in self._called[layer.name]
            ]
            for layer in self.layers
        }

    @cached_property
    def _called(self) -> dict[str, list[Call]]:
        return layer_calls(self.task.model, self.layers, self._signature, self._inputs)

    @cached_property
    def _frame(self) -> Any:
        return self.target.frame(self.task, self._signature)

    def _anchors(self, recorded: Collection[str], most: int) -> dict[str, Mapping[str, str]]:
        """The full model, and those with all layers alike that are recorded, by their keys."""
        alike = [{}, *map(self.alike, parse_schemes(self.target.candidates))]
        found = {allocation_key(allocation): allocation for allocation in alike}
        known = [key for key in found if key in recorded or key == allocation_key({})]
        return {key: found[key] for key in known[:most]}

    def _model(self, allocation: Mapping[str, str]) -> Any:
        schemes = {la.name: Scheme.parse(allocation.get(la.name, KEEP)) for la in self.layers}
        return self.target.model(
            self._frame, self.task.model, self.layers, schemes, self._inputs, self.shape.used
        )

    def _recorded(self, kernels: set[str]) -> dict[Pair, Timing]:
        return self.study.store.timings(self.place, kernels)

    def _timed(
        self,
        block: Sequence[Pair],
        wanted: Mapping[Pair, tuple[Layer, Scheme, Tensor]],
        recorded: Mapping[Pair, Timing],
    ) -> dict[Pair, Timing]:
        """What was timed of a block, each less what a call takes that computes nothing."""
        threads, texts = self.shape.used, dict.fromkeys(text for text, _ in block)
        pairs = list(dict.fromkeys([*((text, KEEP) for text in texts), *block]))
        with pinned(threads):
            runs = [self.target.nothing(threads)]
            for pair in pairs:
                layer, scheme, x = wanted[pair]
                module = self.task.module(layer.name)
                runs.append(self.target.kernel(layer, module, scheme, x, threads))
            nothing, *timed = interleaved(runs)
        found = {
            pair: replace(timing, seconds=max(timing.seconds - nothing.seconds, 0.0))
            for pair, timing in zip(pairs, timed, strict=True)
        }
        against: dict[Pair, Timing] = {}
        for text in texts:
            of_text = {pair: t for pair, t in found.items() if pair[0] == text}
            against |= _against(of_text, [(text, KEEP)], recorded)
        return against


def _check(shape: Shape, model: nn.Module) -> None:
    """Raises ``InvalidInput`` for more threads than processors, or tokens than positions."""
    if shape.used > processors():
        raise InvalidInput(
            f"{shape.used} threads on {processors()} processors", f"use t{processors()} or less"
        )
    tokens, context = (shape.tokens or 1) + (shape.past or 0), context_length(model)
    if context is not None and tokens > context:
        raise InvalidInput(
            f"{tokens} tokens in a model with {context} positions", "choose a smaller s or p"
        )


def described(layer: Layer, module: Any, x: Tensor) -> str:
    """A kernel by all that its time depends on: kind, sizes, geometry, input, bias."""
    words = [layer.kind, f"{layer.rows}x{layer.cols}"]
    if hasattr(module, "kernel_size"):
        words += [
            f"{name[0]}{'x'.join(map(str, _tuple(getattr(module, name))))}"
            for name in ("kernel_size", "stride", "padding", "dilation")
        ]
        words += [f"g{module.groups}", module.padding_mode]
    words.append(f"[{','.join(map(str, x.shape))}]")
    return " ".join([*words, *(["bias"] if layer.bias else [])])


def _tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def kernel_scheme(scheme: Scheme) -> Scheme:
    """The scheme without what changes no kernel."""
    return scheme if scheme.format != "int" else replace(scheme, quantizer="rtn", cache=None)


def _kernels_of(allocation: Mapping[str, str]) -> dict[str, str]:
    return {name: str(kernel_scheme(Scheme.parse(s))) for name, s in allocation.items()}


def _against(
    found: Mapping[Any, Timing], bases: Sequence[Any], recorded: Mapping[Any, Timing]
) -> dict[Any, Timing]:
    """``found`` as if the machine were as it was when ``bases`` were recorded, those that are."""
    paces = [
        recorded[base].seconds / found[base].seconds
        for base in bases
        if base in recorded and found[base].seconds
    ]
    pace = median(paces) if paces else 1.0
    return {
        key: replace(t, seconds=t.seconds * pace, spread=t.spread * pace)
        for key, t in found.items()
        if key not in recorded
    }


def _blocks(
    missing: Sequence[Pair], wanted: Mapping[Pair, tuple[Layer, Scheme, Tensor]]
) -> list[list[Pair]]:
    """What is timed side by side: kernels of a layer together, as many layers as there is room."""
    blocks: list[list[Pair]] = []
    of_kernel: dict[str, list[Pair]] = {}
    for pair in missing:
        of_kernel.setdefault(pair[0], []).append(pair)
    size = math.inf
    for pairs in of_kernel.values():
        more = sum(4 * wanted[pair][0].weights for pair in pairs)
        if size + more > ROOM:
            blocks.append([])
            size = 0
        blocks[-1] += pairs
        size += more
    return blocks


def _parts(keys: Sequence[str], size: int) -> list[Sequence[str]]:
    return [keys[begin : begin + size] for begin in range(0, len(keys), size)]


def allocation_key(allocation: Mapping[str, str]) -> str:
    """Of a whole model among timings; the same whatever is kept, named or not."""
    return content_key({n: s for n, s in sorted(allocation.items()) if s != KEEP})
