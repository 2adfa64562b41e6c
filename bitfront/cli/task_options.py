"""The options that describe a task, and the study that they begin or go on with."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import typer

from bitfront.errors import InvalidInput
from bitfront.giventask import Given
from bitfront.tasks.arguments import parse_arguments

_option = partial(typer.Option, rich_help_panel="Task (needed to begin a study)")


def task_options(
    task: Annotated[str | None, _option(help="language, vision, diffusion or module.")] = None,
    model: Annotated[
        str | None,
        _option(
            help="Folder or hub name of a transformers model or diffusers pipeline; for vision and "
            "diffusion also file.py:callable."
        ),
    ] = None,
    function: Annotated[
        str | None, _option(metavar="FILE.PY:NAME", help="module: the function that brings all.")
    ] = None,
    arguments: Annotated[
        str | None, _option(metavar="JSON", help="Arguments of the callable or function.")
    ] = None,
    weights: Annotated[str | None, _option(help="State dict for the model of a file.py.")] = None,
    calibration: Annotated[
        list[str] | None,
        _option(
            metavar="DATA",
            help=".txt, .jsonl, .json, .npz or hub:NAME to calibrate on; prompts: .txt. "
            "language: repeatable, once for each domain.",
        ),
    ] = None,
    evaluation: Annotated[
        list[str] | None, _option(metavar="DATA", help="The same, to judge by.")
    ] = None,
    samples: Annotated[int | None, _option(help="Samples to calibrate on.")] = None,
    eval_samples: Annotated[int | None, _option(help="Samples to judge by.")] = None,
    batch: Annotated[int | None, _option(help="Samples in one call of the model.")] = None,
    hold_back: Annotated[
        float | None, _option(help="Share of calibration batches not to choose by (0.125).")
    ] = None,
    fold_norms: Annotated[
        bool,
        _option("--fold-norms", help="vision, module: fold batch norms into convolutions."),
    ] = False,
    length: Annotated[int | None, _option(help="Tokens of a sequence.")] = None,
    layout: Annotated[str | None, _option(help="Of texts: joined, documents, auto.")] = None,
    field: Annotated[str | None, _option(help="Key or column of the text.")] = None,
    tokenizer: Annotated[str | None, _option(help="Folder or hub name.")] = None,
    mean: Annotated[str | None, _option(help="Of each channel, like 0.48,0.46,0.41.")] = None,
    std: Annotated[str | None, _option(help="Of each channel.")] = None,
    size: Annotated[str | None, _option(help="Of images, like 224 or 192x256.")] = None,
    classes: Annotated[
        str | None, _option(help="diffusion: class labels to ask for, like 0,1,2.")
    ] = None,
    steps: Annotated[int | None, _option(help="diffusion: steps of sampling.")] = None,
    guidance: Annotated[float | None, _option(help="diffusion: guidance scale.")] = None,
    text_encoders: Annotated[
        bool, _option("--text-encoders", help="diffusion: quantize the text encoders too.")
    ] = False,
    timesteps: Annotated[
        int | None, _option(help="diffusion: steps of each trajectory that are calibrated on.")
    ] = None,
    timestep_groups: Annotated[
        int | None, _option(help="diffusion: parts of a trajectory told apart.")
    ] = None,
    score: Annotated[
        str | None,
        _option(metavar="FILE.PY:NAME", help="diffusion: a score of images against the full ones."),
    ] = None,
    better: Annotated[str | None, _option(help="Which score is better: lower or higher.")] = None,
    dtype: Annotated[
        str | None, _option(help="auto, float32, bfloat16, float16 or float64.")
    ] = None,
    device: Annotated[str | None, _option(help="auto, cpu, cuda, cuda:1 or mps.")] = None,
    seed: Annotated[int | None, _option(help="Of the draw of samples.")] = None,
    trust_remote_code: Annotated[
        bool, _option("--trust-remote-code", help="Run code that comes with a hub's model.")
    ] = False,
) -> Given:
    """What is given of a task; the rest keeps its default, or what is recorded."""
    # 0 is a value, though it equals False
    given = {n: value for n, value in locals().items() if value is not None and value is not False}
    empty = [
        name
        for name, value in given.items()
        if value == "" or (isinstance(value, list) and "" in value)
    ]
    if empty:
        raise InvalidInput(f"{_spelled(empty[0])} is empty", "give a value, or leave it out")
    kind = given.pop("task", "module" if "function" in given else None)
    readers: dict[str, Callable[[str, Any], Any]] = {
        "mean": _numbers, "std": _numbers, "size": _size, "classes": _labels,
        "calibration": _sources, "evaluation": _sources,
    }  # fmt: skip
    for name, read in readers.items():
        if name in given:
            given[name] = read(name, given[name])
    if "arguments" in given:
        given["arguments"] = parse_arguments(given["arguments"], "--arguments")
    return Given(kind, given, _spelled)


def _sources(name: str, given: list[str]) -> str | list[str]:
    """One source as it is, several as a list."""
    return given[0] if len(given) == 1 else given


def _numbers(name: str, text: str) -> list[float]:
    try:
        numbers = [float(word) for word in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or not all(map(math.isfinite, numbers)):
        raise InvalidInput(f"--{name} {text!r}", "write finite numbers like 0.48,0.46,0.41")
    return numbers


def _labels(name: str, text: str) -> list[int]:
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() for word in words):
        raise InvalidInput(f"--{name} {text!r}", "write class labels like 0,1,2")
    return [int(word) for word in words]


def _size(name: str, text: str) -> list[int]:
    words = text.lower().split("x")
    if len(words) > 2 or not all(word.isdecimal() for word in words):
        raise InvalidInput(f"--{name} {text!r}", "write it like 224 or 192x256")
    return [int(word) for word in words] * (3 - len(words))


def _spelled(name: str) -> str:
    return "--" + name.replace("_", "-")
