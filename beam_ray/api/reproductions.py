"""Reproducing a verdict from stored rows, here or, through a bundle, in another store."""

from dataclasses import dataclass, field
from pathlib import Path

from beam_ray.api.display import Display, Displayed
from beam_ray.api.location import Location
from beam_ray.backtest.bundle import pack, unpack
from beam_ray.backtest.reproduce import Difference, ReproductionDocument
from beam_ray.backtest.reproduce import Reproduction as Engine
from beam_ray.backtest.reproduce import reproduce as compute
from beam_ray.errors import Damaged


@dataclass(frozen=True, repr=False)
class Reproduction(Displayed):
    """A finished backtest whose comparison and verdict were computed again from the rows of its runs."""

    backtest: str
    """The backtest's id."""
    word: str
    """The recorded verdict: PASS, WARN, BLOCK, INCONCLUSIVE or NONE."""
    reproduced: bool
    """Whether everything is as recorded."""
    difference: Difference | None
    """The first thing that is not: its place, and the values recorded and computed here."""
    gate: str
    """Name of the gate, whose limits are those of then."""
    runs: tuple[str, ...]
    """Ids of the runs that the verdict follows from."""
    rows: int
    """Pairs of tasks and trials that were compared, over all candidates."""
    versions: dict[str, str]
    """Of Python and the packages that made the verdict."""
    versions_here: dict[str, str]
    _engine: Engine = field(compare=False)

    @property
    def exit_code(self) -> int:
        """0 where everything is as recorded, else 6."""
        return 0 if self.reproduced else Damaged.exit_code

    def display(self) -> Display:
        differs = self.difference
        facts = (("verdict", self.word), ("reproduced", "yes" if self.reproduced else "no"), ("runs", len(self.runs)), ("pairs", self.rows))
        rows = [(differs.place, differs.recorded, differs.here)] if differs else []
        return Display(self.backtest, facts, ("first difference", "recorded", "here"), rows)

    def document(self) -> ReproductionDocument:
        """The result as a JSON document."""
        return self._engine.document()


def reproduce(store: Location, backtest: str) -> Reproduction:
    """See ``Store.reproduce``."""
    made = compute(store.existing(), backtest)
    how = (made.gate, made.runs, made.rows, dict(made.versions), dict(made.versions_here))
    return Reproduction(made.backtest_id, made.word, made.difference is None, made.difference, *how, made)


def export_backtest(store: Location, backtest: str, file: str | Path) -> int:
    """See ``Store.export_backtest``."""
    return len(pack(store.existing(), backtest, Path(file))["files"])


def import_backtest(store: Location, file: str | Path) -> str:
    """See ``Store.import_backtest``."""
    return unpack(store.objects, Path(file))["backtest_id"]
