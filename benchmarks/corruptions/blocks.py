"""Corruptions of GGUF folders: a Llama with a block type for each tensor."""

from __future__ import annotations

from benchmarks import damage as d
from benchmarks.corruptions.changes import (
    Q1,
    Corruption,
    copied,
    in_file,
    names_exchanged,
    scheme,
    whole,
)
from bitfront.types import Scheme

GG = "gguf"
LLAMA = "llama"
BLOCK = "blk.1.{}.weight"

BLOCKS = [
    Corruption(GG, "a bit of a block flipped",
               lambda e, f: d.bit(f, BLOCK.format("attn_q"), 100)),
    Corruption(GG, "a bit of a norm flipped",
               lambda e, f: d.bit(f, BLOCK.format("attn_norm"), 3), signed=True),
    Corruption(GG, "a bit of a block's scale flipped",
               lambda e, f: d.bit(f, BLOCK.format("attn_q")), signed=True),
    Corruption(GG, "a bit of the embedding flipped",
               lambda e, f: d.bit(f, "token_embd.weight", 5), signed=True),
    Corruption(GG, "a bit of the header flipped",
               lambda e, f: in_file(f / "model.gguf", "blk.1.attn_q")),
    Corruption(GG, "the file cut short", lambda e, f: d.cut(f / "model.gguf", 4096)),
    Corruption(GG, "blocks of two layers exchanged",
               lambda e, f: d.exchanged(f, "blk.1.attn_q.weight", "blk.2.attn_q.weight"),
               signed=True),
    Corruption(GG, "names of two layers exchanged", names_exchanged("blk.1.attn_k", "blk.2.attn_k"),
               signed=True),
    Corruption(GG, "rotation of another model",
               lambda e, f: d.setting(f, "llama.rope.freq_base", 500000.0)),
    Corruption(GG, "heads of another model",
               lambda e, f: d.setting(f, "llama.attention.head_count", 4)),
    Corruption(GG, "epsilon of another model",
               lambda e, f: d.setting(f, "llama.attention.layer_norm_rms_epsilon", 1e-6)),
    Corruption(GG, "two tokens exchanged", lambda e, f: d.tokens_exchanged(f)),
    Corruption(GG, "a layer in F16, its weights right",
               whole(lambda e: e.fallen_back(Q1, Scheme.parse("fp16")), keep_manifest=True),
               signed=True),
    Corruption(GG, "fewer blocks", whole(lambda e: e.fewer())),
    Corruption(GG, "weights of another seed", whole(lambda e: e.reseeded)),
    Corruption(GG, "another trial of the study, sound in itself", whole(lambda e: e.other)),
    Corruption(GG, "the file of another trial", copied("other", "model.gguf")),
    Corruption(GG, "manifest: another scheme of a layer", scheme(Q1, "q4_1")),
    Corruption(GG, "manifest: rotation of another model",
               lambda e, f: d.manifest(f, lambda m: m["config"].update(
                   rope_parameters={"rope_theta": 500000.0, "rope_type": "default"}))),
]  # fmt: skip
