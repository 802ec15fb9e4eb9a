"""Past runs written straight into a store, and the command line as a person meets it."""

import datetime
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pytest

from beam_ray.define.workflow import Workflow
from beam_ray.store.beginning import begin, close
from beam_ray.store.run_record import RunRecord, tasks_digest
from beam_ray.store.runs import Run
from tests.commands import CommandResult, run_command
from tests.conftest import Lab

ORDERS = """
workflow: orders
model: m
nodes:
  extract:
    llm: {prompt: "{{ task_query }}", returns: {vendor: str, amount: number}}
    evaluate:
      criteria:
        - {check: extract.amount > 0, id: positive}
        - equals: {vendor: expected.vendor}
  confirm: {after: extract, when: extract.amount < 100, route: small order, llm: {prompt: confirm}}
  escalate: {after: extract, when: extract.amount >= 100, route: large order, llm: {prompt: escalate}}
"""


@pytest.fixture
def cli(lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., CommandResult]:
    """The command line, in the lab's folder and with the lab's store."""
    monkeypatch.setenv("BEAM_RAY_STORE", "store")
    monkeypatch.chdir(lab.folder)

    return partial(run_command, capsys)


def ago(days: float) -> datetime.datetime:
    """A moment before now."""
    return datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days)


def past_run(
    lab: Lab, run_id: str, rows: Sequence[Mapping[str, Any]], *, days: float = 0, text: str = ORDERS, tasks: Any = None, finish: bool = True, **record: Any
) -> Run:
    """
    A run of the orders workflow as if it had been executed so many *days* ago.

    A row is a task; beside the task's own fields ``amount`` decides the route, ``ok: False``
    makes it fall below the threshold, ``broken: True`` makes its first step fail.
    """
    workflow = lab.workflow(text)
    given = [{key: value for key, value in row.items() if key not in ("amount", "ok", "broken")} for row in rows]
    table = lab.tasks(given) if tasks is None else tasks
    made = RunRecord(
        run_id=run_id,
        key=run_id,
        created_at=ago(days).isoformat(timespec="seconds"),
        workflow=workflow.name,
        definition=workflow.document(),
        definition_digest=workflow.digest,
        tasks=table.num_rows,
        shards=[(0, table.num_rows)],
        tasks_digest=tasks_digest(table),
        **record,
    )
    begin(lab.objects, made, table)
    run = Run(lab.objects, run_id)
    lived = [_lived(workflow, task, row) for task, row in zip(table.to_pylist(), rows, strict=True)]
    for node in workflow.order:
        run.commit_part(node, 0, [{"run_id": run_id, "trial": 1, "shard": 0, **steps[node]} for steps, _ in lived])
    run.commit_outcome(0, [{"run_id": run_id, "trial": 1, **outcome} for _, outcome in lived])
    if finish:
        files = [entry for node in (*workflow.order, "_outcome") for entry in run.merge(node, 1)]
        run.finish(files, {})
        close(lab.objects, made)
    return Run(lab.objects, run_id)


def _lived(workflow: Workflow, task: Mapping[str, Any], row: Mapping[str, Any]) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    amount, ok, broken = row.get("amount", 5), row.get("ok", True), row.get("broken", False)
    taken = "escalate" if amount >= 100 else "confirm"
    steps: dict[str, dict[str, Any]] = {}
    for node in workflow.order:
        done = not broken and node in ("extract", taken)
        outcome = "done" if done else "failed" if broken and node == "extract" else "skipped"
        steps[node] = {"task_id": task["task_id"], "node": node, "outcome": outcome}
        if done:
            steps[node] |= {
                "output": json.dumps({"vendor": "Ace", "amount": amount} if node == "extract" else {"text": f"{node} it"}),
                "route": workflow.nodes[node].route,
            }
    if not broken:
        met = {"positive": ok, "vendor": True if task["expected"] else None}
        steps["extract"] |= {"score": 100.0 if ok else 0.0, "passed": ok, "criteria": [{"id": name, "text": name, "met": value} for name, value in met.items()]}
    ran = [node for node in workflow.order if steps[node]["outcome"] == "done"]
    outcome = {
        "task_id": task["task_id"],
        "outcome": "failed" if broken else "done",
        "passed": ok and not broken,
        "score": None if broken else 100.0 if ok else 0.0,
        "inputs": task["inputs"],
        "labels": task["labels"],
        "path": ran,
        "routes": [workflow.nodes[node].route for node in ran if workflow.nodes[node].route],
        "output": json.dumps({node: json.loads(steps[node]["output"]) for node in ran if node != "extract"}),
        "review": False,
    }
    return steps, outcome


def orders(count: int, **more: Any) -> list[dict[str, Any]]:
    """So many small orders that passed."""
    return [{"id": f"o{number:02d}", "task_query": f"order {number}", **more} for number in range(count)]
