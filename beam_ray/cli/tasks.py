"""tasks and show: what became of tasks."""

import json
from typing import Any

import click

from beam_ray.address import Address
from beam_ray.cli.screen import MARKS, duration, emit, existing, money, number, show, store_options, table
from beam_ray.store.lookup import STATUSES, find_task, newest_first, select, status_of
from beam_ray.store.objects import Objects
from beam_ray.store.runs import Run, find_runs, resolve

COLUMNS = [
    "run_id",
    "task_id",
    "trial",
    "outcome",
    "passed",
    "score",
    "first_score",
    "labels",
    "routes",
    "auto_reruns",
    "review",
    "seconds",
    "calls",
    "usd",
    "started_at",
    "error",
]


@click.command()
@click.option("--run", "run_id", metavar="RUN", help="Only of this run; 'last' is the newest.")
@click.option("--status", type=click.Choice(STATUSES), help="Only with this status; failing: below or failed.")
@click.option("--label", "labels", multiple=True, help="Only with this label.")
@click.option("--where", metavar="EXPR", help="Only where this holds, as in: score < 80 and 'scan' in labels")
@click.option("--limit", default=50, show_default=True, help="How many at most; 0 for all.")
@store_options
def tasks(run_id: str | None, status: str | None, labels: tuple[str, ...], where: str | None, limit: int, store: str, as_json: bool) -> None:
    """List tasks and what became of them, the newest run first."""
    objects = existing(store)
    runs = [Run(objects, resolve(objects, run_id))] if run_id else newest_first(objects)
    found: list[dict[str, Any]] = []
    total = 0
    for run in runs:
        chosen = select(run.outcome(None if where else COLUMNS), status=status, labels=labels, where=where)
        total += chosen.num_rows
        room = chosen.num_rows if not limit else max(limit - len(found), 0)
        found += chosen.select(COLUMNS).slice(0, room).to_pylist()
    if as_json:
        emit([{"task": str(Address(row["run_id"], row["task_id"], row["trial"])), "status": status_of(row), **row} for row in found])
        return
    rows = [
        [
            str(Address(row["run_id"], row["task_id"], row["trial"])),
            MARKS[status_of(row)],
            number(row["score"]),
            " > ".join(row["routes"] or ()),
            ", ".join(row["labels"] or ()),
            row["auto_reruns"] or "",
            duration(row["seconds"]),
            row["error"] or "",
        ]
        for row in found
    ]
    show(table(["task", "status", "score", "route", "labels", "auto-reruns", "time", "error"], rows, right=[2, 5, 6], width=48))
    unfinished = [run.run_id for run in runs if not run.finished]
    if total > len(found):
        show(f"{len(found)} of {total} tasks; --limit 0 shows all")
    for name in unfinished:
        show(f"run {name} is not finished; its tasks so far are above. beam-ray resume {name}  goes on")
    if found:
        show(f"one of them:  beam-ray show {Address(found[0]['run_id'], found[0]['task_id'], found[0]['trial'])}")


@click.command(name="show")
@click.argument("task")
@click.option("--step", "node", metavar="NODE", help="One step with all its attempts.")
@store_options
def show_(task: str, node: str | None, store: str, as_json: bool) -> None:
    """Show the timeline of TASK: RUN/TASK, or a task's id for its newest run; RUN/TASK/NODE for one step."""
    objects = existing(store)
    address = find_task(objects, task)
    run = Run(objects, address.run)
    node = node or address.node or None
    if node and node not in run.record.plan.nodes:
        raise click.UsageError(f"the workflow of run {run.run_id} has no node {node!r}; it has {', '.join(run.record.plan.order)}")
    steps = _steps(run, address)
    if as_json:
        emit({"task": str(address), "run": _about(run), "steps": [_plain(step) for step in steps if not node or step["node"] == node]})
        return
    if node:
        _show_step(next(step for step in steps if step["node"] == node), run)
    else:
        _show_timeline(objects, run, address, steps)


def _steps(run: Run, address: Address) -> list[dict[str, Any]]:
    from beam_ray.store.steps import StepRows

    order = run.record.plan.order
    if run.finished:
        reader = StepRows(run)
        found = [reader.rows(name, [(address.task, address.trial)]) for name in order]
        return [rows[address.task, address.trial] for rows in found if rows]
    import pyarrow.compute as pc

    steps = run.steps()
    here = steps.filter(pc.and_(pc.equal(steps["task_id"], address.task), pc.equal(steps["trial"], address.trial))).to_pylist()
    return sorted(here, key=lambda step: order.index(step["node"]))


def _show_timeline(objects: Objects, run: Run, address: Address, steps: list[dict[str, Any]]) -> None:
    record = run.record
    task = next(row for row in run.tasks().to_pylist() if row["task_id"] == address.task)
    show(f"{address} · {record.workflow}{f' version {record.version}' if record.version else ' (draft)'} · {record.created_at[:16].replace('T', ' ')}")
    for line in _lineage(objects, run):
        show(f"  {line}")
    show(f"  task query: {_short(task['task_query'], 200)}")
    if task["expected"]:
        show(f"  expected:   {_short(task['expected'], 200)}")
    show()
    workflow = record.plan
    rows = []
    for step in steps:
        node = workflow.nodes[step["node"]]
        mark = {True: "pass", False: "BELOW", None: "unscored" if step["threshold"] is not None and step["outcome"] in ("done", "borrowed") else ""}[
            step["passed"]
        ]
        score = number(step["score"]) if step["score"] is not None else ""
        tokens = step["input_tokens"] + step["output_tokens"] + step["judge_input_tokens"] + step["judge_output_tokens"]
        tries = len(step["attempts"] or ())
        rows.append(
            [
                step["node"],
                workflow.model_of(step["node"]) or node.tool,
                step["outcome"],
                score,
                mark,
                step["route"] or "",
                tries if tries > 1 else "",
                duration(step["seconds"]) if step["outcome"] == "done" else "",
                tokens or "",
                _said(step),
            ]
        )
    show(table(["step", "asks", "outcome", "score", "", "route", "tries", "time", "tokens", "output"], rows, right=[3, 6, 7, 8], width=72))
    for step in steps:
        failing = [item for item in step["criteria"] or () if item["met"] is False]
        for item in failing:
            show(f"  {step['node']}: not met: {item['text']} ({item['reason']})")
        if step["unscored"] and step["threshold"] is not None and step["outcome"] in ("done", "borrowed"):
            show(f"  {step['node']}: unscored: {step['unscored']}")
    show()
    show(f"one step:  beam-ray show {address} --step {steps[0]['node'] if steps else 'NODE'}")
    show(f"again:     beam-ray rerun {address}")


def _show_step(step: dict[str, Any], run: Run) -> None:
    node = run.record.plan.nodes[step["node"]]
    address = Address(step["run_id"], step["task_id"], step["trial"], step["node"])
    show(f"{address} · {step['outcome']}" + (f" · {step['reason']}" if step["reason"] else ""))
    if step["borrowed_from"]:
        show(f"  borrowed from {step['borrowed_from']}")
    if step["error"]:
        show(f"  {step['error_type']}: {step['error']}")
    if step["score"] is not None:
        show(
            f"  score {number(step['score'])} of {number(step['threshold'])} wanted"
            + (f", first attempt {number(step['first_score'])}" if len(step["attempts"]) > 1 else "")
        )
    for item in step["criteria"] or ():
        mark = {True: "met    ", False: "NOT MET", None: "open   "}[item["met"]]
        show(f"  {mark}  {item['text']}  ({item['reason']})" + (f"  judged by {item['judge']}" if item["judge"] else ""))
    for attempt in step["attempts"] or ():
        show(f"  attempt {attempt['number']}: {number(attempt['score'])}  {duration(attempt['seconds'])}  {money(attempt['usd'])}  {attempt['error'] or ''}")
        show(f"    {_short(attempt['output'] or '', 1000)}")
    if not step["attempts"] and step["output"]:
        show(f"  output: {_short(step['output'], 1000)}")
    if node.llm:
        show("  prompt:")
        for turn in node.llm.prompt:
            for line in f"[{turn.role}] {turn.content}".splitlines():
                show(f"    {line}")


def _lineage(objects: Objects, run: Run) -> list[str]:
    """What the run redoes or borrows from, and what that one did, back to the first."""
    lines: list[str] = []
    while run.record.origin:
        record = run.record
        start = f" from {record.start_node}" if record.start_node else ""
        what = (
            f"redoes run {record.origin}{start}"
            if record.mode == "rerun"
            else f"{record.mode} of {record.backtest or 'a plan'}, borrows from run {record.origin}"
        )
        why = f", because: {record.because}" if record.because else ""
        lines.append(f"{'  ' * len(lines)}{run.run_id} {what}{why}")
        run = Run(objects, str(record.origin))
        if run.run_id not in find_runs(objects):
            break
    return lines


def _about(run: Run) -> dict[str, Any]:
    record = run.record
    return {
        "run_id": record.run_id,
        "workflow": record.workflow,
        "version": record.version,
        "origin": record.origin,
        "start_node": record.start_node,
        "mode": record.mode,
        "because": record.because,
        "finished": run.finished,
    }


def _plain(step: dict[str, Any]) -> dict[str, Any]:
    return {**step, "output": json.loads(step["output"]) if step["output"] is not None else None}


def _said(step: dict[str, Any]) -> str:
    if step["outcome"] == "failed":
        return f"{step['error_type']}: {step['error']}"
    if step["outcome"] == "skipped":
        return str(step["reason"])
    return str(step["output"])


def _short(text: str, length: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length - 1]}…"


show_.name = "show"
