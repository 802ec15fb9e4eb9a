"""
beam_ray on the same work: one process that connects to Ray, warms up, and then is timed.

    python -m benchmarks.speed.ours FOLDER URL|scripted TASKS [--kind model|burn|wait --seconds S] [--die-at ROWS]

Says in JSON how long the run took and what it used once all was warm. With --die-at it kills
itself without a word when so many rows are done; started again in the same folder it goes on,
and says after how many seconds there was something new.
"""

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from beam_ray.llm import ScriptedModel
from beam_ray.llm.settings import load_models
from beam_ray.run.cluster import Cluster
from beam_ray.run.connection import Connection
from beam_ray.run.execute import execute
from beam_ray.run.plan import load_workflow, make_plan
from beam_ray.run.progress import Progress
from beam_ray.store.beginning import begin
from beam_ray.store.opening import open_objects
from beam_ray.store.runs import Run
from beam_ray.tasks.parse import read_tasks
from benchmarks.speed.watched import Family
from benchmarks.speed.work import CONCURRENCY, STEPS

FIRST = 10_000_000
"""The number of the first task that only warms up."""
TOOLS = """import time


def burn(query: str, seconds: float) -> dict:
    until = time.process_time() + seconds
    while time.process_time() < until:
        sum(range(1000))
    return {"text": f"ok {query}"}


def wait(query: str, seconds: float) -> dict:
    time.sleep(seconds)
    return {"text": f"ok {query}"}
"""


def workflow(folder: Path, steps: int = STEPS, changed: str = "", kind: str = "model", seconds: float = 0.0) -> Path:
    """A chain of steps, each scored; *changed* makes the last one another."""
    nodes = []
    for step in range(1, steps + 1):
        before = f"{{{{ s{step - 1}.text[:60] }}}}" if step > 1 else ""
        mark = changed if step == steps else ""
        nodes.append(f"  s{step}:\n" + (f"    after: s{step - 1}\n" if step > 1 else ""))
        if kind == "model":
            nodes.append(f"    llm: {{prompt: 'task {{{{ task_query }}}} step {step} {mark}{before}', max_tokens: 64}}\n")
        else:
            nodes.append(f"    tool: work:{kind}\n    with: {{query: '{{{{ task_query }}}}', seconds: {seconds}}}\n")
        nodes.append(f"    evaluate: {{criteria: [check: \"'ok' in s{step}.text\"]}}\n")
    (folder / "work.py").write_text(TOOLS)
    path = folder / f"chain-{kind}{steps}{changed.strip()}.yaml"
    path.write_text("workflow: chain\n" + ("model: m\n" if kind == "model" else "") + "nodes:\n" + "".join(nodes))
    return path


def tasks_file(folder: Path, tasks: int, first: int = 0) -> Path:
    """Tasks that are numbers."""
    path = folder / f"tasks-{first}-{tasks}.jsonl"
    if not path.exists():
        path.write_text("".join(json.dumps({"id": f"t{index}", "task_query": str(index)}) + "\n" for index in range(first, first + tasks)))
    return path


def models_file(folder: Path, url: str, concurrency: int = CONCURRENCY, **limits: float) -> Path:
    """The models file for the endpoint."""
    path = folder / "models.yaml"
    more = "".join(f", {name}: {value}" for name, value in limits.items())
    path.write_text(f"m: {{base_url: '{url}/v1', model: x, concurrency: {concurrency}{more}}}\n")
    return path


def main(arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a warm run, and of what went before."""
    began, folder = time.monotonic(), Path(arguments.folder)
    objects = open_objects(str(folder / "store"))
    limits = {"requests_per_minute": arguments.per_minute} if arguments.per_minute else {}
    if arguments.url == "scripted":
        models: dict[str, Any] = {"m": ScriptedModel(lambda request: "ok")}
    else:
        models = dict(load_models(models_file(folder, arguments.url, arguments.concurrency, **limits)))
    found, _ = load_workflow(workflow(folder, kind=arguments.kind, seconds=arguments.seconds))
    warm, _ = load_workflow(workflow(folder, steps=1, kind=arguments.kind))
    cluster = Cluster()

    def run(given: Any, path: Path, die_at: int = 0) -> dict[str, Any]:
        start, news = time.monotonic(), list[float]()
        plan = make_plan(given, read_tasks(path, objects), models)
        record = begin(objects, plan.record, plan.tasks)
        before, ready = list[int](), time.monotonic()

        def watch(progress: Progress) -> None:
            before.append(progress.steps_done)
            if progress.steps_done > before[0] and not news:
                news.append(time.monotonic() - ready)
            if die_at and progress.steps_done >= die_at:
                os.kill(os.getpid(), signal.SIGKILL)

        execute(objects, record, models, connection=Connection(cluster=cluster), progress=watch)
        return {"run_id": record.run_id, "seconds": time.monotonic() - start, "news_s": news[0] if news else None, "rows_before": before[0] if before else 0}

    family = Family(os.getpid())
    # as many rows as it takes for a runner on every CPU
    run(warm, tasks_file(folder, 100 * cluster.cpus, first=FIRST))
    family.look()
    ready, cpu = time.monotonic() - began, family.cpu_s
    said = run(found, tasks_file(folder, arguments.tasks), arguments.die_at)
    family.look()
    outcome = Run(objects, said["run_id"]).outcome(["passed"])
    cpus = cluster.cpus
    cluster.close()
    return {**said, "ready_s": ready, "cpu_s": family.cpu_s - cpu, "cpus": cpus, "passed": sum(outcome["passed"].to_pylist())}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("url")
    parser.add_argument("tasks", type=int)
    parser.add_argument("--concurrency", type=int, default=CONCURRENCY)
    parser.add_argument("--per-minute", type=float, default=0)
    parser.add_argument("--kind", choices=["model", "burn", "wait"], default="model")
    parser.add_argument("--seconds", type=float, default=0, help="that a tool burns or waits")
    parser.add_argument("--die-at", type=int, default=0)
    sys.stdout.write(json.dumps(main(parser.parse_args())) + "\n")
