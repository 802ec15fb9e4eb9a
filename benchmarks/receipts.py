"""
Read real receipts with a workflow, and say how many fields are right.

    python benchmarks/receipts.py DATA_DIR [--limit 60] [--store URI]

DATA_DIR is the SROIE data set: the lines that OCR found in ``data/box/NNN.csv``, the truth in
``data/key/NNN.json``. ``intents.py`` runs, counts and reports with what stands here.
"""

import contextlib
import json
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click
from workflows.tools.receipts import amount, iso_date

from beam_ray.api.runs import probe_models
from beam_ray.cli.screen import Meter, duration, emit, say, show, table
from beam_ray.define.workflow import Workflow
from beam_ray.errors import BeamRayError, Unusable
from beam_ray.evaluate.rules import same
from beam_ray.llm import Request, ScriptedModel
from beam_ray.llm.local import MODEL, running
from beam_ray.llm.settings import ModelSettings, UsdPerMillion, load_models
from beam_ray.run.execute import execute
from beam_ray.run.plan import load_workflow, make_plan
from beam_ray.store.beginning import begin
from beam_ray.store.objects import Objects
from beam_ray.store.opening import open_objects
from beam_ray.store.runs import Run
from beam_ray.tasks.sources import read

HERE = Path(__file__).parent
FIELDS = ("company", "date", "address", "total")
Command = TypeVar("Command", bound=Callable[..., Any])
Task = dict[str, Any]


@contextlib.contextmanager
def asked(models: Path | None, name: str, answer: Callable[[Request], Any], **extra: Any) -> Iterator[Mapping[str, Any]]:
    """The models by name: those of the file, the scripted one, or the embedded one, asked with *extra*, which ends with the context."""
    if name == "scripted":
        yield {name: ScriptedModel(answer)}
    elif models:
        yield load_models(models)
    else:
        with running() as url:
            yield {name: ModelSettings(base_url=url, model=MODEL, usd_per_million=UsdPerMillion(input=0, output=0), concurrency=2, extra=extra)}


@contextlib.contextmanager
def opened(store: str | None) -> Iterator[Objects]:
    """The store, or one that is thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        yield open_objects(store or folder)


def run_over(objects: Objects, workflow: Workflow, tasks: list[Task], models: Mapping[str, Any]) -> tuple[Run, float]:
    """The finished run of *workflow* over *tasks*, and the seconds from plan to manifest, Ray's start included."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"{workflow.name}.jsonl")
        path.write_text("".join(f"{json.dumps(task)}\n" for task in tasks), encoding="utf-8")
        rows, _ = read(objects, str(path))
    plan = make_plan(workflow, rows, models, source=f"{workflow.name}.jsonl")
    probe_models(models, workflow)
    record = begin(objects, plan.record, plan.tasks)
    meter = Meter(f"run {record.run_id}")
    execute(objects, record, models, progress=meter)
    meter.done()
    return Run(objects, record.run_id), time.monotonic() - started


def asking(path: Path, model: str) -> Workflow:
    """The workflow in the file, made to ask *model*."""
    return Workflow.model_validate({**load_workflow(path)[0].document(), "model": model})


def costs(run: Run, seconds: float) -> dict[str, Any]:
    """What the run took, what failed in it and why, and how much of the store it is."""
    assert run.manifest
    usage, sizes = run.manifest["usage"], [size for _, size in run.objects.keys(f"{run.prefix}/")]
    steps = run.steps(columns=["node", "outcome", "error_type", "error"]).to_pylist()
    # numbers out, so that faults of one kind are one line
    failed = Counter(re.sub(r"\d+", "N", f"{row['node']}: {row['error_type']}: {row['error'][:90]}") for row in steps if row["outcome"] == "failed")
    told = {name: usage[name] for name in ("rows", "passed", "calls", "input_tokens", "output_tokens", "steps_done", "steps_failed", "steps_skipped")}
    return {"run_id": run.run_id, **told, "seconds": round(seconds, 1), "failed": dict(failed.most_common()), "bytes": sum(sizes), "files": len(sizes)}


def show_costs(found: Mapping[str, Any]) -> None:
    """The same for people."""
    each = found["seconds"] / found["rows"]
    show(f"  passed by the workflow's own criteria: {found['passed']:,} of {found['rows']:,}")
    show(f"  {duration(found['seconds'])} with Ray's start, {each * 1000:,.0f} ms a task; {found['calls']:,} model calls")
    show(f"  {found['input_tokens']:,} tokens in, {found['output_tokens']:,} out; the run in the store: {found['bytes']:,} bytes in {found['files']} files")
    show(f"  steps: {found['steps_done']:,} done, {found['steps_failed']:,} failed, {found['steps_skipped']:,} skipped")
    for reason, count in found["failed"].items():
        show(f"    {count:,} x {reason}")


def options(command: Command) -> Command:
    """DATA_DIR and the options that both benchmarks have."""
    command = click.option("--models", type=click.Path(exists=True, path_type=Path), help="A models file; without it the embedded model is started.")(command)
    command = click.option("--model", default="local/small", show_default=True, help="A name from it; 'scripted' answers at once, with the truth and faults.")(
        command
    )
    command = click.option("--limit", type=int, help="Only the first so many.")(command)
    command = click.option("--store", help="Where the run is kept; thrown away unless given.")(command)
    command = click.option("--json", "as_json", is_flag=True, help="One JSON document.")(command)
    return click.argument("data", metavar="DATA_DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))(command)


def there(path: Path) -> Path:
    """
    The path itself.

    Raises:
        Unusable: nothing is there.
    """
    if not path.exists():
        raise Unusable(f"{path}: there is no such file; DATA_DIR is the data set's own folder")
    return path


def leave(command: click.Command) -> None:
    """Run the command; what you can fix is a sentence, and no traceback."""
    try:
        command()
    except BeamRayError as error:
        say(str(error))
        sys.exit(error.exit_code)


def read_receipts(data: Path) -> list[Task]:
    """
    The receipts as tasks: the text line by line, in the order of the file, and what is expected.

    Date and total of the truth are normalised (see ``iso_date`` and ``amount``); a field that it leaves empty is not expected.
    """
    tasks = []
    for key in sorted(there(data / "data" / "key").glob("*.json")):
        truth = json.loads(key.read_text(encoding="utf-8"))
        boxes = (data / "data" / "box" / f"{key.stem}.csv").read_text(encoding="utf-8").splitlines()
        # eight coordinates, then the text, commas and all
        lines = [box.split(",", 8)[8] for box in boxes if box.count(",") >= 8]
        expected = {**truth, "date": iso_date(truth["date"]), "total": amount(truth["total"])}
        tasks.append({"id": key.stem, "task_query": "\n".join(lines), "expected": {name: value for name, value in expected.items() if value not in (None, "")}})
    return tasks


def scripted(truths: Mapping[str, Mapping[str, Any]], request: Request) -> Any:
    """The truth; of every hundred receipts one is not answered, one with broken JSON, and ten with a wrong total."""
    truth = {"company": "-", "date": "-", "address": "-", "total": 0.0, **truths[request.task_id]}
    place = int(request.task_id) % 100
    if place == 0:
        raise RuntimeError("the script does not answer")
    return '{"company": ' if place == 1 else {**truth, "total": truth["total"] + 1 if place < 12 else truth["total"]}


def accuracy(run: Run) -> dict[str, dict[str, int]]:
    """Per field, and for all of a receipt: how many are expected, right, and right without case, space and punctuation."""
    outputs: dict[str, dict[str, Any]] = {}
    for row in run.steps(columns=["task_id", "output"]).to_pylist():  # extract before tidy, whose date is the one that counts
        outputs.setdefault(row["task_id"], {}).update(json.loads(row["output"] or "{}"))
    found = {name: {"expected": 0, "exact": 0, "loose": 0} for name in (*FIELDS, "all of it")}
    for task in run.tasks().to_pylist():
        want, got = json.loads(task["expected"]), outputs[task["task_id"]]
        exact = {name: got.get(name) == want[name] for name in want}
        loose = {name: same(got.get(name), want[name], ("case", "space", "punctuation")) for name in want}
        for name in (*want, "all of it"):
            right = (all(exact.values()), all(loose.values())) if name == "all of it" else (exact[name], loose[name])
            for column, value in zip(found[name], (True, *right), strict=True):
                found[name][column] += value
    return found


@click.command()
@options
def receipts(data: Path, models: Path | None, model: str, limit: int | None, store: str | None, as_json: bool) -> None:
    """Run the receipts workflow over the SROIE receipts in DATA_DIR."""
    tasks = read_receipts(data)
    answer = partial(scripted, {task["id"]: task["expected"] for task in tasks})
    workflow = asking(HERE / "workflows" / "receipts.yaml", model)
    with asked(models, model, answer) as known, opened(store) as objects:
        run, seconds = run_over(objects, workflow, tasks[:limit], known)
        fields, cost = accuracy(run), costs(run, seconds)
    if as_json:
        emit({"benchmark": "receipts", "model": model, "receipts": cost["rows"], "of": len(tasks), "fields": fields, **cost})
        return
    show(f"receipts · {cost['rows']:,} of {len(tasks):,} · model {model} · run {cost['run_id']}")
    rows = [
        [name, *(count.values()), *(f"{100 * count[way] / max(count['expected'], 1):.1f} %" for way in ("exact", "loose"))] for name, count in fields.items()
    ]
    show(table(["field", "expected", "exact", "loose", "exact %", "loose %"], rows, right=range(1, 6)))
    show_costs(cost)


if __name__ == "__main__":
    leave(receipts)
