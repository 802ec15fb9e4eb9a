"""Which criteria ask for a class: those that compare a ``one of`` field with the task's expected value."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

import pyarrow as pa

from beam_ray.compare.verdict_json import ClassMeasureKind
from beam_ray.define.criterion import Criterion
from beam_ray.define.fingerprint import Json
from beam_ray.define.workflow import Node, Workflow
from beam_ray.evaluate.rules import look, same
from beam_ray.store.runs import Run

BY_CLASS: tuple[ClassMeasureKind, ...] = ("precision", "recall", "f1")
"""What is measured of each class, and averaged over all."""
MOST_CLASSES = 200
"""Of one field; with more it is no classification that tables could show."""


@dataclass(frozen=True)
class Question:
    """A field with known classes, and what each task expects of it."""

    name: str
    """``node/criterion``."""
    node: str
    field: str
    options: tuple[str, ...]
    expected: Mapping[str, str]
    """Task id to its class; tasks that expect nothing are not in it."""
    ignore: tuple[str, ...] = ()
    changed: int = 0
    """Tasks that expected another class in the baseline's run."""


def class_criteria(workflow: Workflow) -> Iterator[tuple[str, Criterion, tuple[str, ...]]]:
    """Each criterion that compares a ``one of`` field with the expected value, with its node and the field's values; one a field."""
    for name, node in workflow.nodes.items():
        seen = set()
        for criterion in node.evaluate.criteria if node.evaluate else ():
            options = _options(node, criterion.field) if _expects(criterion) else ()
            if options and criterion.field not in seen:
                seen.add(criterion.field)
                yield name, criterion, options


def class_questions(before: Run, after: Run) -> tuple[Question, ...]:
    """The questions that the candidate's criteria ask, where both workflows have the node; tasks are read only if there is one."""
    asked = [entry for entry in class_criteria(after.record.plan) if entry[0] in before.record.plan.nodes]
    if not asked:
        return ()
    wanted = [dict(_expectations(run.tasks())) for run in (after, before)]
    made = []
    for node, criterion, options in asked:
        own = _options(before.record.plan.nodes[node], criterion.field)
        every = tuple(dict.fromkeys((*options, *own)))[:MOST_CLASSES]
        here, there = (dict(_classes(each, criterion, every)) for each in wanted)
        changed = sum(there.get(task, name) != name for task, name in here.items())
        made.append(Question(f"{node}/{criterion.id}", node, criterion.field, every, here, criterion.ignore, changed))
    return tuple(made)


def class_rule(criterion: str) -> tuple[str, str, str | None] | None:
    """``team.recall[billing]`` as criterion, kind and class; None for what is no such rule."""
    match = re.fullmatch(rf"(.+)\.({'|'.join(get_args(ClassMeasureKind))})(?:\[(.+)\])?", criterion)
    return (match[1], match[2], match[3]) if match else None


def _expects(criterion: Criterion) -> bool:
    return criterion.kind == "equals" and isinstance(criterion.want, str) and _path(criterion.want) is not None


def _path(want: str) -> str | None:
    match = re.fullmatch(r"\s*expected\.(\w+(?:\.\w+)*)\s*", want)
    return match[1] if match else None


def _options(node: Node, field: str) -> tuple[str, ...]:
    """The values of a ``one of`` field, also of one that may be null; none for any other field."""
    schema: Any = node.call.returns if node.call else None
    for name in field.split("."):
        schema = schema.get("properties", {}).get(name) if isinstance(schema, Mapping) else None
    if not isinstance(schema, Mapping):
        return ()
    parts = [schema, *(part for part in schema.get("anyOf", ()) if isinstance(part, Mapping))]
    values: list[Json] = next((part["enum"] for part in parts if isinstance(part.get("enum"), list)), [])
    return tuple(dict.fromkeys(_text(value) for value in values if value is not None))[:MOST_CLASSES]


def _expectations(tasks: pa.Table) -> Iterator[tuple[str, Json]]:
    for task, expected in zip(tasks["task_id"].to_pylist(), tasks["expected"].to_pylist(), strict=True):
        if expected:
            yield task, json.loads(expected)


def _classes(expected: Mapping[str, Json], criterion: Criterion, options: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Each task's class, as the field's own values write it."""
    path = _path(criterion.want)
    assert path is not None
    known: dict[str, str] = {}
    for task, outcome in expected.items():
        value, there = look(outcome, path)
        if not there or value is None or isinstance(value, list | dict):
            continue
        text = _text(value)
        if text not in known:
            known[text] = next((option for option in options if same(option, text, criterion.ignore)), text)
        yield task, known[text]


def _text(value: Json) -> str:
    return value if isinstance(value, str) else json.dumps(value)
