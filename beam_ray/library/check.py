"""Check a library against a workflow: reads what the check needs from the store."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

from beam_ray.define.workflow import Workflow
from beam_ray.library.coverage import EDGE_LABELS, Coverage, Facts, cover
from beam_ray.library.gaps import SHOWN, Gap, gaps, smallest_fill, with_fill
from beam_ray.library.run_history import FirstRuns, Key, Pair, RunHistory, executed_in, reached, read_run_history
from beam_ray.store.libraries import Library, uses
from beam_ray.store.objects import Objects
from beam_ray.store.runs import Run


@dataclass(frozen=True)
class Check:
    """How well a library covers a workflow."""

    facts: Facts
    coverage: Coverage
    gaps: tuple[Gap, ...]

    @property
    def smallest_fill(self) -> tuple[str, ...]:
        """A small set of past tasks that fills every gap that past tasks can fill."""
        return smallest_fill(self.gaps)


def check_library(
    objects: Objects, library: Library, workflow: Workflow, *, edge_labels: tuple[str, ...] = EDGE_LABELS, now: datetime.datetime | None = None
) -> Check:
    """Measure coverage from the results of the library's tasks in past runs of the workflow."""
    past = read_run_history(objects, workflow, library.tasks)
    first_runs = FirstRuns(objects)
    first = first_runs.of_all(library.tasks["origin"])
    facts = Facts(
        library=library,
        workflow=workflow,
        history=past.own,
        reach=reached(past.own.newest, workflow.order, library.tasks.num_rows),
        born=[moment or _moment(library.since.get(task)) for task, moment in zip(library.tasks["task_id"].to_pylist(), first, strict=True)],
        used=max(uses(objects, library.name), default=None),
        now=now or datetime.datetime.now(datetime.UTC),
        edge_labels=edge_labels,
    )
    coverage = cover(facts)
    found = gaps(facts, coverage)
    return Check(facts, coverage, tuple(with_fill(found, facts, past.others, _decided(objects, past, found), first_runs.of)))


def _moment(written: str | None) -> datetime.datetime | None:
    return datetime.datetime.fromisoformat(written) if written else None


def _decided(objects: Objects, past: RunHistory, found: Sequence[Gap]) -> dict[Pair, list[Key]]:
    """For each criterion without tasks, past tasks for which it was decided; reads runs newest first until there are enough."""
    wanted: dict[str, set[str]] = {}
    for gap in found:
        if gap.kind == "criterion":
            node, _, criterion = gap.name.partition("/")
            wanted.setdefault(node, set()).add(criterion)
    result: dict[Pair, list[Key]] = {}
    for node, criteria in wanted.items():
        here = [history.newest for history in past.others.values() if node in history.newest.path]
        for run_id in dict.fromkeys(each.address.run for each in here):
            mine = [each for each in here if each.address.run == run_id]
            found_there = reached([executed_in(Run(objects, run_id), mine)], [node], len(mine))
            for pair, flags in found_there.decided.items():
                result.setdefault(pair, []).extend(each.key for each, decided in zip(mine, flags.tolist(), strict=True) if decided)
            if all(len(result.get((node, criterion), ())) >= SHOWN for criterion in criteria):
                break
    return result
