"""A study's Pareto front as one HTML file that needs no network.

The page (``frontpage.html``) holds plotly.js, the figures of ``frontfigures`` and the trials, as
JSON. Its script draws the bars of whichever trial is chosen.
"""

from __future__ import annotations

import html
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bitfront.errors import InvalidInput
from bitfront.files import write_text
from bitfront.frontfigures import bars, cost_axis, metric_axis, ring, scatter
from bitfront.page import DIM_COLOR, filled, html_table, layer_hover, layer_label
from bitfront.queries import require_figures
from bitfront.scheme import Scheme
from bitfront.trialwords import plottable, trial_hover, trial_words
from bitfront.types import Layer, Trial

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
    better: str = "lower",
    within: Sequence[str] = (),
    knee: int | None = None,
) -> None:
    """Write a page of ``trials``, cost ``x`` against metric ``y``, with the bits of every layer.

    on_front: ids of the non-dominated trials. layers: what is known of the layers, in the model's
    order; may be empty. better: which way ``y`` is. within: the limits that the trials
    keep. knee: id of the trial at the front's knee. Trials without ``x`` or ``y`` are left out. The
    file is there whole or not at all. Raises ``UnknownName`` for an ``x`` or ``y`` that no trial
    has, ``InvalidInput`` when no trial is left, and ``OSError``.
    """
    shown = _plottable(study, trials, x, y)
    words = [trial_words(trial, y, y_unit, better) for trial in shown]
    best = [trial.id in on_front for trial in shown]
    marked = [trial.id == knee for trial in shown]
    for about, is_knee in zip(words, marked, strict=True):
        if is_knee:
            about["mark"] = "knee of the front"
    data = _document(shown, words, best, marked, layers, x, y, y_unit)
    of = " within " + " and ".join(within) if within else ""
    at = "; the diamond is its knee" if any(marked) else ""
    text = filled(
        "frontpage.html",
        f"{study}: Pareto front",
        data,
        study=html.escape(study),
        counts=html.escape(f"{sum(best)} of {len(shown)} trials{of} on the front{at}"),
        keys=_keys(data["trials"]),
        table=html_table([row for row, is_best in zip(words, best, strict=True) if is_best]),
    )
    write_text(path, text)


def _plottable(study: str, trials: Sequence[Trial], x: str, y: str) -> list[Trial]:
    """The trials that have both figures, by rising cost."""
    if trials:
        require_figures(trials, [x], [y])
    found = plottable(trials, x, y)
    if not found:
        raise InvalidInput(
            f"study {study!r} has no trial with finite {x} and {y}",
            "measure a trial first, or choose other figures",
        )
    return found


def _document(
    trials: Sequence[Trial],
    words: Sequence[Mapping[str, str]],
    best: Sequence[bool],
    marked: Sequence[bool],
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
    hovers = [trial_hover(w) for w in words]
    figure = scatter(across, up, [e.stderr for e in measured], hovers, best, marked)
    figure["data"].append(ring())
    places = zip(across.coordinates, up.coordinates, strict=True)
    return {
        "x": x,
        "y": y,
        "layers": names,
        "labels": [layer_label(name) for name in names],
        "hovers": [layer_hover(name, known.get(name)) for name in names],
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
                "detail": _detail(w, y, is_best),
                "schemes": [trial.schemes.get(name) for name in names],
                "bits": [_bits(trial.schemes.get(name), known.get(name)) for name in names],
            }
            for trial, w, is_best, at in zip(trials, words, best, places, strict=True)
        ],
        "scatter": figure,
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


def _detail(words: Mapping[str, str], y: str, best: bool) -> str:
    shown = ("predicted", "expected", f"calibration/{y}", "budgets", "solver", "mark", "warning")
    others = [f"{k}: {words[k]}" for k in shown if k in words]
    return " · ".join(["on the front" if best else "dominated", *others])


def _keys(trials: Iterable[Mapping[str, Any]]) -> str:
    """What the colours mean, as HTML."""
    pairs = {pair for t in trials for pair in zip(t["schemes"], t["bits"], strict=True)}
    widths = {bits for scheme, bits in pairs if scheme is not None}
    keys = [(_COLORS[bits], f"{bits} bits") for bits in sorted(widths - {None})]
    if None in widths:
        keys.append((DIM_COLOR, "kept, width not known"))
    return "".join(f'<li><i style="background:{color}"></i>{word}</li>' for color, word in keys)
