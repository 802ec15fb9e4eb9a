"""
Extract the fields of real receipts with a workflow, and count how many are right.

    python benchmarks/receipts.py DATA_DIR [--limit 60] [--store FOLDER]

DATA_DIR is the SROIE data set: the lines that OCR found in ``data/box/NNN.csv``, the truth in
``data/key/NNN.json``. ``intents.py`` shares the options and the way of running and reporting.
"""

import contextlib
import json
import re
import sys
import tempfile
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click
from workflows.tools.receipts import amount, iso_date

import beam_ray
from beam_ray.errors import BeamRayError, Unusable

HERE = Path(__file__).parent
FIELDS = ("company", "date", "address", "total")
Command = TypeVar("Command", bound=Callable[..., Any])
Task = dict[str, Any]


@contextlib.contextmanager
def open_store(folder: str | None, models: Path | None, name: str, answer: Callable[[beam_ray.Request], Any], **extra: Any) -> Iterator[beam_ray.Store]:
    """
    The store, or a temporary one, with the models of the file, the scripted one, or the embedded one.

    Args:
        folder: The store; None for one that is deleted afterwards.
        models: A models file; None for the embedded model.
        name: The model; ``scripted`` answers with *answer*.
        extra: What the embedded model is sent with every request.
    """
    with tempfile.TemporaryDirectory() as temporary:
        if name == "scripted":
            yield beam_ray.open(folder or temporary, models={name: beam_ray.ScriptedModel(answer)})
        elif models:
            yield beam_ray.open(folder or temporary, models=models)
        else:
            written = {"base_url": "http://127.0.0.1:8377/v1", "model": "smollm2-135m-instruct", "concurrency": 2, "extra": extra}
            settings = beam_ray.ModelSettings.model_validate({**written, "usd_per_million": {"input": 0, "output": 0}})
            store = beam_ray.open(folder or temporary, models={name: settings})
            with beam_ray.embedded_model(store, name):
                yield store


def with_model(path: Path, model: str) -> beam_ray.Workflow:
    """The workflow in the file, with *model* as its model."""
    return beam_ray.Workflow.model_validate({**beam_ray.load(path).document(), "model": model})


def timed_run(store: beam_ray.Store, workflow: beam_ray.Workflow, tasks: list[Task]) -> tuple[beam_ray.Run, float]:
    """The finished run of *workflow* over *tasks*, and its seconds from the plan to the end, Ray's start included."""
    started = time.monotonic()
    run = store.run(workflow, tasks, progress=True)
    return run, time.monotonic() - started


def costs(run: beam_ray.Run, seconds: float) -> dict[str, Any]:
    """What the run took, which steps failed and why, and its size in the store."""
    files = [path for path in Path(run.store.uri, "runs", run.id).rglob("*") if path.is_file()]
    steps = run.steps(columns=["node", "outcome", "error_type", "error"]).to_pylist()
    # without digits, so that errors of one kind are counted together
    failed = Counter(re.sub(r"\d+", "N", f"{row['node']}: {row['error_type']}: {row['error'][:90]}") for row in steps if row["outcome"] == "failed")
    names = ("rows", "passed", "calls", "input_tokens", "output_tokens", "steps_done", "steps_failed", "steps_skipped")
    sizes = {"bytes": sum(path.stat().st_size for path in files), "files": len(files)}
    return {"run_id": run.id, **{name: run.summary[name] for name in names}, "seconds": round(seconds, 1), "failed": dict(failed.most_common()), **sizes}


def print_costs(found: Mapping[str, Any]) -> None:
    """The costs as text."""
    each = found["seconds"] / found["rows"]
    click.echo(f"  {found['passed']:,} of {found['rows']:,} tasks pass the workflow's own criteria")
    click.echo(f"  {duration(found['seconds'])} including the start of Ray, {each * 1000:,.0f} ms per task; {found['calls']:,} model calls")
    click.echo(f"  {found['input_tokens']:,} input tokens, {found['output_tokens']:,} output tokens")
    click.echo(f"  {found['bytes']:,} bytes in {found['files']} files in the store")
    click.echo(f"  steps: {found['steps_done']:,} done, {found['steps_failed']:,} failed, {found['steps_skipped']:,} skipped")
    for reason, count in found["failed"].items():
        click.echo(f"    {count:,} x {reason}")


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table whose first column is text, and whose others are numbers."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for first, *others in (header, *rows):
        click.echo("  ".join(["  " + first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]))


def duration(seconds: float) -> str:
    """Seconds, as minutes and seconds from a minute on."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def options(command: Command) -> Command:
    """DATA_DIR and the options that both benchmarks have."""
    command = click.option("--models", type=click.Path(exists=True, path_type=Path), help="Models file. Default: the embedded model is started.")(command)
    command = click.option("--model", default="local/small", show_default=True, help="Model; 'scripted' answers at once with the truth and planned faults.")(
        command
    )
    command = click.option("--limit", type=int, help="Use only the first N tasks.", metavar="N")(command)
    command = click.option("--store", metavar="FOLDER", help="Folder for the run. Default: a temporary one.")(command)
    command = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(command)
    return click.argument("data", metavar="DATA_DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))(command)


def existing(path: Path) -> Path:
    """
    The path itself.

    Raises:
        Unusable: there is no such file.
    """
    if not path.exists():
        raise Unusable(f"{path}: file not found; DATA_DIR must be the folder of the data set")
    return path


def main(command: click.Command) -> None:
    """Run the command; print an error that the user can fix as a sentence, without a traceback."""
    try:
        command()
    except BeamRayError as error:
        click.echo(str(error), err=True)
        sys.exit(error.exit_code)


def read_receipts(data: Path) -> list[Task]:
    """
    The receipts as tasks: the text line by line, in the order of the file, and what is expected.

    Date and total of the truth are normalised (see ``iso_date`` and ``amount``); a field that it leaves empty is not expected.
    """
    tasks = []
    for key in sorted(existing(data / "data" / "key").glob("*.json")):
        truth = json.loads(key.read_text(encoding="utf-8"))
        boxes = (data / "data" / "box" / f"{key.stem}.csv").read_text(encoding="utf-8").splitlines()
        # eight coordinates, then the text, commas and all
        lines = [box.split(",", 8)[8] for box in boxes if box.count(",") >= 8]
        expected = {**truth, "date": iso_date(truth["date"]), "total": amount(truth["total"])}
        tasks.append({"id": key.stem, "task_query": "\n".join(lines), "expected": {name: value for name, value in expected.items() if value not in (None, "")}})
    return tasks


def scripted(truths: Mapping[str, Mapping[str, Any]], request: beam_ray.Request) -> Any:
    """The truth, but of every hundred receipts one gets no answer, one gets broken JSON, and ten get a wrong total."""
    truth = {"company": "-", "date": "-", "address": "-", "total": 0.0, **truths[request.task_id]}
    place = int(request.task_id) % 100
    if place == 0:
        raise RuntimeError("the script does not answer")
    return '{"company": ' if place == 1 else {**truth, "total": truth["total"] + 1 if place < 12 else truth["total"]}


def accuracy(run: beam_ray.Run) -> dict[str, dict[str, int]]:
    """Per field, and for whole receipts: how many are expected, how many are right, and how many are without case, space and punctuation."""
    outputs: dict[str, dict[str, Any]] = {}
    for row in run.steps(columns=["task_id", "output"]).to_pylist():  # extract before tidy, whose date is the one that counts
        outputs.setdefault(row["task_id"], {}).update(json.loads(row["output"] or "{}"))
    found = {name: {"expected": 0, "exact": 0, "loose": 0} for name in (*FIELDS, "whole receipt")}
    for task in run.inputs().to_pylist():
        want, got = json.loads(task["expected"]), outputs[task["task_id"]]
        exact = {name: got.get(name) == want[name] for name in want}
        loose = {name: folded(got.get(name)) == folded(want[name]) for name in want}
        for name in (*want, "whole receipt"):
            right = (all(exact.values()), all(loose.values())) if name == "whole receipt" else (exact[name], loose[name])
            for column, value in zip(found[name], (True, *right), strict=True):
                found[name][column] += value
    return found


def folded(value: Any) -> Any:
    """A text without case, space and punctuation; any other value as it is."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFC", value).casefold()) if isinstance(value, str) else value


@click.command()
@options
def receipts(data: Path, models: Path | None, model: str, limit: int | None, store: str | None, as_json: bool) -> None:
    """Run the receipts workflow over the SROIE receipts in DATA_DIR."""
    tasks = read_receipts(data)
    answer = partial(scripted, {task["id"]: task["expected"] for task in tasks})
    workflow = with_model(HERE / "workflows" / "receipts.yaml", model)
    with open_store(store, models, model, answer) as opened:
        run, seconds = timed_run(opened, workflow, tasks[:limit])
        fields, cost = accuracy(run), costs(run, seconds)
    if as_json:
        click.echo(json.dumps({"benchmark": "receipts", "model": model, "receipts": cost["rows"], "of": len(tasks), "fields": fields, **cost}, indent=2))
        return
    click.echo(f"receipts · {cost['rows']:,} of {len(tasks):,} · model {model} · run {cost['run_id']}")
    rows = [
        [name, *map(str, count.values()), *(f"{100 * count[way] / max(count['expected'], 1):.1f}%" for way in ("exact", "loose"))]
        for name, count in fields.items()
    ]
    print_table(["field", "expected", "exact", "loose", "exact %", "loose %"], rows)
    print_costs(cost)


if __name__ == "__main__":
    main(receipts)
