"""What steps work with: the task as templates see it, and what is the same for all rows of a node."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from beam_ray.define.call_criterion import expressions_in
from beam_ray.define.conversation import agents_taken_in
from beam_ray.define.criterion import CALL_KINDS, Criterion
from beam_ray.define.fingerprint import Json, JsonObject, flatten, strict_json
from beam_ray.define.mcp_server import RecordedServer
from beam_ray.define.template import uses
from beam_ray.define.workflow import Node, Workflow
from beam_ray.errors import Stopped
from beam_ray.evaluate.judge import judged_together
from beam_ray.llm.request import Model
from beam_ray.llm.usage import Usage
from beam_ray.run.agent_tools import AgentTools
from beam_ray.run.programs import Programs
from beam_ray.run.tools import Tools
from beam_ray.store.attachments import AttachmentContent
from beam_ray.store.call_table import CallRow, PlacedCallRow
from beam_ray.store.tables import AttachmentRow, StepRow, TaskRow
from beam_ray.tasks.messages import TaskMessage, as_values

READS_CALLS = "calls/1"
"""Part of the criteria's fingerprint where a judge reads a transcript; changes when it is shown other things of the calls."""

RAN = ("done", "borrowed")
"""Outcomes of steps that have an output."""


@dataclass(frozen=True)
class TaskTrial:
    """One trial of a task, as the steps see it."""

    task_id: str
    trial: int
    shard: int
    query: Json
    variables: Mapping[str, Json]
    expected: Mapping[str, Json] | None
    attachments: tuple[AttachmentRow, ...] = ()
    """As the task names them; ``StepContext.read_attachments`` reads them."""
    inputs: str = ""
    labels: tuple[str, ...] = ()
    recorded: str | None = None
    """What production answered, a JSON object; None for tasks that were no traces."""
    messages: tuple[TaskMessage, ...] = ()
    """The turns before the query."""

    @classmethod
    def of(cls, row: TaskRow, trial: int, shard: int) -> "TaskTrial":
        """The *trial* of a task, given as a row of the table TASKS."""
        return cls(
            task_id=row["task_id"],
            trial=trial,
            shard=shard,
            query=strict_json(row["task_query"]) if row["query_is_json"] else row["task_query"],
            variables=strict_json(row["variables"]),
            expected=strict_json(row["expected"]) if row["expected"] is not None else None,
            attachments=tuple(row["attachments"] or ()),
            inputs=row["inputs"],
            labels=tuple(row["labels"] or ()),
            recorded=row["recorded"],
            messages=tuple(strict_json(row["messages"])) if row["messages"] else (),
        )

    def values(self, workflow: Workflow) -> JsonObject:
        """What templates may use before any node has run."""
        given: JsonObject = {"task_query": self.query, "variables": self.variables, "attachments": [], "messages": as_values(self.messages)}
        names = list(workflow.inputs)
        if names == ["task_query"]:
            return given
        if len(names) == 1 and not isinstance(self.query, Mapping):
            return {**given, names[0]: self.query}
        return {**given, **{name: self.query.get(name) for name in names}} if isinstance(self.query, Mapping) else given


RowLookup = Callable[[str, TaskTrial], StepRow | None]
"""The row of a node for a task and trial, or None."""

RowsLookup = Callable[[str, TaskTrial], Sequence[StepRow]]
"""The rows of a node for a task and trial in several runs."""


def _no_row(node: str, task: TaskTrial) -> StepRow | None:
    return None


async def carried_calls(row: StepRow) -> Sequence[CallRow]:
    """The calls that a row carries, as those of this run do until they are merged."""
    return row.get("call_rows") or ()


async def no_calls(node: str, task: TaskTrial) -> Sequence[PlacedCallRow]:
    """No recorded calls, whatever the step."""
    return ()


def _no_texts(text: bytes) -> str:
    raise ValueError("there is no store to keep it in")


def _no_text(sha256: str) -> str:
    raise ValueError("there is no store to read it from")


def _no_rows(node: str, task: TaskTrial) -> Sequence[StepRow]:
    return ()


def _no_attachments(task: TaskTrial) -> list[AttachmentContent]:
    return []


def _never(shard: int) -> bool:
    return False


def _no_budget() -> None:
    return None


def _ignore_stop(error: Stopped) -> None:
    return None


def _ignore_row(row: StepRow) -> None:
    return None


def _ignore_costs(usage: Usage, judging: Usage) -> None:
    return None


@dataclass
class StepContext:
    """What the steps of a run share."""

    run_id: str
    workflow: Workflow
    models: Mapping[str, Model]
    identities: Mapping[str, str]
    """Model name to the digest of what determines its answers."""
    tools: Tools
    programs: Programs | None = None
    """Runs commands, and tools that ask models."""
    allow_writes: bool = True
    sample: int = 0
    """Independent sample number of the run."""
    execute: frozenset[str] | None = None
    """In a rerun from a node, or with a pinned one: the nodes to execute; all others are borrowed from the origin as they are."""
    borrow: bool = False
    """Whether a step with the origin's fingerprint is borrowed."""
    pinned: str = ""
    """The node whose outputs are those of another run; the nodes that descend from it are the ones in *execute*."""
    pinned_row: RowLookup = _no_row
    """The rows that have these outputs."""
    rescore_only: bool = False
    """Whether the run only scores the origin's outputs again, by other criteria."""
    recorded: bool = False
    """Whether the run only scores what production answered."""
    read_attachments: Callable[[TaskTrial], list[AttachmentContent]] = _no_attachments
    """Reads a task's attachments, for nodes whose templates use them."""
    origin_row: RowLookup = _no_row
    """Rows of the run that this one redoes or borrows from."""
    testing: bool = False
    """Whether the run is a rerun or part of a backtest, where calls of tools may be refused."""
    recorded_calls: Callable[[str, TaskTrial], Awaitable[Sequence[PlacedCallRow]]] = no_calls
    """The calls that a node's step recorded in the run that this one redoes; none where nothing is answered from recordings."""
    origin_calls: Callable[[str, TaskTrial], Awaitable[Sequence[PlacedCallRow]]] = no_calls
    """The calls of the origin's step whose output is scored again."""
    step_calls: Callable[[StepRow], Awaitable[Sequence[CallRow]]] = carried_calls
    """The calls of an earlier step of the same task, which may be a borrowed one."""
    tool_answers: Mapping[str, Sequence[Mapping[str, Json]]] = field(default_factory=dict)
    """Tool to its static answers: the cases of a backtest's spec, each with ``when`` and ``answer`` or ``error``."""
    keep_text: Callable[[bytes], str] = _no_texts
    """Keeps a large text as an attachment, and gives its sha256."""
    read_text: Callable[[str], str] = _no_text
    """Reads a large text by its sha256."""
    lent_rows: RowsLookup = _no_rows
    """Rows of further runs that unchanged steps are borrowed from."""
    untouched: Callable[[int], bool] = _never
    """Whether nobody else has had a row of the shard, so that none of its parts is looked for."""
    spooled_row: RowLookup = _no_row
    """Rows that an earlier driver of this run paid for and did not commit."""
    require_budget: Callable[[], None] = _no_budget
    """Called before anything is spent; raises when the budget is reached."""
    start_no_more: Callable[[Stopped], None] = _ignore_stop
    """Called when a call shows that no row could be answered: calls in flight end, and no other starts."""
    on_row: Callable[[StepRow], None] = _ignore_row
    """Receives every row that cost something, finished or with an attempt that is still to be judged."""
    on_deferred: Callable[[Usage, Usage], None] = _ignore_costs
    """Receives what a step has cost so far that waits for a batch: for its output, and for its judge."""

    mcp: Mapping[str, RecordedServer] = field(default_factory=dict)
    """The MCP servers that agents use."""
    folder: str = ""
    """The driver's working folder, where the programs of MCP servers are started."""

    @cached_property
    def agents(self) -> AgentTools:
        """The tools of agents."""
        return AgentTools(self.workflow, self.tools, self.mcp, self.folder)

    @cached_property
    def nodes(self) -> dict[str, "PreparedNode"]:
        """Every node, with what is the same for all rows."""
        return {name: PreparedNode.of(self, name) for name in self.workflow.order}


@dataclass(frozen=True)
class PreparedNode:
    """A node, with everything about it that is the same for all rows."""

    name: str
    node: Node
    model: str | None
    judges: tuple[str, ...]
    """The models that judge its plain-language criteria."""
    settings: tuple[Any, ...]
    """The part of the step's fingerprint that is the same for all rows."""
    criteria: tuple[Any, ...]
    """The part of the criteria's fingerprint that is the same for all rows."""
    criteria_inputs: tuple[str, ...]
    """Names of the values, other than the output, that the criteria use."""
    uses_attachments: bool
    """Whether its prompt or arguments use the attachments; then images are sent with the last user turn."""
    agents_taken_in: tuple[str, ...]
    """Agents whose conversations its prompt takes in."""
    judged: tuple[tuple[Criterion, ...], ...]
    """Criteria in plain language, grouped by the calls in which a judge model decides them: those that read the reasoning apart from the others."""
    rules: tuple[Criterion, ...]
    """Criteria that need no model."""

    @property
    def reads_calls(self) -> bool:
        """Whether its criteria need to know what the step called."""
        return self.node.records_calls and (bool(self.judged) or any(item.kind in CALL_KINDS for item in self.rules))

    @classmethod
    def of(cls, context: StepContext, name: str) -> "PreparedNode":
        node = context.workflow.nodes[name]
        model, judges = context.workflow.model_of(name), context.workflow.judges_of(name)
        judged_by = [context.identities[judge] for judge in judges]
        settings: tuple[Any, ...]
        if node.call:
            call = node.call
            settings = (f"{node.kind}/1", context.identities[str(model)], call.returns, call.temperature, call.top_p, call.max_tokens, call.seed)
            if node.agent:
                settings += (node.agent.max_turns, [[tool.name, tool.reference, tool.version] for tool in context.agents.of[name].values()])
        else:
            settings = ("tool/1", node.tool, node.version or context.tools.version(str(node.program)))
            if node.command or node.asks:
                asked = {asked: context.identities[asked] for asked in node.asks}
                settings = ("program/1", node.tool or node.command, settings[2], asked)
        criteria = node.evaluate.criteria if node.evaluate else ()
        fingerprinted = (
            [criterion_parts(item) for item in criteria],
            judged_by if len(judged_by) > 1 else next(iter(judged_by), None),
            node.evaluate.threshold if node.evaluate else None,
            node.auto_rerun.model_dump() if node.auto_rerun else None,
            *([READS_CALLS] if node.records_calls and judges else []),
        )
        used = {use.root for item in criteria for expression in _expressions(item) for use in uses(expression, expression=True)}
        return cls(
            name,
            node,
            model,
            judges,
            settings,
            fingerprinted,
            tuple(sorted(used - {name, "output"})),
            any(use.root == "attachments" for text in _templates(node) for use in uses(text)),
            tuple(agents_taken_in(context.workflow, name)),
            judged_together(criteria),
            tuple(item for item in criteria if item.kind != "plain"),
        )


def _templates(node: Node) -> list[str]:
    if node.call:
        return [turn.content for turn in node.call.prompt]
    return [value for value in flatten(node.arguments).values() if isinstance(value, str)]


def criterion_parts(item: Criterion) -> list[Any]:
    """What of a criterion may change how it is decided and counted; its part of the criteria's fingerprint."""
    parts = [item.kind, item.text if item.kind == "plain" else "", item.weight, item.field, item.want, item.ignore]
    parts += ["reasoning"] if item.reasoning else []
    return [*parts, ["examples", *(each.model_dump() for each in item.examples)]] if item.examples else parts


def _expressions(item: Criterion) -> list[str]:
    if item.kind in CALL_KINDS:
        return expressions_in(item.kind, item.want)
    return [item.want] if item.kind == "check" or (item.kind == "equals" and isinstance(item.want, str)) else []
