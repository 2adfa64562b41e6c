"""A study's trials as an Optuna study in a file, for tools that read those (optuna-dashboard).

One Optuna trial for each of ours that has all chosen figures: objectives are the costs and metrics
of a front. Optuna's SQLite storage takes longer with every parameter of a trial, so the layers'
schemes are parameters only where they are few (``LAYERS``); else the share of the weights under
each scheme is one parameter. All schemes stand in the user attributes anyway.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitfront.errors import InvalidInput
from bitfront.files import replacing
from bitfront.queries import Front, front

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

    from bitfront.types import Trial

LAYERS = 32  # up to which each layer's scheme is a parameter


def write_optuna(
    study: str,
    out: str | Path,
    costs: Sequence[str] = ("bytes",),
    metrics: Sequence[str] = ("kl",),
    db: str | Path | None = None,
    *,
    within: Sequence[str] = (),
    overwrite: bool = False,
) -> Front:
    """Write ``study`` to the SQLite file ``out`` and return its front, by the same objectives.

    The Optuna study has the same name; its best trials are the front. Written under a temporary
    name and renamed. Raises ``InvalidInput`` when ``out`` exists, unless ``overwrite``, and what
    ``queries.front`` raises.
    """
    target = Path(out)
    if target.exists() and not overwrite:
        raise InvalidInput(f"{target} exists", "give another name, or overwrite it")
    found = front(study, costs, metrics, db, within=within)
    with replacing(target) as partial:
        _write(found, partial)
    return found


def _write(found: Front, path: Path) -> None:
    import optuna
    from optuna.study import StudyDirection
    from sqlalchemy import URL, event
    from sqlalchemy.pool import NullPool

    from bitfront.search.quiet import quiet

    url = URL.create("sqlite", database=str(path.resolve())).render_as_string()
    way = {"min": StudyDirection.MINIMIZE, "max": StudyDirection.MAXIMIZE}
    directions = [way[sense] for sense in found.senses]
    with quiet():
        storage = optuna.storages.RDBStorage(url, engine_kwargs={"poolclass": NullPool})
        event.listen(storage.engine, "connect", _unsynchronized)
        try:
            written = optuna.create_study(
                storage=storage, study_name=found.study.name, directions=directions
            )
            written.set_metric_names([*found.costs, *found.metrics])
            written.add_trials(_trials(found))
        finally:
            storage.engine.dispose()


def _unsynchronized(connection: Any, record: Any) -> None:
    """Optuna commits each trial; nobody has the file before it is whole."""
    del record
    connection.execute("PRAGMA synchronous = OFF")


def _trials(found: Front) -> list[FrozenTrial]:
    """By their numbers."""
    from optuna.trial import create_trial

    parameters, space = _parameters(found)
    made = []
    for i in sorted(range(len(found.trials)), key=lambda i: found.trials[i].id):
        trial, values = found.trials[i], found.points[i].tolist()
        if not all(map(math.isfinite, values)):  # Optuna takes no infinite objective of some tools
            continue
        one = create_trial(
            values=values, params=parameters[i], distributions=space, user_attrs=_words(trial)
        )
        end = datetime.fromisoformat(trial.created).astimezone(UTC).replace(tzinfo=None)
        seconds = trial.seconds if math.isfinite(trial.seconds) else 0.0
        one.datetime_start, one.datetime_complete = end - timedelta(seconds=seconds), end
        made.append(one)
    return made


def _parameters(found: Front) -> tuple[list[dict[str, Any]], dict[str, BaseDistribution]]:
    """Of each trial, and what they may be."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    names = dict.fromkeys(name for trial in found.trials for name in trial.schemes)
    schemes = sorted({s for trial in found.trials for s in trial.schemes.values()})
    if len(names) <= LAYERS and all(t.schemes.keys() == names.keys() for t in found.trials):
        space: dict[str, BaseDistribution] = {n: CategoricalDistribution(schemes) for n in names}
        return [dict(trial.schemes) for trial in found.trials], space
    weights = {name: layer.weights for name, layer in found.study.layers.items()}
    shares = []
    for trial in found.trials:
        under: dict[str, int] = defaultdict(int)
        for name, scheme in trial.schemes.items():
            under[scheme] += weights.get(name, 0)
        total = sum(under.values()) or 1
        shares.append({f"share of {scheme}": under[scheme] / total for scheme in schemes})
    return shares, {f"share of {scheme}": FloatDistribution(0, 1) for scheme in schemes}


def _words(trial: Trial) -> dict[str, Any]:
    """User attributes: what JSON holds, without nan."""
    figures = {
        "predicted": trial.predicted,
        "bound": trial.bound,
        **trial.costs,
        **{name: estimate.value for name, estimate in trial.metrics.items()},
    }
    return {
        "trial": trial.id,
        "solver": trial.solver,
        "budgets": list(map(str, trial.settings.get("budgets", ()))),
        **{name: value for name, value in figures.items() if math.isfinite(value)},
        "schemes": dict(trial.schemes),
    }
