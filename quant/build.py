"""Quantized layers of one model: statistics where a scheme needs them, then the quantizer.

A layer's result depends on the full-precision model, the calibration data and the scheme alone,
never on what other layers take.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from bitfront.errors import ModelError, SchemeError, UnknownName
from bitfront.scratch import Scratch
from bitfront.types import Activation, Layer, Scheme

from .activations import static_grid
from .quantizers import QUANTIZERS, quantize
from .statistics import Histogram, InputStatistics, Range, collect, moment_bytes
from .suitability import takes
from .surgery import is_applied, original
from .weights import QuantizedLayer, QuantizedWeight

MOMENTS_LIMIT = 2 << 30  # bytes of second moments gathered in one pass


class Builder:
    """Quantizes single layers of ``model``.

    layers: what may be quantized. run: pushes all calibration data through the model, the same
    each time. scratch: where statistics are kept (default: one of its own).
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[Layer],
        run: Callable[[], object],
        scratch: Scratch | None = None,
        moments_limit: int = MOMENTS_LIMIT,
    ) -> None:
        self._model = model
        self._layers = {layer.name: layer for layer in layers}
        self._run = run
        self._scratch = Scratch() if scratch is None else scratch
        self._limit = moments_limit
        self._statistics: dict[str, InputStatistics] = {}
        # what somebody still holds is not made again: tied layers, and trials built twice
        self._made: WeakValueDictionary[tuple[str, Scheme], QuantizedWeight] = WeakValueDictionary()
        self._kept: dict[tuple[str, Scheme], QuantizedWeight] = {}

    def prepare(self, pairs: Iterable[tuple[str, Scheme]]) -> None:
        """Collect what ``pairs`` need of the inputs, in as few passes as memory allows.

        Raises ``SchemeError`` for a pair that does not fit, and ``ModelError`` while any layer of
        the model is quantized: statistics are the full-precision model's.
        """
        moments: list[str] = []
        magnitudes: list[str] = []
        after_first: list[str] = []
        outputs: dict[str, Range] = {}
        for name, scheme in dict.fromkeys(pairs):
            owner = self._owner(name, scheme)
            if QUANTIZERS[scheme.quantizer].uses_inputs and self._known(owner).H is None:
                moments.append(owner)
            activation = scheme.activation
            if activation and activation.static and self._magnitudes(name, activation) is None:
                (after_first if activation.bos else magnitudes).append(name)
            if activation and activation.output and self._known(name).outputs is None:
                outputs[name] = self._layers[name].read
        if not (moments or magnitudes or after_first or outputs):
            return
        for name in self._layers:
            if is_applied(name, self._model.get_submodule(name)):
                raise ModelError(
                    f"statistics are wanted while layer {name!r} is quantized",
                    "prepare them before applying anything",
                )
        for part in self._parts(moments) or [[]]:
            self._remember(collect(self._model, part, magnitudes, self._run, after_first, outputs))
            magnitudes, after_first, outputs = [], [], {}

    def quantized(self, name: str, scheme: Scheme) -> QuantizedLayer:
        """Layer ``name`` under ``scheme``; prepares the pair if that was not done.

        Always the full-precision weight, also while the layer is applied. Raises ``SchemeError``
        for a layer that cannot take the scheme, and ``ModelError`` for weights that are not finite.
        """
        self.prepare([(name, scheme)])
        return self._layer(name, scheme, self._weight(self._owner(name, scheme), scheme))

    def kept(self, name: str, scheme: Scheme) -> QuantizedLayer:
        """As ``quantized``, and its codes wait in scratch memory: it is never made again.

        For passes that need the candidates of all layers at once, and for whoever comes after.
        """
        self.prepare([(name, scheme)])
        owner = self._owner(name, scheme)
        weight = self._weight(owner, scheme)
        if (owner, scheme) not in self._kept:
            weight = replace(weight, codes=self._scratch.keep(weight.codes))
            self._kept[owner, scheme] = self._made[owner, scheme] = weight
        return self._layer(name, scheme, weight)

    def _layer(self, name: str, scheme: Scheme, weight: QuantizedWeight) -> QuantizedLayer:
        activation, layer = scheme.activation, self._layers[name]
        head = layer.head if scheme.cache is not None and layer.cached else 0
        if activation is None or not activation.static:
            return QuantizedLayer(weight, head=head)
        magnitudes, outputs = self._magnitudes(name, activation), self._known(name).outputs
        assert magnitudes is not None  # prepared
        step, zero = static_grid(magnitudes, activation)
        made = QuantizedLayer(weight, step, head, zero)
        if not activation.output:
            return made
        assert outputs is not None  # prepared
        step, zero = static_grid(outputs, activation)
        return replace(made, output_scale=step, output_zero=zero)

    def _weight(self, owner: str, scheme: Scheme) -> QuantizedWeight:
        made = self._made.get((owner, scheme))
        if made is not None:
            return made
        M = original(owner, self._model.get_submodule(owner))
        if not torch.isfinite(M).all():
            raise ModelError(
                f"layer {owner!r} has weights that are not finite", "repair the checkpoint"
            )
        try:
            made = quantize(M, scheme, self._known(owner))
        except (SchemeError, ModelError) as error:
            what = f"layer {owner!r} under {scheme}: {error.what}"
            raise type(error)(what, error.remedy) from None
        self._made[owner, scheme] = made
        return made

    def _known(self, name: str) -> InputStatistics:
        return self._statistics.get(name, InputStatistics())

    def _magnitudes(self, name: str, activation: Activation) -> Histogram | None:
        """What a static step of layer ``name`` is chosen by, if it is known."""
        known = self._known(name)
        return known.after_first if activation.bos else known.magnitudes

    def _owner(self, name: str, scheme: Scheme) -> str:
        """The layer whose weight ``name`` uses, after checking that both can take ``scheme``."""
        if name not in self._layers:
            raise UnknownName(f"no layer named {name!r}", "see the task's layers")
        layer = self._layers[name]
        owner = self._layers.get(layer.shares or name, layer)
        for each in (layer, owner):
            reason = takes(each, scheme)
            if reason is not None:
                raise SchemeError(
                    f"layer {each.name!r} cannot take {scheme}: {reason}",
                    "choose another scheme for it, or keep it out",
                )
        return owner.name

    def _parts(self, names: list[str]) -> list[list[str]]:
        """``names`` in order, split so that the second moments of each part fit the limit."""
        parts: list[list[str]] = []
        size = 0
        for name in dict.fromkeys(names):
            needed = moment_bytes(self._model.get_submodule(name))
            if not parts or size + needed > self._limit:
                parts.append([])
                size = 0
            parts[-1].append(name)
            size += needed
        return parts

    def _remember(self, found: dict[str, InputStatistics]) -> None:
        """Remember statistics, each shared H once."""
        kept: dict[int, Tensor] = {}
        for name, new in found.items():
            old = self._statistics.get(name, InputStatistics())
            if new.H is not None:
                if id(new.H) not in kept:
                    kept[id(new.H)] = self._scratch.keep(new.H)
                old = replace(old, H=kept[id(new.H)], rows=new.rows)
            self._statistics[name] = replace(
                old,
                magnitudes=new.magnitudes or old.magnitudes,
                after_first=new.after_first or old.after_first,
                outputs=new.outputs or old.outputs,
            )
