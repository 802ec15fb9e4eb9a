"""
Doing again: which rows to redo, which to borrow, and why.

The count before anything is spent is made by the steps themselves, with models that do not
answer: what a step would ask is what it will ask.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow.compute as pc

from beam_ray.address import Address
from beam_ray.define.diff import Change, changes
from beam_ray.define.workflow import Workflow
from beam_ray.errors import StepFailed, Unusable
from beam_ray.llm.request import Answer, Request
from beam_ray.llm.usage import Usage
from beam_ray.run.borrowing import CRITERIA_CHANGED
from beam_ray.run.context import RAN, Row, StepContext, TaskTrial
from beam_ray.run.plan import Lineage, Plan, make_plan
from beam_ray.run.runner import identity
from beam_ray.run.step import run_step
from beam_ray.run.step_row import output_of
from beam_ray.run.tools import Tools
from beam_ray.store.attachments import read_attachment
from beam_ray.store.lookup import status_of
from beam_ray.store.objects import Objects
from beam_ray.store.runs import Run, find_runs
from beam_ray.store.steps import StepRows
from beam_ray.tasks.sources import only, with_origins

COUNTED = 5_000
"""Tasks that are counted one by one; beyond them the shares are carried over."""


class _WouldAsk(StepFailed):
    """Here a model would be asked."""


class _Silent:
    """A model that does not answer."""

    async def ask(self, request: Request, usage: Usage) -> Answer:
        raise _WouldAsk("judge" if request.judges else "model")


class _Unused(Tools):
    """Tools that are not called."""

    async def call(self, tool: str, arguments: Mapping[str, Any], timeout_s: float, memory: int | None = None) -> Any:
        raise _WouldAsk("tool")


@dataclass(frozen=True)
class Redone:
    """What a rerun or an incremental run does at one node, and because of what."""

    run: int
    borrow: int
    rescore: int
    why: tuple[str, ...]


def count_borrowed(objects: Objects, plan: Plan, models: Mapping[str, Any]) -> Plan:
    """*plan* with what is borrowed, re-scored and run at each node, and because of what."""
    record = plan.record
    if not record.origin:
        return plan
    redone = asyncio.run(_count_nodes(objects, plan, models))
    origin = Run(objects, record.origin).record.plan
    nodes = []
    for node in plan.nodes:
        found = redone[node.node]
        share = found.run / max(record.rows, 1)
        judged = (found.run + found.rescore) / max(record.rows, 1)
        nodes.append(
            replace(
                node,
                run=found.run,
                borrow=found.borrow,
                rescore=found.rescore,
                judge_calls=round(node.judge_calls * judged),
                conditional=node.conditional or "upstream output" in found.why,
                why=found.why or reasons(origin, plan.workflow, node.node),
                input_tokens=int(node.input_tokens * share),
                output_tokens=int(node.output_tokens * share),
                usd=None if node.usd is None else node.usd * max(share, judged if node.judge_calls else 0),
            )
        )
    return replace(plan, nodes=tuple(nodes))


async def _count_nodes(objects: Objects, plan: Plan, models: Mapping[str, Any]) -> dict[str, Redone]:
    record, workflow = plan.record, plan.workflow
    assert record.origin
    reader = StepRows(Run(objects, record.origin))
    tasks = [TaskTrial.of(row, trial, 0) for row in plan.tasks.slice(0, COUNTED).to_pylist() for trial in range(1, record.trials + 1)]
    keys = [(task.task_id, task.trial) for task in tasks]
    rows = {name: reader.rows(name, keys) for name in workflow.order}
    execute = frozenset({record.start_node}) | workflow.downstream(record.start_node) if record.start_node else None
    context = StepContext(
        run_id=record.run_id,
        workflow=workflow,
        models={name: _Silent() for name in workflow.models},
        identities={name: identity(models[name]) for name in workflow.models},
        tools=_Unused(workflow),
        allow_writes=record.allow_writes,
        execute=execute,
        borrow=record.borrow,
        read_attachments=lambda task: [read_attachment(entry, objects) for entry in task.attachments],
        rescore_only=record.ruler_only,
        origin_row=lambda node, task: rows[node].get((task.task_id, task.trial)),
    )
    counts = {name: {"run": 0, "borrow": 0, "rescore": 0} for name in workflow.order}
    why: dict[str, dict[str, int]] = {name: {} for name in workflow.order}
    for task in tasks:
        values, settled = task.values(workflow), dict[str, Row]()
        unknown: set[str] = set()
        for name in workflow.order:
            above = workflow.nodes[name].after
            if unknown & set(above) and not (execute and name not in execute):
                unknown.add(name)
                if name in _may_run(workflow, name, rows[name].get((task.task_id, task.trial)), context):
                    counts[name]["run"] += 1
                    why[name]["upstream output"] = why[name].get("upstream output", 0) + 1
                continue
            row = await run_step(context, name, task, values, settled)
            settled[name] = row
            if row["outcome"] == "failed" and row["error_type"] == "_WouldAsk":
                counts[name]["run"] += 1
                unknown.add(name)
            elif row["outcome"] == "borrowed":
                judged = row["judge_calls"] or str(row["unscored"] or "").find("the judge gave no answer") >= 0 or row["reason"] == CRITERIA_CHANGED
                counts[name]["rescore" if judged else "borrow"] += 1
            values[name] = output_of(row)
    scale = record.rows / max(len(tasks), 1)
    return {
        name: Redone(round(found["run"] * scale), round(found["borrow"] * scale), round(found["rescore"] * scale), tuple(why[name]))
        for name, found in counts.items()
    }


def _may_run(workflow: Workflow, name: str, origin: Row | None, context: StepContext) -> set[str]:
    """A node behind one that will run: it may run too, unless it is a write that is not repeated."""
    if workflow.nodes[name].effects == "write" and not context.allow_writes:
        return set()
    # a route that the origin did not take is expected not to be taken again
    return {name} if origin is None or origin["outcome"] in (*RAN, "failed") else set()


_WORDS = {
    "llm.prompt": "prompt",
    "llm.returns": "schema",
    "llm.model": "model",
    "tool": "tool",
    "version": "tool version",
    "when": "condition",
    "evaluate": "criteria",
    "auto_rerun": "auto-rerun",
    "with": "arguments",
}


def reasons(before: Workflow, after: Workflow, node: str) -> tuple[str, ...]:
    """What changed at *node*, in words."""
    found: list[str] = []
    for change in changes(before, after):
        if change.node == node:
            found.append(_word(change))
        elif not change.node and change.field in ("model", "judge"):
            found.append(change.field)
    return tuple(dict.fromkeys(found))


def _word(change: Change) -> str:
    if not change.field:
        return "new node"
    for start, word in _WORDS.items():
        if change.field.startswith(start):
            return word
    return "model setting" if change.field.startswith("llm.") else change.field


@dataclass(frozen=True)
class RerunOptions:
    """How tasks are rerun."""

    start_node: str | None = None
    """The node to start from: steps that do not descend from it are borrowed. None reruns every step."""
    because: str = ""
    """Reason for the rerun, stored with it."""
    allow_writes: bool = False
    """Whether tools with write effects are called; otherwise their recorded outputs are replayed."""


def make_rerun(
    objects: Objects,
    origin: Run,
    task_ids: list[str],
    workflow: Workflow,
    models: Mapping[str, Any],
    *,
    version: int | None = None,
    budget: Mapping[str, float] | None = None,
    options: RerunOptions | None = None,
) -> Plan:
    """
    Plan a new run that redoes tasks of *origin*.

    Query, attachments and variables are the origin's, byte for byte; the origin is only read.

    Args:
        version: Number of the published version that *workflow* is; None for a draft.

    Raises:
        Unusable: the origin is not finished, has no such task, or has no outputs to borrow
            before the start node.
    """
    options = options or RerunOptions()
    start = options.start_node
    if not origin.finished:
        raise Unusable(f"run {origin.run_id} is still going on; only tasks that ended can be redone\n  beam-ray resume {origin.run_id}  goes on with it")
    tasks = origin.tasks()
    missing = set(task_ids) - set(tasks["task_id"].to_pylist())
    if missing:
        raise Unusable(f"run {origin.run_id} has no task {sorted(missing)[0]!r}")
    if start:
        require_start(origin, workflow, start, task_ids)
    plan = make_plan(
        workflow,
        with_origins(only(tasks, task_ids), origin.run_id),
        models,
        source=f"run:{origin.run_id}",
        version_number=version,
        trials=origin.record.trials,
        budget=budget,
        lineage=Lineage(
            origin=origin.run_id,
            start_node=start,
            mode="rerun",
            because=options.because,
            changed=tuple(str(change) for change in changes(origin.record.plan, workflow)),
            allow_writes=options.allow_writes,
        ),
    )
    return count_borrowed(objects, plan, models)


def family(objects: Objects, address: Address) -> list[dict[str, Any]]:
    """The task with all that it redoes and all that redoes it, the oldest first; each with what came of it."""
    runs = {run_id: Run(objects, run_id) for run_id in find_runs(objects)}
    root = address.run
    while (origin := runs[root].record.origin) and origin in runs:
        root = origin
    members, ids = [], {root}
    for run in sorted(runs.values(), key=lambda each: each.record.created_at):
        if run.run_id != root and run.record.origin not in ids:
            continue
        ids.add(run.run_id)
        member = _member(run, address)
        if member:
            members.append(member)
    by_run = {member["run_id"]: member for member in members}
    for member in members:
        before = by_run.get(member["origin"] or "")
        member["solved"] = solved(before, member) if before else ""
    return members


def solved(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Whether redoing the task solved its problem, in a word."""
    if after["status"] == "running":
        return ""
    if before["status"] == "passed":
        return "still passes" if after["status"] == "passed" else "newly failing"
    return "solved" if after["status"] == "passed" else "not solved"


def _member(run: Run, address: Address) -> dict[str, Any] | None:
    outcome = run.outcome()
    here = outcome.filter(pc.and_(pc.equal(outcome["task_id"], address.task), pc.equal(outcome["trial"], address.trial))).to_pylist()
    if not here and (run.finished or address.task not in run.tasks()["task_id"].to_pylist()):
        return None
    row, record = here[0] if here else None, run.record
    return {
        "task": str(Address(run.run_id, address.task, address.trial)),
        "run_id": run.run_id,
        "mode": record.mode,
        "started": record.created_at[:16].replace("T", " "),
        "version": record.version,
        "origin": record.origin,
        "from": record.start_node,
        "because": record.because,
        "changed": list(record.changed),
        "score": row["score"] if row else None,
        "status": status_of(row) if row else "running",
        "calls": row["calls"] if row else None,
        "usd": row["usd"] if row else None,
    }


def require_start(origin: Run, workflow: Workflow, node: str, task_ids: list[str]) -> None:
    """
    See that the steps before *node* can be borrowed for all of the tasks.

    Raises:
        Unusable: the node is new or gone, or something upstream is missing in the origin;
            with the nearest node that can be the start.
    """
    old = origin.record.plan
    if node not in workflow.nodes:
        gone = " any more; it was renamed or removed" if node in old.nodes else ""
        raise Unusable(f"the workflow {workflow.name!r} has no node {node!r}{gone}\n  it has: {', '.join(workflow.order)}")
    fixed = [name for name in workflow.order if name != node and name not in workflow.downstream(node)]
    new = [name for name in fixed if name not in old.nodes]
    reader = StepRows(origin)
    keys = [(task_id, 1) for task_id in task_ids]
    bad = [
        name
        for name in fixed
        if name not in new and name in workflow.upstream[node] and any(row["outcome"] == "failed" for row in reader.rows(name, keys).values())
    ]
    if node not in old.nodes:
        new.append(node)
    if new or bad:
        trouble = [name for name in workflow.order if name in new or name in bad]
        why = " and ".join(filter(None, [f"{', '.join(new)} is new since" if new else "", f"{', '.join(bad)} failed there" if bad else ""]))
        raise Unusable(f"run {origin.run_id} has no output to borrow before {node!r}: {why}\n  --from {_nearest(workflow, trouble, node)}  can be the start")


def _nearest(workflow: Workflow, trouble: list[str], node: str) -> str:
    """The last node that has all of the trouble among itself and its descendants."""
    for name in reversed(workflow.order):
        if set(trouble) | {node} <= workflow.downstream(name) | {name}:
            return name
    return workflow.order[0]
