"""A workflow over time, per version and day, and whether a model changed under its name."""

from dataclasses import dataclass, field

from beam_ray.api.display import Display, Displayed
from beam_ray.api.location import Location
from beam_ray.improve.ledger_report import Table
from beam_ray.improve.trend import CanarySet, TrendDocument, TrendPoint
from beam_ray.improve.trend import Trend as Engine
from beam_ray.improve.trend import trend as measure
from beam_ray.improve.trend_report import CAUTION, commands, html, markdown, summary, tables


@dataclass(frozen=True, repr=False)
class Trend(Displayed):
    """A workflow's success rate, score, cost, time and auto-reruns per version and day, and its canary sets."""

    workflow: str
    points: tuple[TrendPoint, ...]
    """One per version and day, the oldest day first."""
    canaries: tuple[CanarySet, ...]
    """Sets of runs of the same tasks with one definition and the same models, changed ones first; each with the newest run compared with the first."""
    _engine: Engine = field(compare=False)

    @property
    def changed(self) -> tuple[CanarySet, ...]:
        """The canary sets whose newest run differs from the first beyond chance."""
        return tuple(canary for canary in self.canaries if canary.word == "CHANGED")

    @property
    def summary(self) -> tuple[str, ...]:
        """The trend in a few sentences."""
        return tuple(summary(self._engine))

    @property
    def tables(self) -> tuple[Table, ...]:
        """The trend's tables, each with title, header, rows and the columns of numbers."""
        return tables(self._engine)

    @property
    def commands(self) -> tuple[str, ...]:
        """Commands that show what changed in each changed canary set."""
        return tuple(commands(self._engine))

    @property
    def caution(self) -> str:
        """What these numbers cannot show."""
        return CAUTION

    def markdown(self) -> str:
        """The trend as Markdown."""
        return markdown(self._engine)

    def html(self) -> str:
        """The trend as one self-contained page."""
        return html(self._engine)

    def display(self) -> Display:
        rows = self.tables[0]
        return Display(self.workflow, (("versions and days", len(self.points)), ("changed canary sets", len(self.changed))), rows.header, rows.rows)

    def document(self) -> TrendDocument:
        """The trend as a JSON document."""
        return self._engine.document()


def trend(store: Location, workflow: str, *, since: str = "") -> Trend:
    """See ``Store.trend``."""
    made = measure(store.existing(), workflow, since=since)
    return Trend(made.workflow, made.points, made.canaries, made)
