"""The frames of a report's plotly figures, which its script fills, and its matrix of agreement."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitfront.page import AXIS, LAYOUT, log_ticks, markup, tick_text

_BAR = {"thickness": 14, "outlinewidth": 0, "ticks": "outside", "ticklen": 4}
_BLUES = [[0, "#e7f1fb"], [0.8, "#74b3ee"], [1, "#0b4a8f"]]


def heat() -> dict[str, Any]:
    """Layers (down) × schemes or parts (across); colour is the sensitivity's decimal logarithm."""
    import plotly.graph_objects as go

    figure = go.Figure(layout={**LAYOUT, "margin": {"l": 70, "r": 20, "t": 50, "b": 20}})
    figure.add_heatmap(
        colorscale="Viridis", hoverinfo="text", texttemplate="%{text}", colorbar=_BAR
    )
    figure.update_xaxes(**AXIS, side="top", type="category")
    figure.update_yaxes(**AXIS, autorange="reversed", showgrid=False)
    return json.loads(figure.to_json())


def color_ticks(values: NDArray[np.float64]) -> dict[str, Any]:
    """Range and ticks of the colours of ``values`` (L, C); empty where none is positive."""
    positive = values[values > 0]
    if not positive.size:
        return {}
    low, high = float(positive.min()), float(positive.max())
    if low == high:
        low, high = low / 2, high * 2
    ticks = log_ticks(low, high)
    return {
        "range": [float(np.log10(low)), float(np.log10(high))],
        "at": [float(np.log10(tick)) for tick in ticks],
        "text": [tick_text(tick) for tick in ticks],
    }


def role_bars() -> dict[str, Any]:
    """Schemes (across), shares of the total sensitivity stacked to the whole."""
    import plotly.graph_objects as go

    figure = go.Figure(layout={**LAYOUT, "barmode": "stack", "bargap": 0.35, "dragmode": False})
    figure.update_xaxes(**AXIS, type="category")
    figure.update_yaxes(**AXIS, tickformat=".0%", range=[0, 1])
    return json.loads(figure.to_json())


def matrix(
    names: Sequence[str], rho: NDArray[np.float64], pairs: NDArray[np.int64]
) -> dict[str, Any]:
    """Rank correlations (T, T), each with the number of pairs that it rests on."""
    import plotly.graph_objects as go

    figure = go.Figure(layout=LAYOUT)
    labels = [markup(name) for name in names]
    T = range(len(names))
    figure.add_heatmap(
        x=labels,
        y=labels,
        z=np.nan_to_num(rho).tolist(),  # plotly gives a cell without a value no text
        text=[[_pair(rho[a, b], pairs[a, b]) for b in T] for a in T],
        texttemplate="%{text}",
        hoverinfo="x+y+text",
        zmin=0,
        zmax=1,
        colorscale=_BLUES,
        xgap=1,
        ygap=1,
        showscale=False,
    )
    figure.update_xaxes(**AXIS, side="bottom", showgrid=False)
    figure.update_yaxes(**AXIS, autorange="reversed", showgrid=False)
    return json.loads(figure.to_json())


def _pair(rho: float, pairs: int) -> str:
    known = f"{rho:.3f}" if np.isfinite(rho) else "–"
    return f"{known}<br>{pairs} pair{'' if pairs == 1 else 's'}"
