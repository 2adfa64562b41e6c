"""A study's Pareto front as one HTML file that needs no network.

The page (``frontpage.html``) holds plotly.js, the figures of ``frontfigures`` and the trials, as
JSON. Its script draws the bars of whichever trial is chosen.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from bitfront.errors import InvalidInput
from bitfront.figures import amount, figure
from bitfront.files import write_text
from bitfront.frontfigures import (
    AVERAGED,
    DIM_COLOR,
    bars,
    cost_axis,
    layer_label,
    markup,
    metric_axis,
    scatter,
)
from bitfront.queries import require_figures
from bitfront.scheme import Scheme
from bitfront.types import Estimate, Layer, Trial

# weight bits -> colour; mid-tones, so that each stands out on white and on black
_COLORS = {
    2: "#f59f00", 3: "#f76707", 4: "#f03e3e", 5: "#e64980", 6: "#cc5de8", 7: "#9c5de8",
    8: "#7048e8", 16: "#4c6ef5", 32: "#228be6", 64: "#15aabf",
}  # fmt: skip


def write_front(
    path: Path,
    study: str,
    trials: Sequence[Trial],
    on_front: Collection[int],
    layers: Sequence[Layer],
    *,
    x: str = "bytes",
    y: str = "kl",
    y_unit: str = "",
) -> None:
    """Write a page of ``trials``, cost ``x`` against metric ``y``, with the bits of every layer.

    on_front: ids of the non-dominated trials. layers: what is known of the layers, in the model's
    order; may be empty. Trials without ``x`` or ``y`` are left out. The file is there whole or not
    at all. Raises ``UnknownName`` for an ``x`` or ``y`` that no trial has, ``InvalidInput`` when no
    trial is left, and ``OSError``.
    """
    shown = _plottable(study, trials, x, y)
    words = [_words(trial, y, y_unit) for trial in shown]
    best = [trial.id in on_front for trial in shown]
    data = _document(shown, words, best, layers, x, y, y_unit)
    from plotly.offline import get_plotlyjs

    page = Template(files("bitfront").joinpath("frontpage.html").read_text(encoding="utf-8"))
    text = page.substitute(
        study=html.escape(study),
        counts=f"{sum(best)} of {len(shown)} trials on the front",
        keys=_keys(data["trials"]),
        table=_table([row for row, is_best in zip(words, best, strict=True) if is_best]),
        data=_json(data),
        plotly=get_plotlyjs(),
    )
    write_text(path, text)


def _plottable(study: str, trials: Sequence[Trial], x: str, y: str) -> list[Trial]:
    """The trials that have both figures, by rising cost."""
    if trials:
        require_figures(trials, [x], [y])
    nothing = Estimate(math.nan, math.nan, 0)
    points = [(t.costs.get(x, math.nan), t.metrics.get(y, nothing).value, t) for t in trials]
    found = [p for p in points if math.isfinite(p[0]) and math.isfinite(p[1])]
    if not found:
        raise InvalidInput(
            f"study {study!r} has no trial with finite {x} and {y}",
            "measure a trial first, or choose other figures",
        )
    return [trial for *_, trial in sorted(found, key=lambda p: p[:2])]


def _words(trial: Trial, y: str, y_unit: str) -> dict[str, str]:
    """Name -> figure in words, for people; the prediction stands next to what was measured."""
    table = trial.settings.get("table")
    words = {
        "trial": str(trial.id),
        "budgets": ", ".join(map(str, trial.settings.get("budgets", ()))),
        "solver": f"{trial.solver} ({table})" if table else trial.solver,
    }
    weights = trial.settings.get("weights")
    for resource, value in trial.costs.items():
        if not math.isfinite(value):
            continue
        if resource in AVERAGED and weights:
            words[f"{resource} per weight"] = f"{value / weights:.4g}"
        else:
            words[resource] = amount(resource, value)
    words[y] = f"{figure(trial.metrics[y])} {y_unit}".strip()
    if math.isfinite(trial.predicted):
        words["predicted"] = f"{trial.predicted:.4g}"
    for name, estimate in trial.metrics.items():
        if name != y and math.isfinite(estimate.value):
            words[name] = figure(estimate)
    return {name: word for name, word in words.items() if word}


def _document(
    trials: Sequence[Trial],
    words: Sequence[Mapping[str, str]],
    best: Sequence[bool],
    layers: Sequence[Layer],
    x: str,
    y: str,
    y_unit: str,
) -> dict[str, Any]:
    """What the page's script is given."""
    known = {layer.name: layer for layer in layers}
    used = dict.fromkeys(name for trial in trials for name in trial.schemes)
    names = list(dict.fromkeys([*(name for name in known if name in used), *used]))
    measured = [trial.metrics[y] for trial in trials]
    across = cost_axis(x, trials)
    up = metric_axis(y, y_unit, [estimate.value for estimate in measured])
    hovers = [_trial_hover(w) for w in words]
    places = zip(across.coordinates, up.coordinates, strict=True)
    return {
        "x": x,
        "y": y,
        "layers": names,
        "labels": [layer_label(name) for name in names],
        "hovers": [_layer_hover(name, known.get(name)) for name in names],
        "weights": [_own_weights(known.get(name)) for name in names],
        "colors": _COLORS,
        "unknown_color": DIM_COLOR,
        "trials": [
            {
                "id": trial.id,
                "front": is_best,
                "x": float(trial.costs[x]),
                "y": float(trial.metrics[y].value),
                "at": at,
                "title": _title(w, x, y),
                "detail": _detail(w, is_best),
                "schemes": [trial.schemes.get(name) for name in names],
                "bits": [_bits(trial.schemes.get(name), known.get(name)) for name in names],
            }
            for trial, w, is_best, at in zip(trials, words, best, places, strict=True)
        ],
        "scatter": scatter(across, up, [e.stderr for e in measured], hovers, best),
        "bars": bars(),
    }


def _bits(scheme: str | None, layer: Layer | None) -> int | None:
    """Weight bits; None where the layer has no scheme, or is kept at a width that is not known."""
    if scheme is None:
        return None
    return Scheme.parse(scheme).bits or (layer.width if layer else None)


def _own_weights(layer: Layer | None) -> int | None:
    """Number of weights that only this layer stores; None if it is not known."""
    if layer is None:
        return None
    return 0 if layer.shares else layer.weights


def _title(words: Mapping[str, str], x: str, y: str) -> str:
    names = dict.fromkeys([x, f"{x} per weight", "bits per weight", y])
    main = [f"{name} {words[name]}" for name in names if name in words]
    return f"Trial {words['trial']}: {', '.join(main)}"


def _detail(words: Mapping[str, str], best: bool) -> str:
    others = [f"{k}: {words[k]}" for k in ("predicted", "budgets", "solver") if k in words]
    return " · ".join(["on the front" if best else "dominated", *others])


def _trial_hover(words: Mapping[str, str]) -> str:
    lines = [f"{markup(name)}: {markup(word)}" for name, word in words.items() if name != "trial"]
    return "<br>".join([f"<b>trial {words['trial']}</b>", *lines])


def _layer_hover(name: str, layer: Layer | None) -> str:
    lines = [f"<b>{markup(name)}</b>"]
    if layer is not None:
        shared = f", those of {markup(layer.shares)}" if layer.shares else ""
        lines.append(f"{markup(layer.kind)}, {layer.rows:,} × {layer.cols:,}")
        lines.append(f"{layer.weights:,} weights{shared}")
    return "<br>".join(lines)


def _keys(trials: Iterable[Mapping[str, Any]]) -> str:
    """What the colours mean, as HTML."""
    pairs = {pair for t in trials for pair in zip(t["schemes"], t["bits"], strict=True)}
    widths = {bits for scheme, bits in pairs if scheme is not None}
    keys = [(_COLORS[bits], f"{bits} bits") for bits in sorted(widths - {None})]
    if None in widths:
        keys.append((DIM_COLOR, "kept, width not known"))
    return "".join(f'<li><i style="background:{color}"></i>{word}</li>' for color, word in keys)


def _table(rows: Sequence[Mapping[str, str]]) -> str:
    """The insides of a table, as HTML."""
    columns = list(dict.fromkeys(name for words in rows for name in words))
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in columns)
    body = ""
    for words in rows:
        cells = "".join(f"<td>{html.escape(words.get(name, ''))}</td>" for name in columns)
        body += f'<tr data-trial="{words["trial"]}">{cells}</tr>\n'
    return f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>"


def _json(value: Any) -> str:
    """JSON in which nothing can end the script element that it stands in."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c")
