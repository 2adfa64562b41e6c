"""Costs that Bitfront does not count itself: seconds on a target, energy, anything that adds up.

A file gives what each layer costs under each scheme, in one of two forms. CSV, with one row a
figure; a row without a layer is of the whole model:

    resource,layer,scheme,value
    seconds@cpu:b1,blocks.0,w8,0.0012
    seconds@cpu:b1,,fixed,0.004          everything that is no layer (else 0)
    seconds@cpu:b1,,full,0.031           the full-precision model (else what ``keep`` adds up to)

A column ``target`` in place of ``resource`` names what follows ``seconds@``. JSON:

    {"seconds@cpu:b1": {"layers": {"blocks.0": {"w8": 0.0012}}, "fixed": 0.004, "full": 0.031}}

Where layers that keep data in different layouts meet, changing it may cost something. In CSV two
more columns say so: ``layout``, any word where a layer under a scheme has another than most, and
``to``, the second of two layers that meet, whose row has no scheme. In JSON ``apart`` (layer ->
schemes) and ``handovers`` (lists of two layers and the cost).
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from bitfront.budget import ACTIVATIONS, SECONDS, Budget
from bitfront.errors import BitfrontError, InvalidInput
from bitfront.scheme import KEEP, Scheme
from bitfront.types import Conversions, Costs, Float

_FORM = "see docs/search.md for the two forms of a costs file"
WHOLE = ("fixed", "full")
_MORE = ("apart", "handovers")
_APART = "apart"
_COLUMNS = ("layer", "scheme", "value", "layout", "to")


@dataclass(frozen=True, slots=True)
class Given:
    """One resource: ``layers`` is layer -> scheme -> cost; ``fixed`` and ``full`` as in ``Costs``.

    apart: layer -> schemes under which it keeps data in another layout than most. handovers: two
    layers, and what it costs where one of them is apart and the other is not.

    Raises ``InvalidInput`` for figures that are negative or not finite, and for schemes that cannot
    be read.
    """

    layers: Mapping[str, Mapping[str, float]]
    fixed: float = 0.0
    full: float | None = None
    apart: Mapping[str, Sequence[str]] = field(default_factory=dict)
    handovers: Sequence[tuple[str, str, float]] = ()

    def __post_init__(self) -> None:
        spelled: dict[str, dict[str, float]] = {}
        for layer, row in self.layers.items():
            for scheme, value in row.items():
                _check(value, f"the cost of layer {layer!r} under {scheme}")
                spelled.setdefault(layer, {})[str(Scheme.parse(scheme))] = float(value)
        for name in WHOLE:
            value = getattr(self, name)
            if value is not None:
                _check(value, f"{name} of the whole model")
        apart = {
            layer: tuple(str(Scheme.parse(scheme)) for scheme in schemes)
            for layer, schemes in self.apart.items()
            if schemes
        }
        for one, other, value in self.handovers:
            _check(value, f"the cost between layers {one!r} and {other!r}")
        object.__setattr__(self, "layers", spelled)
        object.__setattr__(self, "apart", apart)
        object.__setattr__(self, "handovers", tuple(map(tuple, self.handovers)))

    def total(self, schemes: Mapping[str, str]) -> float:
        """Of the whole model, each layer under its scheme; those that are not named are kept."""
        chosen = {layer: schemes.get(layer, KEEP) for layer in self.layers}
        apart = {layer: chosen[layer] in self.apart.get(layer, ()) for layer in chosen}
        return math.fsum(
            [
                self.fixed,
                *(self.layers[layer][scheme] for layer, scheme in chosen.items()),
                *(cost for one, other, cost in self.handovers if apart[one] != apart[other]),
            ]
        )


@dataclass(frozen=True, slots=True)
class GivenCosts:
    """resources: name -> what was given of it. Raises ``InvalidInput`` for a name that is taken."""

    resources: Mapping[str, Given] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.resources:
            try:
                good = Budget.parse(f"{name}<=1").name == name
            except BitfrontError:
                good = False
            if not good:
                raise InvalidInput(
                    f"a resource that is called {name!r}", "name it like joules or seconds@cpu:b1"
                )

    @classmethod
    def read(cls, path: str | Path) -> GivenCosts:
        """The costs in a file. Raises ``InvalidInput`` for one that cannot be read or is none."""
        try:
            text = Path(path).read_text(encoding="utf-8-sig")
        except OSError as error:
            why = error.strerror or str(error)
            raise InvalidInput(f"cannot read {str(path)!r} ({why})", "check the path") from None
        except UnicodeDecodeError:
            raise InvalidInput(f"{str(path)!r} is not a text file", _FORM) from None
        try:
            data = _from_json(text) if text.lstrip()[:1] == "{" else _from_csv(text)
            return cls({name: Given(**parts) for name, parts in data.items()})
        except BitfrontError as error:
            raise InvalidInput(f"{str(path)!r}: {error.what}", error.remedy) from None

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> GivenCosts:
        """The costs that the JSON form spells. Raises ``InvalidInput``."""
        return cls({name: Given(**parts) for name, parts in _parts(data).items()})

    def as_csv(self) -> str:
        """The CSV form, which ``read`` takes."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        layouts = any(given.handovers for given in self.resources.values())
        columns = ["resource", "layer", "scheme", "value", *(["layout", "to"] if layouts else [])]
        writer.writerow(columns)
        for name, given in self.resources.items():
            whole = {"fixed": given.fixed, **({} if given.full is None else {"full": given.full})}
            for layer, row in {"": whole, **given.layers}.items():
                for scheme, value in row.items():
                    layout = [_APART if scheme in given.apart.get(layer, ()) else "", ""]
                    writer.writerow([name, layer, scheme, value, *(layout if layouts else [])])
            writer.writerows([name, one, "", cost, "", to] for one, to, cost in given.handovers)
        return text.getvalue()

    def plain(self) -> dict[str, Any]:
        """As JSON, for keys by content."""
        return {
            name: {
                "layers": given.layers,
                "fixed": given.fixed,
                "full": given.full,
                **({"apart": given.apart, "handovers": given.handovers} if given.handovers else {}),
            }
            for name, given in self.resources.items()
        }


def given_costs(value: str | Path | GivenCosts | None) -> GivenCosts:
    """``value``, read where it is a file; nothing for None."""
    if value is None:
        return GivenCosts()
    return value if isinstance(value, GivenCosts) else GivenCosts.read(value)


def with_given(costs: Costs, given: GivenCosts, known: Sequence[str], kept: Sequence[str]) -> Costs:
    """``costs`` with the resources of ``given``.

    A pair that has no figure is barred, with the reason. known: every layer of the model; kept:
    those kept out, whose ``keep`` counts into the fixed part, if it is given. Raises
    ``InvalidInput`` for a layer that the model does not have, and for a resource that is counted
    already.
    """
    tables = {name: table.copy() for name, table in costs.tables.items()}
    reasons, fixed, full = dict(costs.reasons), dict(costs.fixed), dict(costs.full)
    unquantized, conversions = dict(costs.unquantized), dict(costs.conversions)
    for name, one in given.resources.items():
        if name in (*costs.full, ACTIVATIONS):
            raise InvalidInput(f"costs are given of {name}", "leave it out, it is counted")
        unknown = [layer for layer in one.layers if layer not in known]
        if unknown:
            raise InvalidInput(
                f"{name} is given for layer {unknown[0]!r}, which the model does not have",
                f"its layers are like {known[0]!r}",
            )
        rows = [one.layers.get(layer, {}) for layer in costs.layers]
        tables[name] = np.array([[row.get(s, np.nan) for s in costs.schemes] for row in rows])
        unquantized[name] = np.array([row.get(KEEP, np.nan) for row in rows])
        apart = [one.layers.get(layer, {}).get(KEEP, 0.0) for layer in kept]
        fixed[name] = math.fsum([one.fixed, *apart])
        if one.handovers:
            between, beside, always = _conversions(name, one, costs, known)
            tables[name] += beside
            fixed[name] += always
            if len(between.ends):
                conversions[name] = between
        whole = math.fsum([*unquantized[name], fixed[name]])
        full[name] = whole if one.full is None else one.full
        for i, j in np.argwhere(np.isnan(tables[name])).tolist():
            reasons.setdefault((costs.layers[i], costs.schemes[j]), f"its {name} are not given")
    for i, layer in enumerate(costs.layers):
        for j, scheme in enumerate(costs.schemes):
            if (layer, scheme) in reasons:
                for table in tables.values():
                    table[i, j] = np.nan
    return replace(
        costs, tables=tables, fixed=fixed, full=full, reasons=reasons, unquantized=unquantized,
        conversions=conversions,
    )  # fmt: skip


def _conversions(
    name: str, one: Given, costs: Costs, known: Sequence[str]
) -> tuple[Conversions, Float, float]:
    """Between layers that are allocated; (L, C) beside kept ones; and between kept ones."""
    index = {layer: i for i, layer in enumerate(costs.layers)}
    other = np.array([[s in one.apart.get(layer, ()) for s in costs.schemes] for layer in index])
    ends, weights, beside, always = [], [], np.zeros(other.shape), 0.0
    for handover in one.handovers:
        *pair, cost = handover
        unknown = [layer for layer in pair if layer not in known]
        if unknown:
            raise InvalidInput(
                f"{name} is given for layer {unknown[0]!r}, which the model does not have",
                f"its layers are like {known[0]!r}",
            )
        kept = [KEEP in one.apart.get(layer, ()) for layer in pair if layer not in index]
        if len(kept) == 2:
            always += cost * (kept[0] != kept[1])
        elif kept:
            (i,) = (index[layer] for layer in pair if layer in index)
            beside[i] += cost * (other[i] != kept[0])
        else:
            ends.append([index[layer] for layer in pair])
            weights.append(cost)
    return Conversions(np.array(ends, dtype=np.intp), np.array(weights), other), beside, always


def _from_json(text: str) -> dict[str, dict[str, Any]]:
    try:
        data = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InvalidInput(f"it is not JSON ({error})", _FORM) from None
    return _parts(data)


def _parts(data: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    for name, parts in data.items():
        if not isinstance(parts, dict) or not isinstance(parts.get("layers"), dict):
            raise InvalidInput(f"{name!r} has no object of layers", _FORM)
        wrong = set(parts) - {"layers", *WHOLE, *_MORE}
        if wrong:
            known = ", ".join((*WHOLE, *_MORE))
            raise InvalidInput(f"{name!r} has {min(wrong)!r}", f"give layers, {known}")
        handovers, apart = parts.get("handovers", []), parts.get("apart", {})
        three = isinstance(handovers, list | tuple) and all(
            isinstance(one, list | tuple) and len(one) == 3 and {*map(type, one[:2])} == {str}
            for one in handovers
        )
        lists = isinstance(apart, dict) and all(isinstance(s, list | tuple) for s in apart.values())
        if not three or not lists:
            raise InvalidInput(
                f"{name!r} has handovers or schemes that are apart in no lists", _FORM
            )
        for layer, row in parts["layers"].items():
            if not isinstance(row, dict):
                raise InvalidInput(f"layer {layer!r} of {name!r} is no object of schemes", _FORM)
    return dict(data)


def _from_csv(text: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for line, resource, words, value in _lines(text):
        parts = found.setdefault(resource, {"layers": {}})
        layer, scheme = words["layer"], words["scheme"]
        if words["to"]:
            if not layer or scheme:
                raise InvalidInput(
                    f"line {line} is to {words['to']!r}, of layer {layer!r} under {scheme!r}",
                    "give a handover two layers and no scheme",
                )
            parts.setdefault("handovers", []).append((layer, words["to"], value))
            continue
        if words["layout"] and layer:
            parts.setdefault("apart", {}).setdefault(layer, []).append(scheme)
        if layer:
            place, key = parts["layers"].setdefault(layer, {}), scheme
        elif scheme in WHOLE:
            place, key = parts, scheme
        else:
            raise InvalidInput(
                f"line {line} has no layer and the scheme {scheme!r}",
                "name the layer, or give fixed or full as the scheme",
            )
        if key in place:
            raise InvalidInput(f"line {line} gives {resource} of {layer or key} twice", "give one")
        place[key] = value
    if not found:
        raise InvalidInput("it has no figures", _FORM)
    return found


def _lines(text: str) -> Iterator[tuple[int, str, dict[str, str], float]]:
    """(line, resource, the words of ``_COLUMNS``, value) of each row."""
    reader = csv.DictReader(io.StringIO(text))
    columns = [name.strip() for name in reader.fieldnames or ()]
    reader.fieldnames = columns
    what = "resource" if "resource" in columns else "target"
    missing = {what, "layer", "scheme", "value"} - set(columns)
    if missing:
        raise InvalidInput(f"it has no column {min(missing)!r}", _FORM)
    for row in reader:
        words = {name: (row.get(name) or "").strip() for name in (what, *_COLUMNS)}
        resource = words[what] if what == "resource" else f"{SECONDS}@{words[what]}"
        try:
            value = float(words["value"])
        except ValueError:
            raise InvalidInput(
                f"line {reader.line_num} has the value {words['value']!r}", "give a number"
            ) from None
        yield reader.line_num, resource, words, value


def _check(value: Any, of: str) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and math.isfinite(value) and value >= 0):
        raise InvalidInput(f"{of} is {value!r}", "give a finite number, 0 or more")
