"""Scores that other programs measured, into a study: read, mapped to its layers, recorded."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bitfront.errors import InvalidInput
from bitfront.importers import Asked, Mapped, Scores, mapped, read
from bitfront.scheme import Scheme
from bitfront.sensitivity.imported import Imported, check_label
from bitfront.study import Study
from bitfront.tasks.numbers import require
from bitfront.types import Estimate, content_key, parse_schemes

KL = "kl"
_DIGITS = 6  # of a content key, in a label


@dataclass(frozen=True, eq=False)
class Import:
    """What became of a file's scores.

    label: what a search names it by. metric, unit: what the values are. new: how many were recorded
    now; 0 where all of them were before. schemes: those there are scores of. without: layers of the
    study without any score. lacking: pairs without one, of the other layers under ``schemes``, that
    the layer could take. found: how names and formats were mapped. unscored, notes: of the file.
    """

    label: str
    format: str
    metric: str
    unit: str
    new: int
    schemes: tuple[str, ...]
    layers: int
    without: tuple[str, ...]
    lacking: int
    found: Mapped
    unscored: Mapping[str, int]
    notes: tuple[str, ...]

    @property
    def pairs(self) -> int:
        """How many scores the import has."""
        return len(self.found.values)


@dataclass(frozen=True, eq=False)
class Gathered:
    """What files say, of whichever model. label: None for one made up of the content."""

    format: str
    scores: Scores
    label: str | None


def import_scores(
    study: Study,
    path: str | Path | Sequence[str | Path],
    format: str | None = None,
    *,
    label: str | None = None,
    table: str | None = None,
    schemes: str | Iterable[str | Scheme] = (),
    per: int | None = None,
) -> Import:
    """Record the scores of a file, or of several files of one run, under a label.

    format: of ``bitfront.importers.IMPORTERS``; recognised by content if None. label: what searches
    name them by; by default the format and the beginning of a key of their content. table: which
    table of a CSV file; the first if None. schemes: the low and the high format of a file of
    mlx-lm's. per: of sums of KL (ModelOpt's ``kl_div``), the number of positions that they are
    over, which makes them ``kl``.

    The same scores again record nothing; they are there whole or not at all. What could not be
    mapped is in the result. Raises ``InvalidInput`` for files that cannot be read, hold something
    else than finite scores, or nothing of this model's, and for other scores under a label that is
    taken; ``UnknownName`` for a format or table there is none of.
    """
    return recorded(study, gathered(path, format, label, table, schemes, per))


def gathered(
    path: str | Path | Sequence[str | Path],
    format: str | None = None,
    label: str | None = None,
    table: str | None = None,
    schemes: str | Iterable[str | Scheme] = (),
    per: int | None = None,
) -> Gathered:
    """The files of ``import_scores``, read and checked as far as no model is needed."""
    if label is not None:
        check_label(label)
    require(1, per=per)
    paths = [path] if isinstance(path, str | Path) else list(path)
    given = parse_schemes(schemes) if schemes else ()
    kind, scores = read(paths, format, Asked(table, given))
    return Gathered(kind, _mean(scores, per), label)


def recorded(study: Study, files: Gathered) -> Import:
    """``files`` in ``study``, as ``import_scores`` says."""
    scores = files.scores
    found = mapped(scores, study.task.layers, study.task.groups, study.unsuitable)
    kept = Imported(_label(files.format, scores, found) if files.label is None else files.label)
    new = _record(study, kept, scores.metric, found.values)
    used = dict.fromkeys(scheme for _, scheme in found.values)
    names = [layer.name for layer in study.task.layers]
    having = {layer for layer, _ in found.values}
    barred = study.unsuitable(map(Scheme.parse, used))
    lacking = sum((n, s) not in found.values and (n, s) not in barred for n in having for s in used)
    return Import(
        kept.label, files.format, scores.metric, scores.unit, new, tuple(used), len(having),
        tuple(n for n in names if n not in having), lacking, found, dict(scores.unscored),
        scores.notes,
    )  # fmt: skip


def _mean(scores: Scores, per: int | None) -> Scores:
    """Sums of KL over ``per`` positions as means of one; all else as it is."""
    if per is None:
        return scores
    if not scores.summed:
        raise InvalidInput(
            f"per {per} for scores of {scores.metric}, which are no sums of KL", "leave it out"
        )
    means = [replace(s, value=s.value / per, stderr=s.stderr / per) for s in scores.scores]
    return replace(scores, metric=KL, unit="nats of KL", scores=tuple(means), summed=False)


def _label(kind: str, scores: Scores, found: Mapped) -> str:
    """The format, and the beginning of a key of what there is to record."""
    values = {f"{layer} {scheme}": _plain(v) for (layer, scheme), v in found.values.items()}
    return f"{kind}-{content_key([scores.metric, values])[:_DIGITS]}"


def _plain(value: Estimate) -> list[float | int | None]:
    stderr = None if math.isnan(value.stderr) else value.stderr
    return [value.value, stderr, value.samples]


def _record(
    study: Study, kept: Imported, metric: str, values: Mapping[tuple[str, str], Estimate]
) -> int:
    """How many were new. Raises ``InvalidInput`` where others have the label."""
    before = study.measurements(kept.name, kept.settings_key)
    wanted = kept.recorded(metric, values)
    if not before:
        return study.store.add_measurements(study.record, wanted)
    same = len(before) == len(wanted) and all(
        (m.layer, m.scheme) in before and _same(before[m.layer, m.scheme].values, m.values)
        for m in wanted
    )
    if not same:
        raise InvalidInput(
            f"study {study.name!r} has other scores under the label {kept.label!r}",
            "give another label",
        )
    return 0


def _same(a: Mapping[str, Estimate], b: Mapping[str, Estimate]) -> bool:
    return a.keys() == b.keys() and all(_plain(a[name]) == _plain(b[name]) for name in a)
