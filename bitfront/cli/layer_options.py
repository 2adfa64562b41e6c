"""The options that say which layers take part, and how."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bitfront.errors import InvalidInput

if TYPE_CHECKING:
    from bitfront.pipeline import Choices

_option = partial(typer.Option, rich_help_panel="Layers", show_default=False)
_Globs = list[str] | None


def layer_options(
    include: Annotated[_Globs, _option(metavar="GLOB", help="Only these layers.")] = None,
    exclude: Annotated[_Globs, _option(metavar="GLOB", help="Not these layers.")] = None,
    pin: Annotated[
        _Globs, _option(metavar="GLOB=SCHEME", help="These layers take this scheme.")
    ] = None,
    embeddings: Annotated[
        bool | None,
        _option("--embeddings/--no-embeddings", help="Quantize embeddings (default: no)."),
    ] = None,
    head: Annotated[
        bool | None,
        _option("--head/--no-head", help="Quantize the head (default: not of language models)."),
    ] = None,
    groups: Annotated[
        str, _option(help="auto (default): layers that runtimes fuse share a scheme; off.")
    ] = "auto",
    group: Annotated[
        _Globs, _option(metavar="GLOB,GLOB", help="These layers share a scheme.")
    ] = None,
    average_over: Annotated[
        str, _option(help="Weights that bpw counts: allocated (default) or all.")
    ] = "allocated",
    container: Annotated[
        str | None,
        _option(help="Export to count: compressed-tensors, diffusers, safetensors, onnx or gguf."),
    ] = None,
    target: Annotated[
        _Globs,
        _option(
            metavar="NAME[:SHAPE]",
            help="Where it is deployed: ort-cpu, ort-cpu:b1s128, vllm (docs/latency.md).",
        ),
    ] = None,
    costs: Annotated[
        Path | None,
        _option(metavar="FILE", help="CSV or JSON of further costs, like seconds on a target."),
    ] = None,
) -> Choices:
    """Which layers take part; every option may be left out, lists may be repeated."""
    from bitfront.costfile import GivenCosts
    from bitfront.pipeline import Choices

    pins = {}
    for text in pin or ():
        glob, equals, scheme = text.rpartition("=")
        if not equals:
            raise InvalidInput(f"cannot read --pin {text!r}", "write GLOB=SCHEME, like *.0.*=w8")
        pins[glob] = scheme
    if average_over not in ("allocated", "all"):
        raise InvalidInput(f"--average-over {average_over!r}", "use allocated or all")
    return Choices(
        include=tuple(include or ()),
        exclude=tuple(exclude or ()),
        pins=pins,
        embeddings=embeddings,
        head=head,
        groups=groups,
        hand_groups=tuple(tuple(text.split(",")) for text in group or ()),
        average_over=average_over,  # type: ignore[arg-type]  # checked above
        container=container,
        costs=None if costs is None else GivenCosts.read(costs),
        targets=tuple(target or ()),
    )
