"""Recipes: a trial's allocation for tools that quantize by themselves. One file and line each."""

from __future__ import annotations

from bitfront.registry import Registry

from .base import Recipe
from .gptqmodel import GptqModel
from .llamaquantize import LlamaQuantize
from .llmcompressor import LlmCompressor
from .modelopt import ModelOpt
from .torchao import TorchAo

RECIPES: Registry[Recipe] = Registry("recipe")
RECIPES.register(GptqModel.name)(GptqModel())
RECIPES.register(TorchAo.name)(TorchAo())
RECIPES.register(LlmCompressor.name)(LlmCompressor())
RECIPES.register(ModelOpt.name)(ModelOpt())
RECIPES.register(LlamaQuantize.name)(LlamaQuantize())

__all__ = ["RECIPES", "Recipe"]
