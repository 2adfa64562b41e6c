"""A report as one HTML file that needs no network (``reportpage.html``)."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bitfront.agreement import agreement
from bitfront.figures import figure
from bitfront.frontfigures import cost_axis, metric_axis, scatter
from bitfront.page import filled, html_table, layer_hover, layer_label, markup, numbers
from bitfront.queries import better_of
from bitfront.ranking import inside_noise
from bitfront.reportfigures import color_ticks, heat, matrix, role_bars
from bitfront.reportparts import document
from bitfront.roles import shares, totals
from bitfront.trialwords import origin_words, plottable, trial_hover, trial_words
from bitfront.types import Estimate, Layer, Sensitivities

if TYPE_CHECKING:
    from bitfront.rebuilding import Rebuilt
    from bitfront.reporting import Report

_ORIGIN = ("trial", "budgets", "solver", "bytes", "bits per weight")  # of what a trial is
_UNKNOWN = "not known"  # role and kind of a layer that the study does not describe


def render(report: Report) -> str:
    """The page of ``report``."""
    data = _document(report)
    alone = len(report.tables) < 2
    return filled(
        "reportpage.html",
        f"{report.study.name}: report",
        data,
        study=html.escape(report.study.name),
        metric=html.escape(report.metric),
        missing="".join(f'<p class="missing">{_sentence(line)}</p>' for line in report.missing),
        no_tables="" if report.tables else "hidden",
        no_parts="" if report.parts else "hidden",
        no_agreement="hidden" if alone else "",
        no_front="" if report.front else "hidden",
        counts=_counts(report),
        warning="".join(f'<p class="warning">{_sentence(line)}</p>' for line in report.warnings),
        table=html_table(_rows(report)),
    )


def _sentence(text: str) -> str:
    return html.escape(f"{text[0].upper()}{text[1:]}.")


def _counts(report: Report) -> str:
    if report.front is None:
        return ""
    marked = "" if report.front.knee is None else "; the diamond is its knee"
    return f"{len(report.front.best)} of {len(report.front.trials)} trials on the front{marked}"


def _document(report: Report) -> dict[str, Any]:
    """What the page's script is given."""
    names = _measured_layers(report)
    layers = [report.layers.get(name) for name in names]
    tables = [_table(report, t, names, layers) for t in report.tables]
    schemes = dict.fromkeys(s for t in report.tables for s in t.table.schemes)
    return {
        "metric": report.metric,
        "unit": _worsening_unit(report, report.metric),
        "layers": names,
        "labels": [layer_label(name) for name in names],
        "hovers": [_hover(name, layer) for name, layer in zip(names, layers, strict=True)],
        "kinds": [layer.kind if layer else _UNKNOWN for layer in layers],
        "measured": {s: [_pair(report.measured.get((n, s))) for n in names] for s in schemes},
        "tables": tables,
        "heat": heat(),
        "bars": role_bars(),
        "parts": [document(found, names) for found in report.parts],
        "part_heat": heat(),
        "agreement": _agreement(report.tables),
        "scatter": _scatter(report),
    }


def _measured_layers(report: Report) -> list[str]:
    """Layers that some table has a value of, in the model's order."""
    found = {
        name
        for t in report.tables
        for name, row in zip(t.table.layers, t.table.values, strict=True)
        if np.isfinite(row).any()
    }
    every = dict.fromkeys([*report.layers, *(n for t in report.tables for n in t.table.layers)])
    return [name for name in every if name in found]


def _table(
    report: Report, rebuilt: Rebuilt, names: Sequence[str], layers: Sequence[Layer | None]
) -> dict[str, Any]:
    """One profiler's table, rows in the order of ``names``."""
    table = _rows_of(rebuilt.table, names)
    doubtful = [inside_noise(v, s) for v, s in zip(table.values.T, table.stderr.T, strict=True)]
    of = dict(zip(rebuilt.table.layers, rebuilt.table.classes, strict=False))
    of = {**report.study.settings.get("classes", {}), **of}  # a table's own come first
    groups = {
        "class": [of.get(name, _UNKNOWN) for name in names],
        "role": [layer.role if layer else _UNKNOWN for layer in layers],
        "kind": [layer.kind if layer else _UNKNOWN for layer in layers],
    }
    return {
        "name": rebuilt.name,
        "metric": table.metric,
        "unit": _worsening_unit(report, rebuilt.table.target or table.metric),
        "samples": table.samples,
        "schemes": list(table.schemes),
        "values": numbers(table.values),
        "stderr": numbers(table.stderr),
        "inside_noise": np.transpose(doubtful).tolist(),
        "colors": color_ticks(table.values),
        "totals": totals(table).tolist(),
        "shares": {
            by: {group: numbers(share) for group, share in shares(table, of).items()}
            for by, of in groups.items()
        },
    }


def _worsening_unit(report: Report, metric: str) -> str:
    """Of a sensitivity; studies of the first versions have the metric's own unit alone."""
    known = report.study.settings.get("metrics", {}).get(metric, {})
    return known.get("worsening_unit", known.get("unit", ""))


def _rows_of(table: Sensitivities, names: Sequence[str]) -> Sensitivities:
    """``table`` with a row for each of ``names``; nan for what it lacks."""
    at = {name: i for i, name in enumerate(table.layers)}
    values, stderr = (np.full((len(names), len(table.schemes)), np.nan) for _ in range(2))
    for row, name in enumerate(names):
        if name in at:
            values[row], stderr[row] = table.values[at[name]], table.stderr[at[name]]
    return Sensitivities(
        table.metric, tuple(names), table.schemes, values, stderr, table.samples, table.profiler
    )


def _hover(name: str, layer: Layer | None) -> str:
    about = layer_hover(name, layer)
    return f"{about}<br>role: {markup(layer.role)}" if layer else about


def _agreement(tables: Sequence[Rebuilt]) -> dict[str, Any] | None:
    if len(tables) < 2:
        return None
    rho, pairs = agreement([t.table for t in tables])
    return matrix([t.name for t in tables], rho, pairs)


def _scatter(report: Report) -> dict[str, Any] | None:
    if report.front is None:
        return None
    (x,), (y,) = report.front.costs, report.front.metrics
    better = better_of(report.study.settings, y)
    trials = plottable(report.front.trials, x, y)
    best = {t.id for t in report.best}
    measured = [t.metrics[y] for t in trials]
    return scatter(
        cost_axis(x, trials),
        metric_axis(y, report.unit, [e.value for e in measured]),
        [e.stderr for e in measured],
        [trial_hover(trial_words(t, y, report.unit, better)) for t in trials],
        [t.id in best for t in trials],
        [t.id == report.front.knee_id for t in trials],
    )


def _rows(report: Report) -> list[dict[str, str]]:
    """The front's trials in words: predicted and measured, on each kind of data."""
    rows = []
    kept = any(found.held_back is not None for found in report.sides.values())
    for trial in report.best:
        found = report.sides[trial.id]
        known, expected = math.isfinite(trial.predicted), math.isfinite(trial.expected)
        origin = origin_words(trial)
        held_back = {f"held-back {report.metric}": _words(found.held_back, report.unit)}
        rows.append(
            {
                **{name: origin[name] for name in _ORIGIN if name in origin},
                f"predicted {report.metric}": f"{trial.predicted:.4g}" if known else "",
                f"expected {report.metric}": f"{trial.expected:.4g}" if expected else "",
                f"calibration {report.metric}": _words(found.calibration, report.unit),
                **(held_back if kept else {}),
                f"evaluation {report.metric}": _words(found.evaluation, report.unit),
                **({"warning": found.mark} if found.part else {}),
            }
        )
    return rows


def _words(estimate: Estimate | None, unit: str) -> str:
    return f"{figure(estimate)} {unit}".strip() if estimate is not None else ""


def _pair(estimate: Estimate | None) -> list[float | None] | None:
    return None if estimate is None else [_finite(estimate.value), _finite(estimate.stderr)]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
