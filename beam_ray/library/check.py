"""Checking a library: everything that is read for it, in order."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

from beam_ray.define.workflow import Workflow
from beam_ray.library.coverage import EDGE_LABELS, Coverage, Facts, cover, key_of
from beam_ray.library.gaps import SHOWN, Gap, Pair, filled, gaps, together
from beam_ray.library.run_history import Births, Key, Past, read_past, seen
from beam_ray.store.libraries import library_at, uses
from beam_ray.store.objects import Objects


@dataclass(frozen=True)
class Check:
    """How good a library is as a set to backtest a workflow on."""

    facts: Facts
    coverage: Coverage
    gaps: tuple[Gap, ...]

    @property
    def together(self) -> tuple[str, ...]:
        """Few past tasks that fill all gaps that can be filled."""
        return together(self.gaps)


def check_library(
    objects: Objects, written: str, workflow: Workflow, *, edge_labels: tuple[str, ...] = EDGE_LABELS, now: datetime.datetime | None = None
) -> Check:
    """
    Measure the library by what its tasks did in past runs of the workflow.

    Raises:
        Unusable: there is no such library or version.
    """
    library = library_at(objects, written)
    rows = library.tasks.to_pylist()
    past = read_past(objects, workflow, [row["task_id"] for row in rows])
    births = Births(objects)
    born = {row["task_id"]: births.of(row["origin"]) or _moment(library.since.get(row["task_id"])) for row in rows}
    facts = Facts(
        library=library,
        tasks=rows,
        workflow=workflow,
        histories={key: past.own[key] for key in map(key_of, rows) if key in past.own},
        seen=seen(objects, [past.own[key].newest for key in map(key_of, rows) if key in past.own], workflow.order),
        born={name: moment for name, moment in born.items() if moment},
        used=max(uses(objects, library.name), default=None),
        now=now or datetime.datetime.now(datetime.UTC),
        edge_labels=edge_labels,
    )
    coverage = cover(facts)
    found = gaps(facts, coverage)
    return Check(facts, coverage, tuple(filled(found, facts, past.others, _decided(objects, past, found), births.of)))


def _moment(written: str | None) -> datetime.datetime | None:
    return datetime.datetime.fromisoformat(written) if written else None


def _decided(objects: Objects, past: Past, found: Sequence[Gap]) -> dict[Pair, list[Key]]:
    """For each criterion that lacks tasks some past ones that it was decided for; runs are read, newest first, until there are enough."""
    wanted: dict[str, set[str]] = {}
    for gap in found:
        if gap.kind == "criterion":
            node, _, criterion = gap.name.partition("/")
            wanted.setdefault(node, set()).add(criterion)
    result: dict[Pair, list[Key]] = {}
    for node, criteria in wanted.items():
        here = [history.newest for history in past.others.values() if node in history.newest.path]
        for run_id in dict.fromkeys(each.address.run for each in here):
            for key, each in seen(objects, [each for each in here if each.address.run == run_id], [node]).items():
                for pair in each.criteria:
                    result.setdefault(pair, []).append(key)
            if all(len(result.get((node, criterion), ())) >= SHOWN for criterion in criteria):
                break
    return result
