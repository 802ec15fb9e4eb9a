"""The numbers of a flow: which runs they are of, and how nodes, criteria and branches did in them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, TypedDict

from beam_ray.api.location import Location
from beam_ray.api.runs import Run, get_run
from beam_ray.api.verdicts import Candidate, verdict
from beam_ray.define.workflow import Workflow
from beam_ray.errors import Unusable
from beam_ray.improve.health_rules import DEFAULT_RULES
from beam_ray.store.newest_run import ORDINARY, SIDES, whole_runs
from beam_ray.store.run_totals import StepCounts
from beam_ray.store.step_counts import RunCounts

NumbersKind = Literal["run", "version", "backtest", "none"]


@dataclass(frozen=True)
class FlowNumbers:
    """Which runs the numbers of a flow are of."""

    kind: NumbersKind
    runs: tuple[str, ...] = ()
    """Newest first; of a backtest the baseline's and the candidate's."""
    version: int | None = None
    """The published version that was run; None for a draft."""
    backtest: str = ""
    candidate: str = ""
    tasks: int = 0
    """Tasks and trials with an outcome, over all runs."""
    distinct_tasks: int = 0
    same_definition: bool = True
    """Whether what was run is defined as the flow that is shown."""


@dataclass(frozen=True)
class NodeNumbers:
    """How one node did; of a backtest on the candidate, with the change against the baseline."""

    steps: int
    """Tasks and trials."""
    ran: int
    """Steps with an output: executed or borrowed."""
    borrowed: int
    skipped: int
    failed: int
    scored: int
    passed: int
    """Scored steps that reached the threshold."""
    score: float | None
    """Mean score, 0 to 100: the accuracy; None when nothing is scored."""
    low: float | None
    """The 95% confidence interval over tasks; None for fewer than two tasks."""
    high: float | None
    auto_reruns: int
    """Steps with at least one auto-rerun."""
    exhausted: int
    """Steps that used all their auto-reruns."""
    review: int
    """Steps flagged for a person."""
    before: float | None = None
    """Mean score on the baseline of a backtest, over the tasks that have one on both sides."""
    change: float | None = None
    change_low: float | None = None
    change_high: float | None = None

    @property
    def too_many_auto_reruns(self) -> str:
        """What these steps violate of the default rules of ``health``; empty where they keep them, or are too few."""
        checks, steps = DEFAULT_RULES.rules, self.ran + self.failed
        if steps < DEFAULT_RULES.min_tasks:
            return ""
        if checks.used_up and Fraction(100 * self.exhausted, steps) >= Fraction(str(checks.used_up.at_least)):
            return f"{self.exhausted:,} of {steps:,} steps use all auto-reruns; health warns from {checks.used_up.at_least:g}%"
        if checks.auto_reruns and Fraction(100 * self.auto_reruns, steps) > Fraction(str(checks.auto_reruns.more_than)):
            return f"{self.auto_reruns:,} of {steps:,} steps need auto-reruns; health warns above {checks.auto_reruns.more_than:g}%"
        return ""


@dataclass(frozen=True)
class FlowCriterion:
    """A criterion of a node, and how often it was met."""

    number: int
    """Counted over the whole workflow."""
    id: str
    text: str
    kind: str
    """plain for a judge, or the kind of rule."""
    field: str
    weight: float
    met: int | None
    """Steps that met it; None where it was not counted, or was not part of what was run."""
    decided: int | None
    undecided: int | None
    percent: float | None
    """Percent met of those decided."""
    before: float | None = None
    """The same on the baseline of a backtest."""


@dataclass(frozen=True)
class FlowEdge:
    """From a node to one that comes after it."""

    source: str
    target: str
    route: str
    """Label of the route; empty where the target is no branch."""
    when: str
    """Condition of the target; empty without one."""
    taken: int | None
    """Tasks and trials that went on to the target, of *reached*; None without numbers."""
    reached: int | None
    """Tasks and trials in which the source had an output."""
    before: float | None = None
    """Percent on the baseline of a backtest."""

    @property
    def percent(self) -> float | None:
        """Percent of the tasks that reached the source and went on here."""
        return 100 * self.taken / self.reached if self.taken is not None and self.reached else None


class FlowNumbersDocument(TypedDict):
    """Where the numbers come from."""

    kind: NumbersKind
    runs: list[str]
    version: int | None
    backtest: str
    candidate: str
    tasks: int
    distinct_tasks: int
    same_definition: bool


class NodeNumbersDocument(TypedDict):
    """How one node did, as JSON."""

    steps: int
    ran: int
    borrowed: int
    skipped: int
    failed: int
    scored: int
    passed: int
    score: float | None
    low: float | None
    high: float | None
    auto_reruns: int
    exhausted: int
    review: int
    before: float | None
    change: float | None
    change_low: float | None
    change_high: float | None


class FlowCriterionDocument(TypedDict):
    """A criterion as JSON."""

    number: int
    id: str
    text: str
    kind: str
    field: str
    weight: float
    met: int | None
    decided: int | None
    undecided: int | None
    percent: float | None
    before: float | None


class FlowEdgeDocument(TypedDict):
    """An edge as JSON."""

    source: str
    target: str
    route: str
    when: str
    taken: int | None
    reached: int | None
    before: float | None
    percent: float | None


@dataclass(frozen=True)
class Source:
    """Runs to count, and what they ran."""

    numbers: FlowNumbers
    runs: tuple[Run, ...] = ()
    workflow: Workflow | None = None
    candidate: Candidate | None = None


def named_source(store: Location, counts: RunCounts, run: str | None, backtest: str | None, candidate: str | None) -> Source | None:
    """The runs that were asked for by name; None where none was."""
    if run:
        chosen = get_run(store, run)
        tasks, distinct = _tasks(counts, [chosen])
        return Source(FlowNumbers("run", (chosen.id,), chosen.version, tasks=tasks, distinct_tasks=distinct), (chosen,), chosen.workflow)
    if not backtest:
        return None
    found = verdict(store, backtest)
    names = [each.name for each in found.candidates]
    side = next((each for each in found.candidates if each.name == candidate), None) if candidate else found.best
    if side is None:
        raise Unusable("\n  ".join([f"the backtest {found.id} has no candidate {str(candidate)[:80]!r}", f"it has: {', '.join(names)}"]))
    tasks, distinct = _tasks(counts, [side.run])
    runs = (side.baseline_run.id, side.run.id)
    return Source(FlowNumbers("backtest", runs, None, found.id, side.name, tasks, distinct), (side.baseline_run, side.run), side.workflow, side)


def runs_of_definition(store: Location, counts: RunCounts, definition: Workflow, all_runs: bool) -> Source:
    """The newest run of the definition, or all finished ones that were not of selected tasks; where it has none, the newest run of the workflow."""
    mine = [note for note in counts.notes() if note.workflow == definition.name and note.executes and counts.finished(note.run_id)]
    same = [note for note in mine if note.digest == definition.digest]
    noted = [note for note in same if note.mode in (ORDINARY, *SIDES)] if all_runs else [*whole_runs(same), *whole_runs(mine)][:1]
    chosen = [Run.of(store, counts.run(note.run_id)) for note in noted]
    if not chosen:
        return Source(FlowNumbers("none"))
    tasks, distinct = _tasks(counts, chosen)
    kind: NumbersKind = "version" if all_runs else "run"
    numbers = FlowNumbers(kind, tuple(each.id for each in chosen), chosen[0].version, tasks=tasks, distinct_tasks=distinct)
    return Source(numbers, tuple(chosen), chosen[0].workflow)


def numbers_of_versions(store: Location, counts: RunCounts, workflow: str, node: str, versions: Iterable[int]) -> dict[int, NodeNumbers]:
    """How a node did in the newest run of each version; versions without one are left out."""
    found, notes = dict[int, NodeNumbers](), [note for note in counts.notes() if note.workflow == workflow and counts.finished(note.run_id)]
    for version in set(versions):
        for note in whole_runs(note for note in notes if note.version == version)[:1]:
            run = Run.of(store, counts.run(note.run_id))
            if node in run.workflow.nodes:
                found[version] = node_numbers(counts, node, Source(FlowNumbers("run", (run.id,), version), (run,), run.workflow))
    return found


def _tasks(counts: RunCounts, runs: Sequence[Run]) -> tuple[int, int]:
    """How many tasks and trials the runs have with an outcome, and how many distinct tasks."""
    found = counts.task_numbers([each.stored for each in runs])
    return len(found), int(found.max()) + 1 if len(found) else 0


def node_numbers(counts: RunCounts, name: str, source: Source) -> NodeNumbers:
    runs = source.runs[1:] if source.candidate else source.runs
    found = counts.steps_of([run.stored for run in runs], name)
    again = source.workflow.nodes[name].auto_rerun if source.workflow else None
    low, high = _interval(counts, runs, found)
    numbers = NodeNumbers(
        found.outcomes.total(),
        found.ran,
        found.outcomes["borrowed"],
        found.outcomes["skipped"],
        found.outcomes["failed"],
        found.scored,
        found.passed,
        found.score_sum / found.scored if found.scored else None,
        low,
        high,
        sum(count for answers, count in found.answers.items() if answers > 1),
        sum(count for answers, count in found.answers.items() if again and answers > again.max),
        found.review,
    )
    if source.candidate is None:
        return numbers
    part = next((one for one in source.candidate.document["comparison"]["slices"] if one["kind"] == "node" and one["name"] == name), None)
    if part is None:
        return numbers
    fields = {**vars(numbers), "before": part["before"], "change": part["change"], "change_low": part["low"], "change_high": part["high"]}
    return NodeNumbers(**{**fields, "score": part["after"] if part["after"] is not None else numbers.score})


def _interval(counts: RunCounts, runs: Sequence[Run], found: StepCounts) -> tuple[float | None, float | None]:
    """Of the mean score, over tasks: trials and executions of one task in several runs are one task."""
    import numpy as np

    from beam_ray.compare.intervals import level
    from beam_ray.compare.sequential import Confidence

    task = counts.task_numbers([run.stored for run in runs])
    if len(task) != len(found.scores):
        return None, None  # the run goes on
    scored = ~np.isnan(found.scores)
    executions = np.bincount(task[scored])
    sums = np.bincount(task[scored], weights=found.scores[scored])
    interval = level(sums[executions > 0] / executions[executions > 0], Confidence(), largest=100.0)
    return (interval.low, interval.high) if interval else (None, None)


def criteria_numbers(counts: RunCounts, workflow: Workflow, name: str, source: Source | None, first: int) -> tuple[FlowCriterion, ...]:
    evaluate = workflow.nodes[name].evaluate
    if evaluate is None:
        return ()
    counted: dict[str, list[int]] = {}
    texts: dict[str, str] = {}
    before: dict[str, float | None] = {}
    if source and source.workflow:
        was = source.workflow.nodes[name].evaluate
        texts = {each.id: each.text for each in was.criteria} if was else {}
        runs = source.runs[1:] if source.candidate else source.runs
        for run in runs:
            for key, found in counts.criteria(run.stored, name).items():
                sums = counted.setdefault(key, [0, 0, 0])
                for place, count in enumerate((found.met, found.unmet, found.undecided)):
                    sums[place] += count
        if source.candidate:
            before = {part["name"]: part["before"] for part in source.candidate.document["comparison"]["slices"] if part["kind"] == "criterion"}
    made = []
    for offset, each in enumerate(evaluate.criteria):
        # a criterion that was reworded since is another one
        known = texts.get(each.id) == each.text
        sums = counted.get(each.id, [0, 0, 0])
        decided = sums[0] + sums[1]
        percent = 100 * sums[0] / decided if known and decided else None
        made.append(
            FlowCriterion(
                first + offset,
                each.id,
                each.text,
                each.kind,
                each.field,
                each.weight,
                sums[0] if known else None,
                decided if known else None,
                sums[2] if known else None,
                percent,
                before.get(f"{name}/{each.id}"),
            )
        )
    return tuple(made)


def edges(counts: RunCounts, workflow: Workflow, source: Source) -> list[FlowEdge]:
    runs = source.runs[1:] if source.candidate else source.runs
    paths: Counter[tuple[str, ...]] = Counter()
    for run in runs:
        paths.update(counts.paths(run.stored))
    earlier = counts.paths(source.runs[0].stored) if source.candidate else Counter()
    found = []
    for target in workflow.order:
        node = workflow.nodes[target]
        for parent in node.after:
            known = source.workflow is not None and target in source.workflow.nodes and parent in source.workflow.nodes[target].after
            taken, reached = _shares(paths, parent, target) if known else (None, None)
            was = _shares(earlier, parent, target)
            found.append(FlowEdge(parent, target, node.route or "", node.when or "", taken, reached, 100 * was[0] / was[1] if was[1] else None))
    return found


def _shares(paths: Counter[tuple[str, ...]], parent: str, target: str) -> tuple[int, int]:
    reached = [(path, count) for path, count in paths.items() if parent in path]
    return sum(count for path, count in reached if target in path), sum(count for _, count in reached)
