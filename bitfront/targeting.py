"""A search for targets: the schemes that they run, and the seconds that they take, as costs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from bitfront.costfile import GivenCosts, given_costs
from bitfront.errors import InvalidInput, SchemeError
from bitfront.latency import latency
from bitfront.quant.exporters import EXPORTERS
from bitfront.scheme import KEEP
from bitfront.study import Progress, Study, silent
from bitfront.targets import Aimed, all_aimed
from bitfront.types import Layer, Scheme, parse_schemes

if TYPE_CHECKING:
    from bitfront.pipeline import Choices


def targeted(
    study: Study,
    schemes: str | Iterable[str | Scheme] | None,
    choices: Choices,
    progress: Progress = silent,
) -> tuple[tuple[Scheme, ...], Choices]:
    """The schemes of a search, and its choices with the costs on its targets.

    schemes: None for those that the targets have to offer. What is not recorded is timed. Raises
    ``SchemeError`` for a scheme that no layer can take on the targets, ``ExportError`` for a model
    that they do not load, ``InvalidInput`` for another container than theirs, or for no schemes and
    no target, and as ``all_aimed`` and ``latency``.
    """
    aims = all_aimed(choices.targets)
    wanted = wanted_schemes(study, schemes, aims)
    if not aims:
        return wanted, choices
    container = aims[0].target.container
    if choices.container not in (None, container):
        raise InvalidInput(
            f"container {choices.container} with target {aims[0]}, which loads {container}",
            "leave out the container",
        )
    resources = dict(given_costs(choices.costs).resources)
    for aim in aims:
        if aim.shape is not None and aim.resource not in resources:
            found = latency(study, wanted, aim, progress=progress)
            resources[aim.resource] = found.given
    return wanted, replace(choices, container=container, costs=GivenCosts(resources))


def why_not(aims: Iterable[Aimed], layer: Layer, scheme: Scheme) -> str | None:
    """Why one of the targets cannot run ``layer`` under ``scheme``; None if all can."""
    return next(filter(None, (aim.target.reason(layer, scheme) for aim in aims)), None)


def wanted_schemes(
    study: Study, schemes: str | Iterable[str | Scheme] | None, aims: tuple[Aimed, ...]
) -> tuple[Scheme, ...]:
    """What was asked for, or what the targets offer. Raises as ``targeted``."""
    for aim in aims:
        EXPORTERS[aim.target.container].require(study.task.model)
    if schemes is None:
        return _offered(study, aims)
    wanted = parse_schemes(schemes)
    for scheme in wanted if aims else ():
        reasons = [why_not(aims, layer, scheme) for layer in study.task.layers]
        if None not in reasons:
            why = "; ".join(dict.fromkeys(filter(None, reasons)))
            raise SchemeError(f"{aims[0].target.name} cannot run {scheme} ({why})", "leave it out")
    return wanted


def _offered(study: Study, aims: tuple[Aimed, ...]) -> tuple[Scheme, ...]:
    """What the targets have to offer that some layer can take."""
    if not aims:
        raise InvalidInput("no schemes and no target were given", "give schemes, like 'w4 w8 keep'")
    words = parse_schemes(aims[0].target.candidates)
    layers = study.task.layers
    return tuple(
        scheme
        for scheme in words
        if str(scheme) == KEEP or any(why_not(aims, layer, scheme) is None for layer in layers)
    )
