"""Plans: what a run would do and cost, before any model is called."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypedDict

import pyarrow as pa

from beam_ray.api.display import Display, Displayed
from beam_ray.api.location import Location
from beam_ray.api.workflows import WorkflowOption, check
from beam_ray.define.workflow import Workflow
from beam_ray.errors import Problem
from beam_ray.llm.advice import ignored_settings
from beam_ray.llm.lanes import require_lane
from beam_ray.llm.scripted import Models
from beam_ray.rerun import count_borrowed
from beam_ray.run.conversation import unread_messages
from beam_ray.run.plan import Lineage, make_plan
from beam_ray.run.plan import NodePlan as EngineNodePlan
from beam_ray.run.plan import Plan as EnginePlan
from beam_ray.run.step_times import StepTimes, TimeRange, learn_times
from beam_ray.store.lookup import resolve
from beam_ray.tasks.sources import read

if TYPE_CHECKING:
    from beam_ray.tasks.sources import Tasks


class NodePlanDocument(TypedDict):
    """One node of a plan as ``--json`` prints it."""

    node: str
    model: str | None
    run: int
    borrow: int
    rescore: int
    calls: int
    judge_calls: int
    conditional: bool
    because_of: list[str]
    input_tokens: int
    max_output_tokens: int
    max_usd: float | None
    recorded_calls: int
    recorded_usd: float | None


class TimeDocument(TypedDict):
    """A range of seconds as ``--json`` prints it."""

    low: float
    high: float


class PlanDocument(TypedDict):
    """A plan as ``--json`` prints it."""

    workflow: str
    tasks: int
    trials: int
    calls: int
    max_auto_reruns: int
    max_usd: float | None
    max_usd_by_lane: dict[str, float | None]
    seconds: TimeDocument | None
    prices: dict[str, str]
    nodes: list[NodePlanDocument]


@dataclass(frozen=True)
class NodePlan:
    """What a run will do at one node. Counts are steps, and upper bounds where *conditional*."""

    node: str
    model: str | None
    """The model that is called; None for a tool."""
    run: int
    """Steps that are executed."""
    borrow: int
    """Steps whose output is taken from the original run; they cost nothing."""
    rescore: int
    """Steps whose output is taken from the original run and scored again."""
    calls: int
    """Model calls for outputs, without auto-reruns and retries."""
    judge_calls: int
    conditional: bool
    """Whether a condition decides which tasks reach the node, so that counts are upper bounds."""
    why: tuple[str, ...]
    """What changed since the original run: prompt, model, upstream output, ..."""
    input_tokens: int
    """Estimated, over all calls."""
    max_output_tokens: int
    max_usd: float | None
    """US dollars at most, without auto-reruns; None when a model has no price, or a program asks one that has."""
    recorded_calls: int = 0
    """Model calls of agents that the recording is sure to answer: those before the first that it does not have. They are no part of *calls*."""
    recorded_usd: float | None = 0.0
    """What these cost when they were made; None when a model has no price."""


@dataclass(frozen=True, repr=False)
class Plan(Displayed):
    """What a run would do and cost. No model was called for it."""

    workflow: Workflow
    version: int | None
    """Number of the published version; None for a draft."""
    tasks: pa.Table = field(compare=False)
    """The tasks, with the columns of ``tasks.parquet``."""
    source: str
    """Where the tasks come from."""
    trials: int
    nodes: tuple[NodePlan, ...]
    """In execution order."""
    calls: int
    """Model calls at most, judges included, without auto-reruns and retries."""
    max_auto_reruns: int
    max_usd: float | None
    """US dollars at most, without auto-reruns; None when a model has no price, or a program asks one that has."""
    key: str = ""
    """Identifies what is done: a run with this key does the same."""
    origin: str | None = None
    """The run that unchanged steps are borrowed from."""
    warnings: tuple[Problem, ...] = ()
    seconds: TimeRange | None = None
    """How long it takes, from the step times of earlier runs; None where they do not tell."""
    prices: Mapping[str, str] = field(default_factory=dict)
    """Model to where its price comes from: the models file, genai-prices with its version, or unpriced."""
    max_usd_by_lane: Mapping[str, float | None] = field(default_factory=dict)
    """interactive and batch to US dollars at most, if all models that can be are asked in that lane."""

    @property
    def conditional(self) -> bool:
        """Whether a condition decides how many steps run, so that the counts are upper bounds."""
        return any(node.conditional for node in self.nodes)

    @property
    def recorded_calls(self) -> int:
        """Model calls of agents that the recording is sure to answer; they are no part of *calls*."""
        return sum(node.recorded_calls for node in self.nodes)

    @property
    def recorded_usd(self) -> float | None:
        """What these cost when they were made; None when a model has no price."""
        known = [node.recorded_usd for node in self.nodes if node.recorded_usd is not None]
        return sum(known) if len(known) == len(self.nodes) else None

    def display(self) -> Display:
        cost = "unpriced" if self.max_usd is None else f"${self.max_usd:,.4f} at most"
        facts = (
            ("tasks", self.tasks.num_rows),
            ("source", self.source),
            ("model calls", self.calls),
            ("calls from the recording", self.recorded_calls or None),
            ("cost", cost),
            ("seconds", f"{self.seconds.low:,.0f} to {self.seconds.high:,.0f}" if self.seconds else None),
            ("auto-reruns at most", self.max_auto_reruns or None),
        )
        header = ("node", "model", "run", "borrow", "rescore", "model calls", "at most $", "because of")
        rows = [
            (node.node, node.model or "tool", node.run, node.borrow, node.rescore, node.calls + node.judge_calls, node.max_usd, ", ".join(node.why))
            for node in self.nodes
        ]
        return Display(self.workflow.name, facts, header, rows)

    def document(self) -> PlanDocument:
        """The plan as a JSON document."""
        return {
            "workflow": self.workflow.name,
            "tasks": self.tasks.num_rows,
            "trials": self.trials,
            "calls": self.calls,
            "max_auto_reruns": self.max_auto_reruns,
            "max_usd": self.max_usd,
            "max_usd_by_lane": dict(self.max_usd_by_lane),
            "seconds": time_document(self.seconds),
            "prices": dict(self.prices),
            "nodes": [
                {
                    "node": node.node,
                    "model": node.model,
                    "run": node.run,
                    "borrow": node.borrow,
                    "rescore": node.rescore,
                    "calls": node.calls,
                    "judge_calls": node.judge_calls,
                    "conditional": node.conditional,
                    "because_of": list(node.why),
                    "input_tokens": node.input_tokens,
                    "max_output_tokens": node.max_output_tokens,
                    "max_usd": node.max_usd,
                    "recorded_calls": node.recorded_calls,
                    "recorded_usd": node.recorded_usd,
                }
                for node in self.nodes
            ],
        }


def time_document(seconds: TimeRange | None) -> TimeDocument | None:
    """The range of seconds as JSON."""
    return None if seconds is None else {"low": round(seconds.low, 3), "high": round(seconds.high, 3)}


def times_of(store: Location, workflow: Workflow) -> StepTimes | None:
    """The step times of earlier runs of *workflow*; None where none tell, and in the batch lane, in which endpoints answer when they like."""
    return None if store.lane == "batch" else learn_times(store.objects, workflow.name)


def time_of(made: EnginePlan, models: Models, times: StepTimes | None) -> TimeRange | None:
    """How long the plan takes; None where that is unknown."""
    return times.estimate(made, models) if times else None


def plan_of(made: EnginePlan, warnings: tuple[Problem, ...] = (), seconds: TimeRange | None = None) -> Plan:
    """The engine's plan as a public value."""
    nodes = tuple(_node(node) for node in made.nodes)
    record = made.record
    return Plan(
        made.workflow,
        record.version,
        made.tasks,
        record.source,
        record.trials,
        nodes,
        made.calls,
        made.auto_reruns,
        made.usd,
        record.key,
        record.origin,
        warnings,
        seconds,
        {name: str(written.get("price_source", "the model object")) for name, written in record.models.items()},
        made.usd_by_lane,
    )


def _node(node: EngineNodePlan) -> NodePlan:
    why = node.why if node.run or node.rescore else ()
    counts = (node.run, node.borrow, node.rescore, node.calls, node.judge_calls)
    tokens = (node.input_tokens, node.output_tokens)
    return NodePlan(node.node, node.model, *counts, node.conditional, why, *tokens, node.usd, node.recorded_calls, node.recorded_usd)


def plan(store: Location, workflow: WorkflowOption, tasks: "Tasks | Any", *, trials: int = 1, borrow_from: str | None = None) -> Plan:
    """See ``Store.plan``."""
    checked = check(workflow, store)
    found, source = read(store.objects, tasks)
    origin = resolve(store.objects, borrow_from) if borrow_from else None
    lineage = Lineage(origin=origin, borrow=True) if origin else None
    models = store.known_models
    require_lane(store.lane, models, checked.workflow.models)
    made = make_plan(checked.workflow, found, models, source=source, version_number=checked.version, trials=trials, lineage=lineage)
    warnings = (*checked.warnings, *ignored_settings(checked.workflow, models), *unread_messages(checked.workflow, found))
    counted = count_borrowed(store.objects, made, models)
    return plan_of(counted, warnings, time_of(counted, models, times_of(store, checked.workflow)))
