"""
Classify real messages with a workflow, and count how many labels are right.

    python benchmarks/intents.py DATA_DIR [--limit 150] [--compare] [--store FOLDER]

DATA_DIR is the BANKING77 data set: ``banking_data/test.csv`` and ``train.csv``. The 77
labels of its ``categories.json`` are in ``workflows/intents.yaml``.
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
from receipts import HERE, Task, costs, existing, main, open_store, options, print_costs, print_table, timed_run, with_model

import beam_ray

SEED = 77
SHORT = 60
"""Most characters of a message that is used as an example, because every call pays for the examples."""


def read_messages(data: Path) -> list[Task]:
    """The test messages as tasks, shuffled: the file is sorted by intent, so its first 150 messages have only four intents."""
    with existing(data / "banking_data" / "test.csv").open(encoding="utf-8", newline="") as rows:
        tasks = [
            {"id": f"test-{number:04d}", "task_query": row["text"], "expected": {"label": row["category"]}} for number, row in enumerate(csv.DictReader(rows))
        ]
    random.Random(SEED).shuffle(tasks)
    return tasks


def choose_examples(data: Path, count: int) -> list[tuple[str, str]]:
    """Short training messages of *count* different intents, and their labels; the same ones each time."""
    with existing(data / "banking_data" / "train.csv").open(encoding="utf-8", newline="") as rows:
        known = [(row["text"], row["category"]) for row in csv.DictReader(rows) if len(row["text"]) <= SHORT and "{" not in row["text"]]
    random.Random(SEED).shuffle(known)
    return [(text, label) for label, text in list({label: text for text, label in known}.items())[:count]]


def with_examples(workflow: beam_ray.Workflow, examples: list[tuple[str, str]]) -> beam_ray.Workflow:
    """The workflow with the examples as turns before the message."""
    written = workflow.document()
    *before, message = written["nodes"]["classify"]["llm"]["prompt"]
    turns = [[{"role": "user", "content": text}, {"role": "assistant", "content": json.dumps({"label": label})}] for text, label in examples]
    written["nodes"]["classify"]["llm"]["prompt"] = [*before, *(turn for pair in turns for turn in pair), message]
    return beam_ray.Workflow.model_validate(written)


def scripted(truths: Mapping[str, str], request: beam_ray.Request) -> Any:
    """The truth, except one time in five: then any label, an unknown one, or no answer. Which one depends on prompt and message only."""
    chance = random.Random(hashlib.sha256(str(request.messages).encode()).digest())
    if chance.random() < 0.8:
        return {"label": truths[request.task_id]}
    if chance.random() < 0.05:
        raise RuntimeError("the script does not answer")
    return {"label": chance.choice([*truths.values(), "no_such_label"])}


def labels(run: beam_ray.Run) -> dict[str, Any]:
    """How many labels are right, and how the answers are distributed."""
    given = {row["task_id"]: json.loads(row["output"] or "{}").get("label") for row in run.steps(columns=["task_id", "output"]).to_pylist()}
    want = {task["task_id"]: json.loads(task["expected"])["label"] for task in run.inputs().to_pylist()}
    often = Counter(label for label in given.values() if label)
    right = sum(given[name] == label for name, label in want.items())
    return {"right": right, "of": len(want), "intents_asked": len(set(want.values())), "intents_answered": len(often), "most_often": dict(often.most_common(3))}


@click.command()
@options
@click.option("--compare", is_flag=True, help="Run the prompt without and with examples, and compare the two runs.")
@click.option("--examples", default=0, help="Number of examples in the prompt; with --compare, 38 unless given.")
def intents(data: Path, models: Path | None, model: str, limit: int | None, store: str | None, as_json: bool, compare: bool, examples: int) -> None:
    """Run the intents workflow over the BANKING77 messages in DATA_DIR."""
    tasks = read_messages(data)
    answer = partial(scripted, {task["id"]: task["expected"]["label"] for task in tasks})
    plain = with_model(HERE / "workflows" / "intents.yaml", model)
    counts = [0, examples or 38] if compare else [examples]
    # most of the prompt is the same in each call; the embedded model reads that part only once
    with open_store(store, models, model, answer, cache_prompt=True) as opened:
        done = [timed_run(opened, with_examples(plain, choose_examples(data, count)), tasks[:limit]) for count in counts]
        found = [{"examples": count, **labels(run), **costs(run, seconds)} for count, (run, seconds) in zip(counts, done, strict=True)]
        comparison = opened.compare(done[0][0].id, done[1][0].id, gate="improve", names=("no examples", f"{counts[1]} examples")) if compare else None
    if as_json:
        document = {"benchmark": "intents", "model": model, "messages": len(tasks), "runs": found}
        click.echo(json.dumps({**document, **({"comparison": comparison.document()} if comparison else {})}, indent=2))
        return
    click.echo(f"intents · {found[0]['of']:,} of {len(tasks):,} messages · model {model}")
    for each in found:
        click.echo(f"\n{each['examples']} examples · run {each['run_id']}")
        click.echo(f"  {each['right']:,} of {each['of']:,} labels are right ({100 * each['right'] / each['of']:.1f}%); guessing one label gets about 1.3%")
        click.echo(f"  {each['intents_answered']} different labels in the answers, {each['intents_asked']} in the truth")
        print_table(["most frequent answers", "times"], [[label, str(count)] for label, count in each["most_often"].items()])
        print_costs(each)
    if comparison:
        click.echo(f"\n{comparison.report()}")


if __name__ == "__main__":
    main(intents)
