"""From a trial to a folder that other programs load, audited before it is called done."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bitfront import audit, graph_audit, pipeline_audit
from bitfront.errors import ExportError
from bitfront.latency_audit import latencies
from bitfront.quant.export_diffusers import Diffusers
from bitfront.quant.export_onnx import Onnx
from bitfront.quant.exporters import EXPORTERS, Loadable
from bitfront.quant.weights import QuantizedLayer
from bitfront.scheme import KEEP
from bitfront.study import Study
from bitfront.tasks.running import ModelTask
from bitfront.types import Scheme, Trial

if TYPE_CHECKING:
    from bitfront.audit import Audit


def export(
    study: Study,
    trial: Trial | int,
    folder: str | Path,
    *,
    format: str | None = None,
    cache: bool | None = None,
    overwrite: bool = False,
) -> Audit:
    """Write a trial's model to ``folder``; it appears only when a fresh process agrees with it.

    format: an exporter's name (default: the container that the trial's bytes were counted in).
    cache: whether a graph takes and gives keys and values of earlier tokens (default: of language
    tasks). A graph is timed on the targets that the trial was searched for (``latency_audit``).
    Raises ``ExportError`` (nothing half-written is left), ``UnknownName``.
    """
    if isinstance(trial, int):
        trial = study.trial(trial)
    name = format or trial.settings.get("container", study.container)
    exporter = EXPORTERS[name]
    if cache is not None and not isinstance(exporter, Onnx):
        raise ExportError(
            f"{name} with cache={cache}", "only graphs have a cache: leave it out, or use onnx"
        )
    schemes = {layer: Scheme.parse(s) for layer, s in trial.schemes.items() if s != KEEP}
    study.builder.prepare(schemes.items())

    def quantized(layer: str) -> QuantizedLayer:
        return study.builder.quantized(layer, schemes[layer])

    manifest = {
        "study": study.name,
        "trial": trial.id,
        "solver": trial.solver,
        "costs": dict(trial.costs),
        "metrics": {metric: asdict(e) for metric, e in trial.metrics.items()},
    }
    arguments = (study.task.layers, schemes, quantized, folder, manifest)
    if isinstance(exporter, Onnx):
        assert isinstance(study.task, ModelTask)  # as every task is
        cache = study.task.kind == "language" if cache is None else cache
        found = graph_audit.export(
            study.task, exporter, *arguments, cache=cache, overwrite=overwrite
        )
        found = replace(found, latency=latencies(study, trial, folder, name, cache=cache))
    elif isinstance(exporter, Diffusers):
        found = pipeline_audit.export(study.task, exporter, *arguments, overwrite=overwrite)
    else:
        assert isinstance(exporter, Loadable)
        found = audit.export(study.task, exporter, *arguments, overwrite=overwrite)
    record = {
        "max_difference": found.max_difference,
        "spread": found.spread,
        "latency": {target: list(both) for target, both in found.latency.items()},
    }
    study.store.add_export(
        study.record, trial.id, name, str(Path(folder).resolve()), found.bytes, record
    )
    return found
