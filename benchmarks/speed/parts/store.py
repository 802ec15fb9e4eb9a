"""
Requests of a run to its store, counted, and what a renewal of permits costs.

One runner in this process, on a folder that counts requests; the difference between two runs that
differ only in their number of shards is what a shard takes. docs/scale.md is made of these figures.
Runner, limiter and store are parts of the engine, so the engine's modules are imported.
"""

import asyncio
import collections
import re
import tempfile
import time
from pathlib import Path
from typing import Any

import beam_ray
from beam_ray.run.assignment import Assignment
from beam_ray.run.limiter import Limiter, Limits, PermitRequest
from beam_ray.run.plan import make_plan
from beam_ray.run.runner import Runner
from beam_ray.run.shard import OUTCOME_NODE
from beam_ray.run.summary import summarise
from beam_ray.store.beginning import begin, close
from beam_ray.store.disk import Disk
from beam_ray.store.lease import Lease
from beam_ray.store.objects import Objects
from beam_ray.store.opening import open_objects
from beam_ray.store.run_record import plan_shards
from beam_ray.store.runs import Run
from beam_ray.tasks.parse import read_tasks
from benchmarks.speed.ours import tasks_file, workflow
from benchmarks.speed.report import Report
from benchmarks.speed.work import STEPS

ROWS = 250
SHARDS = (4, 8)


class Counted:
    """A store that counts its requests, by call and kind of key."""

    def __init__(self, objects: Objects):
        self.objects, self.uri = objects, objects.uri
        self.asked: collections.Counter[str] = collections.Counter()
        self.bytes = 0
        self.merge_s = 0.0

    def __getattr__(self, name: str) -> Any:
        call = getattr(self.objects, name)

        def counted(key: Any, *body: Any) -> Any:
            if name == "delete_all":
                return [self.delete(each) for each in key]
            kind = re.sub(r"runs/[^/]*/", "", key)
            self.asked[f"{WORDS.get(name, name)} {kind.split('/')[0] if '/' in kind else kind}"] += 1
            self.bytes += sum(len(each) for each in body if isinstance(each, bytes))
            return call(key, *body)

        return counted


WORDS = {"create": "PUT if absent", "put": "PUT", "read": "GET", "read_range": "GET", "keys": "LIST", "folders": "LIST", "delete": "DELETE", "age": "HEAD"}


def measure(report: Report) -> None:
    """Requests per shard and per run, bytes, and renewals."""
    few, many = (_counted(shards) for shards in SHARDS)
    more = SHARDS[1] - SHARDS[0]
    rows = []
    # spool files are written by the clock: at most one every 0.8 s by each runner
    for what in sorted(each for each in few.asked | many.asked if not each.endswith("spool") or each.startswith("LIST")):
        each = (many.asked[what] - few.asked[what]) / more
        rows.append([what, each, few.asked[what] - each * SHARDS[0]])
    rows.append(["total", *(sum(float(row[column]) for row in rows) for column in (1, 2))])
    report.table([f"requests, {STEPS} nodes, {ROWS} rows per shard", "per shard", "per run"], rows)
    report.note(
        f"{(many.bytes - few.bytes) / more / ROWS / STEPS:,.0f} bytes written per step: its part, the merged file, and the spool. "
        f"Merging takes {1e6 * (many.merge_s - few.merge_s) / more / ROWS / STEPS:,.0f} microseconds of CPU per step."
    )
    report.table(
        ["renewal of permits, without Ray", "runners", "microseconds"], [["limiter.renew", runners, _renewal_us(runners)] for runners in (2, 8, 64, 200)]
    )


def _counted(shards: int) -> Counted:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plain = open_objects(str(folder / "store"))
        assert isinstance(plain, Disk)
        objects = Counted(plain)
        models = {"m": beam_ray.ScriptedModel(lambda request: "ok")}
        plan = make_plan(beam_ray.load(workflow(folder)), read_tasks(tasks_file(folder, shards * ROWS), plain), models)
        record = plan.record.model_copy(update={"shards": plan_shards(shards * ROWS, 1, ROWS)})
        asyncio.run(_drive(objects, record, plan.tasks, models))
        return objects


async def _drive(objects: Any, record: Any, tasks: Any, models: dict[str, Any]) -> None:
    record = begin(objects, record, tasks)
    run = Run(objects, record.run_id)
    lease = Lease(run)
    run.parts()
    runner = Runner(Assignment(objects.uri, record.run_id, models, "one", 128))
    # the runner opens its store by its address; this one counts
    runner.objects, runner.run = objects, Run(objects, record.run_id)
    order = record.plan.order
    for shard in range(len(record.shards)):
        await asyncio.gather(*(runner.step(shard, node) for node in order))
    began = time.process_time()
    files = [entry for node in (*order, OUTCOME_NODE) for entry in await runner.merge(node)]
    objects.merge_s = time.process_time() - began
    run.finish(files, summarise(run, files))
    close(objects, record)
    await runner.stop()
    lease.release()


def _renewal_us(runners: int) -> float:
    limits, limiter, times = Limits(64, 9_000.0, 1_000_000.0), Limiter(), 2_000
    request = PermitRequest(limits, 1, 5, 500, 1, 10)
    began = time.perf_counter()
    for turn in range(times):
        limiter.renew(f"runner-{turn % runners}", request, turn / 1_000)
    return 1e6 * (time.perf_counter() - began) / times
