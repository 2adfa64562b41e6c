"""What was found, in JSON's types: the documents of ``--json`` and of the service."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bitfront.scheme import Scheme

if TYPE_CHECKING:
    from bitfront.answering import Answer
    from bitfront.audit import Audit
    from bitfront.importing import Import
    from bitfront.instability import Instability
    from bitfront.latency import Latency
    from bitfront.queries import Front, LayerLine, Shown
    from bitfront.reporting import Report
    from bitfront.sensitivity import Profiler
    from bitfront.settling import Settled, Step
    from bitfront.smallest import Smallest
    from bitfront.storage import Job, JobEvent, StudySummary, WorkerRecord
    from bitfront.types import Estimate, Sensitivities, Trial


def plain(value: Any) -> Any:
    """``value`` in JSON's types: mappings, sequences, numpy scalars and arrays."""
    kind = type(value)
    if kind is str or kind is int or value is None or kind is bool:  # nearly all that there is
        return value
    if hasattr(value, "tolist"):  # numpy, without importing it
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if kind is dict or isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return value if isinstance(value, int | str) else str(value)


def profile_document(
    profiler: Profiler, tables: Mapping[str, Sensitivities], settled: Settled | None = None
) -> dict[str, Any]:
    """The tables of a profiler. settled: how much data it took."""
    return {
        "profiler": profiler.name,
        "settings": profiler.settings(),
        "settings_key": profiler.settings_key,
        "tables": {name: _table(table) for name, table in tables.items()},
        **({} if settled is None else {"until": settled_document(settled)}),
    }


def _table(table: Sensitivities) -> dict[str, Any]:
    return {
        "metric": table.metric,
        "layers": table.layers,
        "schemes": table.schemes,
        "values": table.values,
        "stderr": table.stderr,
        "samples": table.samples,
        "notes": dict(table.notes),
    }


def answer_document(answer: Answer) -> dict[str, Any]:
    """A search's answer of one point."""
    return {
        "budgets": [str(b) for b in answer.budgets],
        "trial": trial_document(answer.trial),
        "predicted": answer.predicted,
        "expected": answer.expected,
        "bound": answer.bound,
        "table": answer.table,
        "judged": answer.judged,
        "unverified": answer.unverified,
        "evaluations": answer.evaluations,
    }


def smallest_document(found: Smallest) -> dict[str, Any]:
    """The same of the smallest model that holds."""
    return {
        "hold": str(found.hold),
        "minimize": found.resource,
        "budgets": [str(b) for b in found.budgets],
        "trial": trial_document(found.trial),
        "value": found.value,
        "holds_on_evaluation": found.holds_on_evaluation,
        "failed": found.failed,
        "failed_cost": found.failed_cost,
        "predicted": found.predicted,
        "expected": found.expected,
        "table": found.table,
        "judged": found.judged,
        "allocations": found.allocations,
        "evaluations": found.evaluations,
    }


def trial_document(trial: Trial) -> dict[str, Any]:
    """A trial in JSON's types."""
    return {
        "id": trial.id,
        "created": trial.created,
        "solver": trial.solver,
        "settings": dict(trial.settings),
        "predicted": trial.predicted,
        "expected": trial.expected,
        "bound": trial.bound,
        "costs": dict(trial.costs),
        "metrics": estimates_document(trial.metrics),
        "seconds": trial.seconds,
        "schemes": dict(trial.schemes),
    }


def estimates_document(estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    """Figures with their standard errors."""
    return {
        name: {"value": e.value, "stderr": e.stderr, "samples": e.samples}
        for name, e in estimates.items()
    }


def study_document(study: StudySummary) -> dict[str, Any]:
    """A line about a study."""
    return {
        "name": study.name,
        "created": study.created,
        "measurements": study.measurements,
        "trials": study.trials,
        "metrics": dict(study.metrics),
        "costs": dict(study.costs),
    }


def front_document(found: Front, everything: bool = False) -> dict[str, Any]:
    """A front; everything: with the trials that are dominated."""
    return {
        "study": found.study.name,
        "objectives": [*found.costs, *found.metrics],
        "senses": found.senses,
        "within": found.within,
        "knee": found.knee_id,
        "trials": [
            {**trial_document(found.trials[i]), "on_front": i in found.best}
            for i in found.listed(everything)
        ],
    }


def shown_document(found: Shown) -> dict[str, Any]:
    """A trial with its layers."""
    return {
        "study": found.study.name,
        **trial_document(found.trial),
        "parted": {name: of.part for name, of in found.sides.items() if of.part},
        "layers": {line.name: _line(line) for line in found.lines},
    }


def _line(line: LayerLine) -> dict[str, Any]:
    return {
        "scheme": line.scheme,
        "bits": Scheme.parse(line.scheme).bits or (line.layer.width if line.layer else None),
        "kind": line.layer.kind if line.layer else None,
        "shape": [line.layer.rows, line.layer.cols] if line.layer else None,
        "bytes": line.bytes,
        "full_bytes": line.full_bytes,
        "measured": line.measured.value if line.measured else None,
        "measured_stderr": line.measured.stderr if line.measured else None,
        "estimated": line.estimated.value if line.estimated else None,
        "estimated_stderr": line.estimated.stderr if line.estimated else None,
        "inside_noise": line.inside_noise,
    }


def export_document(folder: str, audit: Audit) -> dict[str, Any]:
    """An export and what its audit found."""
    return {
        "folder": folder,
        "bytes": audit.bytes,
        "predicted_bytes": audit.predicted_bytes,
        "max_difference": audit.max_difference,
        "spread": audit.spread,
        "seconds": audit.seconds,
        "latency": {
            target: {"predicted": predicted, "measured": measured}
            for target, (predicted, measured) in audit.latency.items()
        },
    }


def latency_document(found: Latency) -> dict[str, Any]:
    """What a model takes on a target, in seconds."""
    median, worst = found.errors
    return {
        "target": str(found.aimed),
        "resource": found.aimed.resource,
        "runtime": found.place.runtime,
        "device": found.place.device,
        "threads": found.place.threads,
        "full": asdict(found.wholes[0]),
        "rest": found.given.fixed,
        "models": len(found.wholes),
        "median_error": median,
        "worst_error": worst,
        "alike": [{"scheme": scheme, **asdict(one)} for scheme, one in found.alike.items()],
        "layers": {layer: dict(row) for layer, row in found.given.layers.items()},
        "apart": {layer: list(schemes) for layer, schemes in found.given.apart.items()},
        "handovers": [list(one) for one in found.given.handovers],
    }


def report_document(found: Report) -> dict[str, Any]:
    """What a report shows, by name and number."""
    return {
        "tables": [table.name for table in found.tables],
        "front": [trial.id for trial in found.best],
        "parted": found.parted,
        "missing": found.missing,
        "warnings": found.warnings,
    }


def import_document(found: Import) -> dict[str, Any]:
    """What became of imported scores."""
    return {
        "label": found.label,
        "format": found.format,
        "metric": found.metric,
        "unit": found.unit,
        "scores": found.pairs,
        "new": found.new,
        "layers": found.layers,
        "schemes": list(found.schemes),
        "lacking": found.lacking,
        "without": list(found.without),
        "unknown": list(found.found.unknown),
        "formats": dict(found.found.formats),
        "barred": dict(found.found.barred),
        "unscored": dict(found.unscored),
        "shared": found.found.shared,
        "untied": found.found.untied,
        "prefix": found.found.prefix,
        "notes": list(found.notes),
    }


def settled_document(settled: Settled) -> dict[str, Any]:
    """In JSON's types."""
    last = settled.last
    return {
        "share": settled.until,
        "reached": settled.reached,
        "batches": last.batches,
        "all_batches": settled.batches,
        "samples": last.samples,
        "budgets": [{**_point(p), "allocation": p.allocation} for p in last.points],
        "steps": [_step(step) for step in settled.steps],
    }


def _step(step: Step) -> dict[str, Any]:
    return {
        "batches": step.batches,
        "samples": step.samples,
        "settings": step.profiler.settings(),
        "errors": step.errors,
        "budgets": [_point(point) for point in step.points],
    }


def _point(point: Instability) -> dict[str, Any]:
    return {
        "budgets": [str(b) for b in point.budgets],
        "changed": point.changed,
        "excess": point.excess,
        "moved": point.moved,
    }


def job_document(job: Job) -> dict[str, Any]:
    """A job, with its rate and the time that its stage takes yet."""
    progress = job.progress
    return {
        "id": job.id,
        "kind": job.kind,
        "study": job.study,
        "state": job.state,
        "request": dict(job.request),
        "progress": None
        if progress is None
        else {
            "stage": progress.stage,
            "done": progress.done,
            "total": progress.total,
            "rate": progress.rate,
            "seconds_left": progress.seconds_left,
        },
        "error": None if job.error is None else dict(job.error),
        "result": None if job.result is None else dict(job.result),
        "worker": job.worker,
        "attempt": job.attempt,
        "failures": job.failures,
        "created": job.created,
        "updated": job.updated,
    }


def event_document(event: JobEvent) -> dict[str, Any]:
    """A row of a job's history."""
    return {
        "number": event.number,
        "kind": event.kind,
        "created": event.created,
        "details": dict(event.details),
    }


def worker_document(worker: WorkerRecord) -> dict[str, Any]:
    """A worker, and the job that it holds."""
    return {
        "name": worker.name,
        "host": worker.host,
        "version": worker.version,
        "state": worker.state,
        "job": worker.job,
        "started": worker.started,
        "seen": worker.seen,
    }
