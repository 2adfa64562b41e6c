"""Models of what many answers have: figures, trials, orders."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from bitfront.storage.pages import Order

ORDER = "A cost or metric, like kl, or id; with - before it from the greatest to the least."


class Figure(BaseModel):
    """A mean over samples. stderr: its standard error. null: not known."""

    value: float | None
    stderr: float | None
    samples: int


class TrialLine(BaseModel):
    """A trial without its layers. predicted, expected, bound: of the loss it was chosen by."""

    id: int
    created: str
    solver: str
    settings: dict[str, Any]
    predicted: float | None
    expected: float | None
    bound: float | None
    costs: dict[str, float | None]
    metrics: dict[str, Figure]
    seconds: float | None


class TrialDocument(TrialLine):
    """A trial. schemes: of its layers, in the model's order."""

    schemes: dict[str, str] = Field(description="Layer to scheme.")


def order_of(text: str) -> Order:
    """What ``order=`` asks for."""
    by = text.removeprefix("-")
    return Order(None if by == "id" else by, text.startswith("-"))
