"""A model that propagates relevance while a ``with`` block lasts, and is as it was afterwards.

    y, R   a layer's output, and its relevance    G   what the backward pass carries: R = y G

A backward pass of the logit of the predicted class, begun within the block's forward pass, carries
G with R = y G instead of the gradient: "modified gradient times input". For linear functions the
two are the same, so autograd is right wherever no rule is in place (sums, residual connections,
means, pooling, reshapes, masks), in any architecture; where one is, only the backward pass through
that layer or function changes. Carrying R itself would need a rule for every function, and a
division by every activation, many of which are near zero.

Layers are reached by forward hooks, which put the rule of their kind (lrp_rules.py) in place of
their own backward pass; functions between layers by a function mode (lrp_operations.py). A batch
norm that takes what a layer gave becomes one affine layer with it, W_ij s_i and b_i s_i + t_i, for
its rule; any other is linear by itself. No weight is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.weak import WeakIdKeyDictionary

from bitfront.quant.layers import adapter_for, adapter_of
from bitfront.quant.statistics import call_input

from .lrp_composite import Composite
from .lrp_layers import Affine, affine, merged
from .lrp_operations import Operations, identity
from .lrp_rules import Rule, back
from .taps import InputChanged, evaluating

Receive = Callable[[str, Tensor], None]


@contextmanager
def propagating(
    model: nn.Module,
    composite: Composite,
    receive: Receive,
    copied: frozenset[str] = frozenset(),
) -> Iterator[None]:
    """Backward passes of outputs computed meanwhile call ``receive(name, R)`` for every layer call.

    R is detached, of the shape of the layer's output; of a layer whose batch norm is merged, that
    of the batch norm's output. Inputs of layers in ``copied`` are copied, since the model
    overwrites them later; for another layer whose input turns out overwritten, the backward pass
    raises ``InputChanged``. Raises ``InvalidInput`` in the forward pass for a layer without a rule.
    """
    hooks = _Hooks(composite, receive, copied)
    with ExitStack() as stack:
        stack.enter_context(evaluating(model))
        for name, module in model.named_modules():
            hook = hooks.of(name, module)
            if hook is not None:
                handle = module.register_forward_hook(hook, with_kwargs=True)
                stack.callback(handle.remove)
        stack.enter_context(Operations(composite))
        yield


@dataclass(frozen=True, eq=False)
class _Call:
    """One call of a layer: its input x, which had this version then, and how relevance passes."""

    name: str
    x: Tensor
    version: int
    layer: Affine
    rule: Rule

    def share(self, y: Tensor, G: Tensor) -> Tensor:
        """g at x."""
        if self.x._version != self.version:
            raise InputChanged(self.name)
        wide = self.layer.M.dtype
        x = self.x.detach()
        return back(self.rule, self.layer, x.to(wide), y.to(wide), G.to(wide)).to(x.dtype)


class _Hooks:
    """The forward hooks of a model's modules."""

    def __init__(self, composite: Composite, receive: Receive, copied: frozenset[str]) -> None:
        self.composite, self.receive, self.copied = composite, receive, copied
        # output of a layer -> its _Call, and the output's version
        self.calls: WeakIdKeyDictionary = WeakIdKeyDictionary()

    def of(self, name: str, module: nn.Module) -> Callable[..., Any] | None:
        """The hook of a module, or None."""
        adapter = adapter_for(module)
        if adapter is not None:
            return self._embedding(name) if adapter.kind == "embedding" else self._layer(name)
        if isinstance(module, _BatchNorm) and module.running_var is not None:
            return self._batch_norm
        # written out of powers and tanh there, which have no rule of their own as a whole
        written_out = type(module).__module__ == "transformers.activations"
        if written_out and self.composite.operation("activation") == "identity":
            return self._activation
        return None

    def _embedding(self, name: str) -> Callable[..., Any]:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Tensor) -> Tensor | None:
            return self._begin(name, output) if torch.is_grad_enabled() else None

        return hook

    def _layer(self, name: str) -> Callable[..., Any]:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Tensor) -> Tensor | None:
            if not torch.is_grad_enabled():
                return None
            x = call_input(args, kwargs)
            rule = self.composite.layer(name, adapter_of(module).kind, first=x.is_leaf)
            x = x.clone() if name in self.copied else x
            call = _Call(name, x, x._version, affine(module), rule)
            out = self._propagated(call, output)
            self.calls[out] = call, out._version
            return out

        return hook

    def _batch_norm(self, module: Any, args: Any, kwargs: Any, output: Tensor) -> Tensor | None:
        given = call_input(args, kwargs)
        call, version = self.calls.get(given, (None, 0))
        if call is None or version != given._version or not torch.is_grad_enabled():
            return None
        if call.layer.M.shape[0] != given.shape[1]:  # a linear layer's channels come last
            return None
        return self._propagated(replace(call, layer=merged(call.layer, module, given)), output)

    def _activation(self, module: nn.Module, args: Any, kwargs: Any, output: Tensor) -> Any:
        x = call_input(args, kwargs)
        if not torch.is_grad_enabled() or not x.requires_grad:
            return None
        return identity(module.forward, x)

    def _propagated(self, call: _Call, output: Tensor) -> Tensor:
        """A layer's output again, with its rule in the backward pass."""
        if not call.x.requires_grad:
            return self._begin(call.name, output)
        y = output.detach()
        out: Tensor = _Through.apply(call.x, y, partial(call.share, y))
        return self._heard(call.name, out, y)

    def _begin(self, name: str, output: Tensor) -> Tensor:
        """The output of a layer that relevance ends at."""
        y = output.detach()
        return self._heard(name, y.detach().requires_grad_().clone(), y)

    def _heard(self, name: str, out: Tensor, y: Tensor) -> Tensor:
        """``out``, a copy of y: what the model gets and may change in place."""
        out.register_hook(lambda G: self.receive(name, y * G))
        return out


class _Through(torch.autograd.Function):
    """A copy of y; backwards, what ``share`` makes of the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, share: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.share = share
        return y.clone()

    @staticmethod
    def backward(ctx: Any, *G: Tensor) -> tuple[Tensor, None, None]:
        return ctx.share(G[0]), None, None
