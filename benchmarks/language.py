"""Language models: the Llama of the assets as a language task, the character GPT as a module.

    python -m benchmarks.language > benchmarks/results/language.json

JSON on standard output, tables on standard error; for each model and quantizer, on data that
calibration never saw:

    answers  for each budget what ``bitfront.search`` answers: KL, perplexity, bytes of the export,
             the table it came from, evaluations beside profiling, how many layers went per channel
             although groups fit them
    uniform  all layers at 3, 4 and 5 bits
    export   (Llama) the 4-bit answer written to files and read again by another process

Schemes have groups of 32, and are per channel where 32 does not divide a layer's inputs. A search
offers all its schemes to all layers that can take them, so where any layer needs per-channel ones
they are open to the others too. Average bits are those of the weights that take part, scales apart.

    llama       all layers, and so the embedding that shares the head's tensor, each on its own: the
                setting of the starting points. compressed-tensors holds no embedding: exported as
                safetensors
    llama_body  Bitfront's defaults: embedding and head stay, q/k/v and gate/up share a scheme,
                exported as compressed-tensors
    char_gpt    all layers but the embedding of characters, each on its own: the setting of the
                starting points

``--groups auto`` lets fused layers share a scheme in all three, ``--groups off`` in none.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bitfront
from benchmarks.common import ROOT, arguments, fresh_study, head, origin, parsed, show, write
from bitfront import Answer, Choices, Study
from bitfront.measuring import measure
from bitfront.pipeline import cost
from bitfront.tasks import LanguageTask, ModuleTask, Task, select
from bitfront.types import Layer, Trial, parse_schemes

GROUP = 32
BITS = (2, 3, 4, 5, 6, 8)
UNIFORM = (3, 4, 5)
QUANTIZERS = {"rtn": "", "gptq": "+gptq"}
# KL of the project's starting points with rtn: other programs' allocations, one at a time being
# exact optimization over measured values (average bits -> nats)
EARLIER = {
    "llama": {
        "uniform, earlier": {3.0: 0.824, 4.0: 0.135},
        "ModelOpt 0.47": {2.5: 2.019, 3.0: 0.824, 3.5: 0.420, 4.0: 0.166},
        "one at a time, earlier": {2.5: 2.044, 3.0: 0.751, 3.5: 0.330, 4.0: 0.127},
    },
    "char_gpt": {
        "uniform, earlier": {3.0: 0.091, 4.0: 0.0186},
        "ModelOpt 0.47": {2.5: 0.171, 3.0: 0.079, 3.5: 0.034, 4.0: 0.0171},
        "one pass, earlier": {2.5: 0.226, 3.0: 0.127, 3.5: 0.084, 4.0: 0.0146},
        "verified, earlier": {2.5: 0.168, 3.0: 0.070, 3.5: 0.030, 4.0: 0.0146},
    },
}


def llama(
    assets: Path, samples: int, held: int = 256, *, batch: int = 16, seed: int = 0,
    hold_back: float = 0.0,
) -> Task:  # fmt: skip
    """Calibrated on windows of earlier stories, judged on ``held`` windows of later ones."""
    texts = assets / "text" / "tinystories_917_clean.json"
    folder = assets / "stories260K_llama"
    return LanguageTask(
        folder, texts, samples=samples, eval_samples=held, batch=batch, layout="joined",
        hold_back=hold_back, seed=seed,
    )  # fmt: skip


def char_gpt(assets: Path, samples: int, seed: int = 0, *, hold_back: float = 0.0) -> Task:
    function = ROOT / "benchmarks" / "char_gpt.py"
    arguments = {"assets": str(assets), "samples": samples, "seed": seed}
    return ModuleTask(f"{function}:char_gpt", arguments, hold_back=hold_back)


@dataclass(frozen=True)
class Model:
    """How a model is brought, and which of its layers take part."""

    make: Callable[[Path, int], Task]
    head: bool | None = None
    container: str | None = None
    groups: str = "off"
    exports: bool = True


MODELS = {
    "llama": Model(llama, head=True, container="safetensors"),
    "llama_body": Model(llama, groups="auto"),
    "char_gpt": Model(char_gpt, exports=False),
}


def divided(layer: Layer) -> bool:
    return layer.cols % GROUP == 0


def spelled(layer: Layer, bits: int, quantizer: str) -> str:
    """The setting's scheme for one layer."""
    # an embedding, and what shares its weight, takes no quantizer that needs inputs
    plain = layer.kind == "embedding" or layer.shares is not None
    group = f"g{GROUP}" if divided(layer) else ""
    return f"w{bits}{group}{'' if plain else QUANTIZERS[quantizer]}"


def setting(layers: tuple[Layer, ...], quantizer: str) -> str:
    """All schemes that some layer needs."""
    found = dict.fromkeys(spelled(layer, bits, quantizer) for bits in BITS for layer in layers)
    return " ".join(found)


def judged(trial: Trial) -> dict[str, Any]:
    kl, perplexity = trial.metrics["kl"], trial.metrics["perplexity"]
    return {
        "kl": kl.value,
        "stderr": kl.stderr,
        "calibration kl": trial.metrics["calibration/kl"].value,
        "perplexity": perplexity.value,
        "bytes": int(trial.costs["bytes"]),
    }


def found(answer: Answer, layers: tuple[Layer, ...], seconds: float) -> dict[str, Any]:
    schemes = answer.trial.schemes
    return {
        "budget": " ".join(map(str, answer.budgets)),
        **judged(answer.trial),
        **origin(answer),
        "per channel": sum(divided(la) and f"g{GROUP}" not in schemes[la.name] for la in layers),
        "seconds": seconds,
        "schemes": dict(schemes),
    }


def run(name: str, quantizer: str, options: argparse.Namespace) -> dict[str, Any]:
    model = MODELS[name]
    task = model.make(options.assets, options.samples)
    groups = options.groups or model.groups
    choices = Choices(head=model.head, groups=groups, container=model.container)
    layers = select(task, head=model.head, groups=groups).layers
    schemes = setting(layers, quantizer)
    result: dict[str, Any] = {
        "model": name, "quantizer": quantizer, "groups": groups, "schemes": schemes,
    }  # fmt: skip
    answers = {}
    with fresh_study(task) as study:
        full = study.judge.baseline.estimates()["perplexity"].value
        began = time.perf_counter()
        bitfront.profile(study, schemes, layers=layers)
        result |= {"full perplexity": full, "fisher seconds": time.perf_counter() - began}
        rows = []
        for bits in options.budgets:
            began = time.perf_counter()
            (answer,) = bitfront.search(study, schemes, [f"{bits:g}bpw"], choices=choices)
            answers[bits] = answer
            rows.append(found(answer, layers, time.perf_counter() - began))
            print(name, quantizer, rows[-1]["budget"], rows[-1]["kl"], file=sys.stderr)
        result["answers"] = rows
        result["uniform"] = [uniform(study, layers, b, quantizer, choices) for b in UNIFORM]
        if model.exports and 4 in answers:
            result["export"] = exported(study, answers[4], model.container)
    return result


def uniform(
    study: Study, layers: tuple[Layer, ...], bits: int, quantizer: str, choices: Choices
) -> dict[str, Any]:
    schemes = {layer.name: spelled(layer, bits, quantizer) for layer in layers}
    known = parse_schemes(" ".join(dict.fromkeys(schemes.values())))
    total = cost(study, known, choices).total(schemes)
    return {"bits": bits, **judged(measure(study, schemes, "uniform", total))}


def exported(study: Study, answer: Answer, format: str | None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="bitfront-") as folder:
        audit = bitfront.export(study, answer.trial, Path(folder) / "model", format=format)
        files = sum(f.stat().st_size for f in (Path(folder) / "model").rglob("*.safetensors"))
    return {
        "tensor bytes": audit.bytes,
        "predicted bytes": audit.predicted_bytes,
        "safetensors files": files,
        "greatest difference of logits": audit.max_difference,
        "seconds": audit.seconds,
    }


def report(result: dict[str, Any]) -> None:
    earlier = EARLIER.get(result["model"], {}) if result["quantizer"] == "rtn" else {}
    same = {f"{u['bits']}bpw": u for u in result["uniform"]}
    rows = []
    for a in result["answers"]:
        u = same.get(a["budget"], {})
        published = [c.get(float(a["budget"].removesuffix("bpw"))) for c in earlier.values()]
        rows.append(
            [a["budget"], f"{a['kl']:.3g} ± {a['stderr']:.1g}", a["perplexity"], a["bytes"],
             a["table"], a["evaluations"], u.get("kl"), u.get("perplexity"), u.get("bytes"),
             *published]
        )  # fmt: skip
    show(
        f"{result['model']}, {result['quantizer']}, groups {result['groups']} (full perplexity "
        f"{result['full perplexity']:.3f})",
        ["budget", "KL", "perplexity", "bytes", "table", "evaluations", "uniform KL",
         "uniform perplexity", "uniform bytes", *earlier],
        rows,
    )  # fmt: skip
    if "export" in result:
        show("Export at 4 bits", list(result["export"]), [list(result["export"].values())])


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--budgets", type=float, nargs="+", default=[2.5, 3, 3.5, 4, 5])
    parser.add_argument("--samples", type=int, default=128, help="calibration sequences")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument(
        "--quantizers", nargs="+", choices=list(QUANTIZERS), default=list(QUANTIZERS)
    )
    parser.add_argument("--groups", choices=["auto", "off"], help="of all models")
    options = parsed(parser)
    results = []
    for name in options.models:
        for quantizer in options.quantizers:
            results.append(run(name, quantizer, options))
            report(results[-1])
    write({**head(), "samples": options.samples, "runs": results})


if __name__ == "__main__":
    main()
