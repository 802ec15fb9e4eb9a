"""Bringing each side of a backtest to a finished run, and remembering which run it is."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from beam_ray.backtest.earlier_runs import EarlierRuns
from beam_ray.backtest.remaining_budget import budget_left
from beam_ray.backtest.rescored_baseline import rescored_name, with_criteria_of
from beam_ray.backtest.shared_steps import lending_runs, with_shared_steps
from beam_ray.backtest.spec import Resolved, Side
from beam_ray.compare.comparison import Comparison
from beam_ray.compare.sequential import interim_analyses
from beam_ray.compare.verdict_json import BacktestDocument
from beam_ray.define.fingerprint import JsonObject, digest
from beam_ray.define.tool_source import program_versions
from beam_ray.define.workflow import Workflow
from beam_ray.llm.scripted import Models
from beam_ray.rerun import count_borrowed
from beam_ray.run.connection import Connection
from beam_ray.run.model_identity import identity
from beam_ray.run.plan import Lineage, Plan, make_plan
from beam_ray.run.progress import Progress, ProgressCallback, ignore_progress
from beam_ray.run.recorded import judged_alike, recorded_digest, require_recorded
from beam_ray.run.tools import tool_folders
from beam_ray.store.beginning import begin
from beam_ray.store.checksummed_json import RunMark, read_document, seal
from beam_ray.store.objects import NotThere, Objects
from beam_ray.store.run_index import all_runs
from beam_ray.store.run_record import RunRecord, tasks_digest
from beam_ray.store.runs import Run
from beam_ray.tasks.sources import only, shuffled

if TYPE_CHECKING:
    from beam_ray.run.driver import Driver


def execute(*args: Any, **options: Any) -> Any:
    """See ``run.execute.execute``, which loads Ray."""
    from beam_ray.run import execute as loaded

    return loaded.execute(*args, **options)


@dataclass
class Backtest:
    """A backtest that is under way."""

    objects: Objects
    resolved: Resolved
    tasks: pa.Table
    source: str
    models: Models
    address: str | None = None
    takeover: bool = False
    again: bool = False
    allow_writes: bool = False
    progress: ProgressCallback = ignore_progress
    """Receives the progress of each side's run under the side's name, and messages."""
    execute: Callable[..., Any] = execute
    """Brings a side's run to its end."""
    fresh_tasks: pa.Table | None = None
    """Tasks that the comparison does not use, on which the best candidate is run again."""
    before_rerun: Callable[[Side], None] = lambda side: None
    """Called before that candidate is run again."""
    on_analysis: Callable[[Side, Comparison], None] = lambda side, comparison: None
    """Called with what each interim analysis compared."""
    confirms: str = ""
    """The backtest whose best candidate this one runs again, as a part of it; empty for one that stands by itself."""
    _driven: "list[Driver]" = field(default_factory=list)
    connection: Connection = field(init=False)
    """The cluster that all runs of the backtest share."""

    def __post_init__(self) -> None:
        self.connection = Connection(self.address)
        spec = self.resolved.spec
        sides = [self.resolved.baseline, *self.resolved.candidates]
        asked = {name for side in sides for name in side.workflow.models}
        self._recorded, self._notes = self._check_recorded() if self.resolved.baseline.recorded else ("", ())
        key = digest(
            "backtest/1",
            [[side.name, side.workflow.digest, side.run_id, self._tools(side.workflow)] for side in sides],
            tasks_digest(self.tasks),
            spec.trials,
            spec.confirm,
            spec.fresh,
            *([spec.stop] if spec.stop else []),
            *(["aa"] if spec.aa else []),
            *([["rerun", tasks_digest(self.fresh_tasks)]] if self.fresh_tasks is not None else []),
            *([spec.tool_answers] if spec.tools else []),
            *([self._recorded] if self._recorded else []),
            {name: identity(self.models[name]) for name in sorted(asked) if name in self.models},
        )
        self.backtest_id = self.confirms or f"{spec.name}-{key[:8]}"
        number = 1
        while self.again and self.verdict is not None:
            number += 1
            self.backtest_id = f"{spec.name}-{key[:8]}-{number}"
        given = self.tasks
        self.pauses: tuple[int, ...] = ()
        if spec.stop == "early" and not spec.aa:
            # tasks come in the order of their file; only of a random part of them does an interim analysis say something about all.
            # Each backtest has its own order: candidates that are tried in turn would otherwise be fitted to the same first tasks.
            self.tasks = shuffled(self.tasks, self.backtest_id)
            self.pauses = interim_analyses(self.tasks.num_rows)
        self._earlier = EarlierRuns(self.objects, spec, self.models, given, self.tasks, self._tools)

    @property
    def is_part_of_baseline(self) -> bool:
        """Whether the baseline is a finished run over more tasks than are compared."""
        return self.resolved.baseline.run_id is not None and (self.fresh_tasks is not None or bool(self.confirms))

    @property
    def prefix(self) -> str:
        """Where the backtest lies in the store."""
        return f"backtests/{self.backtest_id}"

    @property
    def verdict(self) -> BacktestDocument | None:
        """The verdict, once the backtest is finished."""
        try:
            return read_document(self.objects, f"{self.prefix}/verdict.json", BacktestDocument)
        except NotThere:
            return None

    # -- sides ------------------------------------------------------------------------------

    def plans(self) -> list[tuple[Side, Plan | None, str]]:
        """What each side will cost: its plan, or None and the finished run that it is."""
        baseline = self.resolved.baseline
        if baseline.recorded:
            return [*self._plans_of_recorded(), *(self._plan_of_candidate(side, self._origin_of_candidate(side, None)) for side in self.resolved.candidates)]
        run_id = self.known_run("baseline") or baseline.run_id or self._earlier.same(baseline.workflow)
        found: list[tuple[Side, Plan | None, str]] = []
        if run_id:
            found.append((baseline, None, run_id))
        else:
            run_id = self._origin_of_baseline(baseline.workflow)
            plan = self._plan(baseline, "baseline", run_id)
            found.append((baseline, count_borrowed(self.objects, plan, self.models) if run_id else plan, ""))
        # what the baseline will borrow, candidates borrow from it
        return [*found, *(self._plan_of_candidate(side, None if self.resolved.spec.aa else run_id) for side in self.resolved.candidates)]

    def _plan_of_candidate(self, side: Side, origin: str | None) -> tuple[Side, Plan | None, str]:
        known = self.known_run(side.name)
        if known and Run(self.objects, known).finished:
            return side, None, known
        plan = self._plan(side, "candidate", *(self._borrowing(side, origin) if origin or self.resolved.baseline.recorded else (None, ())))
        if plan.record.origin and not plan.record.start_node:
            plan = count_borrowed(self.objects, plan, self.models)
        return side, with_shared_steps(plan, self.resolved.baseline, self._before(side)), ""

    def baseline(self) -> Run:
        """The baseline's run: one that is there already, or one begun now."""
        side = self.resolved.baseline
        if side.recorded:
            for note in self._notes:
                self.say(note)
            known = self.known_run("baseline")
            return Run(self.objects, known) if known else self._begin("baseline", self._plan_of_recorded(side.workflow))
        run_id = self.known_run("baseline") or side.run_id or self._earlier.same(side.workflow)
        if run_id is None:
            return self._begin("baseline", self._plan(side, "baseline", self._origin_of_baseline(side.workflow)))
        run = Run(self.objects, self._remember("baseline", run_id))
        if run.finished:
            self.say(f"baseline: finished run {run_id} of {run.record.created_at[:16].replace('T', ' ')} UTC")
        return run

    def candidate(self, side: Side, baseline: Run) -> Run:
        """The candidate's run; what the change does not reach is borrowed from the baseline."""
        known = self.known_run(side.name)
        if known:
            return Run(self.objects, known)
        sample = 1 if self.resolved.spec.aa else 0
        return self._begin(side.name, self._plan(side, "candidate", *self._borrowing(side, self._origin_of_candidate(side, baseline)), sample=sample))

    def _borrowing(self, side: Side, origin: str | None) -> tuple[str | None, tuple[str, ...]]:
        """The run that a candidate borrows from, and further ones: earlier candidates, and the same definition in an earlier backtest."""
        spec = self.resolved.spec
        if spec.fresh or spec.aa:
            return origin, ()
        before = None if self.again else self._earlier.same(side.workflow) or self._earlier.covering(side.workflow)
        runs = [run_id for run_id in (before, *(self.known_run(other.name) for other in self._before(side))) if run_id]
        lending = lending_runs(self.objects, side.workflow, origin, runs)
        return (origin, lending) if origin or not lending else (lending[0], lending[1:])

    def _before(self, side: Side) -> tuple[Side, ...]:
        """The candidates before *side*, whose steps it may borrow."""
        spec, sides = self.resolved.spec, self.resolved.candidates
        return () if spec.fresh or spec.aa or side not in sides else sides[: sides.index(side)]

    def _origin_of_candidate(self, side: Side, baseline: Run | None) -> str | None:
        """The run that the candidate's unchanged steps are borrowed from; what production answered is no step's output."""
        spec = self.resolved.spec
        if spec.fresh or spec.aa:
            return None
        if baseline is not None and not self.resolved.baseline.recorded:
            return baseline.run_id
        # most likely the run of an earlier candidate
        return None if self.again else self._earlier.same(side.workflow) or self._earlier.similar(side.workflow)

    def rescored_baseline(self, side: Side, baseline: Run) -> Run:
        """The baseline judged by the candidate's criteria: itself, or a run that scores its outputs anew."""
        recorded = self.resolved.baseline.recorded
        judged = side.workflow if recorded else with_criteria_of(baseline.record.plan, side.workflow)
        if judged_alike(judged, baseline.record.plan) if recorded else judged.digest == baseline.record.plan.digest:
            return baseline
        known = self.known_run(rescored_name(side))
        if known:
            return Run(self.objects, known)
        shared = next((run_id for other in self._before(side) if (run_id := self.known_run(rescored_name(other))) and self._judges(run_id, judged)), None)
        if shared:
            return Run(self.objects, self._remember(rescored_name(side), shared))
        self.say(f"the criteria of {side.name} differ: the baseline's outputs are scored by them too")
        if recorded:
            return self._begin(rescored_name(side), self._plan_of_recorded(judged))
        return self._begin(rescored_name(side), self._plan(Side(rescored_name(side), judged), "baseline", baseline.run_id, rescore_only=True))

    def _judges(self, run_id: str, judged: Workflow) -> bool:
        """Whether an earlier candidate's run of the baseline serves another one: not one that may end before the last task."""
        record = Run(self.objects, run_id).record
        return record.definition_digest == judged.digest and not record.early

    def finish(self, name: str, run: Run) -> Run:
        """The run of a side, brought to its end."""
        if not run.finished:
            report = partial(self._report, name)
            self.execute(self.objects, self._afforded(run), self.models, connection=self.connection, takeover=self.takeover, progress=report)
        return Run(self.objects, run.run_id)

    @contextlib.contextmanager
    def driving(self, name: str, run: Run) -> Iterator[Callable[[int], None]]:
        """Own a side's run; the function given brings so many of its tasks to their end, and does nothing where the run is finished."""
        if run.finished:
            yield lambda tasks: None
            return
        from beam_ray.run.execute import drive  # loads Ray

        record = run.record
        with drive(self.objects, record, self.models, self.connection, takeover=self.takeover, progress=partial(self._watched, name)) as driver:
            self._driven.append(driver)
            try:
                yield lambda tasks: driver.advance(tasks * record.trials, self._left(record.run_id))
            finally:
                self._driven.remove(driver)

    def _watched(self, name: str, progress: Progress) -> None:
        # while one side is run, the other sides' drivers wait, and are alive
        for driver in self._driven:
            driver.beat()
        self._report(name, progress)

    def _report(self, name: str, progress: Progress) -> None:
        self.progress(replace(progress, title=name))

    def say(self, message: str) -> None:
        """Pass a note for people to the progress callback."""
        self.progress(Progress(message=message))

    def repeats(self, name: str, run: Run, task_ids: list[str], times: int) -> Run:
        """The run *name*: some tasks of a side's run repeated so many times more; what was run before is borrowed."""
        known = self.known_run(name)
        if known:
            return self.finish(name, Run(self.objects, known))
        special: JsonObject = {name: value for name in ("recorded", "tool_answers") if (value := getattr(run.record, name))}
        plan = make_plan(
            run.record.plan,
            only(run.tasks(), task_ids),
            self.models,
            source=f"{len(task_ids)} newly failing tasks of run {run.run_id}",
            trials=run.record.trials + times,
            lineage=Lineage(origin=run.run_id, borrow=True, mode="repeats", backtest=self.backtest_id, allow_writes=self.allow_writes, **special),
        )
        return self.finish(name, self._begin(name, plan))

    # -- runs ---------------------------------------------------------------------------------

    def _plan(self, side: Side, mode: str, origin: str | None, borrow_from: tuple[str, ...] = (), **special: Any) -> Plan:
        # a record says nothing of what it has not, so that it is the run that any command would begin
        spec = self.resolved.spec
        has: JsonObject = {"borrow_from": borrow_from, "tool_answers": spec.tool_answers, **special}
        given: JsonObject = {"rescore_only": False, **{name: value for name, value in has.items() if value}}
        return make_plan(
            side.workflow,
            self.tasks,
            self.models,
            source=self.source,
            version_number=side.version,
            trials=spec.trials,
            budget=spec.budget,
            lineage=Lineage(
                origin=origin,
                borrow=origin is not None,
                mode=mode,
                backtest=self.backtest_id,
                allow_writes=self.allow_writes,
                pauses=self.pauses,
                **given,
            ),
        )

    # -- what production answered -----------------------------------------------------------------

    def _check_recorded(self) -> tuple[str, tuple[str, ...]]:
        """The digest of the recorded outputs, and what should be known of them; raises Unusable where tasks have none."""
        tables = [self.tasks, *([self.fresh_tasks] if self.fresh_tasks is not None else [])]
        notes = dict.fromkeys(require_recorded(side.workflow, table) for table in tables for side in self.resolved.candidates)
        return recorded_digest(self.tasks), tuple(note for note in notes if note)

    def _plans_of_recorded(self) -> Iterator[tuple[Side, Plan | None, str]]:
        """What scoring production's outputs costs, once more for each candidate that judges them otherwise: only judges are asked."""
        first = self.resolved.baseline
        others = [Side(rescored_name(side), side.workflow) for side in self.resolved.candidates if not judged_alike(side.workflow, first.workflow)]
        for side in (first, *others):
            known = self.known_run(side.name)
            if known and Run(self.objects, known).finished:
                yield side, None, known
            else:
                yield side, count_borrowed(self.objects, self._plan_of_recorded(side.workflow), self.models), ""

    def _plan_of_recorded(self, workflow: Workflow) -> Plan:
        """A run that scores what production answered by the criteria of *workflow*; scores that an earlier one has are borrowed."""
        return self._plan(Side("baseline", workflow), "baseline", self._recorded_before(), recorded=self._recorded)

    def _recorded_before(self) -> str | None:
        if self.resolved.spec.fresh:
            return None
        found = [run for run in all_runs(self.objects) if run.record.recorded == self._recorded and run.record.mode == "baseline" and run.finished]
        return max(found, key=lambda run: run.record.created_at).run_id if found else None

    def _begin(self, name: str, plan: Plan) -> Run:
        record = begin(self.objects, plan.record, plan.tasks)
        return Run(self.objects, self._remember(name, record.run_id))

    def _afforded(self, run: Run) -> RunRecord:
        return run.record.model_copy(update={"budget": self._left(run.run_id)})

    def _left(self, run_id: str) -> dict[str, float]:
        """What the other runs that were made for this backtest have left of the budget."""
        return budget_left(self.objects, self.backtest_id, self.resolved.spec.budget, run_id)

    def known_run(self, name: str) -> str | None:
        """The id of the run *name* of the backtest, if it was begun."""
        try:
            return read_document(self.objects, self._mark(name), RunMark)["run_id"]
        except NotThere:
            return None

    def _mark(self, name: str) -> str:
        return f"{self.prefix}/sides/{'rerun-' if self.confirms else ''}{name}.json"

    def _remember(self, name: str, run_id: str) -> str:
        """Keep which run the side is; of two drivers the first one's counts for both."""
        self.objects.create(self._mark(name), seal({"run_id": run_id}))
        return self.known_run(name) or run_id

    def _origin_of_baseline(self, workflow: Workflow) -> str | None:
        """The run that the baseline's steps are borrowed from: that of the tasks, or one of the same definition over the first or over more tasks."""
        return self._origin_of_tasks() or self._earlier.same(workflow, whole=False) or self._earlier.covering(workflow)

    def _origin_of_tasks(self) -> str | None:
        """Where the tasks are an earlier run's, that run's unchanged steps are borrowed."""
        return self.source.removeprefix("run:") if self.source.startswith("run:") and not self.resolved.spec.fresh else None

    @staticmethod
    def _tools(workflow: Workflow) -> dict[str, str]:
        return program_versions(workflow, tool_folders(workflow))
