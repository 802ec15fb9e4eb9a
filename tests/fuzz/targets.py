"""
What is fuzzed: everything that reads what strangers wrote.

Each target takes any text and either returns or raises one of ``beam_ray.errors``; whatever
else comes out is a finding. ``SEEDS`` are texts to begin with, so that a fuzzer need not
invent YAML first.
"""

import json
import re
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from beam_ray.backtest.spec import load_spec
from beam_ray.compare.gate_file import load_gate
from beam_ray.define.check import check
from beam_ray.define.criterion import expand
from beam_ray.define.load import parse_workflow
from beam_ray.define.returns import object_schema
from beam_ray.define.template import TemplateFault, evaluate, fill, render, uses
from beam_ray.define.workflow import Workflow
from beam_ray.define.yaml_file import read_yaml
from beam_ray.errors import BadAnswer, BeamRayError
from beam_ray.evaluate.judge import judge_schema
from beam_ray.evaluate.rules import judge_by_rule
from beam_ray.improve.draft_text import with_edit, with_files
from beam_ray.llm.answer import parse_answer
from beam_ray.llm.models_file import load_models
from beam_ray.store.disk import Disk
from beam_ray.store.drafts import Revision, read_draft
from beam_ray.store.parquet import encode, to_json, to_table
from beam_ray.store.tables import STEPS
from beam_ray.tasks.parse import read_tasks
from tests.fuzz import targets_of_services

_HELD = tempfile.TemporaryDirectory(prefix="beam-ray-fuzz-")  # taken away when the process ends
FOLDER = Path(_HELD.name)
OBJECTS = Disk(FOLDER / "store")
SCHEMA = object_schema(
    {"total": "number", "vendor": "str | null", "day": "date", "kind": {"one of": ["order", "invoice"]}, "lines": ["str"], "any": {"type": "array"}}
)
VALUES = {
    "task_query": "a text {{ with }} braces",
    "variables": {"n": 10**9, "text": "x" * 50, "list": [1, "b", None, [2.5]], "none": None},
    "attachments": [],
    "a": {"text": "\ud800 odd", "total": -0.0, "deep": {"b": {"c": [True]}}},
    "output": {"text": "x"},
    "expected": {},
}
CORPUS = Path(__file__).parent.parent / "corpus"


def loader(text: str) -> None:
    """A workflow file: read, shaped, checked, and what is sound is the same when stored and read again."""
    source = read_yaml(FOLDER / "w.yaml", text)
    workflow = parse_workflow(source, FOLDER, FOLDER)
    check(workflow, source, folders=[FOLDER])
    assert Workflow.model_validate(json.loads(json.dumps(workflow.document()))).digest == workflow.digest


def settings(text: str) -> None:
    """A spec, a gate and a models file."""
    path = FOLDER / "settings.yaml"
    path.write_text(text, encoding="utf-8", errors="replace")
    for read in (load_spec, load_gate, load_models):
        try:
            read(path)
        except BeamRayError:
            continue


def template(text: str) -> None:
    """A prompt: parsed, its names found, and filled in."""
    try:
        uses(text)
    except TemplateFault:
        return
    assert isinstance(render(text, VALUES), str)
    fill({"argument": [text]}, VALUES)


def expression(text: str) -> None:
    """A condition, a check and a rule with an expression."""
    try:
        uses(text, expression=True)
    except TemplateFault:
        return
    for rule in ({"check": text}, {"equals": {"text": text}}):
        try:
            [criterion] = expand(rule)
        except ValueError:
            continue
        judge_by_rule(criterion, {"text": "x"}, VALUES, lambda name: print)
    evaluate(text, VALUES)


def answer(text: str) -> None:
    """A model's words: an output that fits and can be kept, or a named fault."""
    for schema in (SCHEMA, judge_schema(2), None):
        try:
            output = parse_answer(text, schema)
        except BadAnswer:
            continue
        row = {"run_id": "r", "task_id": "t", "node": "a", "trial": 1, "outcome": "done", "output": to_json(output), "attempts": [], "criteria": []}
        encode(STEPS, to_table(STEPS, [row]))


def tasks(text: str) -> None:
    """A tasks file, as JSON lines, JSON and tables."""
    for suffix in (".jsonl", ".csv", ".json", ".tsv"):
        path = FOLDER / f"tasks{suffix}"
        path.write_text(text, encoding="utf-8", errors="replace")
        try:
            read_tasks(path, OBJECTS)
        except BeamRayError:
            continue


def draft(text: str) -> None:
    """A draft as the console saves it: with its files, with an edit, parsed; and a draft of the store that is not what was saved."""
    kept = FOLDER / "store" / "drafts" / "w" / "d" / "000001.yaml"
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(text, encoding="utf-8", errors="replace")
    for read in (
        lambda: read_draft(OBJECTS, "w", "d"),
        lambda: with_files(text, FOLDER),
        lambda: with_edit(text, "nodes.a.llm.prompt", [{"role": "user", "content": "x"}], "w"),
        lambda: with_edit(text, "nodes.extract.evaluate.criteria.0", None, "w"),
        lambda: with_edit(text, "nodes.a.llm", text, "w"),
        lambda: Revision("w", "d", 1, text, saved_by="x").parse(),
    ):
        try:
            read()
        except BeamRayError:
            continue


TARGETS: dict[str, Callable[[str], None]] = {each.__name__: each for each in (loader, settings, template, expression, answer, tasks, draft)}
TARGETS |= targets_of_services.TARGETS
FOLDERS = {
    "loader": ("workflows",),
    "settings": ("specs", "gates", "models"),
    "template": ("workflows",),
    "expression": ("workflows",),
    "answer": ("answers",),
    "tasks": ("tasks",),
    "draft": ("workflows",),
    "reply": ("answers",),
}


def seeds(target: str) -> list[str]:
    """Texts of the corpus that a target can begin with."""
    texts = list(targets_of_services.SEEDS.get(target, ()))
    for folder in FOLDERS.get(target, ()):
        for family in sorted((CORPUS / folder).glob("*.txt")):
            for part in re.split(r"^=== ", family.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
                texts.append(part.partition("\n")[2].partition(">>>\n")[0])
    if target == "template":
        texts = [found for text in texts for found in re.findall(r'"(.*\{[{%].*)"', text)]
    if target == "expression":
        texts = [found for text in texts for found in re.findall(r"(?:when|check): (.*)", text)]
    return [text for text in texts if not text.startswith("made:")]


def holds(target: str, text: str) -> None:
    """Run a target; raises only what is a finding."""
    try:
        TARGETS[target](text)
    except BeamRayError as error:
        said = str(error)
    else:
        said = "nothing to refuse"
    assert said, "a refusal says what is wrong"


def all_hold(target: str, texts: Iterable[str]) -> int:
    """Run a target over texts; how many there were."""
    count = 0
    for text in texts:
        holds(target, text)
        count += 1
    return count
