"""beam_ray on the same work: one process that starts Ray, warms up, and then is timed."""

import json
import sys
import time
from pathlib import Path

from beam_ray.llm import ScriptedModel
from beam_ray.llm.settings import load_models
from beam_ray.run.cluster import Cluster
from beam_ray.run.driver import Connection
from beam_ray.run.execute import execute
from beam_ray.run.plan import load_workflow, make_plan
from beam_ray.store.objects import open_objects
from beam_ray.store.runs import Run, begin
from beam_ray.store.tasks import read_tasks


def workflow(folder: Path, steps: int, changed: str = "") -> Path:
    """A chain of model steps, each scored; *changed* makes the last one another."""
    nodes = []
    for step in range(1, steps + 1):
        before = f"{{{{ s{step - 1}.text[:60] }}}}" if step > 1 else ""
        mark = changed if step == steps else ""
        nodes.append(f"  s{step}:\n" + (f"    after: s{step - 1}\n" if step > 1 else ""))
        nodes.append(f"    llm: {{prompt: 'task {{{{ task_query }}}} step {step} {mark}{before}', max_tokens: 64}}\n")
        nodes.append(f"    evaluate: {{criteria: [check: \"'ok' in s{step}.text\"]}}\n")
    path = folder / f"chain{changed.strip()}.yaml"
    path.write_text("workflow: chain\nmodel: m\nnodes:\n" + "".join(nodes))
    return path


def tasks_file(folder: Path, tasks: int, first: int = 0) -> Path:
    """Tasks that are numbers."""
    path = folder / f"tasks-{first}-{tasks}.jsonl"
    path.write_text("".join(json.dumps({"id": f"t{index}", "task_query": str(index)}) + "\n" for index in range(first, first + tasks)))
    return path


def models_file(folder: Path, url: str, concurrency: int) -> Path:
    """The models file for the endpoint."""
    path = folder / "models.yaml"
    path.write_text(f"m: {{base_url: '{url}/v1', model: x, concurrency: {concurrency}}}\n")
    return path


def main(folder: Path, url: str, tasks: int, steps: int, concurrency: int) -> dict[str, object]:
    """Seconds of a warm run, and of what went before."""
    began = time.monotonic()
    objects = open_objects(str(folder / "store"))
    models = {"m": ScriptedModel(lambda request: "ok")} if url == "scripted" else load_models(models_file(folder, url, concurrency))
    found, _ = load_workflow(workflow(folder, steps))
    cluster = Cluster("local")

    def run(path: Path) -> tuple[str, float]:
        start = time.monotonic()
        plan = make_plan(found, read_tasks(path, objects), models)
        record = begin(objects, plan.record, plan.tasks)
        execute(objects, record, models, connection=Connection(cluster=cluster))
        return record.run_id, time.monotonic() - start

    if url != "scripted":
        run(tasks_file(folder, 16, first=10_000_000))
    ready = time.monotonic() - began
    run_id, seconds = run(tasks_file(folder, tasks))
    outcome = Run(objects, run_id).outcome(["passed"])
    cluster.close()
    return {"seconds": seconds, "ready_s": ready, "run_id": run_id, "passed": sum(outcome["passed"].to_pylist())}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:6]))) + "\n")
