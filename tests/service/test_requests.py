"""Requests have the arguments of the verbs in Python, with the same defaults."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

import bitfront
from bitfront.service.requests import (
    Body,
    ChoicesBody,
    ExportBody,
    ProfileBody,
    ReportBody,
    SearchBody,
)


@pytest.mark.parametrize(
    ("body", "verb", "names"),
    [
        (ProfileBody, bitfront.profile_until, "solver"),
        (SearchBody, bitfront.search, "solver metric verify max_measurements"),
        (SearchBody, bitfront.search, "explore explorer shares"),
        (SearchBody, bitfront.smallest, "verify max_measurements explore"),
        (ExportBody, bitfront.export, "format overwrite"),
        (ReportBody, bitfront.report, "metric"),
        (ChoicesBody, bitfront.Choices, "embeddings head groups average_over container costs"),
    ],
)  # fmt: skip
def test_defaults_are_those_of_the_verbs(
    body: type[Body], verb: Callable[..., Any], names: str
) -> None:
    defaults = inspect.signature(verb).parameters
    for name in names.split():
        assert body.model_fields[name].default == defaults[name].default, name


def test_the_other_defaults() -> None:
    search = inspect.signature(bitfront.smallest).parameters
    assert SearchBody.model_fields["minimize"].default == search["resource"].default
    for body in (ProfileBody, SearchBody):
        profiler = body.model_fields["profiler"].default
        assert (profiler.name, profiler.settings) == (search["profiler"].default, {})
    assert ChoicesBody().made() == bitfront.Choices()
