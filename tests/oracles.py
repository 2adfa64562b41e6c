"""Public packages to compare with, where they are installed; see CONTRIBUTING.md."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType
from typing import Any

import pytest


def zennit(*modules: str) -> list[Any]:
    """Modules of zennit, which asks for torchvision but needs two names of it at most."""
    stubs: dict[str, Any] = {}
    if importlib.util.find_spec("torchvision") is None:
        resnet: Any = ModuleType("torchvision.models.resnet")
        resnet.BasicBlock, resnet.Bottleneck = (
            type("BasicBlock", (), {}),
            type("Bottleneck", (), {}),
        )
        models: Any = ModuleType("torchvision.models")
        models.resnet = resnet
        stubs = {
            "torchvision": ModuleType("torchvision"),
            "torchvision.models": models,
            "torchvision.models.resnet": resnet,
        }
    sys.modules.update(stubs)
    try:
        return [_module(f"zennit.{name}", "zennit==0.5.1") for name in modules]
    finally:
        for name in stubs:
            del sys.modules[name]


def lxt(*modules: str) -> list[Any]:
    """Modules of lxt."""
    return [_module(f"lxt.{name}", "lxt==2.1") for name in modules]


def tools(*names: str) -> list[Any]:
    """Modules of tools that recipes are for; each wants an environment of its own."""
    reason = "no tool to give a recipe to: docs/recipes.md says how to install it"
    return [pytest.importorskip(name, reason=reason) for name in names]


def _module(name: str, requirement: str) -> Any:
    return pytest.importorskip(
        name, reason=f"nothing to compare with: pip install --no-deps {requirement}"
    )
