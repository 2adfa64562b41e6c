"""From a trial to a folder that other programs load, audited before it is called done."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from bitfront import audit, graph_audit, pipeline_audit
from bitfront.quant.export_diffusers import Diffusers
from bitfront.quant.export_onnx import Onnx
from bitfront.quant.exporters import EXPORTERS, Exporter
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
    overwrite: bool = False,
) -> Audit:
    """Write a trial's model to ``folder``; it appears only when a fresh process agrees with it.

    format: an exporter's name (default: the container that the trial's bytes were counted in).
    Raises ``ExportError`` (nothing half-written is left), ``UnknownName``.
    """
    if isinstance(trial, int):
        trial = study.trial(trial)
    name = format or trial.settings.get("container", study.container)
    exporter = EXPORTERS[name]
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
        found = graph_audit.export(study.task, exporter, *arguments, overwrite=overwrite)
    elif isinstance(exporter, Diffusers):
        found = pipeline_audit.export(study.task, exporter, *arguments, overwrite=overwrite)
    else:
        assert isinstance(exporter, Exporter)
        found = audit.export(study.task, exporter, *arguments, overwrite=overwrite)
    record = {"max_difference": found.max_difference, "spread": found.spread}
    study.store.add_export(
        study.record, trial.id, name, str(Path(folder).resolve()), found.bytes, record
    )
    return found
