"""The two plotly figures of a front's page: its axes, its points, and the frame of its bars."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bitfront.figures import unit_of
from bitfront.page import AXIS, DIM_COLOR, FRONT_COLOR, LAYOUT, axis_title, log_ticks, tick_text
from bitfront.trialwords import AVERAGED
from bitfront.types import Trial

WIDE = 4.0  # greatest over least cost from which the axis is logarithmic


@dataclass(frozen=True)
class Axis:
    """Where the trials stand on an axis, and plotly's settings of it."""

    coordinates: tuple[float, ...]
    settings: Mapping[str, Any]


def cost_axis(name: str, trials: Sequence[Trial]) -> Axis:
    """The axis of a cost, in the unit that suits the greatest; logarithmic if it spans much."""
    values = [trial.costs[name] for trial in trials]
    weights: set[Any] = {trial.settings.get("weights") for trial in trials}
    if name in AVERAGED and len(weights) == 1 and any(weights):
        size, unit = weights.pop(), "per weight"
    else:
        size, unit = unit_of(name, max(values))
    settings: dict[str, Any] = {"title": {"text": axis_title(name, unit)}, "exponentformat": "none"}
    low, high = min(values) / size, max(values) / size
    if low > 0 and high / low > WIDE:
        ticks = log_ticks(low / 1.5, high * 1.5)
        settings |= {"type": "log", "tickvals": ticks, "ticktext": [tick_text(t) for t in ticks]}
    return Axis(tuple(value / size for value in values), settings)


def metric_axis(name: str, unit: str, values: Sequence[float]) -> Axis:
    """The axis of a metric: logarithmic unless some value is negative or none is positive.

    Exact zeros, such as the full model's KL, stand on a line of their own below all others.
    """
    settings: dict[str, Any] = {"title": {"text": axis_title(name, unit)}}
    positive = [value for value in values if value > 0]
    if min(values) < 0 or not positive:
        return Axis(tuple(values), settings)
    settings["type"] = "log"
    low, high = min(positive), max(positive)
    floor, zeros = low / 4, len(positive) < len(values)
    if zeros or high / low > 20:  # plotly's own ticks suit narrower ranges
        ticks = log_ticks(low / 2, high * 2)
        settings["tickvals"] = [floor] * zeros + ticks
        settings["ticktext"] = ["0"] * zeros + [tick_text(tick) for tick in ticks]
    return Axis(tuple(value if value > 0 else floor for value in values), settings)


def scatter(
    x: Axis,
    y: Axis,
    errors: Sequence[float],
    hovers: Sequence[str],
    best: Sequence[bool],
    marked: Sequence[bool],
) -> dict[str, Any]:
    """All trials in order of cost: dominated ones, and the front; ``marked`` ones are diamonds.

    ``customdata`` of a point is the index of its trial.
    """
    import plotly.graph_objects as go

    figure = go.Figure(layout={**LAYOUT, "hovermode": "closest"})
    styles: tuple[tuple[str, dict[str, Any]], ...] = (
        ("dominated", {"mode": "markers", "opacity": 0.75, "marker_color": DIM_COLOR}),
        ("on the front", {"mode": "lines+markers", "marker_color": FRONT_COLOR, "line_width": 2}),
    )
    for on_front, (name, style) in enumerate(styles):
        chosen = [i for i, is_best in enumerate(best) if is_best == on_front]
        stderr = [errors[i] if math.isfinite(errors[i]) else 0.0 for i in chosen]
        figure.add_scatter(
            x=[x.coordinates[i] for i in chosen],
            y=[y.coordinates[i] for i in chosen],
            error_y={"array": stderr, "thickness": 1.2, "width": 4},
            customdata=chosen,
            hovertext=[hovers[i] for i in chosen],
            hoverinfo="text",
            name=name,
            marker_size=11 if on_front else 8,
            marker_symbol=["diamond" if marked[i] else "circle" for i in chosen],
            **style,
        )
    figure.update_xaxes(**AXIS, **x.settings)
    figure.update_yaxes(**AXIS, **y.settings)
    if "0" in y.settings.get("ticktext", ()):
        zero = y.settings["tickvals"][0]
        figure.add_hline(zero, line_dash="dot", line_color=DIM_COLOR, line_width=1)
    return json.loads(figure.to_json())


def ring() -> dict[str, Any]:
    """A trace that marks one point of a scatter, which the page's script places."""
    marker = {"size": 19, "symbol": "circle-open", "line": {"width": 2}}
    return {
        "type": "scatter",
        "mode": "markers",
        "marker": marker,
        "hoverinfo": "skip",
        "name": "shown below",
    }


def bars() -> dict[str, Any]:
    """The frame of one trial's bars, which the page's script fills."""
    import plotly.graph_objects as go

    figure = go.Figure(layout={**LAYOUT, "showlegend": False, "dragmode": False, "bargap": 0})
    figure.add_bar(hoverinfo="text", textposition="none")
    figure.update_xaxes(tickangle=-60, showgrid=False, automargin=True)
    figure.update_yaxes(**AXIS)
    return json.loads(figure.to_json())
