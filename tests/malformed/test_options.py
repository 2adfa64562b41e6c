"""Options that make no sense."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bitfront.cli.task_options import task_options
from tests.commands import Commands
from tests.malformed.cases import (
    LANGUAGE,
    MODULE,
    VISION,
    Case,
    Make,
    command,
    nothing_is_begun,
    search,
)


def profile(**changes: object) -> Make:
    return command("profile", "s", **{**MODULE, "budget": None, **changes})


def named(study: str) -> Make:
    return command("search", study, **MODULE)


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
        asked(container="gguff"),
        "no exporter named 'gguff': choose from safetensors",
    ),
    "container of another kind of model": (
        asked(container="compressed-tensors"),
        "compressed-tensors cannot hold a Net: it is for causal language .*; use safetensors",
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


@pytest.mark.parametrize("case", OPTIONS)
def test_nothing_is_begun_with(case: str, bitfront: Commands, folder: Path) -> None:
    nothing_is_begun(OPTIONS[case], bitfront, folder)


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
