"""The states of a job, and the moves between them.

               claim            succeed
    queued ────────────▶ running ─────────▶ succeeded
     ▲  ▲ ◀──────────────┘ │  │
     │  │       retry      │  │ fail
     │  └── resume ── paused  └───────────▶ failed ── resume ──▶ queued
     └───── resume ── cancelled ◀── cancel ── queued, running, paused

A driver that is told to pause ends the unit it is at. If that was the last one, the job succeeded.
A running job is claimed by another driver when its lease ran out.
"""

from __future__ import annotations

from bitfront.errors import IllegalMove

QUEUED, RUNNING, PAUSED = "queued", "running", "paused"
SUCCEEDED, FAILED, CANCELLED = "succeeded", "failed", "cancelled"
STATES = (QUEUED, RUNNING, PAUSED, SUCCEEDED, FAILED, CANCELLED)

MOVES = {
    "claim": {QUEUED: RUNNING, RUNNING: RUNNING},
    "retry": {RUNNING: QUEUED},
    "succeed": {RUNNING: SUCCEEDED, PAUSED: SUCCEEDED},
    "fail": {RUNNING: FAILED},
    "pause": {QUEUED: PAUSED, RUNNING: PAUSED},
    "resume": {PAUSED: QUEUED, FAILED: QUEUED, CANCELLED: QUEUED},
    "cancel": {QUEUED: CANCELLED, RUNNING: CANCELLED, PAUSED: CANCELLED},
}  # move -> state -> state after it


def moved(job: int, state: str, move: str) -> str:
    """The state after ``move``. Raises ``IllegalMove`` where a job in ``state`` cannot make it."""
    after = MOVES[move].get(state)
    if after is None:
        possible = [name for name in ("pause", "resume", "cancel") if state in MOVES[name]]
        raise IllegalMove(
            f"job {job} is {state}, and cannot {move}",
            f"it can {' or '.join(possible)}" if possible else "submit another job",
        )
    return after
