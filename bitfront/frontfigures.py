"""The two plotly figures of a front's page: its axes, its points, and the frame of its bars."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bitfront.figures import unit_of
from bitfront.types import Trial

FRONT_COLOR, DIM_COLOR = "#1c7ed6", "#868e96"  # each stands out on white and on black
AVERAGED = ("bits", "stored_bits")  # given per weight, where the number of weights is known
WIDE = 4.0  # greatest over least cost from which the axis is logarithmic
_LONGEST_LABEL = 19  # in characters
_CLEAR = "rgba(0,0,0,0)"
_AXIS = {"automargin": True, "zeroline": False, "ticks": "outside", "ticklen": 4}
_LAYOUT = {
    "template": "none",
    "paper_bgcolor": _CLEAR,
    "plot_bgcolor": _CLEAR,
    "font": {"family": "system-ui, sans-serif", "size": 13},
    "margin": {"l": 70, "r": 20, "t": 30, "b": 50},
    "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
    "hoverlabel": {"align": "left", "namelength": -1},
    "modebar": {"bgcolor": _CLEAR, "color": DIM_COLOR, "activecolor": FRONT_COLOR},
    "uirevision": "kept",  # a zoom outlasts a redraw
}


@dataclass(frozen=True)
class Axis:
    """Where the trials stand on an axis, and plotly's settings of it."""

    coordinates: tuple[float, ...]
    settings: Mapping[str, Any]


def markup(text: str) -> str:
    """``text`` for plotly, which reads a little HTML in labels."""
    return html.escape(text, quote=False)


def layer_label(name: str) -> str:
    """``name`` short enough for an axis: its last parts, or the end of its last part."""
    label = name
    while len(label) > _LONGEST_LABEL:
        label = label.partition(".")[2] or label[-_LONGEST_LABEL:]
    return markup(label if label == name else f"…{label}")


def cost_axis(name: str, trials: Sequence[Trial]) -> Axis:
    """The axis of a cost, in the unit that suits the greatest; logarithmic if it spans much."""
    values = [trial.costs[name] for trial in trials]
    weights: set[Any] = {trial.settings.get("weights") for trial in trials}
    if name in AVERAGED and len(weights) == 1 and any(weights):
        size, unit = weights.pop(), "per weight"
    else:
        size, unit = unit_of(name, max(values))
    settings: dict[str, Any] = {"title": {"text": _title(name, unit)}, "exponentformat": "none"}
    low, high = min(values) / size, max(values) / size
    if low > 0 and high / low > WIDE:
        ticks = _ticks(low / 1.5, high * 1.5)
        settings |= {"type": "log", "tickvals": ticks, "ticktext": [_tick(t) for t in ticks]}
    return Axis(tuple(value / size for value in values), settings)


def metric_axis(name: str, unit: str, values: Sequence[float]) -> Axis:
    """The axis of a metric: logarithmic unless some value is negative or none is positive.

    Exact zeros, such as the full model's KL, stand on a line of their own below all others.
    """
    settings: dict[str, Any] = {"title": {"text": _title(name, unit)}}
    positive = [value for value in values if value > 0]
    if min(values) < 0 or not positive:
        return Axis(tuple(values), settings)
    settings["type"] = "log"
    low, high = min(positive), max(positive)
    floor, zeros = low / 4, len(positive) < len(values)
    if zeros or high / low > 20:  # plotly's own ticks suit narrower ranges
        ticks = _ticks(low / 2, high * 2)
        settings["tickvals"] = [floor] * zeros + ticks
        settings["ticktext"] = ["0"] * zeros + [_tick(tick) for tick in ticks]
    return Axis(tuple(value if value > 0 else floor for value in values), settings)


def _title(name: str, unit: str) -> str:
    return markup(f"{name} ({unit})" if unit else name)


def _ticks(low: float, high: float) -> list[float]:
    """Powers of ten, and twice and five times them where there are few."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1, 2, 5) if last - first <= 3 else (1,)
    every = (step * 10.0**power for power in range(first, last + 1) for step in steps)
    return [tick for tick in every if low <= tick <= high]


def _tick(value: float) -> str:
    if 1e-3 <= value < 1e6:
        return f"{value:g}"
    digit, power = f"{value:.0e}".split("e")
    return f"{'' if digit == '1' else f'{digit} × '}10<sup>{int(power)}</sup>"


def scatter(
    x: Axis, y: Axis, errors: Sequence[float], hovers: Sequence[str], best: Sequence[bool]
) -> dict[str, Any]:
    """All trials in order of cost: dominated ones, the front, and a ring for the one shown.

    ``customdata`` of a point is the index of its trial.
    """
    import plotly.graph_objects as go

    figure = go.Figure(layout={**_LAYOUT, "hovermode": "closest"})
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
            **style,
        )
    ring = {"size": 19, "symbol": "circle-open", "line": {"width": 2}}
    figure.add_scatter(mode="markers", marker=ring, hoverinfo="skip", name="shown below")
    figure.update_xaxes(**_AXIS, **x.settings)
    figure.update_yaxes(**_AXIS, **y.settings)
    if "0" in y.settings.get("ticktext", ()):
        zero = y.settings["tickvals"][0]
        figure.add_hline(zero, line_dash="dot", line_color=DIM_COLOR, line_width=1)
    return json.loads(figure.to_json())


def bars() -> dict[str, Any]:
    """The frame of one trial's bars, which the page's script fills."""
    import plotly.graph_objects as go

    figure = go.Figure(layout={**_LAYOUT, "showlegend": False, "dragmode": False, "bargap": 0})
    figure.add_bar(hoverinfo="text", textposition="none")
    figure.update_xaxes(tickangle=-60, showgrid=False, automargin=True)
    figure.update_yaxes(**_AXIS)
    return json.loads(figure.to_json())
