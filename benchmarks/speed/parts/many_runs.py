"""
Commands over a store of 5,000 runs and 500 backtests: time, CPU time, and requests to the store.

The runs are copies of one of 20 tasks and two steps, of 25 workflows in ten versions each; the backtests are copies
of one. A command is a process of its own. The same store is then copied to a real S3 server, and the requests
of each command are counted by a proxy between the two.
"""

import multiprocessing
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import boto3

import beam_ray
from beam_ray.run.connection import Connection
from beam_ray.store.checksummed_json import read_document, seal
from beam_ray.store.objects import Objects
from beam_ray.store.opening import open_objects
from beam_ray.store.runs import Run
from benchmarks.speed.copies import Copies, Unsynced
from benchmarks.speed.ours import tasks_file, workflow
from benchmarks.speed.parts.commands import BEAM_RAY
from benchmarks.speed.report import Report
from benchmarks.speed.slow_store import SlowStore, slow_store
from tests.faults.here import Here
from tests.s3 import KEY, SECRET

RUNS, BACKTESTS, TASKS = 5_000, 500, 20
WORKFLOWS, VERSIONS = 25, 10
REPEATS = 3
MODELS = "m: {answers: [{answer: ok}]}\n"
SPEC = "backtest: b\nworkflow: chain\nbaseline: published\ntasks: {tasks}\ncandidates: {{last: {candidate}}}\ngate: none\n"


def measure(report: Report) -> None:
    """Make the store, then time the commands and count their requests."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        began = time.perf_counter()
        run = _make(folder)
        report.progress(f"made {RUNS:,} runs and {BACKTESTS} backtests in {time.perf_counter() - began:.0f} s")
        store = str(folder / "store")
        commands = [
            ("tasks", ["tasks"]),
            ("tasks, failing", ["tasks", "--status", "failing"]),
            ("show RUN/TASK", ["show", f"{run}/t7"]),
            ("show TASK", ["show", "t7"]),
            ("history RUN/TASK", ["history", f"{run}/t7"]),
            ("health NAME", ["health", "chain"]),
            ("versions NAME", ["versions", "chain"]),
            ("backtest --plan", ["backtest", "spec.yaml", "--plan"]),
            ("backtest --plan, new", ["backtest", "new.yaml", "--plan"]),
        ]
        options = ["--store", store, "--models", str(folder / "models.yaml")]
        first, cpu = _timed([*BEAM_RAY, "tasks", *options[:2]], folder)
        report.note(f"The first command over the store reads all of its runs, and leaves an index: {first:.1f} s, {cpu:.1f} s of CPU.")
        rows = []
        with slow_store(delay_s=0) as remote:
            began = time.perf_counter()
            count = _upload(folder / "store", remote.server, "many")
            report.progress(f"copied {count:,} objects to S3 in {time.perf_counter() - began:.0f} s")
            for title, words in commands:
                models = options[2:] if words[0] == "backtest" else []
                took = [_timed([*BEAM_RAY, *words, *options[:2], *models], folder) for _ in range(REPEATS)]
                seconds = statistics.median(wall for wall, _ in took)
                # without what this machine keeps of the store, and then with it
                shutil.rmtree(folder / "cache" / "beam-ray", ignore_errors=True)
                asked = [_requests(remote, [*BEAM_RAY, *words, "--store", "s3://beam/many", *models], folder) for _ in range(2)]
                rows.append([title, seconds, statistics.median(cpu for _, cpu in took), *asked])
                report.at_most(f"{RUNS:,} runs: beam-ray {title}", seconds, 1, " s")
                report.at_most(f"{RUNS:,} runs on S3: requests of {title}, on a machine that never saw the store", asked[0], 300)
        report.table([f"{RUNS:,} runs, {BACKTESTS} backtests", "median s, folder", "CPU s", "requests to S3, new machine", "requests, again"], rows)


def _timed(command: list[str], folder: Path, **environment: str) -> tuple[float, float]:
    before, began = os.times(), time.perf_counter()
    done = subprocess.run(command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    after = os.times()
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} exited with code {done.returncode}: {done.stderr.strip()[-300:]}")
    return time.perf_counter() - began, after.children_user + after.children_system - before.children_user - before.children_system


def _requests(remote: SlowStore, command: list[str], folder: Path) -> int:
    """Requests that the command makes to the store on S3."""
    remote.forget()
    _timed(command, folder, **remote.environment)
    return len(remote.requests())


def _upload(store: Path, server: str, prefix: str) -> int:
    """Copy all objects of a folder to S3; how many there were."""
    paths = [path for path in store.rglob("*") if path.is_file()]
    client = boto3.client("s3", endpoint_url=server, aws_access_key_id=KEY, aws_secret_access_key=SECRET, region_name="us-east-1")
    with ThreadPoolExecutor(16) as threads:
        for _ in threads.map(lambda path: client.put_object(Bucket="beam", Key=f"{prefix}/{path.relative_to(store)}", Body=path.read_bytes()), paths):
            pass
    return len(paths)


# -- the store ---------------------------------------------------------------------------------


def _make(folder: Path) -> str:
    """The store; the id of a run in the middle of it."""
    (folder / "models.yaml").write_text(MODELS)
    before, after = workflow(folder, steps=2), workflow(folder, steps=2, changed="again ")
    tasks = tasks_file(folder, TASKS)
    (folder / "spec.yaml").write_text(SPEC.format(tasks=tasks.name, candidate=after.name))
    # a candidate that was never run: what it can borrow is looked for in all runs
    (folder / "new.yaml").write_text(SPEC.format(tasks=tasks.name, candidate=workflow(folder, steps=2, changed="new ").name))
    # in this process: a Ray for three runs of 20 tasks would take longer than they do
    store = replace(beam_ray.open(str(folder / "store"), models=folder / "models.yaml"), connection=Connection(cluster=Here()))  # type: ignore[arg-type]
    store.publish(before, without_evidence="first")
    store.run("chain", tasks)
    store.backtest(folder / "spec.yaml")
    objects = open_objects(str(folder / "store"))
    [backtest] = objects.folders("backtests")
    _copy_backtests(objects, backtest)
    origin = min(objects.folders("runs"), key=lambda name: Run(objects, name).created_at)
    workers = max(os.cpu_count() or 1, 1)
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        made = pool.starmap(_copy_runs, [(str(folder / "store"), origin, start, workers) for start in range(workers)])
    return sorted(name for names in made for name in names)[RUNS // 2]


def _copy_runs(store: str, origin: str, start: int, step: int) -> list[str]:
    copies = Copies(Run(Unsynced(Path(store)), origin))
    record = copies.origin.record
    made = []
    for number in range(1 + start, RUNS, step):
        name, version = number % WORKFLOWS, number // WORKFLOWS % VERSIONS
        definition = {**record.definition, "description": f"version {version}"}
        changes = {"workflow": f"chain-{name}", "definition": {**definition, "workflow": f"chain-{name}"}, "definition_digest": f"{name:08x}{version:08x}"}
        # those of one workflow and version are of the definition that is published
        made.append(copies.make(number, number // 15, **(changes if name or version else {})).run_id)
    return made


def _copy_backtests(objects: Objects, origin: str) -> None:
    verdict = read_document(objects, f"backtests/{origin}/verdict.json", dict)
    for number in range(1, BACKTESTS):
        copied = f"{number:012x}"
        objects.create(f"backtests/{copied}/verdict.json", seal({**verdict, "backtest_id": copied}))
