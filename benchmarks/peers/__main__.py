"""KL of Bitfront's and its peers' allocations of the same weights, on data that none of them saw.

    make bench-peers                             environments, allocations of all sides, measuring
    python -m benchmarks.peers --from-cache      the same with peers' allocations as they are kept

Writes benchmarks/results/peers.json and peers_allocations.json, in which models and sides that were
not asked for stay as they are (``--models llama --ours Bitfront``); tables on standard error. For
four models of the assets and each budget in average weight bits, every side chooses a width of 2,
3, 4, 5, 6 or 8 bits for each layer:

    layers    all linear and convolutional weights, the head too; but neither an embedding nor a
              head that shares its tensor (the Llama's), which peers leave alone by default
    weights   round to nearest by Bitfront's quantizer, groups of 32, per channel for ResNet-20 and
              where 32 does not divide; the same for all sides whatever a side chose with
    data      the same 512 training images or 128 sequences of 128 tokens for all sides, of which
              Bitfront holds an eighth back, its default; KL to the full model on 1000 test images
              or later text
    budgets   an allocation above its budget is refused; one below is measured as it is

What a peer can choose from, and how it is set up, is said in its script (``run_*.py``): ModelOpt
shares a width among q/k/v and gate/up, AutoRound takes language models only, NNCF has 4 and 8 bits
only, 8 for convolutions. Ratios are of the first four budgets; 5 bits is there for NNCF.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Any

from benchmarks.common import ROOT, arguments, fresh_study, head, parsed, plain, show
from benchmarks.peers import running, searching
from benchmarks.peers.allocations import Cache, Space, checked
from benchmarks.peers.models import BITS, BUDGETS, HIGHER, MODELS, Model
from benchmarks.peers.running import PEERS
from benchmarks.peers.searching import VARIANTS
from benchmarks.peers.tables import UNIFORM, Row, markdown, mean_ratio
from bitfront import Choices, Study, cost
from bitfront.measuring import measure
from bitfront.tasks import Task
from bitfront.tasks.holding import HOLD_BACK

RESULTS = ROOT / "benchmarks" / "results" / "peers.json"
ALLOCATIONS = RESULTS.with_name("peers_allocations.json")
Cell = dict[str, Any]


def ask_peers(cache: Cache, options: argparse.Namespace) -> None:
    """Let the peers choose anew, and keep what they chose as soon as it is known."""
    for name in options.models:
        space = space_of(MODELS[name], MODELS[name].make(options.assets, 0))
        for peer in options.peers:
            if PEERS[peer].takes(name):
                answer = running.chosen_by(peer, name, options.assets, [*BUDGETS, *HIGHER])
                cache.add(peer, name, list(space.weights), checked(peer, answer, space))
                cache.write()


def space_of(model: Model, task: Task) -> Space:
    return Space({la.name: la.rows * la.cols for la in model.layers(task)}, BITS)


def uniform(space: Space) -> dict[str, Any]:
    budgets = {f"{b:g}": None if b not in BITS else int(b) for b in (*BUDGETS, *HIGHER)}
    return {
        "budgets": {
            text: None if bits is None else {"bits": dict.fromkeys(space.weights, bits)}
            for text, bits in budgets.items()
        }
    }


def run(name: str, cache: Cache, options: argparse.Namespace) -> dict[str, Any]:
    """All sides' allocations of one model, measured in one study."""
    model = MODELS[name]
    task = model.make(options.assets, HOLD_BACK)
    space = space_of(model, task)
    answers = {UNIFORM: uniform(space)}
    for peer in PEERS:
        answer = cache.answer(peer, name, space)
        if answer is not None:
            answers[peer] = answer
    for side in options.ours:
        answers[side] = searching.chosen_by(VARIANTS[side], model, task, [*BUDGETS, *HIGHER])
        spent = answers[side]["seconds"]
        print(f"{side}, {name}: {spent:.0f} s", file=sys.stderr)
    sides: dict[str, Any] = {}
    with fresh_study(task) as study:
        for side, answer in answers.items():
            cells = {
                budget: None if found is None else cell(study, model, space, side, budget, found)
                for budget, found in answer["budgets"].items()
            }
            about = {key: value for key, value in answer.items() if key != "budgets"}
            sides[side] = {**about, "budgets": cells}
    return sides


def cell(
    study: Study, model: Model, space: Space, side: str, budget: str, found: Mapping[str, Any]
) -> Cell:
    """One allocation, built with the weights that all sides share, and measured."""
    bits = space.check(side, found["bits"], float(budget))
    layers = {layer.name: layer for layer in study.task.layers}
    schemes = {name: model.scheme(layers[name], width) for name, width in bits.items()}
    costs = cost(study, list(dict.fromkeys(schemes.values())), Choices(groups="off"))
    trial = measure(study, schemes, "benchmark", costs.total(schemes))
    kl = trial.metrics["kl"]
    return {
        "kl": kl.value,
        "stderr": kl.stderr,
        "average bits": space.average(bits),
        "bytes": int(trial.costs["bytes"]),
        "bits": "".join(map(str, bits.values())),
        **{key: value for key, value in found.items() if key != "bits"},
    }


def rows(results: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    found = []
    for name, sides in results.items():
        for budget in (*BUDGETS, *HIGHER):
            cells = {side: about["budgets"].get(f"{budget:g}") for side, about in sides.items()}
            kl = {side: c["kl"] for side, c in cells.items() if c is not None}
            found.append(Row(MODELS[name].title, budget, kl))
    return found


def report(results: Mapping[str, Mapping[str, Any]], ours: list[str]) -> dict[str, Any]:
    """The tables on standard error, and the ratios."""
    sides = {name: about["sides"] for name, about in results.items()}
    every = rows(sides)
    judged = [row for row in every if row.budget in BUDGETS]
    ratios = {side: mean_ratio(judged, side, list(PEERS)) for side in ours}
    print(markdown(every, list(PEERS), ours, ours[:2]), file=sys.stderr)
    mean = "geometric mean, 2.5 to 4 bits"
    show("\nKL over the best peer's", ["", mean], [[s, r] for s, r in ratios.items()])
    spent = [
        [MODELS[name].title, *(about.get(side, {}).get("seconds") for side in (*PEERS, *ours))]
        for name, about in sides.items()
    ]
    show("\nSeconds, all budgets", ["model", *PEERS, *ours], spent)
    return ratios


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--from-cache", action="store_true", help="peers' allocations as kept")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS))
    usual = [side for side, variant in VARIANTS.items() if not variant.told]
    parser.add_argument("--ours", nargs="*", choices=list(VARIANTS), default=usual)
    options = parsed(parser, threads=1)
    cache = Cache.read(ALLOCATIONS)
    if not options.from_cache:
        ask_peers(cache, options)
    for name in options.models:
        sides = run(name, cache, options)
        kept = json.loads(RESULTS.read_text())["models"] if RESULTS.exists() else {}
        earlier = kept.get(name, {"sides": {}})["sides"]
        kept[name] = {**head(), "sides": {**earlier, **sides}}
        results = {name: kept[name] for name in MODELS if name in kept}
        ratios = report(results, list(VARIANTS))
        content = plain({"ratio to best peer": ratios, "models": results})
        RESULTS.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
