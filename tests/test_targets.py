"""Targets: how they are spelled, what they run, and why not the rest."""

from __future__ import annotations

import dataclasses

import pytest

from bitfront.errors import InvalidInput, UnknownName
from bitfront.quant.exporters import EXPORTERS
from bitfront.targets import TARGETS, Aimed, Shape, Timed, aimed, all_aimed
from bitfront.types import Layer, Scheme, parse_schemes

LINEAR = Layer("a", "linear", 64, 256)
CONVOLUTION = Layer("a", "conv2d", 64, 128)


@pytest.mark.parametrize("text", ["b1", "b32", "b1s128", "b2s64t1", "b1t2"])
def test_shapes_are_spelled_one_way(text: str) -> None:
    assert str(Shape.parse(text)) == text


@pytest.mark.parametrize("text", ["", "1", "b0", "b1s0", "s128", "b1 s2", "b1t0", "b1x", "b1.5"])
def test_what_is_no_shape_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="cannot read the shape"):
        Shape.parse(text)


def test_a_shape_without_threads_uses_every_processor() -> None:
    assert Shape.parse("b1t3").used == 3
    assert Shape.parse("b1").used >= 1
    assert Shape.parse("b1s8t3").sizes == "b1s8"


def test_a_target_names_its_resources() -> None:
    one = aimed("ort-cpu:b1s128")
    assert (str(one), one.resource) == ("ort-cpu:b1s128", "seconds@ort-cpu:b1s128")
    assert one.measured == "latency@ort-cpu:b1s128"
    assert aimed("vllm") == Aimed(TARGETS["vllm"], None)


def test_targets_that_are_none() -> None:
    with pytest.raises(UnknownName, match=r"no target named 'tpu'.*ort-cpu"):
        aimed("tpu:b1")
    with pytest.raises(InvalidInput, match=r"vllm is not timed here.*--costs"):
        aimed("vllm:b1")
    with pytest.raises(InvalidInput, match="load different files"):
        all_aimed(["ort-cpu:b1", "vllm"])
    assert len(all_aimed(["ort-cpu:b1", "ort-cpu:b8", "ort-cpu:b1"])) == 2


@pytest.mark.parametrize("name", TARGETS)
def test_what_a_target_offers_it_can_run(name: str) -> None:
    target = TARGETS[name]
    assert target.container in EXPORTERS
    for scheme in parse_schemes(target.candidates):
        reasons = [target.reason(layer, scheme) for layer in (LINEAR, CONVOLUTION)]
        assert None in reasons, (scheme, reasons)


def test_the_rest_is_refused_with_a_reason() -> None:
    why = TARGETS["ort-cpu"].reason(LINEAR, Scheme.parse("w3g32a8g"))
    assert why is not None
    assert "2, 4 and 8 bits" in why
    why = TARGETS["vllm"].reason(LINEAR, Scheme.parse("w3g32"))
    assert why == "vLLM has fast kernels for weights of 4 and 8 bits"
    why = TARGETS["vllm"].reason(LINEAR, Scheme.parse("w4a4"))
    assert why is not None
    assert "inputs of 8 bits" in why
    half = dataclasses.replace(LINEAR, dtype="float16")
    assert "float32" in (TARGETS["ort-cpu"].reason(half, Scheme.parse("w8a8")) or "")


def test_places_tell_runtime_and_device() -> None:
    target = TARGETS["ort-cpu"]
    assert isinstance(target, Timed)
    place = target.place(2)
    assert place.target == "ort-cpu"
    assert place.runtime.startswith("onnxruntime 1.")
    assert place.device
    assert place.threads == 2
    assert target.place(1) != place


def test_operators_tell_kernels_apart() -> None:
    target = TARGETS["ort-cpu"]
    assert isinstance(target, Timed)
    words = ["keep", "w4g32", "w4g32a8g", "w8g32a8g", "w8a8", "w8a8s"]
    names = [target.operator(LINEAR, Scheme.parse(word)) for word in words]
    assert len(set(names)) == len(words)
    assert target.operator(LINEAR, Scheme.parse("w8")) == names[0]  # folded: float when it runs
