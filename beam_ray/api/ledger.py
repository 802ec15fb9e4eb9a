"""The ledger of a workflow's reruns."""

from dataclasses import dataclass

from beam_ray.api.display import Display, Displayed
from beam_ray.api.location import Location
from beam_ray.improve.ledger import Ledger as Engine
from beam_ray.improve.ledger import LedgerDocument
from beam_ray.improve.ledger import ledger as make_ledger
from beam_ray.improve.ledger_report import CAUTION, Table, html, markdown, summary, tables


@dataclass(frozen=True, repr=False)
class Ledger(Displayed):
    """All reruns of a workflow's tasks: why, what had changed, whether it solved the problem, and what it cost."""

    workflow: str
    _engine: Engine

    @property
    def empty(self) -> bool:
        """Whether no task of the workflow was rerun yet."""
        return not self._engine.reruns

    @property
    def summary(self) -> tuple[str, ...]:
        """The ledger in a few sentences."""
        return tuple(summary(self._engine))

    @property
    def tables(self) -> tuple[Table, ...]:
        """The ledger's tables, each with title, header, rows and the columns of numbers."""
        return tuple(tables(self._engine))

    @property
    def caution(self) -> str:
        """What these numbers cannot show."""
        return CAUTION

    def markdown(self) -> str:
        """The ledger as Markdown."""
        return markdown(self._engine)

    def html(self) -> str:
        """The ledger as one self-contained page."""
        return html(self._engine)

    def display(self) -> Display:
        return Display(self.workflow, tuple(("", line) for line in self.summary))

    def document(self) -> LedgerDocument:
        """The ledger as a JSON document."""
        return self._engine.document()


def ledger(store: Location, workflow: str) -> Ledger:
    """See ``Store.ledger``."""
    made = make_ledger(store.existing(), workflow)
    return Ledger(made.workflow, made)
