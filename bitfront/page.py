"""What the HTML pages share: their head, embedded data, tables, names and the manner of figures.

A page is one file that needs no network: its template stands beside this module and is given
plotly.js, its data as JSON, and the script that paints figures in the colours of the page.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitfront.types import Layer

FRONT_COLOR, DIM_COLOR = "#1c7ed6", "#868e96"  # each stands out on white and on black
_LONGEST_LABEL = 19  # in characters
_CLEAR = "rgba(0,0,0,0)"
AXIS = {"automargin": True, "zeroline": False, "ticks": "outside", "ticklen": 4}
LAYOUT = {
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


def filled(template: str, title: str, data: Mapping[str, Any], **parts: str) -> str:
    """The page of the file ``template``. title: plain text. parts: HTML of its further fields."""
    from plotly.offline import get_plotlyjs

    return Template(_text(template)).substitute(
        head=Template(_text("pagehead.html")).substitute(title=html.escape(title)),
        data=embedded(data),
        plotly=get_plotlyjs(),
        paint=_text("paint.js"),
        **parts,
    )


def _text(name: str) -> str:
    return files("bitfront").joinpath(name).read_text(encoding="utf-8")


def embedded(value: Any) -> str:
    """JSON in which nothing can end the script element that it stands in."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c")


def numbers(array: NDArray[np.float64]) -> list[Any]:
    """Nested lists, with None for what is not finite, which JSON lacks."""
    values = array.astype(object)
    values[~np.isfinite(array)] = None
    return values.tolist()


def html_table(rows: Sequence[Mapping[str, str]]) -> str:
    """The insides of a table of trials, as HTML: columns in order of appearance."""
    columns = list(dict.fromkeys(name for words in rows for name in words))
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in columns)
    body = ""
    for words in rows:
        cells = "".join(f"<td>{html.escape(words.get(name, ''))}</td>" for name in columns)
        body += f'<tr data-trial="{words["trial"]}">{cells}</tr>\n'
    return f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>"


def markup(text: str) -> str:
    """``text`` for plotly, which reads a little HTML in labels."""
    return html.escape(text, quote=False)


def layer_label(name: str) -> str:
    """``name`` short enough for an axis: its last parts, or the end of its last part."""
    label = name
    while len(label) > _LONGEST_LABEL:
        label = label.partition(".")[2] or label[-_LONGEST_LABEL:]
    return markup(label if label == name else f"…{label}")


def layer_hover(name: str, layer: Layer | None) -> str:
    """What is known of a layer, in plotly's markup."""
    lines = [f"<b>{markup(name)}</b>"]
    if layer is not None:
        shared = f", those of {markup(layer.shares)}" if layer.shares else ""
        lines.append(f"{markup(layer.kind)}, {layer.rows:,} × {layer.cols:,}")
        lines.append(f"{layer.weights:,} weights{shared}")
    return "<br>".join(lines)


def axis_title(name: str, unit: str) -> str:
    """What an axis is called, in plotly's markup."""
    return markup(f"{name} ({unit})" if unit else name)


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten, and twice and five times them where there are few."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1, 2, 5) if last - first <= 3 else (1,)
    every = (step * 10.0**power for power in range(first, last + 1) for step in steps)
    return [tick for tick in every if low <= tick <= high]


def tick_text(value: float) -> str:
    """A tick of a logarithmic axis, in plotly's markup."""
    if 1e-3 <= value < 1e6:
        return f"{value:g}"
    digit, power = f"{value:.0e}".split("e")
    return f"{'' if digit == '1' else f'{digit} × '}10<sup>{int(power)}</sup>"
