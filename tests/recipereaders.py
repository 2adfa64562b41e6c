"""What the tools of recipes read in them: literal rules, written from their sources, not ours.

``read(tool, text, name, kind)`` is the scheme, as Bitfront spells it, that the tool makes of a
module with this name; None for one that it leaves alone. A module's classes are those of its kind.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import yaml

CLASSES = {
    "linear": ("Linear", "Module"), "embedding": ("Embedding", "Module"),
    "hf_conv1d": ("Conv1D", "Module"), "conv1d": ("Conv1d", "_ConvNd", "Module"),
    "conv2d": ("Conv2d", "_ConvNd", "Module"),
    "conv_transpose1d": ("ConvTranspose1d", "_ConvTransposeNd", "_ConvNd", "Module"),
    "conv_transpose2d": ("ConvTranspose2d", "_ConvTransposeNd", "_ConvNd", "Module"),
}  # fmt: skip


def read(tool: str, text: str, name: str, kind: str) -> str | None:
    return _READERS[tool](text, name, kind)


def gptqmodel(text: str, name: str, kind: str) -> str | None:
    """``BaseQuantizeConfig.__post_init__`` and ``_resolve_dynamic_override`` of GPTQModel 7.7.0."""
    config = json.loads(text)
    if kind not in ("linear", "hf_conv1d"):
        return None  # not among the modules of its model definitions
    rules = config["dynamic"].items()
    negative = [(key, fields) for key, fields in rules if key.startswith("-")]
    positive = [(key, fields) for key, fields in rules if not key.startswith("-")]
    for key, fields in [*negative, *positive]:  # negative ones are put first
        raw = key[2:] if key[:2] in ("-:", "+:") else key
        if re.match(raw, name):
            return None if key.startswith("-:") else _gptq_words({**config, **fields})
    return _gptq_words(config)


def _gptq_words(fields: Mapping[str, Any]) -> str:
    group = "" if fields["group_size"] == -1 else f"g{fields['group_size']}"
    quantizer = ""
    if "desc_act" in fields:
        assert fields["act_group_aware"] is False
        assert fields.get("static_groups", False) == fields["desc_act"]
        quantizer = "+gptq:act" if fields["desc_act"] else "+gptq"
    return f"w{fields['bits']}{group}{'' if fields['sym'] else 'z'}{quantizer}"


def torchao(text: str, name: str, kind: str) -> str | None:
    """``quantize_`` and ``_fqn_to_config_handler`` of torchao 0.18.0."""
    keys = json.loads(text)["_data"]["fqn_to_config"]
    assert "_default" not in keys
    assert not (name in keys and name.startswith("re:"))  # as torchao asserts
    if name in keys:
        return _torchao_words(keys[name])
    for key, config in keys.items():
        assert not (key.startswith("re:") and re.fullmatch(key[3:], f"{name}.weight"))
        if key.startswith("re:") and re.fullmatch(key[3:], name):
            return _torchao_words(config)
    return None


def _torchao_words(config: Any) -> str | None:
    if config is None:
        return None
    data = config["_data"]
    if config["_type"] == "NVFP4WeightOnlyConfig":
        return "nvfp4"
    if config["_type"] != "IntxWeightOnlyConfig":
        assert data["granularity"]["_type"] == "PerRow"
        names = {"Float8WeightOnlyConfig": "fp8", "Int8DynamicActivationInt8WeightConfig": "w8a8"}
        return names[config["_type"]]
    bits = re.fullmatch("int([1-8])", data["weight_dtype"]["_data"])
    assert bits is not None
    zero = {"SYMMETRIC": "", "ASYMMETRIC": "z"}[data["mapping_type"]["_data"]]
    granularity = data["granularity"]
    group = f"g{granularity['_data']['group_size']}" if granularity["_type"] == "PerGroup" else ""
    return f"w{bits[1]}{group}{zero}"


def llm_compressor(text: str, name: str, kind: str) -> str | None:
    """``Recipe.from_dict`` of llm-compressor 0.14.0.1, ``is_match`` of compressed-tensors."""
    found, ignored = [], set()
    [(stage, groups)] = yaml.safe_load(text).items()
    assert stage.endswith("_stage")
    for group, modifiers in groups.items():
        assert group.endswith("_modifiers")
        for modifier, words in modifiers.items():
            ignored.add(any(_target_matches(t, name, kind) for t in words.get("ignore", ())))
            for config in words["config_groups"].values():
                if any(_target_matches(t, name, kind) for t in config["targets"]):
                    found.append(_compressed_words(modifier, words, config))
    assert len(found) <= 1
    if kind == "linear":
        assert ignored == {not found}
    return found[0] if found else None


def _target_matches(target: str, name: str, kind: str) -> bool:
    if target in CLASSES[kind]:
        return True
    if target.startswith("re:"):
        return re.match(target.removeprefix("re:"), name) is not None
    return target == name


def _compressed_words(modifier: str, words: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    weights, inputs = config["weights"], config.get("input_activations")
    group = f"g{weights['group_size']}" if weights["strategy"] == "group" else ""
    assert weights["dynamic"] is False
    if weights["type"] == "float":
        kinds = {"channel": "fp8", "tensor_group": "nvfp4", "group": "mxfp4"}
        assert inputs is None
        return kinds[weights["strategy"]]
    activation = ""
    if inputs is not None:
        assert (inputs["type"], inputs["symmetric"]) == ("int", True)
        assert inputs["dynamic"] == (inputs["strategy"] == "token")
        activation = f"a{inputs['num_bits']}{'' if inputs['dynamic'] else 's'}"
    orders = {None: "+gptq", "static": "+gptq:act"}
    quantizer = orders[words["actorder"]] if modifier == "GPTQModifier" else ""
    zero = "" if weights["symmetric"] else "z"
    return f"w{weights['num_bits']}{group}{zero}{activation}{quantizer}"


def modelopt(text: str, name: str, kind: str) -> str | None:
    """``set_quantizer_by_cfg`` of ModelOpt 0.47.0: all matching entries in order, last ones win."""
    entries = yaml.safe_load(text)["quantize"]["quant_cfg"]
    state: dict[str, Any] = {}
    for part in ("weight_quantizer", "input_quantizer", "output_quantizer"):
        full = f"{name}.{part}" if name else part
        state[part] = {"num_bits": 8}
        for entry in entries:
            if fnmatch.fnmatch(full, entry["quantizer_name"]):
                state[part] = entry["cfg"] if entry.get("enable", True) else None
    assert state["output_quantizer"] is None
    if state["weight_quantizer"] is None:
        assert state["input_quantizer"] is None
        return None
    if kind in ("conv1d", "conv2d"):  # the last dimension is a kernel's width, or a sample's
        for words in (state["weight_quantizer"], state["input_quantizer"] or {}):
            assert "block_sizes" not in words
    return _modelopt_words(state["weight_quantizer"], state["input_quantizer"])


def _modelopt_words(weights: Mapping[str, Any], inputs: Mapping[str, Any] | None) -> str:
    blocks = weights.get("block_sizes", {})
    assert ("axis" in weights) != bool(blocks)
    assert weights.get("axis", 0) == 0
    if isinstance(weights["num_bits"], list):
        assert inputs is None
        kinds = {(4, 3, None): "fp8", (2, 1, 16): "nvfp4", (2, 1, 32): "mxfp4"}
        return kinds[*weights["num_bits"], blocks.get(-1)]
    activation = ""
    if inputs is not None:
        dynamic = inputs.get("type") == "dynamic"
        assert inputs.get("block_sizes") == ({-1: None} if dynamic else None)
        activation = f"a{inputs['num_bits']}{'' if dynamic else 's'}"
    return f"w{weights['num_bits']}{f'g{blocks[-1]}' if blocks else ''}{activation}"


def llama_quantize(text: str, name: str, kind: str) -> str | None:
    """``parse_tensor_type_file`` of llama.cpp's quantize.cpp, ``llama_tensor_get_type`` of
    llama-quant.cpp, and the name that its converter gives a layer."""
    options = []
    for word in text.split():
        pattern, _, kind = word.partition("=")
        assert pattern
        assert kind.lower() in _GGML, word  # else the tool gives up
        options.append((pattern.lower(), kind.lower()))
    tensor = name.replace("model.layers.", "blk.")
    for theirs, ours in _LLAMA.items():
        tensor = tensor.replace(theirs, ours)
    found = next((k for p, k in options if re.search(p, f"{tensor}.weight")), None)
    assert found is not None, tensor  # it would get the type of the whole file
    return _GGML[found]


_LLAMA = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "model.embed_tokens": "token_embd", "lm_head": "output",
}  # fmt: skip
_GGML = {
    "f32": None, "f16": "fp16", "bf16": "bf16", "q8_0": "q8_0", "q6_k": "q6_k", "q5_k": "q5_k",
    "q5_0": "q5_0", "q5_1": "q5_1", "q4_k": "q4_k", "q4_0": "q4_0", "q4_1": "q4_1", "q3_k": "q3_k",
    "q2_k": "q2_k",
}  # fmt: skip

_READERS: dict[str, Callable[[str, str, str], str | None]] = {
    "gptqmodel": gptqmodel,
    "torchao": torchao,
    "llm-compressor": llm_compressor,
    "modelopt": modelopt,
    "llama-quantize": llama_quantize,
}
