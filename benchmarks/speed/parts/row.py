"""
Where the CPU of a model step goes: one runner in this process, the endpoint of 200 ms, a profiler.

The profiler slows small functions down, so only shares are taken from it; milliseconds come from
the same run without it. A runner is part of the engine, so the engine's modules are imported.
"""

import asyncio
import cProfile
import pstats
import re
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
from benchmarks.speed.endpoint import Endpoint, endpoint
from benchmarks.speed.ours import models_file, tasks_file, workflow
from benchmarks.speed.report import Report
from benchmarks.speed.work import CONCURRENCY, STEPS

TASKS = 500
PLACES = {
    r"aiohttp|httpx2|multidict|yarl|anyio|sniffio|certifi|idna": "HTTP: aiohttp, httpx2",
    r"/openai/|pydantic|distro": "openai client",
    r"asyncio|selectors|socket|contextlib|_weakrefset|contextvars": "asyncio",
    r"beam_ray/run|stamina": "beam_ray: steps, shards, permits, tries",
    r"beam_ray/define|jinja2|markupsafe|hashlib|sha": "prompts, rules and fingerprints",
    r"beam_ray/store|pyarrow": "rows and Parquet",
    r"json": "JSON",
    r"beam_ray": "beam_ray: other modules",
}


def measure(report: Report) -> None:
    """Milliseconds per step, by the package that they are spent in."""
    with endpoint() as model:
        _work(model)
        loop_s, all_s, _ = _work(model)
        _, _, profile = _work(model, cProfile.Profile())
    steps = TASKS * STEPS
    shares: dict[str, float] = {}
    for (file, _, function), (_, _, own, *_) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        # built-in functions have no file, but their name tells the module
        where = next((name for pattern, name in PLACES.items() if re.search(pattern, f"{file} {function}")), "Python's own functions")
        if "select.epoll" not in function:
            shares[where] = shares.get(where, 0.0) + own
    whole = sum(shares.values())
    rows: list[list[object]] = [
        [where, 100 * own / whole, 1000 * loop_s / steps * own / whole] for where, own in sorted(shares.items(), key=lambda each: -each[1])
    ]
    rows.append(["writing parts and spool, in threads", "", 1000 * (all_s - loop_s) / steps])
    rows.append(["total", "", 1000 * all_s / steps])
    report.table(["CPU of a model step in a runner", "% of the event loop", "ms"], rows)


def _work(model: Endpoint, profile: cProfile.Profile | None = None) -> tuple[float, float, cProfile.Profile | None]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        objects = open_objects(str(folder / "store"))
        models: dict[str, Any] = dict(load_models(models_file(folder, model.url)))
        plan = make_plan(beam_ray.load(workflow(folder)), read_tasks(tasks_file(folder, TASKS), objects), models)
        record = begin(objects, plan.record, plan.tasks)

        async def work() -> None:
            runner = Runner(Assignment(objects.uri, record.run_id, models, "one", 2 * CONCURRENCY))
            await asyncio.gather(*(runner.step(shard, node) for shard in range(len(record.shards)) for node in record.plan.order))
            await runner.stop()

        loop, everything = time.thread_time(), time.process_time()
        if profile:
            profile.enable()
        asyncio.run(work())
        if profile:
            profile.disable()
        return time.thread_time() - loop, time.process_time() - everything, profile
