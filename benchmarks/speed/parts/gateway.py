"""
What the gateway adds to a program's model call: one program with 64 calls in flight, at the endpoint and through a runner.

The program measures each call itself. Through the runner a call waits for a permit, is answered by
the endpoint, counted, recorded and spooled.
"""

import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TypedDict

import beam_ray
from beam_ray.llm.client import OpenAIModel
from beam_ray.llm.models_file import load_models
from beam_ray.llm.request import Request
from beam_ray.llm.settings import ModelSettings
from beam_ray.llm.usage import Usage
from beam_ray.run.assignment import Assignment
from beam_ray.run.plan import make_plan
from beam_ray.run.runner import Runner
from beam_ray.store.beginning import begin
from beam_ray.store.opening import open_objects
from beam_ray.store.runs import Run
from beam_ray.tasks.parse import read_tasks
from benchmarks.speed.endpoint import endpoint
from benchmarks.speed.report import Report
from benchmarks.speed.work import CONCURRENCY

CALLS = 20 * CONCURRENCY
LIMIT_MS = 3.0

PROGRAM = """
import asyncio, json, os, sys, time
import aiohttp

async def main(calls, at_once):
    url, key = os.environ["OPENAI_BASE_URL"] + "/chat/completions", os.environ.get("OPENAI_API_KEY", "none")
    numbers, found = iter(range(calls)), []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers={"Authorization": f"Bearer {key}"}) as http:
        async def ask(rounds):
            for number in numbers:
                body = {"model": "m", "messages": [{"role": "user", "content": f"task {number} step 1 " + "x" * 400}]}
                began = time.perf_counter()
                async with http.post(url, json=body) as reply:
                    assert reply.status == 200, await reply.text()
                    await reply.read()
                found.append(1000 * (time.perf_counter() - began))
                # calls that begin together would wait for each other, with and without a gateway
                await asyncio.sleep(number % 64 / 320 if number < at_once else 0)
        await asyncio.gather(*(ask(calls) for _ in range(at_once)))
    return found[at_once:]

print(json.dumps(asyncio.run(main(*json.load(sys.stdin).values()))))
"""


class _Times(TypedDict):
    mean: float
    median: float
    p95: float


def measure(report: Report) -> None:
    """Milliseconds per call, at the endpoint and through the gateway, and their difference."""
    gc.collect()
    gc.freeze()  # as a runner's process does once it has imported what it needs
    with endpoint() as model:
        pairs = [(_times(_direct(model.url)), _times(_through(model.url))) for _ in range(3)]
    direct, through = ({name: statistics.median(pair[side][name] for pair in pairs) for name in _Times.__annotations__} for side in (0, 1))
    rows: list[list[object]] = [
        ["at the endpoint", *direct.values()],
        ["through the gateway", *through.values()],
        ["added", *(through[name] - direct[name] for name in direct)],
    ]
    report.table([f"a program's call, {CONCURRENCY} in flight, ms", "mean", "median", "95 %"], rows)
    with endpoint() as model:
        asked, served = (statistics.median(each) for each in zip(*((_cpu_of_asking(model.url), _cpu_of_serving(model.url)) for _ in range(3)), strict=True))
    report.table(["CPU of the runner per call", "ms"], [["asked by the runner itself", asked], ["for a program, recorded and spooled", served]])
    report.at_most("added by the gateway to a call", through["mean"] - direct["mean"], LIMIT_MS, " ms")


def _direct(url: str) -> list[float]:
    given = json.dumps({"calls": CALLS, "at_once": CONCURRENCY})
    environment = {**os.environ, "OPENAI_BASE_URL": f"{url}/v1"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], input=given, env=environment, capture_output=True, text=True, check=True)
    found: list[float] = json.loads(done.stdout)
    return found


def _through(url: str) -> list[float]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "program.py").write_text(PROGRAM, encoding="utf-8")
        node = {"command": ["python", "program.py"], "asks": ["m"], "max_calls": CALLS, "with": {"calls": CALLS, "at_once": CONCURRENCY}}
        (folder / "w.yaml").write_text(json.dumps({"workflow": "w", "nodes": {"answer": node}}), encoding="utf-8")
        (folder / "models.yaml").write_text(f"m: {{base_url: '{url}/v1', model: m, concurrency: {2 * CONCURRENCY}}}\n", encoding="utf-8")
        (folder / "tasks.jsonl").write_text('{"task_query": "go"}\n', encoding="utf-8")
        objects, models, before = open_objects(str(folder / "store")), load_models(folder / "models.yaml"), Path.cwd()
        os.chdir(folder)
        try:
            plan = make_plan(beam_ray.load("w.yaml"), read_tasks(folder / "tasks.jsonl", objects), models)
            record = begin(objects, plan.record, plan.tasks)
            asyncio.run(_run(objects.uri, record.run_id, models))
        finally:
            os.chdir(before)
        [row] = Run(objects, record.run_id).steps(["answer"]).to_pylist()
        found: list[float] = json.loads(row["output"])
        return found


async def _run(store: str, run_id: str, models: object) -> None:
    runner = Runner(Assignment(store, run_id, models, "one", 2))  # type: ignore[arg-type]
    await runner.step(0, "answer")
    await runner.stop()


def _cpu_of_asking(url: str) -> float:
    """Milliseconds per call that a model is asked in this process, with nothing around it."""

    async def ask() -> None:
        model = OpenAIModel(ModelSettings(base_url=f"{url}/v1", model="m"))
        numbers = iter(range(CALLS))

        async def rounds() -> None:
            for number in numbers:
                await model.ask(Request(({"role": "user", "content": f"task {number} step 1 " + "x" * 400},)), Usage())

        await asyncio.gather(*(rounds() for _ in range(CONCURRENCY)))
        await model.close()

    began = time.process_time()
    asyncio.run(ask())
    return 1000 * (time.process_time() - began) / CALLS


def _cpu_of_serving(url: str) -> float:
    """Milliseconds per call of the same program in a runner in this process, the run's beginning and end included."""
    began = time.process_time()
    _through(url)
    return 1000 * (time.process_time() - began) / CALLS


def _times(found: list[float]) -> _Times:
    return {"mean": statistics.fmean(found), "median": statistics.median(found), "p95": statistics.quantiles(found, n=20)[-1]}
