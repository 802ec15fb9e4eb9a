"""Rerun tasks: which steps to execute, which to borrow, and why."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypedDict

import pyarrow.compute as pc

from beam_ray.address import Address
from beam_ray.define.diff import Change, changes
from beam_ray.define.workflow import Workflow
from beam_ray.errors import Unusable
from beam_ray.llm.scripted import Models
from beam_ray.run.dry_run import count_nodes
from beam_ray.run.plan import Lineage, NodePlan, Plan, make_plan
from beam_ray.store.lookup import status_of
from beam_ray.store.objects import Objects
from beam_ray.store.run_index import all_runs
from beam_ray.store.runs import Run
from beam_ray.store.step_lookup import StepRows
from beam_ray.tasks.changed_inputs import Changes, changed_tasks
from beam_ray.tasks.sources import only, with_origins

WHAT_IF = "what-if"
"""Mode of a rerun with changed input: it solves nothing, because it does something else."""

RerunEntry = TypedDict(
    "RerunEntry",
    {
        "task": str,
        "run_id": str,
        "mode": str,
        "started": str,
        "version": int | None,
        "origin": str | None,
        "from": str | None,
        "because": str,
        "changed": list[str],
        "score": float | None,
        "status": str,
        "calls": int | None,
        "usd": float | None,
        "solved": str,
    },
)
"""One execution of a task in its history of reruns; *from* is the start node, *solved* is empty where it is no rerun."""


def count_borrowed(objects: Objects, plan: Plan, models: Models) -> Plan:
    """*plan* with the rows that each node executes, borrows and rescores, and why; for a plan without an origin, *plan* itself."""
    record = plan.record
    if not record.origin and not record.recorded:
        return plan
    counts = count_nodes(objects, plan, models)
    origin = Run(objects, record.origin).record.plan if record.origin and not record.recorded else plan.workflow
    nodes = []
    for node in plan.nodes:
        found = counts[node.node]
        # rows that the recording answers to the end cost nothing
        share = (found.run - found.finished) / max(record.rows, 1)
        judged = (found.run + found.rescore) / max(record.rows, 1) if node.judge_calls else 0.0
        nodes.append(
            replace(
                node,
                run=found.run,
                borrow=found.borrow,
                rescore=found.rescore,
                judge_calls=round(node.judge_calls * judged),
                conditional=node.conditional or "upstream output" in found.why,
                why=tuple(found.why) or reasons(origin, plan.workflow, node.node) or (("task input",) if record.changed_inputs and found.run else ()),
                input_tokens=int(node.input_tokens * share),
                output_tokens=int(node.output_tokens * share),
                usd=_less(_share_of_usd(node, share, judged), found.answered.usd),
                judge_usd=None if node.judge_usd is None else node.judge_usd * judged,
                usd_by_lane={lane: (_share(output, share), _share(judge, judged)) for lane, (output, judge) in node.usd_by_lane.items()},
                recorded_calls=found.answered.calls + found.answered_finished.calls,
                recorded_usd=_sum_of(found.answered.usd, found.answered_finished.usd),
                spared_calls=found.answered.calls + node.turns * found.finished,
            )
        )
    return replace(plan, nodes=tuple(nodes))


def _less(usd: float | None, spared: float | None) -> float | None:
    """*usd* without what the recording spares; where that is not known, all of it."""
    return usd if usd is None or spared is None else max(usd - spared, 0.0)


def _sum_of(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other


def _share(usd: float | None, share: float) -> float | None:
    """A share of a price; nothing costs nothing, whatever its price."""
    return 0.0 if not share else None if usd is None else usd * share


def _share_of_usd(node: NodePlan, share: float, judged: float) -> float | None:
    """US dollars for the rows that are executed and those that are only judged; None where a model that is asked has no price."""
    if not share and node.judge_usd is not None:
        return node.judge_usd * judged
    return None if node.usd is None or node.judge_usd is None else (node.usd - node.judge_usd) * share + node.judge_usd * judged


_WORDS = {
    "llm.prompt": "prompt",
    "llm.returns": "schema",
    "llm.model": "model",
    "agent.prompt": "prompt",
    "agent.returns": "schema",
    "agent.model": "model",
    "agent.tools": "tools",
    "agent.max_turns": "turns",
    "agent.on_miss": "on_miss",
    "tool": "tool",
    "version": "tool version",
    "when": "condition",
    "evaluate": "criteria",
    "auto_rerun": "auto-rerun",
    "with": "arguments",
}


def reasons(before: Workflow, after: Workflow, node: str) -> tuple[str, ...]:
    """What changed at *node*: prompt, model, criteria, …"""
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
    return "model setting" if change.field.startswith(("llm.", "agent.")) else change.field


@dataclass(frozen=True)
class RerunOptions:
    """How tasks are rerun."""

    start_node: str | None = None
    """The node to start from: steps that do not descend from it are borrowed. None reruns every step."""
    because: str = ""
    """Reason for the rerun, stored with it."""
    allow_writes: bool = False
    """Whether tools with write effects are called; otherwise their recorded outputs are replayed."""
    changed_inputs: Changes = field(default_factory=dict)
    """Changes of the tasks' input: steps that see none of them are borrowed."""


def make_rerun(
    objects: Objects,
    origin: Run,
    task_ids: list[str],
    workflow: Workflow,
    models: Models,
    *,
    version: int | None = None,
    budget: Mapping[str, float] | None = None,
    options: RerunOptions | None = None,
) -> Plan:
    """
    Plan a new run that redoes tasks of *origin*.

    Query, attachments and variables are the origin's, byte for byte, but for changed inputs; the origin is only read.

    Args:
        version: Number of the published version that *workflow* is; None for a draft.

    Raises:
        Unusable: the origin is not finished, has no such task, or has no outputs to borrow
            before the start node; or its tasks have no such input.
    """
    options = options or RerunOptions()
    start = options.start_node
    if not origin.finished:
        raise Unusable(f"run {origin.run_id} is not finished; only tasks of finished runs can be rerun\n  finish it first: beam-ray resume {origin.run_id}")
    tasks = origin.tasks()
    missing = set(task_ids) - set(tasks["task_id"].to_pylist())
    if missing:
        raise Unusable(f"run {origin.run_id} has no task {sorted(missing)[0]!r}")
    if start and options.changed_inputs:
        raise Unusable("a rerun with changed input has no start node: what the change reaches is executed, and all else is borrowed")
    if start:
        require_start(origin, workflow, start, task_ids)
    again = with_origins(only(tasks, task_ids), origin.run_id)
    what_if = {"mode": WHAT_IF, "borrow": True, "changed_inputs": dict(options.changed_inputs)} if options.changed_inputs else {"mode": "rerun"}
    plan = make_plan(
        workflow,
        changed_tasks(again, options.changed_inputs, workflow) if options.changed_inputs else again,
        models,
        source=f"run:{origin.run_id}",
        version_number=version,
        trials=origin.record.trials,
        budget=budget,
        lineage=Lineage(
            origin=origin.run_id,
            start_node=start,
            because=options.because,
            changed=tuple(str(change) for change in changes(origin.record.plan, workflow)),
            allow_writes=options.allow_writes,
            **what_if,
        ),
    )
    return count_borrowed(objects, plan, models)


def family(objects: Objects, address: Address) -> list[RerunEntry]:
    """The task, the tasks that it is a rerun of and all its reruns, oldest first."""
    runs = {run.run_id: run for run in all_runs(objects)}
    root = address.run
    while (origin := runs[root].origin) and origin in runs:
        root = origin
    entries, ids = list[RerunEntry](), {root}
    for run in sorted(runs.values(), key=lambda each: each.created_at):
        if run.run_id != root and run.origin not in ids:
            continue
        ids.add(run.run_id)
        entry = _entry(run, address)
        if entry:
            entries.append(entry)
    by_run = {entry["run_id"]: entry for entry in entries}
    for entry in entries:
        before = by_run.get(entry["origin"] or "")
        entry["solved"] = solved(before["status"], entry["status"]) if before and entry["mode"] != WHAT_IF else ""
    return entries


def solved(before: str, after: str) -> str:
    """Whether the rerun solved the task's problem, by the task's status before and after: solved, not solved, still passes, newly failing; empty while it runs."""
    if after == "running":
        return ""
    if before == "passed":
        return "still passes" if after == "passed" else "newly failing"
    return "solved" if after == "passed" else "not solved"


def _entry(run: Run, address: Address) -> RerunEntry | None:
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
        "solved": "",
    }


def require_start(origin: Run, workflow: Workflow, node: str, task_ids: list[str]) -> None:
    """
    Check that the steps that do not depend on *node* can be borrowed for all of the tasks.

    Raises:
        Unusable: the node is new or was removed, or the origin lacks an output before it;
            names the nearest node that a rerun can start from.
    """
    old = origin.record.plan
    if node not in workflow.nodes:
        gone = " any more: it was renamed or removed" if node in old.nodes else ""
        raise Unusable(f"the workflow {workflow.name!r} has no node {node!r}{gone}\n  its nodes: {', '.join(workflow.order)}")
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
        missing_nodes = [name for name in workflow.order if name in new or name in bad]
        why = " and ".join(filter(None, [f"{', '.join(new)} was added since" if new else "", f"{', '.join(bad)} failed in that run" if bad else ""]))
        raise Unusable(
            f"run {origin.run_id} has no output to borrow before {node!r}: {why}\n  rerun from an earlier node: --from {_nearest(workflow, missing_nodes, node)}"
        )


def _nearest(workflow: Workflow, missing_nodes: list[str], node: str) -> str:
    """The last node from which all of the missing outputs and *node* descend."""
    for name in reversed(workflow.order):
        if set(missing_nodes) | {node} <= workflow.downstream(name) | {name}:
            return name
    return workflow.order[0]
