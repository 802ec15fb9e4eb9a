"""
Rate limits over all workers: the allowed rate is used, and the endpoint rejects almost no call.

One and two workers are runners of a real Ray. Eight and sixty-four would not fit two cores as
processes, so they share one process here: each has its own client and leased permits, as a
runner has, and a message to the limiter takes as long as a call of a Ray actor. For them the parts
of the engine that enforce limits are imported.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import stamina.instrumentation

import beam_ray
from beam_ray import ModelSettings, Request
from beam_ray.llm.client import OpenAIModel
from beam_ray.llm.usage import Usage
from beam_ray.run.limiter import Grant, Limiter, PermitRequest
from beam_ray.run.permits import PermitLease
from beam_ray.run.runner import limits_of
from benchmarks.speed.endpoint import ROOT, Call, Endpoint, endpoint, span_s
from benchmarks.speed.report import Report
from benchmarks.speed.resources import run_measured
from benchmarks.speed.work import CONCURRENCY, MEDIAN_S, STEPS

PER_SECOND = 150
"""Calls per second that the endpoint accepts, with a burst of one second's worth; it answers 429 to all others."""
TASKS = 750
HOP_S = 0.002
"""Seconds of an actor call."""


def measure(report: Report) -> None:
    """Measure throughput, rejections and latency for each number of workers, and without a configured limit."""
    stamina.instrumentation.set_on_retry_hooks([])
    rows = []
    with endpoint("--per-second", str(PER_SECOND)) as model:
        for workers in (1, 2, 8, 64):
            model.forget()
            seconds = real(model, workers) if workers <= 2 else asyncio.run(together(model, workers))
            calls = [call for call in model.calls() if 0 <= call.task < TASKS]
            row = _row(f"{workers} {'on Ray' if workers <= 2 else 'in one process'}", calls, seconds)
            rows.append(row)
            report.at_least(f"{workers} workers at {PER_SECOND} calls/s: share of the allowed throughput", float(row[3]), 90, "%")
            report.at_most(f"{workers} workers at {PER_SECOND} calls/s: calls answered 429", float(row[4]), 1, "%")
            report.at_most(f"{workers} workers at {PER_SECOND} calls/s: median latency without waiting / the endpoint's", float(row[5]) / MEDIAN_S, 1.25)
        model.forget()
        seconds = asyncio.run(together(model, 8, with_limit=False))
        rows.append(_row("8, no limit configured", [call for call in model.calls() if 0 <= call.task < TASKS], seconds))
    report.table(["workers", "calls", "seconds", "% of allowed", "% 429", "median latency s", "p95 s"], rows)


def _row(what: str, calls: list[Call], seconds: list[float]) -> list[object]:
    answered = sum(call.status == 200 for call in calls)
    # the last answer takes its latency after the last call is allowed
    allowed = PER_SECOND * max(span_s(calls) - MEDIAN_S, 1)
    ordered = sorted(seconds)
    refused = 100 * (len(calls) - answered) / len(calls)
    return [what, len(calls), span_s(calls), 100 * answered / allowed, refused, statistics.median(ordered), ordered[int(0.95 * len(ordered))]]


def real(model: Endpoint, workers: int) -> list[float]:
    """Run beam_ray on so many runners; the stored seconds of each step."""
    with tempfile.TemporaryDirectory() as name:
        words = [sys.executable, "-m", "benchmarks.speed.ours", name, model.url, str(TASKS), "--per-minute", str(60 * PER_SECOND)]
        used = run_measured(words, ROOT, BEAM_RAY_MAX_RUNNERS=str(workers))
        steps = beam_ray.open(Path(name) / "store").get_run(str(used.printed["run_id"])).steps(columns=["seconds", "calls"]).to_pylist()
    return [step["seconds"] / step["calls"] for step in steps]


async def together(model: Endpoint, workers: int, *, with_limit: bool = True) -> list[float]:
    """Run the clients of so many workers in this process; the seconds of each answer, as a step would store them."""
    settings = ModelSettings(
        base_url=f"{model.url}/v1", model="x", concurrency=CONCURRENCY, requests_per_minute=60 * PER_SECOND if with_limit else None, tries=20
    )
    limiter, seconds = Limiter(), list[float]()
    tasks = iter(range(TASKS))

    async def work(name: str) -> None:
        async def renew(request: PermitRequest) -> Grant:
            await asyncio.sleep(HOP_S)
            return limiter.renew(name, request, time.monotonic())

        leased = PermitLease(renew, limits_of(settings))
        client = OpenAIModel(settings, leased)
        # a runner's window holds twice its share of the permits
        await asyncio.gather(*(rows(client, tasks) for _ in range(max(8, 2 * CONCURRENCY // workers))))
        await leased.close()
        await client.close()
        limiter.release(name)

    async def rows(client: OpenAIModel, tasks: Iterator[int]) -> None:
        for task in tasks:
            for step in range(1, STEPS + 1):
                usage = Usage()
                await client.ask(Request(({"role": "user", "content": f"task {task} step {step}"},), max_tokens=64), usage)
                seconds.append(usage.seconds / usage.calls)

    await asyncio.gather(*(work(f"worker-{number}") for number in range(workers)))
    return seconds
