"""Cost of one-pass profiling, in plain forward and backward passes.

    python -m benchmarks.profiling > benchmarks/results/profiling.json

JSON on standard output, tables on standard error:

    cases     trained and random networks: seconds of a forward pass, of a forward and backward pass
              (loss on labels, gradients of all parameters, as in training), of quantizing every
              layer under every scheme (the sweep), and of profiling by ``fisher`` with a new
              database, all over the same calibration data; ratio = (profiling - sweep) / forward
              and backward; peak memory of each in a process of its own; where the time goes
    layers    random Llamas of 2 to 16 blocks under 6 schemes
    schemes   a random Llama of 4 blocks under 1 to 16 schemes

Each round runs all of them in turn; figures are medians over rounds, ratios medians of the rounds'
own. With one thread (the default) seconds are the processor's, which other programs disturb little.

A part of ``parts`` is the time within a function but not within those of other parts; time of a
function that is no longer there counts for its caller.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

import bitfront
from benchmarks.common import ROOT, arguments, fresh_study, head, parsed, peak_memory, show, write
from benchmarks.resnet import resnet
from bitfront.sensitivity.store import keep_quantized
from bitfront.tasks import LanguageTask, Task, select
from bitfront.types import parse_schemes

SIX = "w2 w3 w4 w5 w6 w8"
SIXTEEN = "w4 w2 w3 w8 w5 w6 w4g64 w3g64 w7 w2g64 w5g64 w6g64 w8g64 w2g32 w3g32 w4g32"

# part -> the functions whose time it is
PARTS = {
    "quantize sweep": ["bitfront.sensitivity.fisher:keep_quantized"],
    "forward": ["bitfront.tasks.running:ModelTask.outputs"],
    "probe": ["bitfront.sensitivity.fisher:probe"],
    "backward": ["bitfront.sensitivity.passes:back_propagate"],
    "scores, other": ["bitfront.sensitivity.scores:LayerScores.add"],
    "dequantize": ["bitfront.sensitivity.scores:LayerScores._weight"],
    "unfold inputs": ["bitfront.quant.layers:_unfold"],
    "per-sample gradients": ["bitfront.sensitivity.scores:_gradients"],
    "changes of outputs": ["bitfront.sensitivity.scores:_products"],
    "sums of both scores": [
        "bitfront.sensitivity.scores:LayerScores._scored",
        "bitfront.sensitivity.scores:LayerScores._looked_up",
    ],
    "storage": [
        "bitfront.storage:Store.add_checkpoint",
        "bitfront.storage:Store.finish_pass",
        "bitfront.storage:Store.measurements",
    ],
    "tables": ["bitfront.sensitivity.fisher:Fisher.tables"],
}


@dataclass(frozen=True)
class Case:
    """make: assets folder -> task."""

    make: Callable[[Path], Task]
    schemes: str


def llama(blocks: int, hidden: int, vocabulary: int, samples: int, assets: Path) -> Task:
    """A random Llama on random tokens, 128 a sequence."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=hidden, intermediate_size=hidden * 8 // 3 // 64 * 64,
        num_hidden_layers=blocks, num_attention_heads=hidden // 64, max_position_embeddings=256,
        tie_word_embeddings=False,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    ids = np.random.default_rng(0).integers(0, vocabulary, (samples + 2, 128))
    with tempfile.TemporaryDirectory(prefix="bitfront-") as folder:
        path = Path(folder) / "ids.npz"
        np.savez(path, ids=ids)
        return LanguageTask(model, path, samples=samples, eval_samples=2, batch=8, hold_back=0)


def stories(assets: Path) -> Task:
    texts = assets / "text" / "tinystories_917_clean_tok512.npz"
    return LanguageTask(assets / "stories260K_llama", texts, layout="joined", hold_back=0)


CASES = {
    "ResNet-20, 512 images": Case(resnet, SIX),
    "Llama 260K, 128 x 128 tokens": Case(stories, SIX),
    "random Llama 25M, 16 x 128 tokens": Case(partial(llama, 8, 512, 2000, 16), SIX),
}
LAYERS = {n: Case(partial(llama, n, 256, 512, 16), SIX) for n in (2, 4, 8, 16)}
SCHEMES = {
    n: Case(partial(llama, 4, 256, 512, 16), " ".join(SIXTEEN.split()[:n]))
    for n in (1, 2, 4, 8, 16)
}
WORK = ("load", "forward and backward", "profile")


def now() -> float:
    """Seconds: the processor's for one thread, else the clock's."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def seconds(work: Callable[[], object]) -> float:
    began = now()
    work()
    return now() - began


def forward(task: Task) -> None:
    with torch.no_grad():
        for batch in task.calibration:
            task.outputs(batch)


def forward_backward(task: Task) -> None:
    """What training would do but for the step."""
    for batch in task.calibration:
        assert batch.labels is not None
        cross_entropy(task.outputs(batch).flatten(0, 1), batch.labels.flatten()).backward()
        task.model.zero_grad()


def sweep(task: Task, schemes: str) -> None:
    with fresh_study(task) as study:
        barred = study.unsuitable(parse_schemes(schemes))
        pairs = [(la, s) for la in select(task).layers for s in parse_schemes(schemes)]
        keep_quantized(study.subject, [p for p in pairs if (p[0].name, str(p[1])) not in barred])


def profile(task: Task, schemes: str) -> None:
    with fresh_study(task) as study:
        bitfront.profile(study, schemes, "fisher", layers=select(task).layers)


def timed(case: Case, assets: Path, rounds: int) -> dict[str, Any]:
    task = case.make(assets)
    forward_backward(task)  # warm
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        row = {
            "forward": seconds(partial(forward, task)),
            "forward and backward": seconds(partial(forward_backward, task)),
            "sweep": seconds(partial(sweep, task, case.schemes)),
            "profile": seconds(partial(profile, task, case.schemes)),
        }
        row["ratio"] = (row["profile"] - row["sweep"]) / row["forward and backward"]
        for name, value in row.items():
            found.setdefault(name, []).append(value)
    return {
        "layers": len(select(task).layers),
        "schemes": len(case.schemes.split()),
        **{name: statistics.median(values) for name, values in found.items()},
    }


@dataclass
class Parts:
    """Time spent in each of nested parts, but not in those within it."""

    seconds: dict[str, float] = field(default_factory=dict)
    _open: list[str] = field(default_factory=list)
    _since: float = 0.0

    def timing(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            self._turn(part)
            try:
                return function(*args, **kwargs)
            finally:
                self._turn(None)

        return run

    def _turn(self, part: str | None) -> None:
        """Enter ``part``, or leave the innermost one."""
        at = now()
        if self._open:
            inner = self._open[-1]
            self.seconds[inner] = self.seconds.get(inner, 0.0) + at - self._since
        self._since = at
        if part is None:
            self._open.pop()
        else:
            self._open.append(part)


@contextmanager
def watched() -> Iterator[Parts]:
    """While this lasts, the functions of ``PARTS`` are timed."""
    parts = Parts()
    with ExitStack() as stack:
        for part, functions in PARTS.items():
            for place in functions:
                module, _, name = place.partition(":")
                owner: Any = import_module(module)
                *outer, last = name.split(".")
                for attribute in outer:
                    owner = getattr(owner, attribute, None)
                function = getattr(owner, last, None)
                if function is not None:
                    setattr(owner, last, parts.timing(part, function))
                    stack.callback(setattr, owner, last, function)
        yield parts


def breakdown(case: Case, assets: Path, rounds: int) -> dict[str, float]:
    """Part -> seconds, medians over ``rounds``; ``rest`` is in no part."""
    task = case.make(assets)
    forward(task)
    found: list[dict[str, float]] = []
    for _ in range(rounds):
        with watched() as parts:
            whole = parts.timing("rest", profile)
            whole(task, case.schemes)
        found.append(parts.seconds)
    return {n: statistics.median(f.get(n, 0.0) for f in found) for n in [*PARTS, "rest"]}


def peaks(name: str, assets: Path, threads: int) -> dict[str, int]:
    """Work -> the greatest memory in bytes of a process that does nothing else."""
    found = {}
    for work in WORK:
        command = [sys.executable, "-m", "benchmarks.profiling", "--peak", name, work]
        options = ["--assets", str(assets), "--threads", str(threads)]
        done = subprocess.run(
            [*command, *options], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
        )
        found[work] = int(done.stdout)
    return found


def peak(name: str, work: str, assets: Path) -> int:
    """Do ``work`` of a case; the greatest memory of this process in bytes."""
    case = CASES[name]
    task = case.make(assets)
    layers = task.layers  # found by a forward pass
    assert layers
    if work == "forward and backward":
        forward_backward(task)
    elif work == "profile":
        profile(task, case.schemes)
    return peak_memory()


def trained(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of ``cases``."""
    # first of all: a child's peak begins with this process's memory
    memory = {name: peaks(name, options.assets, options.threads) for name in CASES}
    rows = []
    for name, case in CASES.items():
        row = {"case": name, **timed(case, options.assets, options.rounds)}
        row["peak bytes"] = memory[name]
        row["parts"] = breakdown(case, options.assets, options.rounds)
        report(name, row)
        rows.append(row)
    return rows


def grown(cases: dict[int, Case], options: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    for n, case in cases.items():
        rows.append(timed(case, options.assets, options.rounds))
        print(n, rows[-1], file=sys.stderr)
    return rows


def report(name: str, row: dict[str, Any]) -> None:
    top = row["peak bytes"]
    over = [top[work] - top["load"] for work in WORK[1:]]
    show(
        f"{name}: {row['ratio']:.2f} forward and backward passes, and the sweep; "
        f"{over[1] / 2**20:.0f} MiB above the loaded model, where those take {over[0] / 2**20:.0f}",
        ["part", "seconds"],
        list(row["parts"].items()),
    )


def curve(title: str, rows: Sequence[dict[str, Any]]) -> None:
    columns = ["layers", "schemes", "forward and backward", "sweep", "profile", "ratio"]
    show(title, columns, [[row[c] for c in columns] for row in rows])


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=["cases", "layers", "schemes"], help="one section")
    parser.add_argument("--peak", nargs=2, metavar=("CASE", "WORK"), help=argparse.SUPPRESS)
    options = parsed(parser, threads=1)
    if options.peak:
        print(peak(options.peak[0], options.peak[1], options.assets))
        return
    result: dict[str, Any] = head()
    if options.only in (None, "cases"):
        result["cases"] = trained(options)
        curve("Profiling", result["cases"])
    if options.only in (None, "layers"):
        result["layers"] = grown(LAYERS, options)
        curve("Growth with layers", result["layers"])
    if options.only in (None, "schemes"):
        result["schemes"] = grown(SCHEMES, options)
        curve("Growth with schemes", result["schemes"])
    write(result)


if __name__ == "__main__":
    main()
