"""tasks and show: what became of tasks."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import click

import beam_ray
from beam_ray.cli.options import Place, Search, Selection, reads_store, searches, selects
from beam_ray.cli.screen import MARKS, duration, emit, money, number, show, table
from beam_ray.cli.transcript import transcript_lines
from beam_ray.errors import Damaged


@click.command()
@click.option("--run", "run_id", metavar="RUN", help="Only tasks of this run; 'last' is the newest.")
@click.option("--node", metavar="NODE", help="Only tasks whose step at this node failed or did not pass; needs --run.")
@click.option("--criterion", metavar="ID", help="Only tasks whose step at --node does not meet this criterion.")
@selects
@searches
@click.option(
    "--sort",
    default="run",
    show_default=True,
    metavar="KEY",
    help="run, started, score, seconds, usd, auto_reruns or task; -KEY for the other direction.",
)
@click.option("--limit", default=50, show_default=True, type=click.IntRange(min=0), help="Show at most N tasks; 0 shows all.")
@reads_store
def tasks(run_id: str | None, node: str | None, criterion: str | None, selection: Selection, search: Search, sort: str, limit: int, place: Place) -> None:
    """List tasks with their results, newest run first."""
    store = place.opened
    query = replace(search.query(selection, run_id), node=node, criterion=criterion, sort=sort, limit=limit or sys.maxsize, ended=True)
    found = store.list_tasks(query)
    if found.unreadable:
        raise Damaged("\n".join(found.unreadable.values()))
    rows = found.tasks
    if place.as_json:
        changed = {run.id: run.changed_inputs for run in found.runs}
        emit([{**{name: value for name, value in row.items() if name not in _LONG}, "changed_inputs": changed[row["run_id"]]} for row in rows])
        return
    cells = [
        [
            row["task"],
            MARKS[row["status"]],
            number(row["score"]),
            " > ".join(row["routes"] or ()),
            ", ".join(row["labels"] or ()),
            row["auto_reruns"] or "",
            duration(row["seconds"]),
            row["error"] or "",
        ]
        for row in rows
    ]
    show(table(["task", "status", "score", "route", "labels", "auto-reruns", "time", "error"], cells, right=[2, 5, 6], width=48))
    if found.matching > len(rows):
        show(f"{len(rows)} of {found.matching:,} tasks; --limit 0 shows all")
    for run in found.runs:
        if run.changed_inputs and any(row["run_id"] == run.id for row in rows):
            show(f"run {run.id} is a {_what_if(run)}")
        if not run.finished:
            show(f"run {run.id} is unfinished; the tasks above are those done so far. Resume it with:  beam-ray resume {run.id}{place.option}")
    if rows:
        show(f"show one:  beam-ray show {rows[0]['task']}{place.option}")


_LONG = ("task_query", "output")
"""Columns of a list that ``beam-ray show`` prints."""


@click.command(name="show")
@click.argument("task")
@click.option("--step", "node", metavar="NODE", help="Show one step with its prompt, criteria and attempts.")
@reads_store
def show_(task: str, node: str | None, place: Place) -> None:
    """Show the timeline of TASK: RUN/TASK, or a task's id for its newest run; RUN/TASK/NODE for one step."""
    found = place.opened.task(task)
    node = node or found.node
    if node and node not in found.run.workflow.nodes:
        raise click.UsageError(f"the workflow of run {found.run.id} has no node {node!r}; it has {', '.join(found.run.workflow.order)}")
    if place.as_json:
        document = found.document()
        emit({**document, "steps": [step for step in document["steps"] if not node or step["node"] == node]})
    elif node:
        _show_step(found.step(node), found.calls(node) if found.run.workflow.nodes[node].records_calls else ())
    else:
        _show_timeline(found, place)


def _show_timeline(task: beam_ray.Task, place: Place) -> None:
    run, given, steps = task.run, task.given, task.steps  # a damaged file is met before anything is printed
    version = f" version {run.version}" if run.version else " (draft)"
    show(f"{task.address} · {run.workflow.name}{version} · {run.created_at[:16].replace('T', ' ')} UTC")
    for depth, line in enumerate(_lineage(task)):
        show(f"  {'  ' * depth}{line}")
    for field, change in task.changed_inputs.items():
        show(f"  changed {field}: {_short(_text(change['before']), 90)} => {_short(_text(change['after']), 90)}")
    if task.messages:
        last = task.messages[-1]
        show(f"  messages:   {len(task.messages)} before the query; the last is of the {last['role']}: {_short(last['content'], 120)}")
    show(f"  task query: {_short(given['task_query'], 200)}")
    if given["expected"]:
        show(f"  expected:   {_short(given['expected'], 200)}")
    show()
    rows = []
    for step in steps:
        rows.append(
            [
                step.node,
                step.model or step.definition.program,
                step.outcome,
                number(step.score) if step.score is not None else "",
                _mark(step),
                step.route or "",
                len(step.attempts) if len(step.attempts) > 1 else "",
                duration(step.seconds) if step.outcome == "done" else "",
                step.tokens or "",
                _result(step),
            ]
        )
    header = ["step", "model or tool", "outcome", "score", "", "route", "attempts", "time", "tokens", "output"]
    show(table(header, rows, right=[3, 6, 7, 8], width=72))
    for step in steps:
        for item in step.criteria:
            if item.met is False:
                show(f"  {step.node}: not met: {item.text} ({item.reason})")
        if step.unscored and step.threshold is not None and step.ran:
            show(f"  {step.node}: unscored: {step.unscored}")
    show()
    show(f"show one step:  beam-ray show {task.address} --step {steps[0].node if steps else 'NODE'}{place.option}")
    show(f"run it again:   beam-ray rerun {task.address}{place.option}")


def _mark(step: beam_ray.Step) -> str:
    if step.passed is None:
        return "unscored" if step.threshold is not None and step.ran else ""
    return "pass" if step.passed else "BELOW"


_MARKS = {True: "met      ", False: "NOT MET  ", None: "undecided"}


def _show_step(step: beam_ray.Step, calls: Sequence[beam_ray.Call]) -> None:
    show(f"{step.address} · {step.outcome}" + (f" · {step.reason}" if step.reason else ""))
    if step.borrowed_from:
        show(f"  borrowed from {step.borrowed_from}")
    if step.error:
        show(f"  {step.error_type}: {step.error}")
    if step.score is not None:
        first = f", first attempt {number(step.first_score)}" if len(step.attempts) > 1 else ""
        show(f"  score {number(step.score)}, threshold {number(step.threshold)}{first}")
    for item in step.criteria:
        mark = _MARKS[item.met]
        show(f"  {mark}  {item.text}  ({' '.join(item.reason.split())})" + (f"  judged by {item.judge}" if item.judge else ""))
        for said in item.judges:
            show(f"             {said.judge}: {_MARKS[said.met].strip().lower()} ({said.reason})")
    for attempt in step.attempts:
        estimated = " (estimated)" if attempt.estimated else ""
        show(f"  attempt {attempt.number}: score {number(attempt.score)}  {duration(attempt.seconds)}  {money(attempt.usd)}{estimated}  {attempt.error or ''}")
        tokens = ((attempt.cached_tokens, "input tokens cached"), (attempt.reasoning_tokens, "reasoning tokens"))
        counts = ", ".join(f"{count:,} {what}" for count, what in tokens if count)
        if counts:
            show(f"    {counts}")
        if attempt.reasoning:
            show(f"    reasoning: {_short(attempt.reasoning, 1000)}")
        show(f"    {_short(_text(attempt.output), 1000)}")
    if not step.attempts and step.output is not None:
        show(f"  output: {_short(_text(step.output), 1000)}")
    for line in transcript_lines(calls, step):
        show(line)
    if step.definition.call:
        show("  prompt:")
        for turn in step.definition.call.prompt:
            for line in f"[{turn.role}] {turn.content}".splitlines():
                show(f"    {line}")


def _lineage(task: beam_ray.Task) -> list[str]:
    """What the run redoes or borrows from, back to the first."""
    lines = []
    for run in (task.run, *task.lineage):
        record = run.record
        if not record.origin:
            break
        start = f" from {record.start_node}" if record.start_node else ""
        if record.changed_inputs:
            lines.append(f"{run.id} {_what_if(record)}" + (f", because: {record.because}" if record.because else ""))
            continue
        what = (
            f"reruns run {record.origin}{start}"
            if record.mode == "rerun"
            else f"{record.mode} of {record.backtest or 'a plan'}, borrows from run {record.origin}"
        )
        lines.append(f"{run.id} {what}" + (f", because: {record.because}" if record.because else ""))
    return lines


def _what_if(record: Any) -> str:
    return f"what-if on run {record.origin}: {', '.join(f'{field} = {_short(_text(value), 60)}' for field, value in record.changed_inputs.items())}"


def _result(step: beam_ray.Step) -> str:
    if step.outcome == "failed":
        return f"{step.error_type}: {step.error}"
    return str(step.reason) if step.outcome == "skipped" else _text(step.output)


def _text(value: Any) -> str:
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def _short(text: str, length: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length - 1]}…"


show_.name = "show"
