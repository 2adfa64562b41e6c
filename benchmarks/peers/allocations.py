"""Allocations that peers chose: checked, and kept in one JSON that measuring can start from.

    {"layers": {"resnet20": ["conv1", ...]},
     "peers": {"NNCF": {"resnet20": {"versions": {}, "notes": "", "seconds": 1.0, "forwards": null,
               "budgets": {"4": {"asked": 1.0, "bits": "4448..."}}}}}}

One digit a layer, in the order of "layers"; a budget without an allocation is null.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitfront.errors import DataError

SLACK = 1e-9  # of an average that is a quotient of integers


@dataclass(frozen=True)
class Space:
    """What may be chosen for one model. weights: layer -> count. bits: the widths of a layer."""

    weights: Mapping[str, int]
    bits: Collection[int]

    def average(self, bits: Mapping[str, int]) -> float:
        """Average bits over all weights."""
        spent = sum(count * bits[name] for name, count in self.weights.items())
        return spent / sum(self.weights.values())

    def check(self, who: str, bits: Mapping[str, int], budget: float) -> dict[str, int]:
        """The allocation, in the order of layers.

        Raises ``DataError`` for other layers than the model's, widths that were not offered, and
        more than ``budget`` average bits.
        """
        if bits.keys() != self.weights.keys():
            odd = sorted(bits.keys() ^ self.weights.keys())
            raise DataError(
                f"{who} at {budget:g} bits: layers {', '.join(odd)} are missing or not the job's",
                "give each of the job's layers its bits, and no other",
            )
        for name, width in bits.items():
            if width not in self.bits:
                raise DataError(
                    f"{who} at {budget:g} bits: {name} has {width!r} bits",
                    f"choose from {', '.join(map(str, sorted(self.bits)))}",
                )
        spent = self.average(bits)
        if spent > budget + SLACK:
            raise DataError(
                f"{who} spends {spent:.4f} bits of a budget of {budget:g}",
                "ask it for fewer bits until it fits",
            )
        return {name: bits[name] for name in self.weights}


def checked(who: str, answer: Mapping[str, Any], space: Space) -> dict[str, Any]:
    """A peer's ``answer.json`` (``job``), with each allocation checked and as digits."""
    budgets: dict[str, Any] = {}
    for budget, found in answer["budgets"].items():
        if found is None:
            budgets[budget] = None
            continue
        bits = space.check(who, found["bits"], float(budget))
        budgets[budget] = {"asked": found["asked"], "bits": digits(bits)}
    return {**answer, "budgets": budgets}


def digits(bits: Mapping[str, int]) -> str:
    return "".join(map(str, bits.values()))


@dataclass
class Cache:
    """The file of all peers' allocations."""

    path: Path
    content: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> Cache:
        return cls(path, json.loads(path.read_text()) if path.exists() else {})

    def write(self) -> None:
        self.path.write_text(json.dumps(self.content, indent=1) + "\n")

    def add(self, peer: str, model: str, layers: Sequence[str], answer: Mapping[str, Any]) -> None:
        """answer: as ``checked`` gives it."""
        self.content.setdefault("layers", {})[model] = list(layers)
        self.content.setdefault("peers", {}).setdefault(peer, {})[model] = dict(answer)

    def answer(self, peer: str, model: str, space: Space) -> dict[str, Any] | None:
        """What ``add`` was given, allocations as layer -> bits and checked again; None if absent.

        Raises ``DataError`` as ``Space.check``.
        """
        kept = self.content.get("peers", {}).get(peer, {}).get(model)
        if kept is None:
            return None
        layers = self.content["layers"][model]
        budgets: dict[str, Any] = {}
        for budget, found in kept["budgets"].items():
            if found is None:
                budgets[budget] = None
                continue
            bits = dict(zip(layers, map(int, found["bits"]), strict=True))
            budgets[budget] = {**found, "bits": space.check(peer, bits, float(budget))}
        return {**kept, "budgets": budgets}
