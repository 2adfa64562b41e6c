"""Image classifiers of the user's own code that cannot be made, run or differentiated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.commands import Commands
from tests.malformed.cases import (
    VISION,
    Case,
    Make,
    Spoil,
    Trap,
    coded,
    cut,
    nothing_is_begun,
    search,
)


def checkpoint(change: Callable[[dict[str, Any]], object]) -> Spoil:
    """The image classifier's weights, changed."""

    def spoil(folder: Path) -> None:
        state = dict(torch.load(folder / "net.pt"))
        change(state)
        torch.save(state, folder / "net.pt")

    return spoil


def forwarded(forward: str, init: str = "pass") -> Make:
    """A study of an image classifier with another ``forward``."""
    return coded(f"""
import torch
from torch import nn

class Log(nn.Module):
    def forward(self, x):
        return torch.log(x)

class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

class f(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)
        {init}

    def features(self, x):
        return self.conv(x).mean((2, 3))

    def forward(self, x):
        return {forward}
""")


CODE: dict[str, Case] = {
    "no such file": (
        search(VISION, model="@/no.py:Net"),
        r"no file '.*no\.py': give the path of the Python file",
    ),
    "no such function": (
        search(VISION, model="@/net.py:Nut"),
        r"net\.py' has no function 'Nut': it has Net, task",
    ),
    "no function named": (
        search(VISION, model="@/net.py"),
        r"net\.py' names no function: write path/to/file\.py:function",
    ),
    "syntax error": (
        coded("def f(:\n    pass\n"),
        r"running mine\.py failed: mine\.py:1: SyntaxError: invalid syntax: correct the file",
    ),
    "the file raises": (
        coded("import no_such_package\n"),
        r"mine\.py:1: ModuleNotFoundError: .*'no_such_package': .*install what it needs",
    ),
    "the file exits": (
        coded("import sys\nsys.exit(0)\n"),
        r"running mine\.py failed: mine\.py:2: SystemExit: 0: correct the file",
    ),
    "the function raises": (
        coded("def f():\n    return {}['layers']\n"),
        r"calling f failed: mine\.py:2: KeyError: 'layers': correct it, or the arguments",
    ),
    "no Module": (
        coded("def f():\n    return [1]\n"),
        r"mine\.py:f' returned list: return an nn\.Module",
    ),
    "an argument is not given": (
        coded("def f(depth):\n    pass\n"),
        "calling f failed: .*'depth': correct it, or the arguments it is given",
    ),
    "an argument too many": (
        search(VISION, arguments='{"depth": 2}'),
        "calling Net failed: .*'depth': correct it, or the arguments it is given",
    ),
    "arguments are not JSON": (
        search(VISION, arguments="width=4"),
        "--arguments 'width=4' is not JSON .*: write a JSON object like",
    ),
    "arguments are a list": (
        search(VISION, arguments="[4]"),
        r"--arguments '\[4\]' is no JSON object: write a JSON object like",
    ),
    "weights that are not there": (
        search(VISION, weights="@/none.pt"),
        r"no weights file '.*none\.pt': give the path",
    ),
    "weights of another kind": (
        search(VISION, weights="@/text.txt"),
        r"unknown kind of weights file 'text\.txt': use \.safetensors",
    ),
    "weights with a key too many": (
        search(VISION, checkpoint(lambda state: state.update(tail=torch.ones(2)))),
        r"net\.pt has unknown 'tail': the weights belong to another model",
    ),
    "weights without a key": (
        search(VISION, checkpoint(lambda state: state.pop("head.bias"))),
        r"net\.pt lacks 'head\.bias': the weights belong to another model",
    ),
    "weights of another shape": (
        search(VISION, arguments='{"width": 6}'),
        r"'conv\.weight' in net\.pt has shape \(4, .*\), the model's \(6, .*\): check the model's",
    ),
    "weights in integers": (
        search(
            VISION,
            checkpoint(lambda s: s.update({"head.bias": torch.ones(3, dtype=torch.int8)})),
        ),
        r"'head\.bias' in net\.pt is torch\.int8, .*float32: use weights in full precision",
    ),
    "weights with code": (
        search(VISION, lambda folder: torch.save({"a": Trap(folder)}, folder / "net.pt")),
        r"net\.pt failed: .*other things than tensors.*: save model\.state_dict\(\) in it",
    ),
    "weights that are cut": (
        search(VISION, cut("net.pt", 1000)),
        r"reading weights from net\.pt failed: .*copy it again",
    ),
    "layers without values": (
        forwarded("self.head(self.lazy(x))", "self.lazy = nn.LazyLinear(4)"),
        r"'lazy\.weight' has no values yet: give the model its weights first",
    ),
    "outputs are NaN": (
        forwarded("self.head(self.features(x)) * float('nan')"),
        r"the model's outputs are not finite, first at the model itself \(f\), whose inputs are "
        "finite, in calibration batch 0: check the weights",
    ),
    "a module gives NaN": (
        forwarded("self.head(self.log(self.features(x) - 9))", "self.log = Log()"),
        r"at module 'log' \(Log\), whose inputs are finite, in calibration batch 0: check the",
    ),
    "outputs are of another shape": (
        forwarded("self.conv(x)"),
        r"outputs have shape \(8, 4, 4, 4\): they must be logits \(images, classes\)",
    ),
    "outputs are no tensor": (
        forwarded("{'scores': x}"),
        "the model returned dict: return a tensor",
    ),
    "outputs of one sample": (
        forwarded("self.head(self.features(x))[:1]"),
        "outputs for 1 samples of a batch of 8: its first output dimension",
    ),
    "outputs differ from run to run": (
        forwarded("self.head(nn.functional.dropout(self.features(x)))"),
        "gives other outputs when run again: they differ by up to .*: let its forward draw nothing",
    ),
    "outputs are detached": (
        forwarded("self.head(self.features(x)).detach()"),
        "no gradient reached layer 'conv' and 1 more: leave out layers that the outputs do not",
    ),
    "an operation without a backward pass": (
        forwarded("self.head(Once.apply(self.features(x)))"),
        r"reached layer 'conv' \(NotImplementedError: .*\): leave out .*or use a profiler without",
    ),
    "a layer is detached": (
        forwarded("self.head(self.features(x).detach())"),
        "no gradient reached layer 'conv'.*: leave out layers",
    ),
    "no quantizable layer": (
        coded("from torch import nn\nclass f(nn.Module):\n    def forward(self, x):\n"
              "        return x.mean((2, 3))\n"),
        "f runs no quantizable layer: layers are Linear",
    ),
    "the model raises": (
        forwarded("self.head(x)"),
        r"running the model failed: mine\.py:\d+: RuntimeError: .*: check that its inputs fit it",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CODE)
def test_nothing_is_begun_with(case: str, bitfront: Commands, folder: Path) -> None:
    nothing_is_begun(CODE[case], bitfront, folder)
