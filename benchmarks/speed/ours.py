"""
beam_ray on the same work: one process that connects to Ray, warms up, and then is timed.

    python -m benchmarks.speed.ours FOLDER URL|scripted TASKS [--shape NAME] [--store URI] [--steps N] [--kind model|agent|burn|wait --seconds S] [--die-at ROWS]

Prints as JSON how long the run took, and what it used after the warm-up. With --die-at it kills
itself when so many steps are done; started again in the same folder it resumes, and reports after
how many seconds the first new step was done.
"""

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import beam_ray
from beam_ray.llm.request import ToolCall
from benchmarks.speed.resources import ProcessTree
from benchmarks.speed.shapes import SHAPES
from benchmarks.speed.work import CONCURRENCY, STEPS, agent_calls

FIRST = 10_000_000
"""The number of the first warm-up task."""
TOOLS = """import time

EFFECTS = "read"


async def look(key: str) -> dict:
    return {"key": key, "found": True, "text": "x" * 200}



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
    """A chain of steps, each scored; *changed* changes the prompt of the last one."""
    nodes = []
    for step in range(1, steps + 1):
        before = f"{{{{ s{step - 1}.text[:60] }}}}" if step > 1 else ""
        mark = changed if step == steps else ""
        nodes.append(f"  s{step}:\n" + (f"    after: s{step - 1}\n" if step > 1 else ""))
        if kind == "agent":
            nodes.append("    agent: {prompt: 'task {{ task_query }} step 1', tools: [work:look], max_tokens: 64}\n")
        elif kind == "model":
            nodes.append(f"    llm: {{prompt: 'task {{{{ task_query }}}} step {step} {mark}{before}', max_tokens: 64}}\n")
        else:
            nodes.append(f"    tool: work:{kind}\n    with: {{query: '{{{{ task_query }}}}', seconds: {seconds}}}\n")
        nodes.append(f"    evaluate: {{criteria: [check: \"'ok' in s{step}.text\"]}}\n")
    (folder / "work.py").write_text(TOOLS)
    path = folder / f"chain-{kind}{steps}{changed.strip()}.yaml"
    path.write_text("workflow: chain\n" + ("model: m\n" if kind in ("model", "agent") else "") + "nodes:\n" + "".join(nodes))
    return path


def tasks_file(folder: Path, tasks: int, first: int = 0) -> Path:
    """Tasks whose queries are numbers."""
    path = folder / f"tasks-{first}-{tasks}.jsonl"
    if not path.exists():
        path.write_text("".join(json.dumps({"id": f"t{index}", "task_query": str(index)}) + "\n" for index in range(first, first + tasks)))
    return path


def models_file(folder: Path, url: str, concurrency: int = CONCURRENCY, **limits: float) -> Path:
    """The models file for the endpoint, or for a scripted model that says ok."""
    path = folder / "models.yaml"
    more = "".join(f", {name}: {value}" for name, value in limits.items())
    called = f"base_url: '{url}/v1', model: x, concurrency: {concurrency}{more}"
    path.write_text(f"m: {{{'answers: [{answer: ok}]' if url == 'scripted' else called}}}\n")
    return path


def scripted_answer(request: beam_ray.Request) -> object:
    """What the scripted model says: an agent's calls of tools, and then or else ok."""
    if not request.tools:
        return "ok"
    return [ToolCall("look", json.dumps({"key": key}), id) for id, key in agent_calls(request.messages)] or "ok"


def main(arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a warm run, and of what came before it."""
    began, folder = time.monotonic(), Path(arguments.folder)
    limits = {"requests_per_minute": arguments.per_minute} if arguments.per_minute else {}
    if arguments.url == "scripted":
        models: Any = {"m": beam_ray.ScriptedModel(scripted_answer)}
    else:
        models = models_file(folder, arguments.url, arguments.concurrency, **limits)
    found = beam_ray.load(workflow(folder, steps=1 if arguments.kind == "agent" else arguments.steps, kind=arguments.kind, seconds=arguments.seconds))
    warm = beam_ray.load(workflow(folder, steps=1, kind=arguments.kind))
    trials = 1
    if arguments.shape:
        shape = SHAPES[arguments.shape]
        found, trials = beam_ray.load(shape.write(folder)), shape.trials
    tree = ProcessTree(os.getpid())
    with beam_ray.open(arguments.store or folder / "store", models=models).connected() as store:
        import ray  # beam_ray sets what Ray reads from the environment before it imports it

        cpus = max(int(ray.cluster_resources()["CPU"]), 1)
        # as many rows as it takes for a runner on every CPU
        store.run(warm, tasks_file(folder, 100 * cpus, first=FIRST))
        tree.sample()
        ready, cpu = time.monotonic() - began, tree.cpu_s
        run, said = timed_run(store, found, tasks_file(folder, arguments.tasks), arguments.die_at, trials)
        tree.sample()
    return {**said, "run_id": run.id, "ready_s": ready, "cpu_s": tree.cpu_s - cpu, "cpus": cpus, "passed": run.passed}


def timed_run(store: beam_ray.Store, given: beam_ray.Workflow, tasks: Path, die_at: int, trials: int = 1) -> tuple[beam_ray.Run, dict[str, Any]]:
    """A finished run, its seconds, the steps done before, and the seconds from its first message to the first new step, or to its end."""
    start, seen, news, before = time.monotonic(), list[float](), list[float](), list[int]()

    def watch(progress: beam_ray.Progress) -> None:
        seen.append(time.monotonic())
        if progress.message:
            return
        before.append(progress.steps_done)
        if progress.steps_done > before[0] and not news:
            news.append(seen[-1] - seen[0])
        if die_at and progress.steps_done >= die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    run = store.run(given, tasks, trials=trials, progress=watch)
    ended = time.monotonic()
    return run, {"began": start, "seconds": ended - start, "news_s": news[0] if news else ended - seen[0], "rows_before": before[0] if before else 0}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("url")
    parser.add_argument("tasks", type=int)
    parser.add_argument("--concurrency", type=int, default=CONCURRENCY)
    parser.add_argument("--per-minute", type=float, default=0)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="", help="the workflow; a chain where it is not given")
    parser.add_argument("--store", default="", help="the store; FOLDER/store where it is not given")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--kind", choices=["model", "agent", "burn", "wait"], default="model")
    parser.add_argument("--seconds", type=float, default=0, help="seconds that a tool uses the CPU or waits")
    parser.add_argument("--die-at", type=int, default=0)
    sys.stdout.write(json.dumps(main(parser.parse_args())) + "\n")
