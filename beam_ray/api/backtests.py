"""Backtests: a baseline and its candidates over the same tasks, compared pair by pair, with a verdict."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from beam_ray.api.backtest_specs import SpecOption, resume_command, written_spec
from beam_ray.api.detection import Detection, DetectionDocument, parse_change
from beam_ray.api.detection import detect as detection
from beam_ray.api.display import Display, Displayed
from beam_ray.api.location import Location
from beam_ray.api.plans import Plan, PlanDocument, TimeDocument, plan_of, time_document, time_of, times_of
from beam_ray.api.progress import ProgressOption, progress_callback
from beam_ray.api.repeats import RepeatsPlan, RepeatsPlanDocument, plan_repeats
from beam_ray.api.runs import checked_budget, get_run, probe_models
from beam_ray.api.verdicts import Verdict
from beam_ray.api.workflows import WorkflowOption, check
from beam_ray.backtest.conclude import conclude, gate_of
from beam_ray.backtest.kept_spec import keep_spec
from beam_ray.backtest.live import broadcasting
from beam_ray.backtest.matrix import Cell, cells, without_repeats
from beam_ray.backtest.notification import Webhook, notify_all, webhook
from beam_ray.backtest.sides import Backtest as Engine
from beam_ray.backtest.spec import RECORDED, First, Resolved, Side, Spec, as_judged, override, resolve_source
from beam_ray.backtest.winner_rerun import check_fresh_tasks, rerun_plans
from beam_ray.compare.grouping import By, Clusters, require_clusters
from beam_ray.define.fingerprint import Json
from beam_ray.define.returns import Faults
from beam_ray.define.workflow import Workflow
from beam_ray.define.yaml_file import Source
from beam_ray.errors import BadDefinition, Problem, Stopped, Unusable
from beam_ray.improve.exposure import note_use
from beam_ray.llm.lanes import in_lane, require_lane
from beam_ray.run.plan import require_models
from beam_ray.run.progress import Progress
from beam_ray.run.step_times import TimeRange
from beam_ray.store.run_index import run_index
from beam_ray.tasks.fields import LABELS, field_values
from beam_ray.tasks.fresh_tasks import fresh_split
from beam_ray.tasks.sources import IN_MEMORY, Tasks, read, sampled


@dataclass(frozen=True, kw_only=True)
class Backtest:
    """A backtest described in Python; a spec file says the same in YAML."""

    name: str
    """Identifies it: 1 to 64 lower-case letters, digits, ``_`` or ``-``."""
    workflow: WorkflowOption
    """The workflow whose published version is the baseline, unless *baseline* says otherwise."""
    tasks: Any
    """As for ``Store.run``."""
    candidates: Mapping[str, WorkflowOption | Mapping[str, Json]] = field(default_factory=dict)
    """Name to a workflow, or to overrides of the baseline such as ``{"nodes.sort.llm.prompt": "..."}``."""
    matrix: Mapping[str, Sequence[Json]] = field(default_factory=dict)
    """More candidates, one for every combination: override to its values, such as ``{"model": ["small", "large"]}``."""
    baseline: WorkflowOption | None = None
    """
    None for the published version of *workflow*; a workflow, a file, ``NAME@VERSION``, or ``run:RUN``.

    ``recorded`` for what production answered: the tasks' recorded outputs, scored by each candidate's criteria.
    Overrides are then of *workflow* itself.
    """
    trials: int = 1
    """Repetitions of each task."""
    confirm: int | str = 0
    """How often each newly failing task is repeated on both sides before it counts as a regression; ``auto`` goes by how flaky the workflow is."""
    gate: str | Path | None = None
    """``no-harm`` (the default), ``improve``, ``cheaper``, ``none``, or a gate file."""
    stop: str | None = None
    """``early`` ends the backtest at the first interim analysis that settles its verdict."""
    budget: Mapping[str, float] = field(default_factory=dict)
    """Limits of the whole backtest: max_usd, max_tokens, max_calls, max_minutes."""
    fresh: bool = False
    """Borrow nothing: every step of every side is executed."""
    cluster: str | None = None
    """A field of tasks such as ``variables.customer``: tasks that have the same value there count together."""
    slices: Sequence[str] = ()
    """Fields of tasks such as ``variables.country``, or ``labels``: the comparison is also shown in parts."""
    rerun: str | None = None
    """``fresh`` compares one half of the tasks, and runs the best candidate again on the other; the verdict is that of the rerun."""
    lane: str | None = None
    """batch or interactive, for models whose settings leave it open; the store's lane has precedence."""
    notify: str | Sequence[str] = ()
    """Webhooks that the verdict is sent to: ``URL`` or ``slack:URL``; ``${env:NAME}`` stands for an environment variable."""


@dataclass(frozen=True)
class BacktestOptions:
    """How a backtest is run."""

    changes: Mapping[str, Json] = field(default_factory=dict)
    """Changes to a spec: key to value, such as ``{"trials": 3, "models.large": "local/small"}``."""
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
    calls: int
    max_usd: float | None
    seconds: TimeDocument | None
    sides: list[SideDocument | FinishedSideDocument]
    repeats: RepeatsPlanDocument | None
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
    of_rerun: bool = False
    """Whether it is a side of the rerun on fresh tasks: of the candidates the dearest, because the best one is not known yet."""


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
    repeats: RepeatsPlan | None = None
    """What ``confirm`` may cost; None without it."""
    detection: Detection | None = None
    """How many tasks show the change that was asked for with ``detect=``."""
    warnings: tuple[Problem, ...] = ()
    """What is odd in the spec, such as a combination of a matrix that is left out."""

    @property
    def calls(self) -> int:
        """Model calls of all sides at most, judges included, without auto-reruns and retries."""
        return sum(side.plan.calls for side in self.sides if side.plan)

    @property
    def max_usd(self) -> float | None:
        """US dollars of all sides at most, without auto-reruns; None when a model has no price."""
        prices = [side.plan.max_usd for side in self.sides if side.plan]
        known = [price for price in prices if price is not None]
        return sum(known) if len(known) == len(prices) else None

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
            "calls": self.calls,
            "max_usd": self.max_usd,
            "seconds": time_document(self.seconds),
            "sides": sides,
            "repeats": self.repeats.document() if self.repeats else None,
            "detection": self.detection.document() if self.detection else None,
        }


def backtest(store: Location, spec: SpecOption | Backtest, *, options: BacktestOptions | None = None, progress: ProgressOption = None) -> Verdict:
    """See ``Store.backtest``."""
    with progress_callback(progress) as callback:
        engine = _prepared(store, spec, options := options or BacktestOptions())
        webhooks = _webhooks(engine.resolved.spec, options)
        engine.progress = callback
        if store.connection is not None:
            engine.connection = store.connection
        for warning in engine.resolved.warnings:
            callback(Progress(message=str(warning)))
        if engine.verdict is None:
            if not isinstance(spec, Backtest):
                keep_spec(engine.objects, engine.backtest_id, engine.resolved, options.labels)
            engine.connection.begin()
            probe_models(store, engine.resolved.baseline.workflow, *(side.workflow for side in engine.resolved.candidates))
            others = f", and {engine.fresh_tasks.num_rows:,} others to run the best candidate on" if engine.fresh_tasks is not None else ""
            callback(Progress(message=f"backtest {engine.backtest_id}: {engine.tasks.num_rows:,} tasks from {engine.source}{others}"))
            _note_use(engine, engine.tasks, () if engine.resolved.spec.aa else engine.resolved.candidates)
            engine.before_rerun = lambda side: _note_use(engine, engine.fresh_tasks, (side,))
        else:
            callback(Progress(message=_judged(engine)))
        try:
            with broadcasting(engine, gate_of(engine.resolved)):
                document = conclude(engine)
        except Stopped as error:
            error.resume = "" if isinstance(spec, Backtest) else resume_command(store, spec, engine.backtest_id)
            raise
        for message in notify_all(engine.objects, document, webhooks):
            callback(Progress(message=message))
    return Verdict(store, document["backtest_id"], document)


def _note_use(engine: Engine, tasks: Any, candidates: Sequence[Side]) -> None:
    """Count the candidates as tried on those of the tasks that are held out, and say so."""
    if said := note_use(engine.objects, tasks, f"backtest {engine.backtest_id}", [side.workflow for side in candidates]):
        engine.say(said)


def _judged(engine: Engine) -> str:
    """That the backtest has its verdict, and by which gate where that is not the one asked for."""
    assert engine.verdict is not None
    first = engine.verdict["candidates"][0]
    by, asked = first["verdict"]["gate"], gate_of(engine.resolved).name
    other = f" by the gate {by!r}, not {asked!r}" if by != asked else ""
    found = f"backtest {engine.backtest_id} has a verdict already{other}; nothing is run (--again runs it again)"
    wanted = engine.resolved.spec.by
    clustering = first["comparison"].get("clustering")
    kept = By(clustering["field"] if clustering else None, tuple(group["field"] for group in first["comparison"].get("subgroups", ())))
    if wanted == kept:
        return found
    options = [*([f"--cluster {wanted.cluster}"] if wanted.cluster else []), *(f"--slice {field_}" for field_ in wanted.slices)]
    runs = f"{first['baseline_run']} {first['run_id']}"
    return f"{found}\nits cluster or slices are not the spec's; the same runs are compared by: beam-ray compare {' '.join([runs, *options])}"


def plan_backtest(store: Location, spec: SpecOption | Backtest, *, options: BacktestOptions | None = None, detect: float | str | None = None) -> BacktestPlan:
    """See ``Store.plan_backtest``."""
    if detect is not None:
        parse_change(detect)
    with run_index(store.objects).looking_once():
        return _planned(store, _prepared(store, spec, options or BacktestOptions()), detect)


def _planned(store: Location, engine: Engine, detect: float | str | None) -> BacktestPlan:
    times = times_of(store, engine.resolved.baseline.workflow)
    sides = []
    # against what production answered, the first candidate has no run of this backtest to borrow from
    borrowing = [each.name for each in engine.resolved.candidates][int(engine.resolved.baseline.recorded) :]
    for side, made, run_id in engine.plans():
        bound = made is not None and side.name in borrowing and made.record.origin is None
        sides.append(SidePlan(side.name, plan_of(made, seconds=time_of(made, engine.models, times)) if made else None, run_id or None, bound))
    for side, made, run_id in rerun_plans(engine):
        bound = made is not None and not side.name.startswith("baseline")
        sides.append(SidePlan(side.name, plan_of(made, seconds=time_of(made, engine.models, times)) if made else None, run_id or None, bound, of_rerun=True))
    found = None if detect is None else detection(engine, detect, gate_of(engine.resolved).confidence, times)
    repeats = plan_repeats(engine)
    return BacktestPlan(engine.backtest_id, engine.tasks.num_rows, tuple(engine.pauses), tuple(sides), repeats, found, engine.resolved.warnings)


def _webhooks(spec: Spec, options: BacktestOptions) -> list[Webhook]:
    """Where the verdict is sent, each address once."""
    return list(dict.fromkeys(webhook(written) for written in (*spec.notify, *options.notify)))


def _prepared(store: Location, spec: SpecOption | Backtest, options: BacktestOptions) -> Engine:
    """The backtest with everything looked up, and nothing run."""
    objects, models = store.objects, store.known_models
    if isinstance(spec, Backtest):
        resolved, tasks = _resolved(store, spec), spec.tasks
    else:
        source, folder, labels = written_spec(store, spec)
        resolved, options = resolve_source(objects, source, folder, options.changes), dataclasses.replace(options, labels=(*options.labels, *labels))
        first = resolved.spec.limit.first if isinstance(resolved.spec.limit, First) and not _reruns(resolved.spec) else None
        tasks = Tasks(resolved.spec.tasks, limit=first, folder=resolved.folder)
    wanted = tasks if isinstance(tasks, Tasks) else Tasks(tasks)
    gate_of(resolved)
    lane = store.lane or resolved.spec.lane or ""
    models = in_lane(models, lane)
    require_lane(lane, models, [name for side in (resolved.baseline, *resolved.candidates) for name in side.workflow.models])
    for side in (resolved.baseline, *resolved.candidates):
        require_models(side.workflow, models)
    found, name = read(objects, dataclasses.replace(wanted, labels=(*wanted.labels, *options.labels)))
    fresh, limit, cluster = None, resolved.spec.limit, resolved.spec.cluster
    clusters = None if cluster is None else Clusters(cluster, field_values(found, cluster))
    if _reruns(resolved.spec):
        found, fresh = fresh_split(found, {"first": limit.first} if isinstance(limit, First) else limit, name, clusters.of if clusters else None)
    elif isinstance(limit, int):
        found = sampled(found, limit, clusters.of if clusters else None)
    if clusters:
        require_clusters(clusters, found["task_id"].to_pylist())
        if fresh is not None:
            require_clusters(clusters, fresh["task_id"].to_pylist())
    for field_ in resolved.spec.slices:
        if field_ != LABELS:
            field_values(found, field_)
    engine = Engine(objects, resolved, found, name, models, store.address, options.takeover, options.again, options.allow_writes, fresh_tasks=fresh)
    check_fresh_tasks(engine)
    return engine


def _reruns(spec: Spec) -> bool:
    """Whether the best candidate is run again; a baseline that is compared with itself has none."""
    return spec.rerun is not None and not spec.aa


def _cells(backtest: Backtest, source: Source) -> list[Cell]:
    """The candidates that the matrix of a backtest in Python makes."""
    if not backtest.matrix:
        return []
    try:
        return cells({key: list(values) for key, values in backtest.matrix.items()}, backtest.candidates)
    except Faults as error:
        raise BadDefinition(problems=[source.problem(("matrix", key), message) for key, message in error.faults]) from None


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
    made = _cells(backtest, source)
    for name, written in [*backtest.candidates.items(), *((cell.name, cell.overrides) for cell in made)]:
        if isinstance(written, Mapping):
            side, advice = override(name, dict(written), baseline.workflow, folder, source)
            candidates.append(side)
            warnings += advice
        else:
            checked = check(written, store)
            candidates.append(Side(name, checked.workflow, checked.version))
            warnings += checked.warnings
    if made:
        candidates, left_out = without_repeats(baseline, candidates, {cell.name for cell in made}, source)
        warnings += left_out
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
            "cluster": backtest.cluster,
            "slices": list(backtest.slices),
            "rerun": backtest.rerun,
            "lane": backtest.lane,
            "notify": backtest.notify,
        }
    )
    return Resolved(spec, folder, as_judged(baseline, candidates[0]) if candidates else baseline, tuple(candidates), tuple(dict.fromkeys(warnings)))
