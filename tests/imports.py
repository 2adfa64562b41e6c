"""A small network whose layers have names that other programs group, and files of its scores."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitfront.tasks import ModuleTask

GOLDEN = Path(__file__).parent / "golden" / "imports"
ATTENTION = tuple(f"block.self_attn.{name}_proj" for name in "qkvo")
MLP = ("block.mlp.gate_proj", "block.mlp.up_proj", "block.mlp.down_proj")
LAYERS = (*ATTENTION, *MLP, "head")


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(16, 16) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        mixed = F.scaled_dot_product_attention(self.q_proj(x), self.k_proj(x), self.v_proj(x))
        return self.o_proj(mixed)


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = nn.Linear(16, 24), nn.Linear(16, 24)
        self.down_proj = nn.Linear(24, 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.self_attn, self.mlp = Attention(), Gated()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(x)
        return x + self.mlp(x)


class Net(nn.Module):
    """(N, T, 16) -> (N, T, 5) logits."""

    def __init__(self) -> None:
        super().__init__()
        self.block, self.head = Block(), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(x))


def net() -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net().eval()


def inputs(count: int = 4) -> list[Tensor]:
    """Batches of 4 sequences of 6 positions."""
    x = torch.randn(4 * count, 6, 16, generator=torch.Generator().manual_seed(1))
    return list(x.split(4))


def task() -> ModuleTask:
    """3 batches to calibrate on, 1 to judge by; 24 positions each."""
    *calibration, last = inputs()

    def make() -> dict[str, Any]:
        return {"model": net(), "calibration": calibration, "evaluation": [last]}

    return ModuleTask(make)


def table(schemes: str = "w3 w8", layers: tuple[str, ...] = LAYERS, metric: str = "kl") -> str:
    """A CSV file: of each layer, coarser schemes lose more."""
    rows = [
        f"{layer},{scheme},{metric},{(i + 1) / int(scheme[1]) ** 3}"
        for i, layer in enumerate(layers)
        for scheme in schemes.split()
    ]
    return "\n".join(["layer,scheme,metric,value", *rows]) + "\n"


def format_of(bits: list[int], group: int, share: list[float]) -> dict[str, Any]:
    """As exllamav2's ``QParams.get_dict`` gives it, once it is JSON."""
    groups = {str(b): group for b in bits}
    return {"group_size": groups, "bits": bits, "bits_prop": share, "scale_bits": 4}


def option(accuracy: float, names: str, *formats: Mapping[str, Any]) -> dict[str, Any]:
    """One option of a sublayer; a single format is that of all its matrices."""
    every = names.split()
    given = formats * len(every) if len(formats) == 1 else formats
    return {"accuracy": accuracy, "total_bits": 4096, **dict(zip(every, given, strict=True))}


QKVO, GUD = "q_proj k_proj v_proj o_proj", "gate_proj up_proj down_proj"
W4, W8 = format_of([4], 8, [1]), format_of([8], 8, [1])
MIXED = format_of([4, 3], 8, [0.1, 0.9])


def measurement() -> dict[str, Any]:
    """``measurement.json`` of exllamav2 0.3.2, as ``measure_quant`` writes it."""
    return {
        "measurement": {
            "block.self_attn": [
                option(0.9, QKVO, MIXED),
                option(0.95, QKVO, W4),
                option(0.96, QKVO, W4, W4, W8, W4),
                option(0.999, QKVO, W8),
            ],
            "block.mlp": [option(0.92, GUD, W4), option(0.998, GUD, W8)],
            "norm.norm": None,
            "head.linear": None,
        },
        "last_module_idx": 3,
    }


def written(path: Path, value: Any) -> Path:
    """``value`` as JSON, or text as it is."""
    text = value if isinstance(value, str) else json.dumps(value, indent=4)
    path.write_text(text, encoding="utf-8")
    return path


def autoround(scheme: str = "w4") -> dict[str, Any]:
    """A file of AutoRound's for the network, of the fields that matter."""
    return {
        "version": 1,
        "score_granularity": "per_op",
        "cache_config": {"model_id": "net", "nsamples": 12},
        "scheme": {"bits": int(scheme[1]), "group_size": -1, "sym": True, "data_type": "int"},
        "layer_scores": {layer: [1024, 0.5 * (i + 1)] for i, layer in enumerate(LAYERS)},
    }


def modelopt() -> dict[str, Any]:
    """ModelOpt's state for the network as JSON, of the fields that matter."""
    off = {"quantizer_name": "*", "enable": False}
    formats: list[dict[str, Any]] = [
        {"quant_cfg": [off, {"quantizer_name": "*weight_quantizer", "cfg": {**cfg, "axis": 0}}]}
        for cfg in ({"num_bits": 4}, {"num_bits": 8})
    ]
    formats.append({"quant_cfg": [off]})
    together = [ATTENTION[:3], ATTENTION[3:], MLP[:2], MLP[2:], ("head",)]
    stats = {
        f"{names[0]}.quant_recipe": {
            "formats": formats, "scores": [0.5, 0.25, 0.0], "module_names": list(names),
        }
        for names in together
    }  # fmt: skip
    return {"method": "gradient", "candidate_stats": stats}


EXAMPLES: dict[str, Any] = {  # format -> a file of it for the network
    "csv": table(),
    "autoround": autoround(),
    "modelopt": modelopt(),
    "exllamav2": measurement(),
    "mlx-lm": [[layer, 10.0 * (i + 1)] for i, layer in enumerate(LAYERS)],
}
