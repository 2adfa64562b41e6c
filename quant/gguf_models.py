"""What llama.cpp calls a model's tensors and settings.

    family   architecture in the file, and transformers' classes of it
    rotary   whether rows of queries and keys are reordered: llama.cpp's ``llama`` rotates
             neighbours (0, 1), (2, 3), ...; transformers halves of a head against each other

From the names and keys in llama.cpp's ``src/llama-arch.cpp`` and its ``convert_hf_to_gguf.py``.
Imported without torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bitfront.errors import ExportError
from bitfront.scheme import KEEP
from bitfront.types import Layer, Scheme

from .ggml_types import BLOCK_BYTES, is_block, type_name
from .suitability import takes

_KINDS = ("linear", "embedding")
_PLACES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}  # fmt: skip
_BLOCK = re.compile(r"model\.layers\.(\d+)\.(.+)")
FREQUENCIES = "rope_freqs.weight"
_SCALINGS = ("default", "linear", "llama3")

Value = str | int | float | bool


@dataclass(frozen=True)
class Family:
    """See above."""

    architecture: str
    rotary: bool


FAMILIES = {
    "LlamaForCausalLM": Family("llama", True),
    "MistralForCausalLM": Family("llama", True),
    "Qwen2ForCausalLM": Family("qwen2", False),
    "Qwen3ForCausalLM": Family("qwen3", False),
}


def reason(layer: Layer, scheme: Scheme) -> str | None:
    """Why a file has no type for ``layer`` under ``scheme``; None if it has one."""
    if layer.kind not in _KINDS:
        return f"llama.cpp's models have linear layers and embeddings, not a {layer.kind}"
    if not is_block(scheme) and scheme.format not in ("fp16", "bf16", KEEP):
        return f"GGUF has types of its own: {', '.join(BLOCK_BYTES)}, fp16, bf16"
    if type_name(layer, scheme) is None:
        return f"GGUF's models have no {layer.dtype}; use fp16 or bf16"
    return takes(layer, scheme)


def reason_config(config: Any) -> str | None:
    """Why a model of one of the families cannot be written; None if it can."""
    if getattr(config, "hidden_act", "silu") != "silu":
        return f"llama.cpp runs it with silu, and its activation is {config.hidden_act}"
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None) or ["full_attention" if window is None else ""]
    if set(kinds) != {"full_attention"} and (window or 0) < config.max_position_embeddings:
        return "llama.cpp runs it with full attention, and its window is shorter than its context"
    kind = rope(config)["rope_type"]
    if kind not in _SCALINGS:
        return f"positions scaled by {kind} are not written; {', '.join(_SCALINGS)} are"
    if rope(config).get("partial_rotary_factor", 1.0) != 1.0:
        return "llama.cpp rotates whole heads, and it a part of each"
    return None


def rope(config: Any) -> dict[str, Any]:
    """How positions are rotated."""
    found = dict(getattr(config, "rope_parameters", None) or {})
    return {"rope_type": "default", "rope_theta": 10000.0, **found}


def head_size(config: Any) -> int:
    """Width of an attention head."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def tensor_name(key: str) -> str:
    """llama.cpp's name of a parameter. Raises ``ExportError`` for one that it has no place for."""
    place, _, suffix = key.rpartition(".")
    block = _BLOCK.fullmatch(place)
    name = _PLACES.get(block[2] if block else place)
    if name is None or suffix not in ("weight", "bias"):
        raise ExportError(f"llama.cpp has no place for {key!r}", "export to another container")
    return f"blk.{block[1]}.{name}.{suffix}" if block else f"{name}.{suffix}"


def heads_of(key: str, family: Family, config: Any) -> int | None:
    """Heads whose rows are reordered, of a parameter; None where rows stay as they are."""
    if not family.rotary:
        return None
    layer = key.rpartition(".")[0]
    if layer.endswith("self_attn.q_proj"):
        return int(config.num_attention_heads)
    return int(config.num_key_value_heads) if layer.endswith("self_attn.k_proj") else None


def settings(config: Any) -> Mapping[str, Value]:
    """Metadata of the architecture: key, without its prefix, and value."""
    head, positions = head_size(config), rope(config)
    found: dict[str, Value] = {
        "context_length": int(config.max_position_embeddings),
        "embedding_length": int(config.hidden_size),
        "block_count": int(config.num_hidden_layers),
        "feed_forward_length": int(config.intermediate_size),
        "attention.head_count": int(config.num_attention_heads),
        "attention.head_count_kv": int(config.num_key_value_heads),
        "attention.key_length": head,
        "attention.value_length": head,
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "rope.dimension_count": head,
        "rope.freq_base": float(positions["rope_theta"]),
        "vocab_size": int(config.vocab_size),
    }
    if positions["rope_type"] == "linear":
        found |= {"rope.scaling.type": "linear", "rope.scaling.factor": float(positions["factor"])}
    return found
