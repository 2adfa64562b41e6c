"""Which layers are quantized, which are fixed to a scheme, and which share one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from bitfront.errors import InvalidInput
from bitfront.scheme import Scheme
from bitfront.types import Layer

from .base import Task
from .globs import matching
from .grouping import tied, with_hand_groups

GROUPING = ("auto", "off")


@dataclass(frozen=True, eq=False)
class Selection:
    """layers: candidates for quantization, in order of execution. kept_out: other layers -> why
    they stay in full precision. pins: candidate -> the spelling of its only scheme. groups:
    disjoint tuples of candidates that must take the same scheme."""

    layers: tuple[Layer, ...]
    kept_out: Mapping[str, str]
    pins: Mapping[str, str]
    groups: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        for name in ("kept_out", "pins"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the candidates."""
        return tuple(layer.name for layer in self.layers)


def select(
    task: Task,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    pins: Mapping[str, str | Scheme] | None = None,
    embeddings: bool | None = None,
    head: bool | None = None,
    groups: str = "auto",
    hand_groups: Iterable[Sequence[str]] = (),
) -> Selection:
    """Choose among a task's layers, by globs on their names.

    include: only these (default all). exclude: not these. pins: glob -> scheme; a later glob wins
    over an earlier one, and a pinned layer is a candidate whatever its role. embeddings, head:
    whether layers of these roles are candidates; by default embeddings never, heads except for
    language models. groups: ``auto`` for what runtimes fuse, ``off`` for shared tensors only.
    hand_groups: further groups, each a sequence of globs.

    Members of a group are candidates together or not at all, and a pin holds for all of them.
    Raises ``UnknownName`` for a glob that matches nothing, ``InvalidInput`` for choices that
    contradict each other or leave nothing.
    """
    if groups not in GROUPING:
        raise InvalidInput(f"groups {groups!r}", f"use {' or '.join(GROUPING)}")
    layers = task.layers
    names = [layer.name for layer in layers]
    found = task.groups if groups == "auto" else tied(layers)
    joined = with_hand_groups(found, hand_groups, layers)
    pinned = _pins(pins or {}, names)
    roles = {
        "embedding": bool(embeddings),
        "head": task.kind != "language" if head is None else head,
        "body": True,
    }
    kept_out = _kept_out(layers, include, exclude, pinned, roles)
    explicit = {n for n, role in ((la.name, la.role) for la in layers) if role != "body"}
    explicit &= {la.name for la in layers if {"embedding": embeddings, "head": head}.get(la.role)}
    _agree(joined, kept_out, explicit | set(pinned))
    pinned = _spread(joined, pinned)
    candidates = tuple(layer for layer in layers if layer.name not in kept_out)
    if not candidates:
        name, why = next(iter(kept_out.items()))
        raise InvalidInput(
            f"no layer is left to quantize ({name!r} is kept out: {why})",
            "exclude less, include more, or ask for embeddings or the head",
        )
    return Selection(
        layers=candidates,
        kept_out=kept_out,
        pins={n: s for n, s in pinned.items() if n not in kept_out},
        groups=tuple(g for g in joined if not any(n in kept_out for n in g)),
    )


def _pins(pins: Mapping[str, str | Scheme], names: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for glob, scheme in pins.items():
        spelling = str(scheme if isinstance(scheme, Scheme) else Scheme.parse(scheme))
        found.update(dict.fromkeys(matching(glob, names), spelling))
    return found


def _kept_out(
    layers: Sequence[Layer],
    include: Sequence[str],
    exclude: Sequence[str],
    pinned: Mapping[str, str],
    roles: Mapping[str, bool],
) -> dict[str, str]:
    names = [layer.name for layer in layers]
    inside = {n for glob in include for n in matching(glob, names)} if include else set(names)
    outside = {n: glob for glob in exclude for n in matching(glob, names)}
    kept_out = {}
    for layer in layers:
        name = layer.name
        if name in outside:
            if name in pinned:
                raise InvalidInput(
                    f"layer {name!r} is pinned to {pinned[name]} and excluded by {outside[name]!r}",
                    "drop one of the two",
                )
            kept_out[name] = f"excluded by {outside[name]!r}"
        elif name in pinned:
            continue
        elif name not in inside:
            kept_out[name] = "not included"
        elif layer.beyond_lookup:
            kept_out[name] = "its forward does more than look rows up, so which rows is not known"
        elif not roles[layer.role]:
            what = "embeddings" if layer.role == "embedding" else "heads"
            kept_out[name] = f"{what} are kept out here by default or by choice"
    return kept_out


def _agree(groups: Iterable[Sequence[str]], kept_out: dict[str, str], wanted: set[str]) -> None:
    """Make each group's members all candidates or all kept out; ``wanted`` ones were asked for.

    A member that is out by its role alone follows one that was asked for (a tied embedding follows
    the head); otherwise candidates follow the member that is kept out.
    """
    for group in groups:
        out = [n for n in group if n in kept_out]
        if not out or len(out) == len(group):
            continue
        asked = [n for n in group if n in wanted and n not in kept_out]
        hard = [n for n in out if "by default" not in kept_out[n]]
        if asked and hard:
            raise InvalidInput(
                f"layers {asked[0]!r} and {hard[0]!r} share a scheme, but {hard[0]!r} is kept out "
                f"({kept_out[hard[0]]})",
                "choose both or neither, or turn grouping off",
            )
        if asked:
            for name in out:
                del kept_out[name]
        else:
            kept_out.update(
                {
                    n: f"shares a scheme with {out[0]!r}, which is kept out"
                    for n in group
                    if n not in out
                }
            )


def _spread(groups: Iterable[Sequence[str]], pinned: Mapping[str, str]) -> dict[str, str]:
    spread = dict(pinned)
    for group in groups:
        schemes = {n: pinned[n] for n in group if n in pinned}
        if len(set(schemes.values())) > 1:
            said = ", ".join(f"{n} to {s}" for n, s in schemes.items())
            raise InvalidInput(f"a group's layers are pinned differently: {said}", "pin them alike")
        if schemes:
            spread.update(dict.fromkeys(group, next(iter(schemes.values()))))
    return spread
