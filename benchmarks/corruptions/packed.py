"""Corruptions of compressed-tensors folders: a Llama in three shards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks import damage as d
from benchmarks.corruptions.changes import (
    LAST,
    O1,
    Q1,
    Change,
    Corruption,
    attn,
    config,
    copied,
    in_file,
    names_exchanged,
    removed,
    scheme,
    tensors,
    whole,
)
from benchmarks.exports import Export

CT = "compressed-tensors"
NORM = "model.layers.2.post_attention_layernorm.weight"


def other_shard_in_index(export: Export, folder: Path) -> None:
    def change(index: Any) -> None:
        places = index["weight_map"]
        first, last = min(places.values()), max(places.values())
        several = [name for name, shard in places.items() if shard == last]
        assert len(several) > 1  # so that the shard itself stays in the index
        places[several[0]] = first

    d.document(folder / d.INDEX, change)


def groups_exchanged(export: Export, folder: Path) -> None:
    """The numbers of the 3-bit and the 5-bit layers."""

    def change(content: Any) -> None:
        groups = content["quantization_config"]["config_groups"].values()
        three, five = (
            next(g for g in groups if g["weights"]["num_bits"] == bits) for bits in (3, 5)
        )
        three["weights"], five["weights"] = five["weights"], three["weights"]

    d.document(folder / "config.json", change)


def ignored(layer: str) -> Change:
    def change(content: Any) -> None:
        quantization = content["quantization_config"]
        for group in quantization["config_groups"].values():
            if layer in group["targets"]:
                group["targets"].remove(layer)
        quantization["ignore"].append(layer)

    return lambda e, f: d.document(f / "config.json", change)


def dynamic_inputs(export: Export, folder: Path) -> None:
    def change(content: Any) -> None:
        for group in content["quantization_config"]["config_groups"].values():
            inputs = group["input_activations"]
            if inputs is not None and not inputs["dynamic"]:
                inputs.update(dynamic=True, strategy="token")

    d.document(folder / "config.json", change)


def other_tokens(export: Export, folder: Path) -> None:
    def change(content: Any) -> None:
        vocabulary = content["model"]["vocab"]
        a, b = list(vocabulary)[-2:]
        vocabulary[a], vocabulary[b] = vocabulary[b], vocabulary[a]

    d.document(folder / "tokenizer.json", change)


PACKED = [
    Corruption(CT, "a bit of codes flipped", lambda e, f: d.bit(f, f"{Q1}.weight_packed", 100)),
    Corruption(CT, "a bit of the embedding flipped",
               lambda e, f: d.bit(f, "model.embed_tokens.weight", 4000)),
    Corruption(CT, "a bit of a shard's header flipped",
               lambda e, f: in_file(d.shard_of(f, NORM), NORM)),
    Corruption(CT, "a bit of a norm flipped", lambda e, f: d.bit(f, NORM, 8), signed=True),
    Corruption(CT, "the last shard cut short",
               lambda e, f: d.cut(sorted(f.glob(LAST))[-1], 64)),
    Corruption(CT, "the last shard missing", removed(LAST)),
    Corruption(CT, "a shard of another trial", copied("other", "model-00002-*.safetensors")),
    Corruption(CT, "the index names another shard for a tensor", other_shard_in_index),
    Corruption(CT, "a scale 1 % larger",
               lambda e, f: d.scaled(f, f"{Q1}.weight_scale", "f2", 1.01, 1), signed=True),
    Corruption(CT, "codes of two layers exchanged",
               lambda e, f: d.exchanged(f, f"{Q1}.weight_packed", f"{attn(2, 'q')}.weight_packed"),
               signed=True),
    Corruption(CT, "names of two layers exchanged", names_exchanged(Q1, attn(3, "q")),
               signed=True),
    Corruption(CT, "weights of another seed", whole(lambda e: e.reseeded)),
    Corruption(CT, "a static input's step a bit larger",
               lambda e, f: d.bit(f, f"{O1}.input_scale"), signed=True),
    Corruption(CT, "config.json: rotation of another model",
               config(rope_parameters={"rope_theta": 500000.0, "rope_type": "default"}), True),
    Corruption(CT, "config.json: epsilon of another model", config(rms_norm_eps=1e-6), True),
    Corruption(CT, "config.json: activation of another model", config(hidden_act="gelu"), True),
    Corruption(CT, "config.json: heads of another model, the same shapes",
               config(num_attention_heads=4, num_key_value_heads=2, head_dim=16), True),
    Corruption(CT, "config.json: fewer blocks", config(num_hidden_layers=4), True),
    Corruption(CT, "quantization_config: two groups exchanged", groups_exchanged, True),
    Corruption(CT, "quantization_config: a layer ignored", ignored(Q1), True),
    Corruption(CT, "quantization_config: dynamic inputs for static ones", dynamic_inputs, True),
    Corruption(CT, "manifest: another scheme of a layer", scheme(Q1, "w4g32+gptq")),
    Corruption(CT, "no manifest", removed("bitfront.json")),
    Corruption(CT, "a tensor missing", tensors(NORM, lambda t: t.pop(NORM)), signed=True),
    Corruption(CT, "a tensor too many",
               tensors(NORM, lambda t: t.update(extra=t[NORM].clone())), signed=True),
    Corruption(CT, "a scale of another dtype",
               tensors(f"{Q1}.weight_scale",
                       lambda t: t.update({f"{Q1}.weight_scale": t[f"{Q1}.weight_scale"].float()})),
               signed=True),
    Corruption(CT, "another trial of the study, sound in itself", whole(lambda e: e.other)),
    Corruption(CT, "tokenizer.json: two tokens exchanged", other_tokens),
    Corruption(CT, "generation_config.json of another model",
               lambda e, f: d.document(f / "generation_config.json",
                                       lambda c: c.update(eos_token_id=5))),
]  # fmt: skip
