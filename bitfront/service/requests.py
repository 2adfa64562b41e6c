"""What a job is asked for: the bodies that the service takes, one for each kind of job.

Fields are the arguments of the verbs in Python, under the same names, with the same defaults. What
is not a field is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from bitfront.pipeline import Choices
    from bitfront.sensitivity import Profiler

Text = Annotated[str, Field(min_length=1, max_length=4096)]
Words = Annotated[list[Text], Field(max_length=1000)]


class Body(BaseModel):
    """Of a request: what it does not know is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class TaskBody(Body):
    """A task, by its kind and the arguments of that kind; needed to begin a study."""

    kind: Literal["language", "vision", "diffusion", "module"] | None = None
    arguments: dict[str, Any] = {}


class ProfilerBody(Body):
    """A profiler and its settings (docs/profilers.md)."""

    name: Text = "fisher"
    settings: dict[str, Any] = {}

    def made(self) -> Profiler:
        """Raises ``UnknownName`` and ``InvalidInput``."""
        from bitfront.sensitivity import configured

        return configured(self.name, self.settings)


class ChoicesBody(Body):
    """Which layers take part, and how (``bitfront.Choices``)."""

    include: Words = []
    exclude: Words = []
    pins: dict[str, Text] = {}
    embeddings: bool | None = None
    head: bool | None = None
    groups: Literal["auto", "off"] = "auto"
    hand_groups: list[Words] = []
    average_over: Literal["allocated", "all"] = "allocated"
    container: Text | None = None
    costs: dict[str, Any] | None = Field(
        default=None, description="Further costs of layers, in the JSON form of docs/search.md."
    )

    targets: Words = []

    def made(self) -> Choices:
        """Raises ``InvalidInput`` for costs that cannot be read."""
        from bitfront.costfile import GivenCosts
        from bitfront.pipeline import Choices

        return Choices(
            include=tuple(self.include), exclude=tuple(self.exclude), pins=self.pins,
            embeddings=self.embeddings, head=self.head, groups=self.groups,
            hand_groups=tuple(map(tuple, self.hand_groups)), average_over=self.average_over,
            container=self.container,
            costs=None if self.costs is None else GivenCosts.of(self.costs),
            targets=tuple(self.targets),
        )  # fmt: skip


class OfTask(Body):
    """A request on a study, which the task begins if it is not there yet."""

    task: TaskBody = TaskBody()


class ProfileBody(OfTask):
    """Measure sensitivities: of all layers, or as far as allocations within budgets need them."""

    schemes: Text
    profiler: ProfilerBody = ProfilerBody()
    until: Annotated[float, Field(ge=0, lt=1)] | None = None
    budgets: Words = []
    solver: Text = "ilp"
    choices: ChoicesBody = ChoicesBody()


class SearchBody(OfTask):
    """Find the best measured allocation within each budget, or the smallest of which ``hold``
    holds. schemes: may be left out where there are targets, for those that they offer."""

    schemes: Text | None = None
    budgets: Words = []
    hold: Text | None = None
    minimize: Text = "bytes"
    solver: Text = "ilp"
    profiler: ProfilerBody = ProfilerBody()
    metric: Text | None = None
    choices: ChoicesBody = ChoicesBody()
    verify: bool = True
    max_measurements: Annotated[int, Field(ge=0)] | None = None
    explore: Annotated[int, Field(ge=0, le=100_000)] = 20
    explorer: Text = "refine"
    shares: Annotated[int, Field(ge=0, le=100_000)] = 16


class MeasureBody(OfTask):
    """Build one allocation and measure it. schemes: layer -> scheme, ``keep`` if left out."""

    schemes: dict[str, Text]
    choices: ChoicesBody = ChoicesBody()


class ExportBody(OfTask):
    """Write a trial's model to ``folder``, audited in a fresh process. cache: see ``deploy``."""

    trial: Annotated[int, Field(ge=1)]
    folder: Text
    format: Text | None = None
    cache: bool | None = None
    overwrite: bool = False


class ReportBody(Body):
    """Write a page about the study to ``html``."""

    html: Text
    metric: Text = "kl"
