"""Files beside a graph that takes and gives a cache, for tools that generate text with it.

``config.json``, ``generation_config.json`` and the tokenizer's files are what Optimum's
``ORTModelForCausalLM`` reads, with ``genai_config.json`` ONNX Runtime GenAI does.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bitfront.quant.export_compressed import copy_tokenizer
from bitfront.quant.export_onnx import FILE

from .pretrained import context_length


def write_beside(model: Any, folder: Path, inputs: list[str], heads: int, size: int) -> None:
    """Write them to ``folder``. model: of transformers.

    inputs: names of the graph's inputs, without the cache. heads, size: of the keys.
    """
    model.config.save_pretrained(folder)
    if model.generation_config is not None:
        model.generation_config.save_pretrained(folder)
    copy_tokenizer(model.name_or_path or "", folder)
    content = _genai(model, inputs, heads, size)
    (folder / "genai_config.json").write_text(json.dumps(content, indent=2) + "\n")


def _genai(model: Any, inputs: list[str], heads: int, size: int) -> dict[str, Any]:
    """The graph in the words of ONNX Runtime GenAI, any architecture being a ``decoder``."""
    config = model.config.get_text_config()
    tokens = model.generation_config or config
    context = context_length(model) or 2**15  # of rotary kinds, any
    end = tokens.eos_token_id
    first = end[0] if isinstance(end, list) else end
    return {
        "model": {
            "type": "decoder",
            "bos_token_id": _or(tokens.bos_token_id, first),
            "eos_token_id": _or(end, 0),
            "pad_token_id": _or(tokens.pad_token_id, first),
            "context_length": context,
            "vocab_size": config.vocab_size,
            "decoder": {
                "filename": FILE,
                "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
                "hidden_size": config.hidden_size,
                "num_hidden_layers": config.num_hidden_layers,
                "num_attention_heads": config.num_attention_heads,
                "num_key_value_heads": heads,
                "head_size": size,
                "inputs": {
                    **{name: name for name in inputs},
                    "past_key_names": "past_key_values.%d.key",
                    "past_value_names": "past_key_values.%d.value",
                },
                "outputs": {
                    "logits": "logits",
                    "present_key_names": "present.%d.key",
                    "present_value_names": "present.%d.value",
                },
            },
        },
        # the graph gives keys and values in new memory
        "search": {"max_length": context, "do_sample": False, "past_present_share_buffer": False},
    }


def _or(token: Any, other: Any) -> Any:
    return (0 if other is None else other) if token is None else token
