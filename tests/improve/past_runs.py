"""Runs with a past that tests choose: how often each task is tried, and how long it takes."""

from collections.abc import Mapping
from typing import Any

from beam_ray.define.workflow import Workflow
from beam_ray.errors import ModelUnavailable
from beam_ray.store.beginning import begin, close
from beam_ray.store.run_record import RunRecord, tasks_digest
from beam_ray.store.runs import Run
from tests.conftest import Lab

RETRIED = """
workflow: retried
model: m
nodes:
  say:
    llm: {prompt: "{{ task_query }}"}
    evaluate: {criteria: [{check: "say.text == 'good'", id: good}]}
    auto_rerun: {max: 2}
"""


def tries(*counts: tuple[int, int]):
    """A model whose first tasks, so many as each pair begins with, are good from that try on; 0 is never."""
    needed = [number for count, number in counts for _ in range(count)]

    def answer(request):
        number = needed[int(request.task_id[1:])]
        return "good" if number and request.attempt >= number else "bad"

    return answer


def queries(count: int) -> list[str]:
    """So many tasks, t0 and so on."""
    return [f"q{number}" for number in range(count)]


def away(request):
    """A model that is not there."""
    raise ModelUnavailable("no answer within 1 s")


def timed_run(lab: Lab, workflow: Workflow, run_id: str, seconds: Mapping[str, float], **record: Any) -> Run:
    """A finished run whose tasks took exactly so long."""
    tasks = lab.tasks([{"id": name, "task_query": name} for name in seconds])
    made = RunRecord(
        run_id=run_id,
        key=run_id,
        workflow=workflow.name,
        definition=workflow.document(),
        definition_digest=workflow.digest,
        tasks=len(seconds),
        shards=[(0, len(seconds))],
        tasks_digest=tasks_digest(tasks),
        **{"created_at": "2026-11-20T00:00:00", **record},
    )
    begin(lab.objects, made, tasks)
    run = Run(lab.objects, run_id)
    for node in workflow.order:
        rows = [{"run_id": run_id, "task_id": name, "trial": 1, "node": node, "outcome": "done", "attempts": [], "criteria": []} for name in seconds]
        run.commit_part(node, 0, rows)
    digests = dict(zip(tasks["task_id"].to_pylist(), tasks["inputs"].to_pylist(), strict=True))
    outcome = [
        {
            **{"run_id": run_id, "task_id": name, "trial": 1, "outcome": "done", "passed": True, "inputs": digests[name]},
            **{"work_seconds": took, "auto_reruns": 0, "steps_done": 1, "steps_failed": 0},
        }
        for name, took in seconds.items()
    ]
    run.commit_outcome(0, outcome)
    run.finish([entry for node in (*workflow.order, "_outcome") for entry in run.merge(node, 1)], {})
    close(lab.objects, made)
    return Run(lab.objects, run_id)
