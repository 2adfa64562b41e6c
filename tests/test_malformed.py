"""Malformed input on the command line: one line that says what was wrong, which value, and what to
do; exit code 2; nothing half-written.

A case spoils a folder of good files, then says what is typed; ``@`` in a word is that folder.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import bitfront as library
from bitfront.cli.task_options import task_options
from bitfront.pipeline import Choices
from bitfront.storage import Store
from bitfront.storage import store as storage
from bitfront.tasks import ModuleTask
from tests import tiny
from tests.commands import Commands

ROOT = Path(__file__).resolve().parents[1]

Options = Mapping[str, object]
Words = Sequence[object]
Spoil = Callable[[Path], object]
Make = Callable[[Path], Words]
Case = tuple[Make, str]  # what is typed, and the line that it is refused with, as a pattern

COMMON = {"schemes": "w4 w8", "budget": "6bpw", "device": "cpu"}
MODULE = {**COMMON, "task": "module", "function": "@/bring.py:task"}
LANGUAGE = {
    **COMMON, "task": "language", "model": "@/llama", "calibration": "@/text.txt",
    "samples": 6, "eval_samples": 4, "length": 12, "batch": 3,
}  # fmt: skip
VISION = {
    **COMMON, "task": "vision", "model": "@/net.py:Net", "arguments": '{"width": 4}',
    "weights": "@/net.pt", "calibration": "@/images.npz", "samples": 8,
}  # fmt: skip
PIXELS = np.random.default_rng(0).integers(0, 256, (30, 6, 6, 3), dtype=np.uint8)


# ---------------------------------------------------------------- what is typed


def nothing(folder: Path) -> None:
    """Spoils nothing."""


def typed(folder: Path, words: Words, options: Options) -> Words:
    """Words, then options: a list is repeated, None left out."""
    found = list(words)
    for name, value in options.items():
        items = value if isinstance(value, list) else [value]
        for item in items:
            if item is not None:
                found += [f"--{name.replace('_', '-')}", item]
    return [re.sub("^@", str(folder), str(word)) for word in found]


def command(*words: object, **options: object) -> Make:
    return lambda folder: typed(folder, list(words), options)


def search(task: Options, spoil: Spoil = nothing, /, **changes: object) -> Make:
    """The beginning of a study of ``task`` with some options changed, after ``spoil``."""

    def make(folder: Path) -> Words:
        spoil(folder)
        return typed(folder, ["search", "s"], {**task, **changes})

    return make


def profile(**changes: object) -> Make:
    return command("profile", "s", **{**MODULE, "budget": None, **changes})


def named(study: str) -> Make:
    return command("search", study, **MODULE)


# ---------------------------------------------------------------- what spoils good files


def written(name: str, content: str | bytes) -> Spoil:
    data = content if isinstance(content, bytes) else content.encode()
    return lambda folder: (folder / name).write_bytes(data)


def removed(glob: str) -> Spoil:
    def spoil(folder: Path) -> None:
        for path in folder.glob(glob):
            path.unlink()

    return spoil


def cut(name: str, size: int) -> Spoil:
    return lambda folder: os.truncate(folder / name, size)


def configured(**changes: object) -> Spoil:
    """The language model with another config.json."""

    def spoil(folder: Path) -> None:
        path = folder / "llama" / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return spoil


def weighted(change: Callable[[dict[str, torch.Tensor]], object]) -> Spoil:
    """The language model with other weights."""

    def spoil(folder: Path) -> None:
        path = folder / "llama" / "model.safetensors"
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path, {"format": "pt"})

    return spoil


def checkpoint(change: Callable[[dict[str, Any]], object]) -> Spoil:
    """The image classifier's weights, changed."""

    def spoil(folder: Path) -> None:
        state = dict(torch.load(folder / "net.pt"))
        change(state)
        torch.save(state, folder / "net.pt")

    return spoil


class Trap:
    """Unpickled, it would write a file, which the check for what is left would find."""

    def __init__(self, folder: Path) -> None:
        self.file = str(folder / "sprung")

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.file, "w")


def trapped(folder: Path) -> None:
    (folder / "llama" / "model.safetensors").unlink()
    torch.save({"a": Trap(folder)}, folder / "llama" / "pytorch_model.bin")


def with_code(folder: Path) -> None:
    configured(model_type="mine", auto_map={"AutoModelForCausalLM": "mine.Model"})(folder)
    (folder / "llama" / "mine.py").write_text(f"open({str(folder / 'sprung')!r}, 'w')\n")


# ---------------------------------------------------------------- models

UP = "model.layers.0.mlp.up_proj.weight"

MODELS: dict[str, Case] = {
    "no such folder": (
        search(LANGUAGE, model="@/nothing"),
        "no folder '.*nothing': give a folder with config.json and weights",
    ),
    "a file for a folder": (
        search(LANGUAGE, model="@/text.txt"),
        r"'.*text\.txt' is a file: give the folder",
    ),
    "no config": (
        search(LANGUAGE, removed("llama/config.json")),
        "no config.json in '.*llama': give a transformers model's folder",
    ),
    "config is not JSON": (
        search(LANGUAGE, written("llama/config.json", "{'a': 1}")),
        r"config\.json' is not JSON .*line 1.*: restore the file",
    ),
    "config without a type": (
        search(LANGUAGE, written("llama/config.json", "{}")),
        "loading '.*llama' failed: .*model_type.*: correct the folder until transformers",
    ),
    "unknown model type": (
        search(LANGUAGE, configured(model_type="perceptron")),
        "no AutoModelForCausalLM is of model_type 'perceptron': use .*newer transformers",
    ),
    "a language model as a classifier": (
        search(VISION, model="@/llama", arguments=None, weights=None),
        "no AutoModelForImageClassification is of model_type 'llama': use another kind of task",
    ),
    "impossible configuration": (
        search(LANGUAGE, configured(num_attention_heads=3)),
        r"loading '.*llama' failed: .*attention heads \(3\): correct the folder",
    ),
    "no weights": (
        search(LANGUAGE, removed("llama/*.safetensors")),
        "no weights in '.*llama': it needs model.safetensors",
    ),
    "truncated weights": (
        search(LANGUAGE, cut("llama/model.safetensors", 5000)),
        r"reading model\.safetensors failed: .*not fully covered: download or copy it again",
    ),
    "garbage for weights": (
        search(LANGUAGE, written("llama/model.safetensors", b"\xff" * 500)),
        r"reading model\.safetensors failed: .*header.*: download or copy it again",
    ),
    "empty weights": (
        search(LANGUAGE, written("llama/model.safetensors", b"")),
        r"reading model\.safetensors failed: .*header.*: download or copy it again",
    ),
    "a shard is missing": (
        search(
            LANGUAGE,
            written("llama/model.safetensors.index.json", '{"weight_map": {"a": "b.safetensors"}}'),
        ),
        r"no b\.safetensors in '.*llama', which model\.safetensors\.index\.json asks for: restore",
    ),
    "a tensor is missing": (
        search(LANGUAGE, weighted(lambda tensors: tensors.pop(UP))),
        f"no fitting weights for '{UP}': use the complete weights of a LlamaForCausalLM",
    ),
    "tensors of other shapes": (
        search(LANGUAGE, configured(intermediate_size=32)),
        r"'model\.layers\.0.*' and 5 more, of shape \(16, 24\): config.json asks for \(16, 32\)",
    ),
    "NaN in weights": (
        search(LANGUAGE, weighted(lambda tensors: tensors[UP][0].fill_(float("nan")))),
        f"weights '{UP}' have 16 elements that are NaN or infinite: .*use other weights",
    ),
    "infinite weights": (
        search(LANGUAGE, weighted(lambda tensors: tensors[UP][0, :3].fill_(float("inf")))),
        f"weights '{UP}' have 3 elements that are NaN or infinite: .*use other weights",
    ),
    "quantized already": (
        search(LANGUAGE, configured(quantization_config={"quant_method": "gptq", "bits": 4})),
        "'.*llama' is quantized already: use the model that it was made from",
    ),
    "weights with code in them": (
        search(LANGUAGE, trapped),
        "loading '.*llama' failed: .*other things than tensors.*: correct the folder",
    ),
    "a model with code of its own": (
        search(LANGUAGE, with_code),
        "it runs code of its own: allow it with --trust-remote-code",
    ),
    "no tokenizer": (
        search(LANGUAGE, removed("llama/tokenizer*")),
        "loading the tokenizer of '.*llama' failed: .*: give tokenizer=, or token ids in an .npz",
    ),
    "code for a language model": (
        search(LANGUAGE, model="@/net.py"),
        r"net\.py' is no folder: give one of transformers, or bring Python code as a vision or",
    ),
}


def coded(code: str, task: Options = VISION, **changes: object) -> Make:
    """A study of what ``f`` in a Python file of the user's gives."""
    where = {"function": "@/mine.py:f"} if task is MODULE else {"model": "@/mine.py:f"}
    own = {} if task is MODULE else {"arguments": None, "weights": None}
    return search(task, written("mine.py", code), **{**where, **own, **changes})


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


def brought(**changes: str) -> Make:
    """A study of what a function returns: expressions for keys, none for an empty one."""
    keys = {"model": "nn.Linear(4, 3)", "calibration": "[x]", "evaluation": "[x]", **changes}
    items = ", ".join(f"{name!r}: {text}" for name, text in keys.items() if text)
    head = "import torch\nfrom torch import nn\n\nx = torch.ones(6, 4)\n\n"
    return coded(f"{head}def f():\n    return {{{items}}}\n", MODULE)


def labelled(labels: str) -> Make:
    return brought(calibration=f"[{{'input': x, 'labels': {labels}}}]")


MODULES: dict[str, Case] = {
    "no calibration": (brought(calibration=""), "f returned no 'calibration': return a dict with"),
    "no batches": (brought(calibration="[]"), "'calibration' has no batches: give at least one"),
    "no evaluation batches": (brought(evaluation="[]"), "'evaluation' has no batches: give"),
    "one tensor": (brought(calibration="x"), "'calibration' is one Tensor: give a sequence"),
    "a batch of nothing": (
        brought(calibration="[x, x[:0]]"),
        r"calibration batch 1 has no samples, its shape is \(0, 4\): drop it",
    ),
    "no tensors": (brought(calibration="[1]"), "batch 0 is a int without a tensor.*: a batch is"),
    "no Module": (brought(model="torch.relu"), "'model' is a builtin.*: return an nn.Module"),
    "another key": (brought(data="[x]"), "f returned 'data': known keys: model, calibration"),
    "NaN in inputs": (
        brought(calibration="[x * float('nan')]"),
        r"not finite, first at the model itself \(Linear\), whose inputs are not finite either, in "
        "calibration batch 0: check the weights and the input's scale",
    ),
    "inputs of another width": (
        brought(calibration="[x[:, :3]]"),
        "running the model failed: RuntimeError: .*3 and 4x3.*: check that its inputs fit it",
    ),
    "unknown output": (brought(output="'poisson'"), "'output' is 'poisson': use categorical or"),
    "metrics without names": (brought(metrics="[len]"), "'metrics' is a list: give a dict of"),
    "a metric of one number": (
        brought(metrics="{'m': (lambda z, b: z.sum(), 'lower')}"),
        r"metric 'm' gave values of shape \(\): give one finite number for each of the 6 samples",
    ),
    "labels beyond the classes": (
        labelled("torch.full((6,), 3)"),
        "labels from 3 to 3 for 3 classes: labels are class indices from 0 to 2",
    ),
    "too few labels": (
        labelled("torch.zeros(5).long()"),
        r"labels of shape \(5, 1\) for outputs of shape \(6, 1, 3\): give one class index for each",
    ),
    "labels in words": (labelled("['cat']"), "labels of calibration batch 0 failed: .*: give a"),
    "labels that all do not count": (
        labelled("torch.full((6,), -100)"),
        "no position of 'calibration' is scored: give labels other than -100",
    ),
    "groups by name": (brought(groups="['a']"), "'groups' has 'a': give a list of groups"),
    "groups of nothing": (brought(groups="[['a', 'b']]"), "no layer matches 'a': near it"),
}


# ---------------------------------------------------------------- data


def text(name: str, content: str | bytes, **changes: object) -> Make:
    """A study of a language model on this file."""
    changes = {"calibration": f"@/{name}", **changes}
    return search(LANGUAGE, written(name, content), **changes)


def arrays(task: Options, **named: Any) -> Make:
    """A study on an ``.npz`` file of these arrays."""
    return search(task, lambda folder: np.savez(folder / "d.npz", **named), calibration="@/d.npz")


TEXTS: dict[str, Case] = {
    "no such file": (
        search(LANGUAGE, calibration="@/none.txt"),
        r"data '.*none\.txt' does not exist: give a \.txt, \.jsonl, \.json or \.npz file",
    ),
    "no such evaluation file": (
        search(LANGUAGE, evaluation="@/none.txt"),
        r"data '.*none\.txt' does not exist: give a",
    ),
    "a folder": (search(LANGUAGE, calibration="@/llama"), "data '.*llama' is a folder: give a"),
    "a file of nobody's": (
        search(LANGUAGE, calibration="~nobody-at-all/text.txt"),
        r"data '.*nobody-at-all/text\.txt' does not exist: give a",
    ),
    "empty": (text("e.txt", ""), r"e\.txt is empty: give a file with text"),
    "too short": (
        text("e.txt", "a few words"),
        r"e\.txt has 1 windows of 12 tokens .* 6 for calibration and 4 .*: give more data",
    ),
    "too short for so many samples": (
        search(LANGUAGE, samples=1000),
        r"text\.txt has 166 windows .* where 1000 for calibration .*: give more data",
    ),
    "not UTF-8": (
        text("e.txt", bytes(range(1, 256)) * 9),
        r"e\.txt is not UTF-8 text \(byte 127\): convert it",
    ),
    "binary": (text("e.txt", bytes(4000)), r"e\.txt is binary .*: give a text file, or token ids"),
    "a broken line": (
        text("e.jsonl", '{"text": "a b c"}\n{"text": \n'),
        r"e\.jsonl:2 is not JSON .*: correct or remove it",
    ),
    "no such field": (
        text("e.jsonl", '{"body": "a b c"}\n' * 9),
        r"e\.jsonl:1 has no text in 'text': it has body: name the field",
    ),
    "a field of another kind": (
        text("e.jsonl", '{"text": 3}\n' * 9),
        r"'text' of e\.jsonl:1 is a int: store text there, or name another field",
    ),
    "lines of nothing": (text("e.jsonl", '{"text": ""}\n' * 9), r"e\.jsonl is empty: give a file"),
    "no list": (text("e.json", '{"text": "a"}'), r"e\.json holds no list: write a JSON list"),
    "a list without end": (text("e.json", "[" * 100_000), r"e\.json is not JSON .*: correct"),
    "unknown layout": (search(LANGUAGE, layout="rows"), "unknown layout 'rows': use auto, joined"),
    "no ids": (arrays(LANGUAGE, tokens=np.ones(99, int)), r"d\.npz has no 'ids': it has tokens"),
    "ids that are not whole": (
        arrays(LANGUAGE, ids=np.ones(99)),
        r"ids of d\.npz are float64 of shape \(99,\): store integers",
    ),
    "ids beyond the vocabulary": (
        arrays(LANGUAGE, ids=np.full(900, 32)),
        "token ids from 32 to 32 for a vocabulary of 32: use the ids, or the tokenizer, of this",
    ),
    "negative ids": (arrays(LANGUAGE, ids=np.full(900, -1)), "token ids from -1 to -1 .*: use the"),
    "lengths that do not fit": (
        arrays(LANGUAGE, ids=np.ones(99, int), lengths=np.array([5, 6])),
        r"lengths of d\.npz sum to 11: there are 99 ids",
    ),
    "lengths that are not whole": (
        arrays(LANGUAGE, ids=np.ones(12, int), lengths=np.array([5.5, 6.5])),
        r"lengths of d\.npz are float64 .*: store one row of integers",
    ),
    "hub without its package": (
        search(LANGUAGE, calibration="hub:wikitext"),
        r"'hub:wikitext' needs the package datasets: pip install",
    ),
    "hub without a name": (
        search(LANGUAGE, calibration="hub:a:b:c:d"),
        r"cannot read data 'hub:a:b:c:d': write hub:NAME\[:CONFIG\]\[:SPLIT\]",
    ),
    "no data": (
        search(LANGUAGE, calibration=None),
        "task without --calibration: give --calibration",
    ),
    "data without a name": (
        search(LANGUAGE, calibration=""),
        "--calibration is empty: give a value",
    ),
}

IMAGES: dict[str, Case] = {
    "no such file": (
        search(VISION, calibration="@/none.npz"),
        r"no images '.*none\.npz': give an \.npz file",
    ),
    "a text": (
        search(VISION, calibration="@/text.txt"),
        r"text\.txt is not an \.npz file, or damaged: save it with numpy\.savez",
    ),
    "cut": (search(VISION, cut("images.npz", 700)), r"images\.npz is not an \.npz.*: save it with"),
    "damaged": (
        search(VISION, lambda folder: overwrite(folder / "images.npz", 400, b"\xff" * 500)),
        r"reading 'x_train' of images\.npz failed: .*CRC.*: copy or save it again",
    ),
    "no images in it": (
        arrays(VISION, tokens=PIXELS),
        r"d\.npz has no images that can be guessed; its keys are tokens: name them: d\.npz:x_key",
    ),
    "no such key": (
        search(VISION, calibration="@/images.npz:photos"),
        r"images\.npz has no array 'photos'; its keys are x_train, .*: name them",
    ),
    "objects": (
        arrays(VISION, x=np.array([1, None])),
        r"'x' of d\.npz holds Python objects, not numbers: save arrays of one numeric dtype",
    ),
    "no pixels": (
        arrays(VISION, x=PIXELS[:, :0]),
        r"images of d\.npz have shape \(30, 0, 6, 3\): give them at least one pixel",
    ),
    "NaN in pixels": (
        arrays(VISION, x=PIXELS * np.float32("nan")),
        r"images of d\.npz have pixels that are NaN or infinite: repair them",
    ),
    "not images": (
        arrays(VISION, x=PIXELS[:, 0, 0]),
        r"images of d\.npz are uint8 of shape \(30, 3\): store numbers as \(N, H, W, C\)",
    ),
    "other channels": (
        arrays(VISION, x=PIXELS.repeat(2, 3)[..., :5]),
        r"images with 5 channels: the model takes 3",
    ),
    "too few labels": (
        arrays(VISION, x=PIXELS, y=np.zeros(29, int)),
        r"labels of d\.npz have shape \(29,\) for 30 images: store one integer for each image",
    ),
    "labels that are not whole": (
        arrays(VISION, x=PIXELS, y=np.zeros(30)),
        r"labels of d\.npz are float64: store integers",
    ),
    "labels beyond the classes": (
        arrays(VISION, x=PIXELS, y=np.full(30, 3)),
        "labels from 3 to 3 for 3 classes: labels are class indices from 0 to 2",
    ),
    "too few images": (search(VISION, samples=999), "has 20 images where 999 .*: give more images"),
    "means of nothing": (search(VISION, mean="a,b,c"), "--mean 'a,b,c': write finite numbers like"),
    "means that are not finite": (search(VISION, mean="nan"), "--mean 'nan': write finite numbers"),
    "a mean too few": (
        search(VISION, mean="1,2"),
        "mean of 2 numbers: give one for each of 3 channels",
    ),
    "a deviation of 0": (search(VISION, std="0"), r"std of 0\.0: give positive numbers"),
    "a size of nothing": (search(VISION, size="x"), "--size 'x': write it like 224 or 192x256"),
    "a size of 0": (search(VISION, size="0x6"), r"image size \[0, 6\]: give one or two positive"),
    "a size beyond memory": (
        search(VISION, size="1000000000"),
        "preparing the images failed: .*1000000000.*: use another size",
    ),
}


def overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


# ---------------------------------------------------------------- options


def asked(**changes: object) -> Make:
    """A study of the module task with these options."""
    return search(MODULE, **changes)


USAGE = "bitfront search --help shows what can be given"

OPTIONS: dict[str, Case] = {
    "unknown scheme": (asked(schemes="int4"), "unknown scheme 'int4': spell it like w4, w4g128"),
    "w9": (asked(schemes="w4 w9"), "scheme 'w9': integer weights of 9 bits: use one of 2, 3, 4"),
    "unknown quantizer": (asked(schemes="w4+awq"), r"'w4\+awq': quantizer 'awq': use one of rtn"),
    "no schemes": (asked(schemes=" , "), "no schemes were given: spell it like"),
    "group size that divides no layer": (
        asked(schemes="w4g5"),
        "group size 5 does not divide 27 inputs.*: add schemes that it can take",
    ),
    "group size that divides no layer, profiled": (
        profile(schemes="w4g5"),
        "no layer can take w4g5 .*5 does not divide 27 inputs.*: give another scheme",
    ),
    "only keep, profiled": (profile(schemes="keep"), "keep alone leaves nothing.*: add a scheme"),
    "unknown budget unit": (
        asked(budget="3.5bits"),
        "unknown unit .*'3.5bits': write a number and a unit",
    ),
    "budget without a unit": (
        asked(budget="3"),
        "unknown unit in budget '3': write a number and a unit",
    ),
    "negative budget": (
        asked(budget="-3bpw"),
        "cannot read budget '-3bpw': write a number and a unit",
    ),
    "budget of zero": (asked(budget="0%"), "budget '0%' is not a positive number: write a number"),
    "budget that is not a number": (
        asked(budget="nanbpw"),
        "cannot read budget 'nanbpw': write a number",
    ),
    "budget below the least": (
        asked(budget="1bpw"),
        "budget 1bpw cannot be met, the least possible is 4bpw: raise it to 4bpw",
    ),
    "one budget of a sweep below the least": (
        asked(budget=["6bpw", "3bpw"]),
        "budget 3bpw cannot be met, the least possible is 4bpw: raise it to 4bpw",
    ),
    "share of bytes below the least": (
        asked(budget="1%"),
        r"budget 1% cannot be met, the least possible is 28\.6%: raise it to 28\.6%",
    ),
    "budgets that clash": (
        asked(schemes="w4 w8a4", budget=["4bpw", "5%BOPs"]),
        r"budgets 4bpw and 5%BOPs cannot be met together, though each can be alone: keep the "
        r"others and raise 4bpw to 7\.6bpw, or raise 5%BOPs to 12\.5%BOPs",
    ),
    "seconds": (asked(budget="5ms"), "budget '5ms' limits seconds, .*: choose a budget on one of"),
    "no single scheme": (
        asked(budget="3bpw", solver="uniform"),
        "budget 3bpw cannot be met, the least possible is 4bpw: raise it to 4bpw",
    ),
    "no budget": (asked(budget=None), "no budget was given: give at least one, like 40%"),
    "unknown solver": (
        asked(solver="magic"),
        "no solver named 'magic': choose from ilp, greedy, greedy-up, lagrange",
    ),
    "interactions of a profiler without": (
        asked(solver="quadratic", profiler="mse"),
        "solver quadratic with mse, which says nothing of interactions: profile with fisher",
    ),
    "interactions while settling": (
        profile(schemes="w2 w4", until="0.05", budget="4bpw", solver="quadratic"),
        "solver quadratic on draws of tables, .*: settle with another, like ilp",
    ),
    "unknown profiler": (asked(profiler="hessian"), "no profiler named 'hessian': choose from"),
    "unknown metric": (
        asked(metric="bleu"),
        "fisher gives no table of metric 'bleu': choose from kl",
    ),
    "unknown container": (
        asked(container="gguf"),
        "no exporter named 'gguf': choose from safetensors",
    ),
    "container of another kind of model": (
        asked(container="compressed-tensors"),
        "layer 'conv' can take none of the schemes .*: add schemes",
    ),
    "unknown task": (asked(task="audio"), "no kind of task named 'audio': choose from language"),
    "no task": (
        command("search", "s", schemes="w4", budget="6bpw"),
        "there is no study 's' yet: to begin it give --task",
    ),
    "no function": (asked(function=None), "a module task without --function: give --function"),
    "option of another kind of task": (
        asked(calibration="@/text.txt"),
        "--calibration for a module task: it takes --function, --arguments",
    ),
    "unknown device": (asked(device="tpu"), "unknown device 'tpu': use auto, cpu, cuda"),
    "a GPU that is not there": (
        asked(device="cuda:63"),
        "device 'cuda:63'.*: (use auto or cpu|there are)",
    ),
    "unknown dtype": (asked(dtype="int4"), "unknown dtype 'int4': use auto, float32"),
    "unreadable pin": (asked(pin="head"), "cannot read --pin 'head': write GLOB=SCHEME"),
    "pin to nothing": (asked(pin="head=w9"), "scheme 'w9': .*: use one of 2, 3, 4"),
    "pin to what is no candidate": (
        asked(pin="head=w2"),
        "layer 'head' is pinned to w2, which it cannot take .*not among the schemes.*: pin another",
    ),
    "pin of nothing": (asked(pin="heed=w4"), "no layer matches 'heed': near it: head"),
    "pinned and excluded": (
        asked(pin="head=w4", exclude="h*"),
        "pinned to w4 and excluded by 'h.': drop one of the two",
    ),
    "glob that matches nothing": (
        asked(exclude="layers.*"),
        r"no layer matches 'layers\.\*': near it",
    ),
    "all layers excluded": (asked(exclude="*"), r"no layer is left .*excluded by '\*'.*: exclude"),
    "unknown grouping": (asked(groups="some"), "groups 'some': use auto or off"),
    "group of nothing": (asked(group="tail,head"), "no layer matches 'tail': near it"),
    "unknown average": (asked(average_over="some"), "--average-over 'some': use allocated or all"),
    "no samples": (search(LANGUAGE, samples=0), "samples 0: give at least 1"),
    "negative samples": (search(VISION, samples=-3), "samples -3: give at least 1"),
    "no evaluation samples": (search(VISION, eval_samples=0), "eval_samples 0: give at least 1"),
    "batches of nothing": (search(LANGUAGE, batch=0), "batch 0: give at least 1"),
    "sequences of one token": (search(LANGUAGE, length=1), "length 1: give at least 2"),
    "negative seed": (search(LANGUAGE, seed=-1), "seed -1: give at least 0"),
    "samples in words": (search(LANGUAGE, samples="many"), f"'--samples'.*, not 'many': {USAGE}"),
    "negative measurements": (asked(max_measurements=-1), "--max-measurements -1: give at least 0"),
    "negative moves": (asked(explore=-1), "--explore -1: give at least 0"),
    "nothing measured to hold": (
        asked(budget=[], max_kl="0.1", explore=0),
        "--explore 0: give at least 1",
    ),
    "unknown option": (command("search", "s", "--colour"), f"No such option: --colour.*: {USAGE}"),
    "a word too many": (command("search", "s", "more", **MODULE), rf"\(more\): {USAGE}"),
    "empty study name": (named(""), "study name '': give the study a name"),
    "study name of two lines": (
        named("a\nb"),
        r"study name 'a\\nb': use characters that can be printed",
    ),
    "study name that is no text": (
        named("\udcff"),
        r"study name '\\udcff': use characters that can be printed",
    ),
    "endless study name": (named("x" * 300), "study name 'x+'… of 300 characters: use at most 200"),
    "folder for a table": (
        profile(csv="@/llama"),
        "--csv '.*llama' is a folder: name a file in it",
    ),
    "table in no folder": (profile(csv="@/no/t.csv"), "--csv '.*': no folder '.*/no': create it"),
    "demo in a file": (
        command("demo", "--out", "@/text.txt"),
        r"text\.txt: File exists: check the path",
    ),
}

BEGINNINGS = {
    f"{group}: {name}": case
    for group, cases in {
        "model": MODELS, "code": CODE, "module": MODULES, "text": TEXTS, "images": IMAGES,
        "option": OPTIONS,
    }.items()
    for name, case in cases.items()
}  # fmt: skip


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good files of every kind of task."""
    folder = tmp_path_factory.mktemp("good")
    tiny.language_task(folder)
    tiny.vision_task(folder)
    tiny.code(folder / "bring.py")
    return folder


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    """A copy of them that may be spoiled."""
    return Path(shutil.copytree(good, tmp_path / "files"))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below ``folder`` but for what Python leaves beside code."""
    files = (path for path in folder.rglob("*") if "__pycache__" not in path.parts)
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b"" for p in files}


def trials(bitfront: Commands) -> dict[str, int]:
    """Study -> number of trials, of a database that may not be there."""
    if not Path(bitfront.db).is_file():
        return {}
    with Store.open(bitfront.db) as store:
        return {study.name: study.trials for study in store.studies()}


def refusal(bitfront: Commands, words: Words, line: str) -> None:
    """``words`` are refused with what matches ``line`` and gives a remedy, and nothing else."""
    done = bitfront(*words)
    errors = [text for text in done.err.splitlines() if text.startswith("error: ")]
    other = [t for t in done.err.splitlines() if not re.match("(error|warning|note): ", t)]
    assert (done.code, done.out, other) == (2, "", []), done.err
    assert len(errors) == 1
    assert ": " in line, "a case says what the remedy is"
    assert re.search(line, errors[0]), errors[0]
    assert len(errors[0]) < 700
    assert not re.search("Traceback|a bug|Errno", errors[0])


@pytest.mark.parametrize("case", BEGINNINGS)
def test_nothing_is_begun_with(case: str, bitfront: Commands, folder: Path) -> None:
    make, line = BEGINNINGS[case]
    words = make(folder)
    before = contents(folder)
    refusal(bitfront, words, line)
    assert contents(folder) == before
    assert not any(trials(bitfront).values())


def test_a_budget_raised_as_advised_is_met(bitfront: Commands, folder: Path) -> None:
    """What is said to be possible is: rounded up, not down."""
    for budget in ("1bpw", "1%", "1B", "1KBOPs"):
        words = search(MODULE, budget=budget, schemes="w3 w8")(folder)
        advice = re.search("raise it to ([^,]+),", bitfront.refused(*words))
        assert advice is not None
        bitfront.ok(*search(MODULE, budget=advice[1], schemes="w3 w8")(folder))


def test_zero_is_a_value() -> None:
    """It equals False, and once was taken for an option that was not given."""
    given = task_options(samples=0, seed=0, trust_remote_code=False)
    assert given.arguments == {"samples": 0, "seed": 0}


def test_a_name_on_the_hub_without_a_network(
    bitfront: Commands, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for task in (LANGUAGE, {**VISION, "arguments": None, "weights": None}):
        words = search(task, model="no-such-org/no-such-model")(folder)
        line = "loading 'no-such-org/no-such-model' from the hub failed: .*: .* give a local folder"
        refusal(bitfront, words, line)


# ---------------------------------------------------------------- studies that are there


@pytest.fixture(scope="module")
def studies(good: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    """A database with study ``m`` of a module, ``l`` of a language model with zero points, and
    ``bare`` without trials; a trial of each."""
    db, found = tmp_path_factory.mktemp("studies") / "bitfront.db", {}
    module = ModuleTask(f"{good}/bring.py:task")
    for name, task, schemes, choices in (
        ("m", module, "w4 w8", Choices()),
        ("l", tiny.language_task(good), "w4z w8z", Choices(container="safetensors")),
    ):
        with library.open_study(name, task, db) as study:
            answers = library.search(study, schemes, ["6bpw"], choices=choices, verify=False)
            found[f"#{name}"] = answers[0].trial.id
    library.open_study("bare", module, db).close()
    return db, found


@pytest.fixture
def begun(bitfront: Commands, studies: tuple[Path, dict[str, int]]) -> Commands:
    """The command line with a copy of that database."""
    shutil.copy(studies[0], bitfront.db)
    return bitfront


def export(study: str = "m", trial: object = "#m", to: str = "@/out", **options: object) -> Make:
    return command("export", study, trial, to, **options)


def after(spoil: Spoil, make: Make) -> Make:
    def spoiled(folder: Path) -> Words:
        spoil(folder)
        return make(folder)

    return spoiled


AGAIN = {"schemes": "w3 w6", "budget": "5bpw"}  # what study m has not measured

STUDIES: dict[str, Case] = {
    "front of an unknown study": (
        command("front", "nope"),
        "no study named 'nope': did you mean 'bare', 'l', 'm'",
    ),
    "front of a misspelled study": (
        command("front", "bear"),
        r"no study named 'bear': did you mean 'bare'\?",
    ),
    "front of a study without trials": (
        command("front", "bare"),
        "study 'bare' has no trials yet: run a search first",
    ),
    "unknown cost": (
        command("front", "m", cost="joules"),
        "no trial has the cost 'joules': there are bits, bops, bytes",
    ),
    "unknown metric": (
        command("front", "m", metric="bleu"),
        "no trial has the metric 'bleu': there are agreement",
    ),
    "front within an unknown cost": (
        command("front", "m", within="joules<=3"),
        "no trial has the cost or metric 'joules': there are agreement",
    ),
    "front within no number": (
        command("front", "m", within="kl<0.1"),
        "cannot read limit 'kl<0.1': write a name, <= or >= and a number, like kl<=0.1",
    ),
    "front within no unit": (
        command("front", "m", within="3"),
        "unknown unit in budget '3': write a number and a unit",
    ),
    "front within time that was not counted": (
        command("front", "m", within="3ms"),
        "budget '3ms' limits seconds, which no trial has: choose a budget on one of bits, bops, by",
    ),
    "front within too little": (
        command("front", "m", within="1B"),
        "none of [0-9]+ trials is within 1B: loosen a limit, or search for more trials",
    ),
    "front to no folder": (
        command("front", "m", csv="@/no/f.csv"),
        "--csv '.*f.csv': no folder '.*no': create it",
    ),
    "page over a folder": (
        command("front", "m", html="@/llama"),
        "--html '.*llama' is a folder: name a file in it",
    ),
    "page with an endless name": (
        command("front", "m", html="@/" + "x" * 300),
        "x+: File name too long: give a shorter name",
    ),
    "unknown study shown": (command("show", "nope", 1), "no study named 'nope': did you mean"),
    "unknown trial": (command("show", "m", 999), r"no trial 999 in study 'm': there are 1, 2"),
    "trial of another study": (command("show", "m", "#l"), r"no trial \d in study 'm': there are"),
    "endless trial": (command("show", "m", 10**30), "no trial 10+ in study 'm': there are 1, 2"),
    "trial in words": (
        command("show", "m", "best"),
        "'TRIAL'.* not 'best': bitfront show --help shows",
    ),
    "unknown metric shown": (
        command("show", "m", "#m", metric="bleu"),
        "no metric 'bleu' in 'm': it has kl, nll",
    ),
    "search in a misspelled study": (
        command("search", "bear", **AGAIN),
        r"no study 'bear' yet \(did you mean 'bare'\?\): to begin it give --task",
    ),
    "export of an unknown study": (export("nope"), "no study named 'nope': did you mean 'bare'"),
    "export of an unknown trial": (export("m", 999), "no trial 999 in study 'm': there are 1"),
    "export of another study's trial": (
        export("l", "#m"),
        r"no trial \d in study 'l': there are",
    ),
    "export to a folder with files": (
        export(to="@/llama"),
        "'.*llama' is there and not empty: choose another, or overwrite it",
    ),
    "export over what is no export": (
        command("export", "m", "#m", "@/llama", "--overwrite"),
        "'.*llama' is no export, it has no bitfront.json: choose another, or remove it yourself",
    ),
    "export into no folder": (
        export(to="@/no/out"),
        "no folder '.*no' to write into: create it first",
    ),
    "export over a file": (
        export(to="@/text.txt"),
        r"'.*text\.txt' is a file: give the name of a folder",
    ),
    "export to a link to itself": (
        after(lambda folder: (folder / "loop").symlink_to(folder / "loop"), export(to="@/loop")),
        "cannot write 'loop' .*: choose another place",
    ),
    "export with an endless name": (
        export(to="@/" + "x" * 300),
        r"cannot write 'x+' \(File name too long\): give a shorter name",
    ),
    "unknown format": (
        export(format="gguf"),
        "no exporter named 'gguf': choose from safetensors, compressed-tensors",
    ),
    "format of another kind of model": (
        export(format="compressed-tensors"),
        "compressed-tensors cannot hold a Net: .*use safetensors",
    ),
    "format without zero points": (
        export("l", "#l", format="compressed-tensors"),
        "compressed-tensors cannot hold 'model.layers.0.* as w.z: .*use symmetric schemes",
    ),
    "export of other weights": (
        after(
            weighted(lambda tensors: tensors[UP][0].mul_(2)),
            export("l", "#l", model="@/llama"),
        ),
        "study 'l' was begun with something else: weights was .* and is now .*…: restore what",
    ),
    "other weights": (
        after(
            weighted(lambda tensors: tensors[UP][0].mul_(2)),
            command("search", "l", model="@/llama", **AGAIN),
        ),
        "study 'l' was begun with something else: weights was .* and is now .*…: restore what",
    ),
    "other data": (
        command("search", "l", samples=5, **AGAIN),
        "begun with something else: calibration was .*; evaluation was .*: restore what",
    ),
    "another kind of task": (
        command("search", "l", task="module", function="@/bring.py:task", **AGAIN),
        "task was 'language' and is now 'module'.*: restore what it was begun with",
    ),
    "code that is gone": (
        command("search", "m", function="@/gone.py:task", **AGAIN),
        r"no file '.*gone\.py': give the path of the Python file",
    ),
}


@pytest.mark.parametrize("case", STUDIES)
def test_nothing_is_changed_by(
    case: str, begun: Commands, folder: Path, studies: tuple[Path, dict[str, int]]
) -> None:
    make, line = STUDIES[case]
    words = [studies[1].get(str(word), word) for word in make(folder)]
    before, known = contents(folder), trials(begun)
    refusal(begun, words, line)
    assert contents(folder) == before
    assert trials(begun) == known


# ---------------------------------------------------------------- databases


def page_of(table: str) -> Spoil:
    """Overwrites the root page of a table."""

    def spoil(db: Path) -> None:
        with closing(sqlite3.connect(db)) as connection:
            query = "SELECT rootpage FROM sqlite_master WHERE name = ?"
            (root,) = connection.execute(query, (table,)).fetchone()
            (size,) = connection.execute("PRAGMA page_size").fetchone()
        overwrite(db, (root - 1) * size, b"\xff" * size)

    return spoil


def updated(statement: str) -> Spoil:
    def spoil(db: Path) -> None:
        with closing(sqlite3.connect(db)) as connection:
            connection.execute(statement)
            connection.commit()

    return spoil


DAMAGED = "database '.*bitfront.db' is damaged: restore it from a copy, or name another file"

DATABASES: dict[str, tuple[Spoil, str]] = {
    "a text": (
        lambda db: db.write_text("no database\n" * 999),
        "database '.*bitfront.db' is not a database: name another file",
    ),
    "cut in half": (lambda db: os.truncate(db, db.stat().st_size // 2), DAMAGED),
    "a page overwritten": (page_of("study"), DAMAGED),
    "broken settings": (updated("UPDATE study SET settings = '{'"), DAMAGED),
    "a newer Bitfront's": (
        updated("UPDATE bitfront_version SET version_num = '9999'"),
        "has schema 9999, this Bitfront knows up to .*: update Bitfront, or name another database",
    ),
}


@pytest.mark.parametrize("case", DATABASES)
@pytest.mark.parametrize("words", [("front", "m"), ("search", "m", *typed(ROOT, [], AGAIN))])
def test_a_database_that_cannot_be_read(words: Words, case: str, begun: Commands) -> None:
    spoil, line = DATABASES[case]
    db = Path(begun.db)
    spoil(db)
    before = db.read_bytes()
    refusal(begun, words, line)
    assert db.read_bytes() == before


PLACES = {
    "@/llama": "database '.*llama' is a folder: name a file in it",
    "@/text.txt/a.db": r"the folder of database '.*a\.db' cannot be made .*: name a database in",
    "@/" + "x" * 300: "database '.*x' cannot be opened .*too long.*: name another file",
    "mysql://root@localhost/x": "kind 'mysql' is not supported: give a path, or a URL like",
    "sqlite://": "'sqlite://' would be lost at exit: name a file",
    "postgresql://host:port/x": "the database's URL cannot be read: give a path, or a URL like",
    "postgresql://me:secret@127.0.0.1:1/x": (
        r"'postgresql://me:\*\*\*@127.* cannot be reached .*: check its URL, and that its server"
    ),
}


@pytest.mark.parametrize("where", PLACES)
def test_a_place_that_no_database_is_at(where: str, bitfront: Commands, folder: Path) -> None:
    before = contents(folder)
    words = typed(folder, ["search", "s"], {**MODULE, "db": where})
    refusal(bitfront, words, PLACES[where])
    assert contents(folder) == before


def test_a_database_that_another_program_writes_to(
    begun: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = storage.connect
    monkeypatch.setattr(storage, "connect", lambda url, timeout: connect(url, 0.2))
    known = trials(begun)
    with closing(sqlite3.connect(begun.db, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for words in (["front", "m"], typed(ROOT, ["search", "m"], AGAIN)):
            line = "database '.*bitfront.db' is locked: another program is writing to it: end that"
            refusal(begun, words, line)
        other.execute("ROLLBACK")
    assert trials(begun) == known


# ---------------------------------------------------------------- disks


@pytest.fixture
def disk(folder: Path) -> Iterator[Path]:
    """A disk of one megabyte, mounted in the folder of good files."""
    where = folder / "disk"
    where.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(where)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("NOT TESTED: full and read-only disks; only root may mount a tmpfs")
    yield where
    subprocess.run(["umount", str(where)], check=True)


def fill(disk: Path, free: int = 0) -> None:
    """Leave so many bytes."""
    with (disk / "ballast").open("wb", buffering=0) as file:
        while shutil.disk_usage(disk).free > free:
            file.write(bytes(4096))


FULL = "the disk is full: make room, or choose another place"
ON_FULL_DISK: dict[str, tuple[Make, str, int]] = {  # and the bytes that are left
    "table of a front": (
        command("front", "m", csv="@/disk/f.csv"),
        rf"f\.csv: No space left on device: {FULL}",
        0,
    ),
    "page of a front": (
        command("front", "m", html="@/disk/f.html"),
        rf"f\.html: No space left on device: {FULL}",
        50_000,
    ),
    "table of a profile": (
        command("profile", "m", schemes="w4 w8", csv="@/disk/t.csv"),
        rf"t\.csv: No space left on device: {FULL}",
        0,
    ),
    "export": (
        export(to="@/disk/out"),
        rf"cannot write 'out' \(No space left on device\): {FULL}",
        0,
    ),
    "half an export": (
        export("l", "#l", to="@/disk/out"),
        rf"cannot write 'out' \(No space left on device\): {FULL}",
        12_000,
    ),
}


@pytest.mark.parametrize("case", ON_FULL_DISK)
def test_a_full_disk(
    case: str, begun: Commands, folder: Path, disk: Path, studies: tuple[Path, dict[str, int]]
) -> None:
    make, line, free = ON_FULL_DISK[case]
    fill(disk, free)
    before, known = contents(folder), trials(begun)
    refusal(begun, [studies[1].get(str(word), word) for word in make(folder)], line)
    assert contents(folder) == before
    assert trials(begun) == known


def test_a_demo_on_a_full_disk(bitfront: Commands, folder: Path, disk: Path) -> None:
    fill(disk)
    words = typed(folder, ["demo", "--out", "@/disk/demo"], {})
    refusal(bitfront, words, "database '.*bitfront.db' cannot grow: the disk or its quota is full")
    assert [path.name for path in (disk / "demo").iterdir()] in ([], ["bitfront.db"])


@pytest.mark.parametrize("free", [0, 400_000], ids=["at once", "on the way"])
def test_a_disk_too_full_for_the_database(
    free: int, bitfront: Commands, folder: Path, disk: Path
) -> None:
    """What was recorded until then is whole, and the search goes on when there is room."""
    fill(disk, free)
    options = {**MODULE, "schemes": "w2 w3 w4 w5 w6 w8", "db": "@/disk/a.db"}
    words = typed(folder, ["search", "s"], options)
    before = contents(folder).keys()
    refusal(bitfront, words, "database '.*a.db' cannot grow: the disk or its quota is full: make")
    left = {Path(path).name for path in contents(folder).keys() - before}
    assert left <= {"a.db", "a.db-wal", "a.db-shm"}
    (disk / "ballast").unlink()
    if free:
        with closing(sqlite3.connect(disk / "a.db")) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        with Store.open(disk / "a.db") as store:
            assert all(t.costs and t.metrics for t in store.trials(store.study("s")))
    bitfront.ok(*words)


def test_a_read_only_disk(
    begun: Commands, folder: Path, disk: Path, studies: tuple[Path, dict[str, int]]
) -> None:
    shutil.copy(begun.db, disk / "a.db")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    before, known = contents(folder), trials(begun)
    trial, read_only = studies[1]["#m"], "database '.*a.db' is read-only: change its permissions"
    for words, line in (
        (["front", "m", "--db", "@/disk/a.db"], read_only),
        ([*typed(folder, ["search", "m"], AGAIN), "--db", "@/disk/a.db"], read_only),
        (["front", "m", "--db", "@/disk/b.db"], "b.db' cannot be opened: check that its folder"),
        (["front", "m", "--csv", "@/disk/f.csv"], r"f\.csv: Read-only file system: choose another"),
        (["export", "m", trial, "@/disk/out"], r"write 'out' \(Read-only file system\): choose"),
        (["demo", "--out", "@/disk/demo"], "demo: Read-only file system: choose another place"),
    ):
        refusal(begun, typed(folder, words, {}), line)
    assert contents(folder) == before
    assert trials(begun) == known


# ---------------------------------------------------------------- processes


def started(*words: object, db: str, **options: Any) -> subprocess.Popen[str]:
    """``bitfront WORDS`` as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", "from bitfront.cli import main; main()", *map(str, words)],
        cwd=ROOT, env={**os.environ, "BITFRONT_DB": db}, text=True,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
    )  # fmt: skip


def test_standard_output_on_a_full_disk(begun: Commands) -> None:
    with open("/dev/full", "w") as full, started("front", "m", db=begun.db, stdout=full) as process:
        _, error = process.communicate()
    line = f"error: standard output: No space left on device: {FULL}\n"
    assert (process.returncode, error) == (2, line)


def test_no_standard_output_at_all(begun: Commands) -> None:
    def close() -> None:
        os.close(1)

    with started("front", "m", db=begun.db, stdout=None, preexec_fn=close) as process:
        _, error = process.communicate()
    assert (process.returncode, error) == (0, "")


def test_a_bug_is_one_line_whatever_typer_does(begun: Commands) -> None:
    code = (
        "import bitfront.queries as q; q.studies = lambda db: {}['missing']\n"
        "from bitfront.cli import main; main(['studies'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    line = "error: unexpected KeyError: 'missing' (a bug; BITFRONT_DEBUG=1 shows where)\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", line)


SLOW = """
import time
from pathlib import Path

from bring import Net, task as quick

HERE = Path(__file__).parent

class Slow(Net):
    calls = 0

    def forward(self, x):
        Slow.calls += 1
        if (HERE / "slow").exists():
            time.sleep(0.1)
            if Slow.calls == 5:  # two to look at the model, then batches of the profile
                (HERE / "begun").touch()
        return super().forward(x)

def f():
    made = quick()
    model = Slow()
    model.load_state_dict(made["model"].state_dict())
    made["model"], made["calibration"] = model, made["calibration"] * 10
    return made
"""


def test_an_interrupted_search_goes_on_later(bitfront: Commands, folder: Path) -> None:
    words = search(MODULE, written("mine.py", SLOW), function="@/mine.py:f")(folder)
    (folder / "slow").touch()
    with started(*words, db=bitfront.db) as process:
        while not (folder / "begun").exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=60)
    assert (process.returncode, out, error) == (130, "", "error: interrupted\n")
    assert trials(bitfront) == {"s": 0}
    (folder / "slow").unlink()
    bitfront.ok("search", "s", "--schemes", "w4 w8", "--budget", "6bpw")
    assert trials(bitfront)["s"] > 1
