"""Trials of real models, each soundly exported to one container, for benchmarks.corruptions."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from benchmarks.profilers import vit
from benchmarks.resnet import resnet
from bitfront import audit, graph_audit, pipeline_audit
from bitfront.audit import Audit
from bitfront.quant.build import Builder
from bitfront.quant.container import Container
from bitfront.quant.export_base import Loadable
from bitfront.quant.export_diffusers import Diffusers
from bitfront.quant.export_onnx import EXTERNAL, Onnx
from bitfront.quant.exporters import EXPORTERS
from bitfront.quant.formats import dequantize
from bitfront.quant.onnx_trace import Signature
from bitfront.quant.stored import KEEP
from bitfront.tasks import DiffusionTask, LanguageTask
from bitfront.tasks.deployed import signature
from bitfront.tasks.running import ModelTask
from bitfront.types import Layer, Scheme
from tests import pipelines

SHARD_BYTES = 120_000  # so that the Llama is in several files

Chosen = Mapping[str, str]  # the end of a layer's name -> scheme


@dataclass(frozen=True, eq=False)
class Export:
    """A trial in a container.

    chosen: schemes of the trial, all other layers are kept. others: those of another trial of the
    same study. room: where folders are made. cache, external: of graphs.
    """

    task: ModelTask
    container: Container
    chosen: Chosen
    others: Chosen
    room: Path
    cache: bool = False
    external: int = EXTERNAL

    @cached_property
    def schemes(self) -> dict[str, Scheme]:
        return self._schemes(self.chosen)

    @cached_property
    def sound(self) -> Path:
        """The folder as it was exported."""
        return self.written("sound")

    @cached_property
    def other(self) -> Path:
        """The folder of the other trial, sound in itself."""
        return self.written("other", schemes=self._schemes(self.others))

    @cached_property
    def reseeded(self) -> Path:
        """The trial's schemes, of a model of the same architecture with weights drawn anew."""
        with redrawn(self.task.model):
            return self.written("reseeded", quantized=self._builder().quantized)

    def fallen_back(self, layer: str, scheme: Scheme) -> Path:
        """The trial with the right weights of a layer under another scheme, one without loss."""
        weight = dequantize(self.quantized(layer).weight, torch.float32)
        module: Any = self.task.model.get_submodule(layer)
        before = module.weight.detach().clone()
        with torch.no_grad():
            module.weight.copy_(weight)
            try:
                made = Builder(self.task.model, self.task.layers, lambda: None)

                def quantized(name: str, wanted: Scheme) -> Any:
                    return made.quantized(name, wanted) if name == layer else self.quantized(name)

                schemes = {**self.schemes, layer: scheme}
                return self.written(f"{scheme} {layer}", schemes=schemes, quantized=quantized)
            finally:
                module.weight.copy_(before)

    def fewer(self) -> Path:
        """The trial of the language model without its last block."""
        model: Any = copy.deepcopy(self.task.model)
        last = len(model.model.layers) - 1
        model.model.layers = nn.ModuleList(list(model.model.layers)[:last])
        model.config.num_hidden_layers = last
        layers = [la for la in self.task.layers if f"layers.{last}." not in la.name]
        schemes = {la.name: self.schemes[la.name] for la in layers}
        assert isinstance(self.container, Loadable)
        folder = self.room / "fewer"
        self.container.write(model, layers, schemes, self.quantized, folder, {})
        return folder

    def written(
        self,
        name: str,
        *,
        schemes: Mapping[str, Scheme] | None = None,
        quantized: Callable[[str, Scheme], Any] | None = None,
    ) -> Path:
        """A folder of the task's model as it is now."""
        given = self.schemes if schemes is None else schemes
        make = quantized or self._calibrated.quantized
        arguments = (self.task.model, self.task.layers, given, lambda n: make(n, given[n]))
        folder = self.room / name
        if isinstance(self.container, Onnx):
            self.container.write(*arguments, self.called, folder, {}, external=self.external)
        else:
            assert isinstance(self.container, Loadable)
            self.container.write(*arguments, folder, {}, shard_bytes=SHARD_BYTES)
        return folder

    def compare(self, folder: Path) -> Audit:
        """The audit of a folder, as a user has it."""
        arguments = (self.task.layers, self.schemes, self.quantized)
        if isinstance(self.container, Onnx):
            return graph_audit.compare(self.task, self.container, self.called, folder, *arguments)
        if isinstance(self.container, Diffusers):
            assert isinstance(self.task, DiffusionTask)
            return pipeline_audit.compare(self.task, self.container, folder, *arguments)
        assert isinstance(self.container, Loadable)
        return audit.compare(self.task, self.container, folder, *arguments)

    def quantized(self, name: str) -> Any:
        """What was measured of a layer."""
        return self._calibrated.quantized(name, self.schemes[name])

    @cached_property
    def called(self) -> Signature:
        return signature(self.task, cache=self.cache)

    @cached_property
    def _calibrated(self) -> Builder:
        builder = self._builder()
        builder.prepare(self.schemes.items())
        builder.prepare(self._schemes(self.others).items())
        return builder

    def _builder(self) -> Builder:
        task = self.task
        return Builder(
            task.model, task.layers, lambda: [task.outputs(batch) for batch in task.calibration]
        )

    def _schemes(self, chosen: Chosen) -> dict[str, Scheme]:
        found = {}
        for layer in self.task.layers:
            words = [word for end, word in chosen.items() if _named(layer, end)]
            found[layer.name] = Scheme.parse(words[-1]) if words else KEEP
        return found


def _named(layer: Layer, end: str) -> bool:
    return layer.name == end or layer.name.endswith(f".{end}")


@contextmanager
def redrawn(model: nn.Module) -> Iterator[None]:
    """Every matrix of weights drawn anew, as spread as it was, for a while."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        try:
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    noise = torch.randn(parameter.shape, generator=generator)
                    parameter.copy_(noise * parameter.std())
            yield
        finally:
            model.load_state_dict(before)


LLAMA_PACKED = {
    "q_proj": "w4g32", "k_proj": "w4g32", "v_proj": "w3", "o_proj": "w8a8s", "gate_proj": "w8a8",
    "up_proj": "w4", "down_proj": "w5", "model.layers.4.mlp.gate_proj": "keep",
}  # fmt: skip
LLAMA_BLOCKS = {
    "embed_tokens": "q8_0", "lm_head": "q8_0", "q_proj": "q4_0", "k_proj": "q8_0",
    "v_proj": "q5_1", "o_proj": "q4_1", "gate_proj": "q5_0", "up_proj": "q8_0",
    "down_proj": "fp16", "model.layers.4.mlp.gate_proj": "keep",
}  # fmt: skip
LLAMA_GRAPH = {
    "q_proj": "w4g32", "k_proj": "w4g32", "v_proj": "w8a8", "o_proj": "w8a8s",
    "gate_proj": "w8g32a8g", "up_proj": "w3", "down_proj": "w4",
    "model.layers.4.mlp.gate_proj": "keep",
}  # fmt: skip
RESNET = {
    "conv1": "w4", "conv2": "w8a8s", "layer2.0.conv1": "w3", "layer2.0.conv2": "w3g9",
    "layer3.2.conv2": "keep", "linear": "w8a8",
}  # fmt: skip
VIT = {
    "patch": "w8", "q_proj": "w4g32", "k_proj": "w4g32", "v_proj": "w3", "out_proj": "w4g32z",
    "fc1": "w4g32", "fc2": "w8", "blocks.5.fc2": "keep",
}  # fmt: skip
DENOISER = {
    "to_q": "w4g8", "to_k": "w4g8", "to_v": "w8", "to_out.0": "w3", "ff.net.0.proj": "fp8",
    "ff.net.2": "w4z", "conv1": "w4", "conv2": "w8", "time_emb_proj": "bf16", "conv_out": "keep",
}  # fmt: skip


def exports(assets: Path, room: Path) -> dict[str, Export]:
    """Name -> export; each task is made once. The pipeline's weights are random."""
    folder, texts = assets / "stories260K_llama", assets / "text"
    llama = LanguageTask(
        folder, texts / "tinystories_917_clean_tok512.npz", samples=16, eval_samples=6, length=48,
        batch=6, device="cpu",
    )  # fmt: skip
    diffusion = DiffusionTask(
        pipelines.by_prompt(room / "pipeline"), calibration=["a cat", "two dogs"], steps=4,
        samples=4, eval_samples=2, batch=2, timesteps=2, timestep_groups=2, device="cpu",
    )  # fmt: skip
    images: Any = {"samples": 64, "held": 32, "batch": 32}
    found = {
        "compressed-tensors": partial(
            Export, llama, EXPORTERS["compressed-tensors"], LLAMA_PACKED,
            {**LLAMA_PACKED, "q_proj": "w4g32+gptq", "up_proj": "w4+gptq"},
        ),
        "gguf": partial(
            Export, llama, EXPORTERS["gguf"], LLAMA_BLOCKS, {**LLAMA_BLOCKS, "o_proj": "q4_0"}
        ),
        "onnx, Llama": partial(
            Export, llama, EXPORTERS["onnx"], LLAMA_GRAPH,
            {**LLAMA_GRAPH, "q_proj": "w4g32+gptq", "up_proj": "w3+gptq"}, cache=True,
        ),
        "safetensors": partial(
            Export, cast(ModelTask, resnet(assets, **images)), EXPORTERS["safetensors"], RESNET,
            {**RESNET, "conv1": "w4+gptq"},
        ),
        "onnx, ViT": partial(
            Export, cast(ModelTask, vit(assets, 64, batch=32)), EXPORTERS["onnx"], VIT,
            {**VIT, "fc1": "w4g32+gptq"}, external=0,
        ),
        "diffusers": partial(
            Export, diffusion, EXPORTERS["diffusers"], DENOISER,
            {**DENOISER, "to_q": "w4g8+gptq", "conv1": "w4+gptq"},
        ),
    }  # fmt: skip
    made = {}
    for name, make in found.items():
        mine = room / name.replace(", ", "-")
        mine.mkdir()
        made[name] = make(room=mine)
    return made
