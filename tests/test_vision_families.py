"""ViT, DeiT, Swin, ResNet and MobileNet of transformers, from a saved folder to an export."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import bitfront
from bitfront import audit as auditing
from bitfront.sensitivity import Subject
from bitfront.tasks import VisionTask
from bitfront.tasks.roles import classes
from tests.families import FAMILIES, classifier_task
from tests.profiling import MEASURING, ONE_BY_ONE, checked, profiled


@pytest.fixture(scope="module", params=list(FAMILIES))
def task(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> VisionTask:
    return classifier_task(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def subject(task: VisionTask) -> Iterator[Subject]:
    with profiled(task) as found:
        yield found


def family(task: VisionTask) -> str:
    return type(task.model).__name__.removesuffix("ForImageClassification")


def walked(task: VisionTask) -> list[tuple[str, nn.Module]]:
    """Linear layers and convolutions in the order in which they run, literally."""
    ran: list[tuple[str, nn.Module]] = []
    handles = [
        module.register_forward_hook(lambda m, args, output, name=name: ran.append((name, m)))
        for name, module in task.model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    ]
    batch = task.calibration[0]
    with torch.no_grad():
        task.model(*batch.args, **batch.kwargs)
    for handle in handles:
        handle.remove()
    return ran


def test_all_layers_are_found_in_their_order(task: VisionTask) -> None:
    ran = walked(task)
    assert [layer.name for layer in task.layers] == [name for name, _ in ran]
    for layer, (_, module) in zip(task.layers, ran, strict=True):
        weight: Any = module.weight
        assert layer.kind == ("conv2d" if isinstance(module, nn.Conv2d) else "linear")
        assert (layer.rows, layer.cols) == tuple(weight.flatten(1).shape)
        assert layer.role == (
            "head" if weight.shape[0] == 4 and layer is task.layers[-1] else "body"
        )
    assert len(ran) == {
        "ViT": 14, "DeiT": 14, "Swin": 21, "ResNet": len(ran), "MobileNetV1": 28, "MobileNetV2": 53,
    }[family(task)]  # fmt: skip


def test_queries_keys_and_values_are_groups(task: VisionTask) -> None:
    attention = [
        tuple(f"{name}.{part}_proj" for part in "qkv")
        for name, module in task.model.named_modules()
        if hasattr(module, "q_proj")
    ]
    assert list(task.groups) == attention
    assert len(attention) == {"ViT": 2, "DeiT": 2, "Swin": 3}.get(family(task), 0)


def test_layers_are_told_apart_by_what_they_do(task: VisionTask) -> None:
    expected = {
        ".q_proj": "self-attention", ".k_proj": "self-attention", ".v_proj": "self-attention",
        ".o_proj": "self-attention", ".fc1": "feed-forward", ".fc2": "feed-forward",
        ".projection": "convolution", ".convolution": "convolution",
        ".reduction": "other",  # Swin's merging of patches
        "classifier": "other", "classifier.1": "other",
    }  # fmt: skip
    for name, found in classes(task).items():
        [of] = {of for end, of in expected.items() if name.endswith(end)}
        assert found == of, name


@pytest.mark.parametrize("name", MEASURING)
def test_every_profiler_gives_finite_tables(name: str, subject: Subject) -> None:
    layers = subject.task.layers
    if name in ONE_BY_ONE and len(layers) > 25:
        layers = layers[::5]  # of each kind that MobileNets have
    table = checked(name, subject, layers)
    assert (table.values[:, 0] > 0).all(), "every layer counts"


def test_a_search_and_its_export(
    task: VisionTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The audit makes the task anew, in this process to be quick."""
    monkeypatch.setattr(auditing, "ask", lambda room, module: auditing.respond(room))
    with bitfront.open_study("s", task, tmp_path / "b.db") as study:
        [answer] = bitfront.search(study, "w3 w6", ["5bpw"], explore=0)
        audit = bitfront.export(study, answer.trial, tmp_path / "out")
        assert audit.max_difference == 0 < audit.spread
        assert audit.bytes == audit.predicted_bytes == answer.trial.costs["bytes"]
