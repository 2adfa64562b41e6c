"""What goes on in studies: their jobs by state, and when something last changed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from sqlalchemy import func, select
from sqlalchemy.orm import aliased

from .engine import Database
from .jobstates import FAILED, PAUSED, QUEUED, RUNNING
from .models import JobRow, StudyRow, TrialRow

IDLE = "idle"
ACTIVITIES = (RUNNING, QUEUED, PAUSED, FAILED, IDLE)


@dataclass(frozen=True)
class Activity:
    """jobs: state -> how many of the study's are in it. newest: the state of its newest job, empty
    without jobs. updated: when the study was begun, its newest trial made, or a job last changed;
    empty for a study that is not begun and has no jobs."""

    jobs: Mapping[str, int] = field(default_factory=dict)
    newest: str = ""
    updated: str = ""

    @property
    def state(self) -> str:
        """One of ``ACTIVITIES``: what goes on now; ``failed`` if nothing does and the newest job
        failed."""
        for state in (RUNNING, QUEUED, PAUSED):
            if self.jobs.get(state):
                return state
        return FAILED if self.newest == FAILED else IDLE


def activities(database: Database, names: Collection[str]) -> dict[str, Activity]:
    """The activity of each of the studies ``names``, begun or not."""
    J, R, S = JobRow, TrialRow, StudyRow
    own = select(J.study, J.state, func.count(), func.max(J.id), func.max(J.updated))
    own = own.where(J.study.in_(sorted(names))).group_by(J.study, J.state)
    other = aliased(TrialRow)
    last = select(func.max(other.id)).where(other.study_id == S.id).scalar_subquery()
    begun = select(S.name, S.created, R.created).outerjoin(R, R.id == last)
    times: dict[str, list[str]] = defaultdict(list)
    jobs: dict[str, dict[str, int]] = defaultdict(dict)
    newest: dict[str, tuple[int, str]] = {}
    with database.reading() as connection:
        for study, state, count, id, updated in connection.execute(own):
            jobs[study][state] = count
            newest[study] = max(newest.get(study, (0, "")), (id, state))
            times[study].append(updated)
        for study, created, trial in connection.execute(begun.where(S.name.in_(sorted(names)))):
            times[study] += [created, trial or ""]
    return {
        name: Activity(jobs[name], newest.get(name, (0, ""))[1], max(times[name], default=""))
        for name in names
    }
