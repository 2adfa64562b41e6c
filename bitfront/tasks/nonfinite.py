"""Where in a model numbers stop being finite: found by running it once more, watched."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from .trace import tensors


def first_nonfinite(model: nn.Module, run: Callable[[], object]) -> str:
    """Words for the first call of a module in ``run()`` with NaN or infinity in its output.

    Modules within others end first, so that the innermost one is named. The hooks are removed
    however ``run`` ends.
    """
    inputs: dict[str, bool] = {}  # of the call under way: whether they are finite
    found: list[str] = []

    def before(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            inputs[name] = _finite((args, kwargs))  # now: the module may overwrite them

        return hook

    def after(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            if found or _finite(output):
                return
            place = f"module {name!r}" if name else "the model itself"
            said = "finite" if inputs[name] else "not finite either"
            found.append(f"first at {place} ({type(module).__name__}), whose inputs are {said}")

        return hook

    with ExitStack() as stack, torch.no_grad():
        for name, module in model.named_modules():
            start = module.register_forward_pre_hook(before(name), with_kwargs=True)
            stack.callback(start.remove)
            stack.callback(module.register_forward_hook(after(name), with_kwargs=True).remove)
        run()
    return found[0] if found else "though those of its modules are"


def _finite(value: Any) -> bool:
    floating = (t for t in tensors(value) if t.is_floating_point() and t.layout == torch.strided)
    return all(bool(torch.isfinite(t).all()) for t in floating)
