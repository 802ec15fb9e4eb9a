"""Backtests: a baseline and its candidates over the same tasks, compared pair by pair, with a verdict."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict

import pyarrow as pa

from beam_ray.api.comparisons import GateLine
from beam_ray.api.detection import Detection, DetectionDocument, parse_change
from beam_ray.api.detection import detect as detection
from beam_ray.api.display import Display, Displayed
from beam_ray.api.location import Location
from beam_ray.api.plans import Plan, PlanDocument, TimeDocument, plan_of, time_document, time_of, times_of
from beam_ray.api.progress import ProgressOption, progress_callback
from beam_ray.api.runs import Run, checked_budget, get_run, probe_models
from beam_ray.api.workflows import WorkflowOption, check
from beam_ray.backtest.conclude import conclude, gate_of
from beam_ray.backtest.notification import Webhook, notify, notify_all, webhook
from beam_ray.backtest.results import FILES, read_verdict
from beam_ray.backtest.results import report as read_report
from beam_ray.backtest.sides import Backtest as Engine
from beam_ray.backtest.spec import RECORDED, First, Resolved, Side, Spec, as_judged, override, resolve_spec
from beam_ray.compare.verdict_json import BacktestDocument, CandidateDocument
from beam_ray.define.fingerprint import Json
from beam_ray.define.workflow import Workflow
from beam_ray.define.yaml_file import Source
from beam_ray.errors import Stopped, Unusable, did_you_mean
from beam_ray.improve.exposure import note_use
from beam_ray.llm.lanes import in_lane, require_lane
from beam_ray.run.plan import require_models
from beam_ray.run.progress import Progress
from beam_ray.run.step_times import TimeRange
from beam_ray.tasks.sources import IN_MEMORY, Tasks, read, sampled

REPORTS = tuple(name for name in FILES if not name.endswith(".parquet"))
"""Files of a finished backtest that are text."""


@dataclass(frozen=True, kw_only=True)
class Backtest:
    """A backtest described in Python; a spec file says the same in YAML."""

    name: str
    """Identifies it: 1 to 64 lower-case letters, digits, ``_`` or ``-``."""
    workflow: WorkflowOption
    """The workflow whose published version is the baseline, unless *baseline* says otherwise."""
    tasks: Any
    """As for ``Store.run``."""
    candidates: Mapping[str, WorkflowOption | Mapping[str, Json]]
    """Name to a workflow, or to overrides of the baseline such as ``{"nodes.sort.llm.prompt": "..."}``."""
    baseline: WorkflowOption | None = None
    """
    None for the published version of *workflow*; a workflow, a file, ``NAME@VERSION``, or ``run:RUN``.

    ``recorded`` for what production answered: the tasks' recorded outputs, scored by each candidate's criteria.
    Overrides are then of *workflow* itself.
    """
    trials: int = 1
    """Repetitions of each task."""
    confirm: int = 0
    """How often each newly failing task is repeated on both sides before it counts as a regression."""
    gate: str | Path | None = None
    """``no-harm`` (the default), ``improve``, ``cheaper``, ``none``, or a gate file."""
    stop: str | None = None
    """``early`` ends the backtest at the first interim analysis that settles its verdict."""
    budget: Mapping[str, float] = field(default_factory=dict)
    """Limits of the whole backtest: max_usd, max_tokens, max_calls, max_minutes."""
    fresh: bool = False
    """Borrow nothing: every step of every side is executed."""
    lane: str | None = None
    """batch or interactive, for models whose settings leave it open; the store's lane has precedence."""
    notify: str | Sequence[str] = ()
    """Webhooks that the verdict is sent to: ``URL`` or ``slack:URL``; ``${env:NAME}`` stands for an environment variable."""


@dataclass(frozen=True)
class BacktestOptions:
    """How a backtest is run."""

    changes: Mapping[str, Json] = field(default_factory=dict)
    """Changes to a spec file: key to value, such as ``{"trials": 3, "models.large": "local/small"}``."""
    labels: tuple[str, ...] = ()
    """Only tasks that have all of these labels."""
    again: bool = False
    """Run it again although it has a verdict."""
    allow_writes: bool = False
    """Call tools with write effects."""
    takeover: bool = False
    """Take over runs whose driver is known to be dead."""
    notify: tuple[str, ...] = ()
    """Webhooks that the verdict is sent to, besides those of the spec: ``URL`` or ``slack:URL``."""


class SideDocument(PlanDocument):
    """One side of a backtest's plan as ``--json`` prints it."""

    side: str


class FinishedSideDocument(TypedDict):
    """A side that is a finished run, in a backtest's plan as ``--json`` prints it."""

    side: str
    run_id: str | None
    calls: int


class BacktestPlanDocument(TypedDict):
    """A backtest's plan as ``--json`` prints it."""

    backtest_id: str
    tasks: int
    looks: list[int]
    seconds: TimeDocument | None
    sides: list[SideDocument | FinishedSideDocument]
    detection: DetectionDocument | None


@dataclass(frozen=True)
class SidePlan:
    """What one side of a backtest would do."""

    name: str
    plan: Plan | None
    """None where a finished run is the side."""
    run_id: str | None
    """The finished run that is the side."""
    is_upper_bound: bool
    """Whether more may be borrowed than is known now: the baseline has no run yet."""


@dataclass(frozen=True, repr=False)
class BacktestPlan(Displayed):
    """What a backtest would do and cost. No model was called for it."""

    id: str
    tasks: int
    """How many tasks."""
    interim_analyses: tuple[int, ...]
    """Numbers of tasks at the interim analyses of a backtest that may stop early."""
    sides: tuple[SidePlan, ...]
    """The baseline first."""
    detection: Detection | None = None
    """How many tasks show the change that was asked for with ``detect=``."""

    @property
    def seconds(self) -> TimeRange | None:
        """How long it takes, from the step times of earlier runs; None where they do not tell."""
        ranges = [side.plan.seconds for side in self.sides if side.plan]
        known = [each for each in ranges if each is not None]
        return TimeRange(sum(each.low for each in known), sum(each.high for each in known)) if len(known) == len(ranges) else None

    def display(self) -> Display:
        rows = [
            (
                side.name,
                side.run_id or "",
                side.plan.calls if side.plan else 0,
                side.plan.max_usd if side.plan else 0.0,
                "at most" if side.is_upper_bound else "",
            )
            for side in self.sides
        ]
        return Display(self.id, (("tasks", self.tasks),), ("side", "finished run", "model calls", "at most $", ""), rows)

    def document(self) -> BacktestPlanDocument:
        """The plan as a JSON document."""
        sides: list[SideDocument | FinishedSideDocument] = [
            {"side": side.name, **side.plan.document()} if side.plan else {"side": side.name, "run_id": side.run_id, "calls": 0} for side in self.sides
        ]
        return {
            "backtest_id": self.id,
            "tasks": self.tasks,
            "looks": list(self.interim_analyses),
            "seconds": time_document(self.seconds),
            "sides": sides,
            "detection": self.detection.document() if self.detection else None,
        }


@dataclass(frozen=True, repr=False)
class Candidate(Displayed):
    """One candidate of a finished backtest, compared with the baseline."""

    name: str
    word: str
    """PASS, WARN, BLOCK or INCONCLUSIVE; NONE under the gate ``none`` and in an A/A test."""
    gate: tuple[GateLine, ...]
    """One line per limit of the gate."""
    run: Run
    baseline_run: Run
    newly_failing: tuple[str, ...]
    """Ids of tasks that passed on the baseline and fail on the candidate."""
    newly_passing: tuple[str, ...]
    workflow: Workflow = field(compare=False)
    """The candidate's definition."""
    document: CandidateDocument = field(compare=False)
    """The candidate's part of verdict.json, with every metric, slice and flip."""

    def display(self) -> Display:
        facts = (("verdict", self.word), ("newly passing", len(self.newly_passing)), ("newly failing", len(self.newly_failing)))
        return Display(self.name, facts, ("gate", "limit", "observed", ""), [(line.rule, line.limit, line.observed, line.word) for line in self.gate])


@dataclass(frozen=True, repr=False)
class Verdict(Displayed):
    """A finished backtest: its verdict, the gate's lines, and everything they follow from."""

    store: Location = field(compare=False)
    id: str
    _document: BacktestDocument = field(compare=False)

    @property
    def word(self) -> str:
        """PASS, WARN, BLOCK or INCONCLUSIVE: the word of the best candidate; NONE under the gate ``none`` and in an A/A test."""
        return self._document["word"]

    @property
    def exit_code(self) -> int:
        """0 for PASS, WARN and NONE, 4 for BLOCK, 5 for INCONCLUSIVE."""
        return self._document["exit_code"]

    @property
    def workflow(self) -> str:
        """The workflow's name."""
        return self._document["workflow"]

    @cached_property
    def candidates(self) -> tuple[Candidate, ...]:
        """The candidates, in the order of the spec."""
        return tuple(_candidate(self.store, entry) for entry in self._document["candidates"])

    @property
    def best(self) -> Candidate:
        """The candidate with the best word, and among equals the highest mean score."""
        return next(each for each in self.candidates if each.name == self._document["best"])

    @property
    def gate(self) -> tuple[GateLine, ...]:
        """The gate's lines for the best candidate."""
        return self.best.gate

    @property
    def baseline_run(self) -> Run:
        """The baseline's run."""
        return Run(self.store, self._document["baseline"]["run_id"])

    @property
    def runs(self) -> tuple[Run, ...]:
        """The runs of the baseline and of each candidate."""
        return (self.baseline_run, *(each.run for each in self.candidates))

    @cached_property
    def flips(self) -> pa.Table:
        """
        Tasks that flipped, one row per candidate, task and trial.

        The columns are those of comparison.parquet: flip, scores, routes and outputs on both sides, and
        the first node whose output differs.
        """
        import pyarrow.compute as pc

        pairs = self.pairs
        return pairs.filter(pc.is_in(pairs["flip"], value_set=pa.array(["newly passing", "newly failing"])))

    @cached_property
    def pairs(self) -> pa.Table:
        """Every pair, one row per candidate, task and trial: the content of comparison.parquet."""
        import pyarrow.parquet as pq

        return pq.read_table(pa.BufferReader(self.store.objects.read(f"backtests/{self.id}/comparison.parquet")), use_threads=False)

    def report(self, name: str = "report.txt") -> str:
        """
        A report as it was stored.

        Args:
            name: report.txt, report.md, report.html, junit.xml, manifest.json or verdict.json.

        Raises:
            Unusable: there is no report of that name.
            Damaged: the stored file is not what was written.
        """
        if name not in REPORTS:
            raise Unusable("\n  ".join([f"a backtest has no {name!r}", f"it has: {', '.join(REPORTS)}", *did_you_mean(name, REPORTS)]))
        return read_report(self.store.objects, self.id, name)

    def notify(self, to: str) -> None:
        """
        Send the verdict document to a webhook, unless it was sent there before.

        Args:
            to: ``URL``, or ``slack:URL`` for a message to a Slack incoming webhook; ``${env:NAME}`` stands for an environment variable.

        Raises:
            Unusable: it is not an address.
            NotificationFailed: it did not accept the verdict within 20 s.
        """
        notify(self.store.objects, self._document, webhook(to))

    def display(self) -> Display:
        facts = (
            ("verdict", self.word),
            ("workflow", self.workflow),
            ("tasks", self._document["tasks_source"]),
            ("candidates", ", ".join(each.name for each in self.candidates)),
        )
        return Display(self.id, facts, ("gate", "limit", "observed", ""), [(line.rule, line.limit, line.observed, line.word) for line in self.gate])

    def document(self) -> BacktestDocument:
        """The content of verdict.json."""
        return self._document.copy()


def _candidate(store: Location, entry: CandidateDocument) -> Candidate:
    comparison = entry["comparison"]
    return Candidate(
        entry["name"],
        entry["verdict"]["word"],
        tuple(GateLine.of(line) for line in entry["verdict"]["lines"]),
        Run(store, entry["run_id"]),
        Run(store, entry["baseline_run"]),
        tuple(comparison["newly_failing"]),
        tuple(comparison["newly_passing"]),
        Workflow.model_validate(entry["definition"]),
        entry,
    )


def backtest(store: Location, spec: str | Path | Backtest, *, options: BacktestOptions | None = None, progress: ProgressOption = None) -> Verdict:
    """See ``Store.backtest``."""
    options = options or BacktestOptions()
    with progress_callback(progress) as callback:
        engine = _prepared(store, spec, options)
        webhooks = _webhooks(engine.resolved.spec, options)
        engine.progress = callback
        if store.connection is not None:
            engine.connection = store.connection
        for warning in engine.resolved.warnings:
            callback(Progress(message=str(warning)))
        if engine.verdict is None:
            probe_models(store, engine.resolved.baseline.workflow, *(side.workflow for side in engine.resolved.candidates))
            callback(Progress(message=f"backtest {engine.backtest_id}: {engine.tasks.num_rows:,} tasks from {engine.source}"))
            drafts = [] if engine.resolved.spec.aa else [side.workflow for side in engine.resolved.candidates]
            if said := note_use(engine.objects, engine.tasks, f"backtest {engine.backtest_id}", drafts):
                callback(Progress(message=said))
        else:
            callback(Progress(message=_judged(engine)))
        try:
            document = conclude(engine)
        except Stopped as error:
            error.resume = f"beam-ray backtest {spec}{f' --lane {store.lane}' if store.lane else ''}{store.option}" if not isinstance(spec, Backtest) else ""
            raise
        for message in notify_all(engine.objects, document, webhooks):
            callback(Progress(message=message))
    return Verdict(store, document["backtest_id"], document)


def _judged(engine: Engine) -> str:
    """That the backtest has its verdict, and by which gate where that is not the one asked for."""
    assert engine.verdict is not None
    by, asked = engine.verdict["candidates"][0]["verdict"]["gate"], gate_of(engine.resolved).name
    other = f" by the gate {by!r}, not {asked!r}" if by != asked else ""
    return f"backtest {engine.backtest_id} has a verdict already{other}; nothing is run (--again runs it again)"


def plan_backtest(store: Location, spec: str | Path | Backtest, *, options: BacktestOptions | None = None, detect: float | str | None = None) -> BacktestPlan:
    """See ``Store.plan_backtest``."""
    if detect is not None:
        parse_change(detect)
    engine = _prepared(store, spec, options or BacktestOptions())
    times = times_of(store, engine.resolved.baseline.workflow)
    sides = []
    # against what production answered, the first candidate has no run of this backtest to borrow from
    borrowing = [each.name for each in engine.resolved.candidates][int(engine.resolved.baseline.recorded) :]
    for side, made, run_id in engine.plans():
        bound = made is not None and side.name in borrowing and made.record.origin is None
        sides.append(SidePlan(side.name, plan_of(made, seconds=time_of(made, engine.models, times)) if made else None, run_id or None, bound))
    found = None if detect is None else detection(engine, detect, gate_of(engine.resolved).confidence, times)
    return BacktestPlan(engine.backtest_id, engine.tasks.num_rows, tuple(engine.pauses), tuple(sides), found)


def verdict(store: Location, backtest_id: str) -> Verdict:
    """See ``Store.verdict``."""
    document = read_verdict(store.existing(), backtest_id)
    return Verdict(store, document["backtest_id"], document)


def backtests(store: Location) -> list[Verdict]:
    """See ``Store.backtests``."""
    found = []
    for name in store.existing().folders("backtests"):
        try:
            found.append(verdict(store, name))
        except Unusable:
            continue  # it has no verdict yet
    return sorted(found, key=lambda each: each._document["finished_at"], reverse=True)


def _webhooks(spec: Spec, options: BacktestOptions) -> list[Webhook]:
    """Where the verdict is sent, each address once."""
    return list(dict.fromkeys(webhook(written) for written in (*spec.notify, *options.notify)))


def _prepared(store: Location, spec: str | Path | Backtest, options: BacktestOptions) -> Engine:
    """The backtest with everything looked up, and nothing run."""
    objects, models = store.objects, store.known_models
    if isinstance(spec, Backtest):
        resolved, tasks = _resolved(store, spec), spec.tasks
    else:
        resolved = resolve_spec(objects, Path(spec), options.changes)
        first = resolved.spec.limit.first if isinstance(resolved.spec.limit, First) else None
        tasks = Tasks(resolved.spec.tasks, limit=first, folder=resolved.folder)
    wanted = tasks if isinstance(tasks, Tasks) else Tasks(tasks)
    gate_of(resolved)
    lane = store.lane or resolved.spec.lane or ""
    models = in_lane(models, lane)
    require_lane(lane, models, [name for side in (resolved.baseline, *resolved.candidates) for name in side.workflow.models])
    for side in (resolved.baseline, *resolved.candidates):
        require_models(side.workflow, models)
    found, name = read(objects, dataclasses.replace(wanted, labels=(*wanted.labels, *options.labels)))
    if isinstance(resolved.spec.limit, int):
        found = sampled(found, resolved.spec.limit)
    return Engine(objects, resolved, found, name, models, store.address, options.takeover, options.again, options.allow_writes)


def _resolved(store: Location, backtest: Backtest) -> Resolved:
    """The definitions of a backtest that is described in Python."""
    folder = Path.cwd()
    if isinstance(backtest.baseline, str) and backtest.baseline.startswith("run:"):
        run = get_run(store, backtest.baseline.removeprefix("run:"))
        if not run.finished:
            raise Unusable(f"the baseline run {run.id} is unfinished\n  beam-ray resume {run.id}  resumes it")
        baseline = Side("baseline", run.workflow, run.version, run.id)
    else:
        named = backtest.baseline
        if named == RECORDED:
            named = backtest.workflow
        elif named is None:
            named = backtest.workflow.name if isinstance(backtest.workflow, Workflow) else backtest.workflow
            if isinstance(named, Path) or str(named).endswith((".yaml", ".yml")):
                named = check(named, store).workflow.name
        found = check(named, store)
        recorded = backtest.baseline == RECORDED
        baseline = Side("baseline", found.workflow, None if recorded else found.version, recorded=recorded)
    source = Source("backtest", {}, {})
    candidates, warnings = [], []
    for name, written in backtest.candidates.items():
        if isinstance(written, Mapping):
            side, advice = override(name, dict(written), baseline.workflow, folder, source)
            candidates.append(side)
            warnings += advice
        else:
            made = check(written, store)
            candidates.append(Side(name, made.workflow, made.version))
            warnings += made.warnings
    spec = Spec.model_validate(
        {
            "backtest": backtest.name,
            "workflow": baseline.workflow.name,
            "tasks": backtest.tasks if isinstance(backtest.tasks, str) else IN_MEMORY,
            "trials": backtest.trials,
            "confirm": backtest.confirm,
            "gate": str(backtest.gate) if backtest.gate else None,
            "stop": backtest.stop,
            "budget": checked_budget(backtest.budget),
            "fresh": backtest.fresh,
            "lane": backtest.lane,
            "notify": backtest.notify,
        }
    )
    return Resolved(spec, folder, as_judged(baseline, candidates[0]) if candidates else baseline, tuple(candidates), tuple(dict.fromkeys(warnings)))
