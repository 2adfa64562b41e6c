"""Profile, allocate, verify, build, measure, record: the one place that knows every room.

Everything that is measured is committed when it is known and found again by its content, so a run
that was killed goes on with the same call, and a second run measures nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from bitfront.budget import ACTIVATIONS
from bitfront.costfile import GivenCosts, given_costs, with_given
from bitfront.errors import BitfrontWarning, SchemeError
from bitfront.livecosts import with_activations
from bitfront.measuring import measure
from bitfront.quant.costs import cost_tables
from bitfront.quant.exporters import EXPORTERS
from bitfront.recording import complete
from bitfront.scheme import KEEP
from bitfront.scored import chosen_profiler, recorded_scores
from bitfront.sensitivity import Profiler, heavy_tail_warning
from bitfront.study import Progress, Study, silent
from bitfront.targeting import targeted, why_not
from bitfront.targets import all_aimed
from bitfront.tasks.liveness import liveness
from bitfront.tasks.roles import classes
from bitfront.tasks.selection import Selection, select
from bitfront.types import (
    Budget,
    Costs,
    Interactions,
    Layer,
    Scheme,
    Sensitivities,
    Trial,
    parse_schemes,
)

FULL = "full"  # the solver of the trial that is the full model


@dataclass(frozen=True)
class Choices:
    """Which layers take part, and how: the options of ``bitfront.tasks.select``.

    average_over: the weights that average bits are taken over, those being ``allocated`` or
    ``all`` discovered ones. container: the exporter whose files bytes are counted in (default:
    the study's: compressed-tensors for language models that it can hold, else safetensors). costs:
    further costs, such as seconds on a target, or the file that has them (``costfile``). targets:
    where it is deployed, like ``ort-cpu:b1`` (``bitfront.targets``): their container is counted in,
    what they cannot run is barred, and seconds are costs where a shape is given (``latency``).
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    pins: Mapping[str, str] = field(default_factory=dict)
    embeddings: bool | None = None
    head: bool | None = None
    groups: str = "auto"
    hand_groups: tuple[tuple[str, ...], ...] = ()
    average_over: Literal["allocated", "all"] = "allocated"
    container: str | None = None
    costs: str | Path | GivenCosts | None = None
    targets: tuple[str, ...] = ()


def profile(
    study: Study,
    schemes: str | Iterable[str | Scheme],
    profiler: str | Profiler = "fisher",
    *,
    layers: Sequence[Layer] | None = None,
    progress: Progress = silent,
) -> dict[str, Sensitivities]:
    """Tables of a profiler, the most trustworthy first; only what is not recorded is measured.

    Pairs that cannot be are nan, and those that an import has no score of. Warns
    (``BitfrontWarning``) when a few samples hold most of the score. Raises ``UnknownName`` for a
    profiler that is not registered, ``SchemeError`` when no layer can take any of the schemes,
    ``InvalidInput`` when an import has no score of any, and what the profiler raises.
    """
    chosen = chosen_profiler(study, profiler)
    layers = study.task.layers if layers is None else layers
    wanted, pairs = measurable(study, schemes, layers)
    if chosen.measures:
        recorded = complete(study, chosen, pairs, progress)
    else:
        recorded = recorded_scores(study, chosen, pairs)
    tables = chosen.tables(recorded.values(), [la.name for la in layers], [str(s) for s in wanted])
    warn_of_tail(next(iter(tables.values())))
    return tables


def interactions_of(
    study: Study,
    schemes: str | Iterable[str | Scheme],
    profiler: Profiler,
    layers: Sequence[Layer],
    table: Sensitivities,
) -> Interactions | None:
    """What layers add to each other's loss, to go with ``table`` of ``profile``.

    None where the profiler does not know.
    """
    wanted, pairs = measurable(study, schemes, layers)
    recorded = complete(study, profiler, pairs, silent)
    names = [la.name for la in layers], [str(s) for s in wanted]
    return profiler.interactions(recorded.values(), *names, table)


def warn_of_tail(table: Sensitivities) -> None:
    """Warn the caller's caller (``BitfrontWarning``) where a few samples hold most of the score."""
    warning = heavy_tail_warning(table)
    if warning is not None:
        warnings.warn(warning, BitfrontWarning, stacklevel=3)


def measurable(
    study: Study, schemes: str | Iterable[str | Scheme], layers: Sequence[Layer]
) -> tuple[list[Scheme], list[tuple[Layer, Scheme]]]:
    """The schemes that a profiler measures, ``keep`` left out, and the pairs that can be.

    Raises ``SchemeError`` when there is nothing to measure.
    """
    wanted = [s for s in parse_schemes(schemes) if s.format != KEEP]
    if not wanted:
        raise SchemeError("keep alone leaves nothing to measure", "add a scheme like w4")
    barred = study.unsuitable(wanted)
    pairs = [(la, s) for la in layers for s in wanted if (la.name, str(s)) not in barred]
    if not pairs:
        first = str(wanted[0])
        why = "; ".join(dict.fromkeys(barred[layer.name, first] for layer in layers))
        raise SchemeError(f"no layer can take {first} ({why})", "give another scheme, like w4")
    return wanted, pairs


def cost(
    study: Study,
    schemes: str | Iterable[str | Scheme],
    choices: Choices | None = None,
    budgets: Sequence[str | Budget] = (),
) -> Costs:
    """What the chosen layers cost under ``schemes``, counted as the container stores them.

    With the resource ``activations``, which takes a forward pass, where a budget is on it.
    """
    wanted, choices = targeted(study, schemes, choices or Choices())
    asked = [b if isinstance(b, Budget) else Budget.parse(b) for b in budgets]
    return _costs(study, wanted, choices, selected(study, choices), asked)


def full_model(study: Study, costs: Costs, wholes: Collection[str] = ()) -> Trial:
    """The trial that keeps every layer. wholes: as of ``measure``."""
    schemes = dict.fromkeys(costs.layers, KEEP)
    return measure(
        study, schemes, FULL, costs.full, predicted=0.0, bound=0.0, wholes=wholes,
        settings={"weights": costs.weights, "budgets": []},
    )  # fmt: skip


def _costs(
    study: Study,
    schemes: Sequence[Scheme],
    choices: Choices,
    selection: Selection,
    budgets: Sequence[Budget],
) -> Costs:
    kept = [layer for layer in study.task.layers if layer.name in selection.kept_out]
    exporter = EXPORTERS[choices.container or study.container]
    exporter.require(study.task.model)  # before anything is measured
    aims = all_aimed(choices.targets)
    counted = cost_tables(
        selection.layers,
        schemes,
        exporter.stored,
        exporter.other_bytes(study.task.model, study.task.layers),
        kept=kept,
        average_over=choices.average_over,
        reason=partial(why_not, aims) if aims else exporter.reason,
    )
    known = [layer.name for layer in study.task.layers]
    counted = with_given(counted, given_costs(choices.costs), known, [la.name for la in kept])
    if any(budget.whole == ACTIVATIONS for budget in budgets):
        counted = with_activations(counted, liveness(study.task), selection.groups)
    return replace(counted, classes=classes(study.task))


def selected(study: Study, choices: Choices) -> Selection:
    """The layers that take part."""
    return select(
        study.task, choices.include, choices.exclude, choices.pins, choices.embeddings,
        choices.head, choices.groups, choices.hand_groups,
    )  # fmt: skip


def plain_choices(choices: Choices) -> dict[str, Any]:
    """``choices`` in JSON's types, as part of a request."""
    return {
        "include": list(choices.include), "exclude": list(choices.exclude),
        "pins": {glob: str(s) for glob, s in choices.pins.items()},
        "embeddings": choices.embeddings, "head": choices.head, "groups": choices.groups,
        "hand_groups": [list(g) for g in choices.hand_groups],
        "average_over": choices.average_over, "container": choices.container,
        **({} if choices.costs is None else {"costs": given_costs(choices.costs).plain()}),
        **({"targets": list(choices.targets)} if choices.targets else {}),
    }  # fmt: skip
