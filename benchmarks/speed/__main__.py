"""
How near beam_ray comes to what nobody can beat, beside a plain asyncio loop and beside its peers.

    python -m benchmarks.speed [--sizes 50,500,2000] [--large 100000] [--only latency|large|again|commands]

Everything runs on this machine, one after the other; what counts are the ratios of one
run. A peer that is not installed is skipped with a word (see ``peers/README.md``).
"""

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from benchmarks.speed.endpoint import ideal_s
from benchmarks.speed.ours import models_file, tasks_file, workflow
from benchmarks.speed.watched import Used, watched

STEPS, CONCURRENCY = 4, 64
HERE = Path(__file__).parent
PEERS = {"inspect": "inspect_ai", "langgraph": "langgraph", "prefect": "prefect", "promptfoo": "promptfoo", "mlflow": "mlflow"}


def say(text: str = "") -> None:
    """A line, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


@contextlib.contextmanager
def endpoint(*options: str) -> Iterator[str]:
    """The endpoint in a process of its own."""
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.speed.endpoint", *options], cwd=HERE.parents[1], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()


def journal(url: str, *, forget: bool = False) -> dict[str, float]:
    """What the endpoint has seen."""
    import json

    request = urllib.request.Request(f"{url}/journal", method="POST" if forget else "GET")
    with urllib.request.urlopen(request, timeout=10) as answer:
        return dict(json.loads(answer.read()))


def ours(url: str, tasks: int) -> tuple[Used, float]:
    """beam_ray, warm; and the seconds before it was ready."""
    with tempfile.TemporaryDirectory() as folder:
        used = watched([sys.executable, "-m", "benchmarks.speed.ours", folder, url, str(tasks), str(STEPS), str(CONCURRENCY)], HERE.parents[1])
        return used, float(used.said["ready_s"])


def loop(url: str, tasks: int) -> Used:
    """The plain loop."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(HERE / "peers" / "loop.py"), url, str(tasks), str(STEPS), str(CONCURRENCY), f"{folder}/out.jsonl"]
        return watched(command, Path(folder))


def peer(name: str, url: str, tasks: int) -> Used | None:
    """A peer in its own environment; None where it is not installed."""
    python = HERE / "peers" / ".venv" / name / "bin" / "python"
    if not python.exists():
        return None
    with tempfile.TemporaryDirectory() as folder:
        return watched([str(python), str(HERE / "peers" / f"{name}.py"), url, str(tasks), str(STEPS), str(CONCURRENCY), f"{folder}/out"], Path(folder))


def latency(sizes: list[int], repeats: int) -> None:
    """Makespan over ideal, and CPU per step, for each size and shape."""
    say(f"{STEPS} steps a task, {CONCURRENCY} calls at once; makespan in seconds from the start of a warm run to its manifest")
    say(f"{'latency':<10} {'tasks':>6} {'ideal':>7}  {'who':<10} {'makespan':>8} {'x ideal':>7} {'CPU ms/step':>11} {'x loop':>6} {'peak MB':>8} {'calls':>7}")
    for shape in ("fixed", "lognormal"):
        with endpoint("--latency", shape) as url:
            for tasks in sizes:
                best = ideal_s(tasks, STEPS, shape, CONCURRENCY)
                bound = 0.0
                for who in ("loop", "beam_ray", *PEERS):
                    found = []
                    for _ in range(repeats if who in ("loop", "beam_ray") else 1):
                        journal(url, forget=True)
                        used = loop(url, tasks) if who == "loop" else ours(url, tasks)[0] if who == "beam_ray" else peer(who, url, tasks)
                        if used:
                            found.append((float(used.said["seconds"]), used, journal(url)["calls"]))
                    if not found:
                        continue
                    seconds, used, calls = sorted(found, key=lambda each: each[0])[len(found) // 2]
                    steps = tasks * STEPS
                    each = 1000 * used.cpu_s / steps
                    bound = bound or each
                    say(
                        f"{shape:<10} {tasks:>6} {best:>7.2f}  {who:<10} {seconds:>8.2f} {seconds / best:>7.2f} {each:>11.2f} {each / bound:>6.2f} {used.peak_mb:>8.0f} {calls:>7.0f}"
                    )
    missing = [name for name in PEERS if not (HERE / "peers" / ".venv" / name).exists()]
    if missing:
        say(f"not installed, so not measured: {', '.join(missing)}")


def cold(tasks: int) -> None:
    """The command line from nothing, Ray's start and end included, against the same run warm."""
    with endpoint("--latency", "fixed") as url, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models_file(folder, url, CONCURRENCY)
        command = [sys.executable, "-m", "beam_ray", "run", str(workflow(folder, STEPS)), "--tasks", str(tasks_file(folder, tasks)), "--json"]
        used = watched([*command, "--store", str(folder / "store"), "--models", str(folder / "models.yaml")], folder)
        warm, _ = ours(url, tasks)
        say(f"cold: beam-ray run of {tasks} tasks took {used.wall_s:.1f} s, {used.wall_s - float(warm.said['seconds']):.1f} s more than warm")


def large(sizes: list[int]) -> None:
    """Zero latency, scripted answers inside the workers: what our own machinery costs as runs grow."""
    say("zero latency, scripted answers inside the workers")
    say(
        f"{'tasks':>7} {'seconds':>8} {'CPU ms/step':>11} {'x first':>7} {'driver MB':>9} {'workers MB':>10} {'files':>6} {'resume s':>8} {'tasks s':>8} {'compare s':>9}"
    )
    first = 0.0
    for tasks in sizes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            used = watched([sys.executable, "-m", "benchmarks.speed.ours", name, "scripted", str(tasks), str(STEPS), str(CONCURRENCY)], HERE.parents[1])
            each = 1000 * (used.cpu_s) / (tasks * STEPS)
            wall = 1000 * float(used.said["seconds"]) / (tasks * STEPS)
            first = first or wall
            store, run = str(folder / "store"), str(used.said["run_id"])
            files = sum(1 for path in (folder / "store").rglob("*") if path.is_file())
            models_file(folder, "http://127.0.0.1:9", 1)
            times = []
            for words in (["resume", run, "--models", str(folder / "models.yaml")], ["tasks", "--run", run, "--json"], ["compare", run, run, "--json"]):
                began = time.monotonic()
                done = subprocess.run([sys.executable, "-m", "beam_ray", *words, "--store", store], capture_output=True, text=True)
                times.append(time.monotonic() - began)
                if done.returncode:
                    say(f"  {words[0]} left with {done.returncode}: {done.stderr.strip()[:300]}")
            say(
                f"{tasks:>7} {float(used.said['seconds']):>8.2f} {each:>11.3f} {wall / first:>7.2f} {used.driver_mb:>9.0f} {used.workers_mb:>10.0f} {files:>6} {times[0]:>8.1f} {times[1]:>8.1f} {times[2]:>9.1f}"
            )


def commands() -> None:
    """What one waits for at the prompt."""
    with tempfile.TemporaryDirectory() as name:
        path = workflow(Path(name), STEPS)
        for words in (["--help"], ["check", str(path)]):
            taken = []
            for _ in range(5):
                began = time.monotonic()
                subprocess.run([str(Path(sys.executable).parent / "beam-ray"), *words], capture_output=True, check=True)
                taken.append(time.monotonic() - began)
            say(f"beam-ray {words[0]}: {sorted(taken)[2]:.2f} s (median of 5)")


def again(tasks: int) -> None:
    """A backtest that changes the last of four nodes, against the same run in full."""
    import json

    with endpoint("--latency", "fixed") as url, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models_file(folder, url, CONCURRENCY)
        options = ["--store", str(folder / "store"), "--models", str(folder / "models.yaml")]
        before, path = workflow(folder, STEPS), tasks_file(folder, tasks)
        watched([sys.executable, "-m", "beam_ray", "run", str(before), "--tasks", str(path), "--json", *options], folder)
        workflow(folder, STEPS, "again ")
        (folder / "spec.yaml").write_text(
            f"backtest: b\nworkflow: {before.name}\nbaseline: {before.name}\ntasks: {path.name}\ncandidates: {{last: chainagain.yaml}}\ngate: gate.yaml\n"
        )
        (folder / "gate.yaml").write_text("gate: g\nrules: {compared: {at_least: 95}}\n")
        plan = subprocess.run(
            [sys.executable, "-m", "beam_ray", "backtest", "spec.yaml", "--plan", "--json", *options], cwd=folder, capture_output=True, text=True, check=True
        )
        planned = sum(side["calls"] for side in json.loads(plan.stdout)["sides"])
        journal(url, forget=True)
        watched([sys.executable, "-m", "beam_ray", "backtest", "spec.yaml", "--json", "--mlflow", "none", *options], folder)
        seen = journal(url)
        part = ideal_s(tasks, 1, "fixed", CONCURRENCY)
        say(
            f"again: {tasks} tasks, the last of {STEPS} nodes changed: {seen['calls']:.0f} calls ({planned} planned), {seen['span_s']:.2f} s of model time, {seen['span_s'] / part:.2f} x a quarter of the full run's"
        )


def main() -> None:
    """All parts, or the one asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--sizes", default="50,500,2000")
    parser.add_argument("--large", default="1000,10000,100000")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--only", choices=["latency", "cold", "large", "again", "commands"])
    arguments = parser.parse_args()
    sizes, many = ([int(size) for size in each.split(",")] for each in (arguments.sizes, arguments.large))
    parts = {
        "commands": commands,
        "cold": lambda: cold(50),
        "again": lambda: again(500),
        "latency": lambda: latency(sizes, arguments.repeats),
        "large": lambda: large(many),
    }
    for name, part in parts.items():
        if arguments.only in (None, name):
            part()
            say()


if __name__ == "__main__":
    main()
