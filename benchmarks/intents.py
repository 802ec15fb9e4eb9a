"""
Sort real messages with a workflow, and say how many labels are right.

    python benchmarks/intents.py DATA_DIR [--limit 150] [--compare] [--store URI]

DATA_DIR is the BANKING77 data set: ``banking_data/test.csv`` and ``train.csv``. The 77
labels of its ``categories.json`` stand in ``workflows/intents.yaml``.
"""

import csv
import hashlib
import json
import random
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click
from receipts import HERE, Task, asked, asking, costs, leave, opened, options, run_over, show_costs, there

from beam_ray.cli.screen import emit, show, table
from beam_ray.compare.compare_runs import compare_runs
from beam_ray.compare.gate import DEFAULT_GATE
from beam_ray.compare.report import Result, document
from beam_ray.compare.terminal import terminal
from beam_ray.compare.verdict import judge
from beam_ray.define.workflow import Workflow
from beam_ray.llm import Request
from beam_ray.store.runs import Run

SEED = 77
SHORT = 60
"""Characters of the longest message that is taken for an example: each is paid for with every call."""


def read_messages(data: Path) -> list[Task]:
    """The test messages as tasks, shuffled: the file has them intent by intent, so its first 150 would be of four intents only."""
    with there(data / "banking_data" / "test.csv").open(encoding="utf-8", newline="") as rows:
        tasks = [
            {"id": f"test-{number:04d}", "task_query": row["text"], "expected": {"label": row["category"]}} for number, row in enumerate(csv.DictReader(rows))
        ]
    random.Random(SEED).shuffle(tasks)
    return tasks


def choose_examples(data: Path, count: int) -> list[tuple[str, str]]:
    """Short training messages of *count* different intents, and their labels; the same ones each time."""
    with there(data / "banking_data" / "train.csv").open(encoding="utf-8", newline="") as rows:
        known = [(row["text"], row["category"]) for row in csv.DictReader(rows) if len(row["text"]) <= SHORT and "{" not in row["text"]]
    random.Random(SEED).shuffle(known)
    return [(text, label) for label, text in list({label: text for text, label in known}.items())[:count]]


def with_examples(workflow: Workflow, examples: list[tuple[str, str]]) -> Workflow:
    """The workflow with the examples as turns before the message."""
    written = workflow.document()
    *before, message = written["nodes"]["classify"]["llm"]["prompt"]
    turns = [[{"role": "user", "content": text}, {"role": "assistant", "content": json.dumps({"label": label})}] for text, label in examples]
    written["nodes"]["classify"]["llm"]["prompt"] = [*before, *(turn for pair in turns for turn in pair), message]
    return Workflow.model_validate(written)


def scripted(truths: Mapping[str, str], request: Request) -> Any:
    """The truth, except one time in five, which depends on prompt and message only: then any label, an unknown one, or no answer."""
    chance = random.Random(hashlib.sha256(str(request.messages).encode()).digest())
    if chance.random() < 0.8:
        return {"label": truths[request.task_id]}
    if chance.random() < 0.05:
        raise RuntimeError("the script does not answer")
    return {"label": chance.choice([*truths.values(), "no_such_label"])}


def labels(run: Run) -> dict[str, Any]:
    """How many labels are right, and how the answers are spread."""
    given = {row["task_id"]: json.loads(row["output"] or "{}").get("label") for row in run.steps(columns=["task_id", "output"]).to_pylist()}
    want = {task["task_id"]: json.loads(task["expected"])["label"] for task in run.tasks().to_pylist()}
    often = Counter(label for label in given.values() if label)
    right = sum(given[name] == label for name, label in want.items())
    return {"right": right, "of": len(want), "intents_asked": len(set(want.values())), "intents_answered": len(often), "most_often": dict(often.most_common(3))}


@click.command()
@options
@click.option("--compare", is_flag=True, help="Run the prompt without and with examples, and compare them pair by pair.")
@click.option("--examples", default=0, help="How many examples the prompt has; with --compare 38 unless given.")
def intents(data: Path, models: Path | None, model: str, limit: int | None, store: str | None, as_json: bool, compare: bool, examples: int) -> None:
    """Run the intents workflow over the BANKING77 messages in DATA_DIR."""
    tasks = read_messages(data)
    answer = partial(scripted, {task["id"]: task["expected"]["label"] for task in tasks})
    plain = asking(HERE / "workflows" / "intents.yaml", model)
    counts = [0, examples or 38] if compare else [examples]
    # the prompt is nearly the same in each call; the embedded model, which reads it slowly, reads it once
    with asked(models, model, answer, cache_prompt=True) as known, opened(store) as objects:
        done = [run_over(objects, with_examples(plain, choose_examples(data, count)), tasks[:limit], known) for count in counts]
        found = [{"examples": count, **labels(run), **costs(run, seconds)} for count, (run, seconds) in zip(counts, done, strict=True)]
        results = []
        if compare:
            comparison = compare_runs(done[0][0], done[1][0], names=("no examples", f"{counts[1]} examples"))
            results = [Result(comparison, judge(comparison, DEFAULT_GATE))]
    if as_json:
        emit({"benchmark": "intents", "model": model, "messages": len(tasks), "runs": found, **({"comparison": document(results)} if results else {})})
        return
    show(f"intents · {found[0]['of']:,} of {len(tasks):,} messages · model {model}")
    for each in found:
        show(f"\n{each['examples']} examples · run {each['run_id']}")
        show(f"  right: {each['right']:,} of {each['of']:,} ({100 * each['right'] / each['of']:.1f} %); one label for all would get about 1.3 %")
        show(f"  {each['intents_answered']} labels answered, {each['intents_asked']} asked for")
        show(table(["most often", "times"], each["most_often"].items(), right=[1]))
        show_costs(each)
    if results:
        show(f"\n{terminal(results, 'intents')}")


if __name__ == "__main__":
    leave(intents)
