"""GGUF files in llama.cpp, and its block types by two quantizers: ``python -m benchmarks.gguf``.

Wants ``BITFRONT_TEST_LLAMA_CPP``, a Python that has llama_cpp (``make .venv-llama/.installed``).
JSON on standard output:

    models   a trial in torch and its file in llama.cpp over the same windows of text: perplexities,
             differences of log-probabilities; with everything kept in float32 too, which is what
             arithmetic alone differs by
    rounded  the same allocations written here, and by llama-quantize from their recipe: KL of each
             file from the full model's, all in llama.cpp
    errors   squared error of weights relative to their squares, ours, ggml's and their ratio
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import llama
from benchmarks.common import arguments, head, parsed, show, write
from benchmarks.wide import llama_folder
from bitfront.quant.export_gguf import FILE, Gguf
from bitfront.quant.formats import dequantize
from bitfront.quant.ggml_types import BLOCK_BYTES
from bitfront.quant.quantizers import quantize
from bitfront.quant.surgery import applied
from bitfront.quant.weights import QuantizedWeight
from bitfront.recipes import RECIPES
from bitfront.types import Layer, Scheme, parse_schemes
from tests import exporting

SMALL = parse_schemes("q8_0 q5_0 q4_0 q5_1 q4_1 fp16 bf16")
LARGE = parse_schemes("q6_k q5_k q4_k q3_k q2_k q8_0 q4_0")
WINDOWS, LENGTH = 16, 128
MODELS = {
    "stories260K": "the Llama of the assets, widths 64 and 172",
    "wide": "a Llama of widths 512 and 768 with random weights, and the same tokenizer",
}


def folders(assets: Path, room: Path) -> dict[str, Path]:
    """Folders of the two models; that of the second is made in ``room``."""
    llama_folder(
        assets, room / "wide", hidden_size=512, intermediate_size=768, num_hidden_layers=3,
        num_attention_heads=8, num_key_value_heads=4, max_position_embeddings=512,
    )  # fmt: skip
    return {"stories260K": assets / "stories260K_llama", "wide": room / "wide"}


def windows(assets: Path, count: int = WINDOWS, length: int = LENGTH) -> Tensor:
    """The first tokens (N, T) of as many stories."""
    with np.load(next((assets / "text").glob("tinystories*.npz"))) as data:
        ids, lengths = data["ids"].reshape(-1), data["lengths"]
    ends = np.cumsum(lengths)
    long = [end - size for end, size in zip(ends, lengths, strict=True) if size >= length]
    return torch.tensor(np.stack([ids[at : at + length] for at in long[:count]])).long()


def mixed(layers: tuple[Layer, ...]) -> dict[str, Scheme]:
    """Types in turn, of those that a layer can take; a tied layer as the one it is tied to."""
    exporter, chosen = Gguf(), dict[str, Scheme]()
    for i, layer in enumerate(layers):
        pool = LARGE if layer.cols % 256 == 0 else SMALL
        turned = [pool[(i + k) % len(pool)] for k in range(len(pool))]
        own = next(s for s in turned if exporter.reason(layer, s) is None)
        chosen[layer.name] = chosen[layer.shares] if layer.shares else own
    return chosen


def written(folder: Path, out: Path, kept: bool, text: Tensor) -> tuple[Tensor, list[str]]:
    """A trial of the model of ``folder``, written to ``out``: logits over ``text``, schemes."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    layers = exporting.layers_of(model)
    schemes = dict.fromkeys((la.name for la in layers), exporting.KEEP) if kept else mixed(layers)
    quantized = exporting.quantized_by(model, schemes)
    Gguf().write(model, layers, schemes, quantized, out, {})
    changed = {name: quantized(name) for name, s in schemes.items() if s != exporting.KEEP}
    with applied(model, changed), torch.no_grad():
        return model(text).logits, sorted({str(scheme) for scheme in schemes.values()})


def models(assets: Path, room: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """``models`` and ``rounded``."""
    found, rounded, text = [], [], windows(assets)
    for name, folder in folders(assets, room).items():
        ran = {}
        for kept in (True, False):
            out = room / f"{name}-{kept}"
            ours, schemes = written(folder, out, kept, text)
            ran[kept] = llama.run(out / FILE, text).logits
            row = asdict(llama.compare(ours, ran[kept], text))
            found.append({"model": MODELS[name], "schemes": schemes, **row})
        llama.requantize(room / f"{name}-True" / FILE, room / "theirs.gguf", recipe(folder))
        theirs = llama.run(room / "theirs.gguf", text).logits
        kl = [llama.compare(ran[True], logits, text).kl for logits in (ran[False], theirs)]
        rounded.append({"model": MODELS[name], "ours": kl[0], "llama_quantize": kl[1]})
    return found, rounded


def recipe(folder: Path) -> str:
    """The mixed allocation of the model of ``folder``, for llama-quantize."""
    from transformers import AutoModelForCausalLM

    layers = exporting.layers_of(AutoModelForCausalLM.from_pretrained(folder))
    return RECIPES["llama-quantize"].text(layers, mixed(layers))


def matrices(assets: Path) -> dict[str, Tensor]:
    """Trained weights of rows that every block divides, and random ones with tails like theirs."""
    from safetensors.torch import load_file

    found = {}
    for folder in ("char_gpt_shakespeare", "cifar10_vit"):
        for path in (assets / folder).glob("*.safetensors"):
            for name, tensor in load_file(path).items():
                if tensor.ndim == 2 and tensor.shape[1] % 256 == 0:
                    found[f"{folder}/{name}"] = tensor.float().contiguous()
    generator = torch.Generator().manual_seed(0)
    normal = 0.02 * torch.randn(256, 1024, generator=generator)
    found["random/normal"] = normal
    found["random/tails"] = normal * torch.exp(0.5 * torch.randn(256, 1024, generator=generator))
    return found


def errors(assets: Path) -> list[dict[str, Any]]:
    """Of each block type, on trained and on random weights."""
    weights = matrices(assets)
    theirs = llama.blocks(weights)
    found = []
    for name in BLOCK_BYTES:
        scheme = Scheme.parse(name)
        for kind in ("trained", "random"):
            some = [n for n in weights if n.startswith("random/") == (kind == "random")]
            ours = [_relative(weights[n], quantize(weights[n], scheme)) for n in some]
            ggml = [_relative(weights[n], QuantizedWeight(scheme, theirs[name, n])) for n in some]
            row = {"ours": sum(ours) / len(some), "ggml": sum(ggml) / len(some)}
            found.append({
                "type": name, "weights": kind, **row, "ratio": row["ours"] / row["ggml"]
            })  # fmt: skip
    return found


def _relative(M: Tensor, q: QuantizedWeight) -> float:
    back = dequantize(q, torch.float32)
    return float((back - M).double().square().sum() / M.double().square().sum())


def main() -> None:
    options = parsed(arguments(__doc__), 1)
    if llama.python() is None:
        sys.exit(f"set {llama.VARIABLE} to a Python that has llama_cpp")
    with tempfile.TemporaryDirectory(prefix="bitfront-") as room:
        found, rounded = models(options.assets, Path(room))
    report: Mapping[str, Any] = {
        **head(), "llama_cpp": llama.version(), "models": found, "rounded": rounded,
        "errors": errors(options.assets),
    }  # fmt: skip
    columns = ["model", "schemes", "perplexity", "theirs", "largest", "mean", "kl", "same"]
    rows = [{**m, "schemes": " ".join(m["schemes"])} for m in report["models"]]
    show("llama.cpp beside torch", columns, [[row[c] for c in columns] for row in rows])
    show("KL in llama.cpp", list(rounded[0]), [list(row.values()) for row in rounded])
    show(
        "squared error", ["type", "weights", "ours", "ggml", "ratio"],
        [list(row.values()) for row in report["errors"]],
    )  # fmt: skip
    write(report)


if __name__ == "__main__":
    main()
