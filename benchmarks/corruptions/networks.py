"""Corruptions of safetensors and of diffusers folders: a ResNet-20, a pipeline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks import damage as d
from benchmarks.corruptions.changes import LAST, Change, Corruption, copied, removed, scheme, whole

SF, DF = "safetensors", "diffusers"
CODES = "{}.weight_codes"
WHOLE = "model-00001-*.safetensors"
HEAD = "linear.bias"

NETWORK = [
    Corruption(SF, "a norm's variance 1 % larger",
               lambda e, f: d.scaled(f, "layer1.0.bn1.running_var", "f4", 1.01), signed=True),
    Corruption(SF, "a bit of a bias flipped", lambda e, f: d.bit(f, HEAD, 2), signed=True),
    Corruption(SF, "a file cut short", lambda e, f: d.cut(sorted(f.glob(LAST))[0], 8)),
    Corruption(SF, "a file missing", removed(WHOLE)),
    Corruption(SF, "a static input's step twice as large",
               lambda e, f: d.scaled(f, "layer1.0.conv2.input_scale", "f4", 2), signed=True),
    Corruption(SF, "scales of two layers exchanged",
               lambda e, f: d.exchanged(f, "layer1.0.conv1.weight_scale",
                                        "layer1.1.conv1.weight_scale"), signed=True),
    Corruption(SF, "manifest: a layer without its rounded inputs",
               scheme("linear", "w8")),
    Corruption(SF, "manifest: another scheme of a layer", scheme("conv1", "w4+gptq")),
    Corruption(SF, "another trial of the study, sound in itself", whole(lambda e: e.other)),
]  # fmt: skip


HALVES = "up_blocks.0.attentions.{}.transformer_blocks.0.attn1.to_q"
Q = HALVES.format(0)
CONV = "down_blocks.0.resnets.0.conv1"
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


def scheduler(**values: Any) -> Change:
    """Other settings of the steps from noise to an image."""
    return lambda e, f: d.document(
        f / "scheduler" / "scheduler_config.json", lambda c: c.update(values)
    )


def sdnq(change: Callable[[dict[str, Any]], object]) -> Change:
    """Change what the denoiser's config says of quantized layers."""
    return lambda e, f: d.document(
        f / "unet" / "config.json", lambda c: change(c["quantization_config"])
    )


def left_alone(name: str) -> Change:
    def change(content: dict[str, Any]) -> None:
        del content["modules_quant_config"][f"{name}.weight"]
        content["modules_to_not_convert"].append(f"{name}.weight")

    return sdnq(change)


PIPELINE = [
    Corruption(DF, "a bit of codes flipped", lambda e, f: d.bit(f, f"{Q}.weight", 3)),
    Corruption(DF, "a bit of codes flipped", lambda e, f: d.bit(f, f"{Q}.weight", 3), signed=True),
    Corruption(DF, "a scale 1 % larger",
               lambda e, f: d.scaled(f, f"{Q}.scale", "f4", 1.01, 1), signed=True),
    Corruption(DF, "a bit of a norm flipped",
               lambda e, f: d.bit(f, "down_blocks.0.resnets.0.norm1.weight"), signed=True),
    Corruption(DF, "a bit of a bias flipped",
               lambda e, f: d.bit(f, f"{CONV}.bias"), signed=True),
    Corruption(DF, "codes of two layers exchanged",
               lambda e, f: d.exchanged(f, f"{Q}.weight", f"{HALVES.format(1)}.weight"),
               signed=True),
    Corruption(DF, "the denoiser's file cut short", lambda e, f: d.cut(f / WEIGHTS, 64)),
    Corruption(DF, "the denoiser's file missing", removed(WEIGHTS)),
    Corruption(DF, "the denoiser's file of another trial", copied("other", WEIGHTS)),
    Corruption(DF, "the autoencoder missing", removed("vae/*.safetensors")),
    Corruption(DF, "a bit of the autoencoder flipped",
               lambda e, f: d.flip(f / "vae" / "diffusion_pytorch_model.safetensors", -200)),
    Corruption(DF, "a bit of the text encoder flipped",
               lambda e, f: d.flip(f / "text_encoder" / "model.safetensors", -200)),
    Corruption(DF, "scheduler_config.json: other noise", scheduler(beta_end=0.03), True),
    Corruption(DF, "scheduler_config.json: predicts velocity",
               scheduler(prediction_type="v_prediction"), True),
    Corruption(DF, "unet/config.json: heads of another model",
               lambda e, f: d.document(f / "unet" / "config.json",
                                       lambda c: c.update(attention_head_dim=2)), True),
    Corruption(DF, "quantization_config: other widths of a layer",
               sdnq(lambda c: c["modules_quant_config"][f"{CONV}.weight"].update(
                   weights_dtype="uint4")), True),
    Corruption(DF, "quantization_config: a layer left alone", left_alone(CONV), True),
    Corruption(DF, "manifest: another scheme of a layer", scheme(CONV, "w4+gptq")),
    Corruption(DF, "no manifest", removed("bitfront.json")),
    Corruption(DF, "weights of another seed", whole(lambda e: e.reseeded)),
    Corruption(DF, "another trial of the study, sound in itself", whole(lambda e: e.other)),
]  # fmt: skip
