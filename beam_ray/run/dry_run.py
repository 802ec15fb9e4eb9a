"""
What the steps of a rerun or an incremental run would do: run for counting, with models and tools that do not answer.

A step that would call a model in the plan calls it in the run. An agent is answered from the
recording up to the first call that the recording does not have; what comes after is not known.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from beam_ray.define.fingerprint import Json
from beam_ray.define.workflow import Node, Workflow
from beam_ray.errors import StepFailed
from beam_ray.llm.request import Request
from beam_ray.llm.scripted import Models, ScriptedModel
from beam_ray.llm.usage import Usage
from beam_ray.run.agent_tools import AgentTools, OfferedTool
from beam_ray.run.borrowable_rows import BorrowableRows
from beam_ray.run.borrowing import CRITERIA_CHANGED
from beam_ray.run.context import RAN, StepContext, TaskTrial, carried_calls
from beam_ray.run.model_identity import identity
from beam_ray.run.plan import Plan
from beam_ray.run.programs import Programs
from beam_ray.run.recorded import RECORDED
from beam_ray.run.recordings import Recordings
from beam_ray.run.replay import work_of
from beam_ray.run.step import run_step
from beam_ray.run.step_row import output_of
from beam_ray.run.tools import Tools
from beam_ray.store.attachments import read_attachment, read_bytes
from beam_ray.store.call_table import PlacedCallRow
from beam_ray.store.objects import Objects
from beam_ray.store.tables import StepRow

COUNTED_TASKS = 5_000
"""Tasks that are counted one by one; the counts are scaled up to the others."""

READ_TOGETHER = 200
"""Tasks whose recordings are in memory at a time."""

TRIED = 40
"""Steps of a node after which no recording is read any more where it answered nothing: its first call is another one."""


class _WouldCall(StepFailed):
    """A model or tool would be called here."""


class _PlanningModel(ScriptedModel):
    """A model that does not answer."""

    def __init__(self) -> None:
        super().__init__(_would_call)


def _would_call(request: Request) -> None:
    raise _WouldCall("judge" if request.judges else "model")


class _PlanningTools(Tools):
    """Tools that are not called."""

    async def call(self, tool: str, arguments: Mapping[str, Json], timeout_s: float, memory: int | None = None, *, typed: bool = False) -> Any:
        raise _WouldCall("tool")


class _PlanningPrograms(Programs):
    """Programs that are not run."""

    async def call(self, node: Node, arguments: Mapping[str, Json], session: Any, usage: Usage) -> Json:
        raise _WouldCall("tool")


class _PlanningAgents(AgentTools):
    """Tools of agents that are not called; also no MCP server is started."""

    async def call(self, tool: OfferedTool, arguments: Mapping[str, Json], timeout_s: float, memory: int | None) -> Json:
        raise _WouldCall("tool")


class _PlanningContext(StepContext):
    """A context whose agents call nothing."""

    @property
    def agents(self) -> AgentTools:  # type: ignore[override]
        if "planning" not in self.__dict__:
            self.__dict__["planning"] = _PlanningAgents(self.workflow, self.tools, self.mcp, self.folder)
        found: AgentTools = self.__dict__["planning"]
        return found


@dataclass
class NodeCounts:
    """How many rows a rerun or an incremental run executes, borrows and rescores at one node, and why."""

    run: int = 0
    borrow: int = 0
    rescore: int = 0
    why: dict[str, int] = field(default_factory=dict)
    finished: int = 0
    """Of the executed rows those that the recording answers to the end."""
    answered: Usage = field(default_factory=Usage)
    """What the model calls of the others took that the recording is sure to answer; not scaled up, since it is known of these rows alone."""
    answered_finished: Usage = field(default_factory=Usage)
    """The same of the rows that it answers to the end."""

    def scaled(self, scale: float) -> "NodeCounts":
        """The counts for so many times as many rows."""
        run, borrow, rescore = (round(count * scale) for count in (self.run, self.borrow, self.rescore))
        return replace(self, run=run, borrow=borrow, rescore=rescore)


def count_nodes(objects: Objects, plan: Plan, models: Models) -> dict[str, NodeCounts]:
    """What each node would do; nothing is called and nothing is written."""
    return asyncio.run(_Count(objects, plan, models).nodes())


class _Count:
    def __init__(self, objects: Objects, plan: Plan, models: Models):
        self.objects, self.plan, self.models = objects, plan, models
        self.record, self.workflow = plan.record, plan.workflow
        self.counts = {name: NodeCounts() for name in self.workflow.order}
        self.borrowable = BorrowableRows(objects, self.record, self.workflow)
        rows = plan.tasks.slice(0, COUNTED_TASKS).to_pylist()
        self.tasks = [TaskTrial.of(row, trial, place // READ_TOGETHER) for place, row in enumerate(rows) for trial in range(1, self.record.trials + 1)]
        self.recordings = Recordings(self.borrowable.origin, self._origin_rows) if self.borrowable.origin and not self.record.sample else None

    async def nodes(self) -> dict[str, NodeCounts]:
        self.borrowable.load([(task.task_id, task.trial) for task in self.tasks])
        context = self._context()
        if any(node.agent for node in self.workflow.nodes.values()):
            await context.agents.describe()
        for task in self.tasks:
            await self._task(context, task)
        return {name: found.scaled(self.record.rows / max(len(self.tasks), 1)) for name, found in self.counts.items()}

    async def _task(self, context: StepContext, task: TaskTrial) -> None:
        values, settled = task.values(self.workflow), dict[str, StepRow]()
        unknown: set[str] = set()
        for name in self.workflow.order:
            counts = self.counts[name]
            above = self.workflow.nodes[name].after
            if unknown & set(above) and not (context.execute and name not in context.execute):
                unknown.add(name)
                if _may_run(self.workflow, name, self.borrowable.origin_row(name, task), context):
                    counts.run += 1
                    counts.why["upstream output"] = counts.why.get("upstream output", 0) + 1
                continue
            row = await run_step(context, name, task, values, settled)
            settled[name] = row
            # an agent that fails here may have been answered before
            if row["outcome"] == "failed" and (row["error_type"] == "_WouldCall" or self.workflow.nodes[name].agent):
                counts.run += 1
                counts.answered.add(_answered(row))
                unknown.add(name)
            elif row["outcome"] == "borrowed":
                judged = row["judge_calls"] or str(row["unscored"] or "").find("the judge gave no answer") >= 0 or row["reason"] == CRITERIA_CHANGED
                judged = judged or (row["reason"] == RECORDED and not row["borrowed_from"])
                if judged:
                    counts.rescore += 1
                else:
                    counts.borrow += 1
            elif row["outcome"] == "done":
                counts.run += 1
                counts.finished += 1
                counts.answered_finished.add(_answered(row))
            values[name] = output_of(row)

    def _context(self) -> StepContext:
        record, workflow = self.record, self.workflow
        tools = _PlanningTools(workflow)
        return _PlanningContext(
            run_id=record.run_id,
            workflow=workflow,
            models={name: _PlanningModel() for name in workflow.models},
            identities={name: identity(self.models[name]) for name in workflow.models},
            tools=tools,
            programs=_PlanningPrograms(tools),
            allow_writes=record.allow_writes,
            sample=record.sample,
            execute=record.executed_nodes,
            borrow=record.borrow,
            pinned=record.pinned_node or "",
            pinned_row=self.borrowable.pinned_row,
            read_attachments=lambda task: [read_attachment(entry, self.objects) for entry in task.attachments],
            rescore_only=record.ruler_only,
            recorded=bool(record.recorded),
            origin_row=self.borrowable.origin_row,
            lent_rows=self.borrowable.lent_rows,
            testing=record.testing,
            recorded_calls=self._recorded_calls,
            step_calls=self.recordings.of_row if self.recordings else carried_calls,
            tool_answers=record.tool_answers,
            keep_text=lambda body: "",
            read_text=lambda sha256: read_bytes(sha256, self.objects).decode("utf-8", "surrogatepass"),
            mcp=record.mcp,
        )

    async def _recorded_calls(self, node: str, task: TaskTrial) -> Sequence[PlacedCallRow]:
        counts = self.counts[node]
        hopeless = counts.run >= TRIED and not counts.finished and not counts.answered.calls
        if self.recordings is None or hopeless or not self.workflow.nodes[node].agent:
            return ()
        if task.shard:
            self.recordings.forget(task.shard - 1)
        return await self.recordings.of(node, task)

    def _origin_rows(self, shard: int, node: str) -> dict[tuple[str, int], StepRow]:
        return self.borrowable.origin_rows(node, {task.task_id for task in self.tasks if task.shard == shard})


def _answered(row: StepRow) -> Usage:
    """What those model calls of a step took that the recording answered."""
    return work_of(call for call in row.get("call_rows") or () if call["source"] == "recorded" and call["kind"] == "model")


def _may_run(workflow: Workflow, name: str, origin: StepRow | None, context: StepContext) -> bool:
    """Whether the node may run when one before it runs: it is not a write that is not repeated."""
    if workflow.nodes[name].effects == "write" and not context.allow_writes:
        return False
    # a route that the origin did not take is not expected to be taken now
    return origin is None or origin["outcome"] in (*RAN, "failed")
