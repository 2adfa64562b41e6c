"""Quality and speed of the quantizers: ``python -m benchmarks.quantizers [--assets FOLDER]``.

JSON on standard output:

    scales   squared error of weights, relative to a grid of 1500 clipping ratios: our search, and
             the plain grid of 29 ratios that the starting figures of the project were taken with
    gptq     squared output error of a layer relative to its output, geometric mean over layers, and
             the share of layers where gptq is below rtn
    seconds  one 4096 × 4096 layer of normal weights, best of three, by number of threads
"""

from __future__ import annotations

import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.common import arguments, commit
from bitfront.quant.formats import dequantize
from bitfront.quant.integers import grouped
from bitfront.quant.layers import adapter_for, adapter_of
from bitfront.quant.quantizers import quantize
from bitfront.quant.scales import integer_range, stored
from bitfront.quant.statistics import InputStatistics, collect
from bitfront.types import Scheme, parse_schemes
from tests.real_models import MODELS

PLAIN = np.linspace(1.0, 0.3, 29).tolist()
FINE = np.geomspace(1.0, 0.05, 1500).tolist()
FORMS = {"resnet": "w2 w3 w4 w8", "llama": "w2g32 w3g32 w4g32 w8g32"}
TIMED = "w4g128 w2g32 w8 w4g128z fp8 mxfp4 nvfp4 w4g128+gptq w4g128+gptq:act"


def grid_error(M: Tensor, scheme: Scheme, ratios: list[float]) -> float:
    """Least squared error over float16 scales at ``ratios`` of the full range."""
    lo, hi = integer_range(scheme.bits, True)
    w = grouped(M, scheme)
    top = w.abs().amax(-1, keepdim=True) / hi
    least = torch.full(w.shape[:2], torch.inf)
    for ratio in ratios:
        s = stored(top * ratio, torch.float16)
        least = torch.minimum(least, ((w / s).round_().clamp_(lo, hi) * s - w).square().sum(-1))
    return float(least.double().sum())


def matrices(model: nn.Module) -> dict[str, Tensor]:
    found = {n: m for n, m in model.named_modules() if adapter_for(m) is not None}
    return {
        n: adapter_of(m).matrix(m) for n, m in found.items() if adapter_of(m).kind != "embedding"
    }


def takes(M: Tensor, scheme: Scheme) -> bool:
    return scheme.group is None or M.shape[1] % scheme.group == 0


def scales(assets: Path) -> dict[str, Any]:
    table = {}
    for name, load in MODELS.items():
        weights = matrices(load(assets)[0])
        for scheme in parse_schemes(FORMS[name]):
            chosen = [M for M in weights.values() if takes(M, scheme)]
            fine = sum(grid_error(M, scheme, FINE) for M in chosen)
            plain = sum(grid_error(M, scheme, PLAIN) for M in chosen)
            ours = sum(
                float((dequantize(quantize(M, scheme), M.dtype) - M).double().square().sum())
                for M in chosen
            )
            table[f"{name} {scheme}"] = {"plain": plain / fine, "ours": ours / fine}
    return table


def output_errors(
    weights: dict[str, Tensor], statistics: dict[str, InputStatistics], scheme: Scheme
) -> Tensor:
    """Per layer: squared error of the output relative to the squared output."""
    out = []
    for name, M in weights.items():
        H = statistics[name].H
        assert H is not None
        back = dequantize(quantize(M, scheme, statistics[name]), M.dtype)
        D, W = (x.unflatten(0, (len(H), -1)).double() for x in (back - M, M))
        out.append(((D @ H.double()) * D).sum() / ((W @ H.double()) * W).sum())
    return torch.stack(out)


def gptq(assets: Path) -> dict[str, Any]:
    table = {}
    for name, load in MODELS.items():
        model, run = load(assets)
        weights = matrices(model)
        statistics = collect(model, list(weights), [], run)
        for form in parse_schemes(FORMS[name]):
            chosen = {n: M for n, M in weights.items() if takes(M, form)}
            rtn = output_errors(chosen, statistics, form)
            row = {"rtn": float(rtn.log().mean().exp())}
            for quantizer in ("gptq", "gptq:act"):
                error = output_errors(chosen, statistics, Scheme.parse(f"{form}+{quantizer}"))
                row[quantizer] = float(error.log().mean().exp())
                row[f"{quantizer} below rtn"] = float((error < rtn).double().mean())
            table[f"{name} {form}"] = row
    return table


def seconds() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    M = 0.02 * torch.randn(4096, 4096, generator=generator)
    X = torch.randn(4096, 4096, generator=generator)
    statistics = InputStatistics((X.T @ X / 4096 + torch.eye(4096))[None], 4096)
    table: dict[str, Any] = {}
    threads = torch.get_num_threads()
    for count in sorted({1, threads}):
        torch.set_num_threads(count)
        for scheme in parse_schemes(TIMED):
            times = []
            for _ in range(3):
                start = time.perf_counter()
                quantize(M, scheme, statistics)
                times.append(time.perf_counter() - start)
            table.setdefault(str(scheme), {})[f"{count} threads"] = min(times)
    torch.set_num_threads(threads)
    return table


def main() -> None:
    assets = arguments(__doc__).parse_args().assets
    result = {
        "machine": platform.platform(), "threads": torch.get_num_threads(),
        "torch": torch.__version__, "commit": commit(),
        "scales": scales(assets), "gptq": gptq(assets), "seconds": seconds(),
    }  # fmt: skip
    json.dump(result, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
