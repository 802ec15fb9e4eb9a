"""
What recording costs: the CPU of an agent's call beside that of a plain model call, and the memory of many agents.

Both are executed by one runner in this process against an endpoint without latency. An agent's
task has eight calls, four of its model and four of its tool, which are recorded and spooled.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import beam_ray
from beam_ray.llm.models_file import load_models
from beam_ray.run.assignment import Assignment
from beam_ray.run.plan import make_plan
from beam_ray.run.runner import Runner
from beam_ray.store.beginning import begin
from beam_ray.store.opening import open_objects
from beam_ray.tasks.parse import read_tasks
from benchmarks.speed.endpoint import ROOT, Endpoint, endpoint
from benchmarks.speed.ours import models_file, tasks_file, workflow
from benchmarks.speed.report import Report
from benchmarks.speed.resources import run_measured
from benchmarks.speed.work import AGENT_CALLS, CONCURRENCY, STEPS

TASKS = 250
MANY = 10_000


def measure(report: Report) -> None:
    """CPU per call, and the memory of 10,000 agents' tasks."""
    with endpoint() as model:
        _cpu_s(model, "model")
        pairs = [(_cpu_s(model, "model"), _cpu_s(model, "agent")) for _ in range(3)]
    plain = 1000 * statistics.median(pair[0] for pair in pairs) / (TASKS * STEPS)
    agents = 1000 * statistics.median(pair[1] for pair in pairs) / TASKS
    rows: list[list[object]] = [
        ["a model step", plain, 1.0],
        [f"an agent's call, of {AGENT_CALLS}", agents / AGENT_CALLS, agents / AGENT_CALLS / plain],
        [f"an agent's model call with its share of the tools, of {AGENT_CALLS // 2}", 2 * agents / AGENT_CALLS, 2 * agents / AGENT_CALLS / plain],
    ]
    report.table(["CPU of a runner", "ms", "x a model step"], rows)
    report.at_most("CPU per recorded call / CPU per plain call", agents / AGENT_CALLS / plain, 1.5)
    with tempfile.TemporaryDirectory() as folder:
        used = run_measured([sys.executable, "-m", "benchmarks.speed.ours", folder, "scripted", str(MANY), "--kind", "agent"], ROOT)
        size = sum(path.stat().st_size for path in Path(folder).rglob("*.parquet")) / 1e6
    seconds, cpu = float(used.printed["seconds"]), 1000 * float(used.printed["cpu_s"]) / (MANY * AGENT_CALLS)
    report.table(
        ["agents with scripted answers", "seconds", "CPU ms/call", "driver MB", "workers MB", "MB on disk"],
        [[f"{MANY:,} tasks x {AGENT_CALLS} calls", seconds, cpu, used.driver_mb, used.workers_mb, size]],
    )
    report.at_most(f"{MANY:,} agent tasks x {AGENT_CALLS} calls: memory of all workers", used.workers_mb, 1_200, " MB")


def _cpu_s(model: Endpoint, kind: str) -> float:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        objects = open_objects(str(folder / "store"))
        models: dict[str, Any] = dict(load_models(models_file(folder, model.url)))
        found = beam_ray.load(workflow(folder, steps=1 if kind == "agent" else STEPS, kind=kind))
        plan = make_plan(found, read_tasks(tasks_file(folder, TASKS), objects), models)
        record = begin(objects, plan.record, plan.tasks)

        async def work() -> None:
            runner = Runner(Assignment(objects.uri, record.run_id, models, "one", 2 * CONCURRENCY))
            await asyncio.gather(*(runner.step(shard, node) for shard in range(len(record.shards)) for node in record.plan.order))
            await runner.stop()

        began = time.process_time()
        asyncio.run(work())
        return time.process_time() - began
