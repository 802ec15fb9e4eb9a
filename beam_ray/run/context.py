"""
What steps work with: the task as templates see it, and what is the same for all rows of a node.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from beam_ray.define.criterion import Criterion
from beam_ray.define.fingerprint import flatten, strict_json
from beam_ray.define.template import uses
from beam_ray.define.workflow import Node, Workflow
from beam_ray.llm.request import Model
from beam_ray.run.tools import Tools

Row = dict[str, Any]
RAN = ("done", "borrowed")


@dataclass(frozen=True)
class TaskRow:
    """One task and trial as the steps see it."""

    task_id: str
    trial: int
    shard: int
    query: Any
    variables: Mapping[str, Any]
    expected: Mapping[str, Any] | None
    attachments: tuple[Mapping[str, Any], ...] = ()
    """As the task names them; ``Desk.attachments`` opens them."""
    inputs: str = ""
    labels: tuple[str, ...] = ()

    @classmethod
    def of(cls, row: Mapping[str, Any], trial: int, shard: int) -> "TaskRow":
        """The row of the table TASKS in its *trial*."""
        return cls(
            task_id=row["task_id"],
            trial=trial,
            shard=shard,
            query=strict_json(row["task_query"]) if row["query_is_json"] else row["task_query"],
            variables=strict_json(row["variables"]),
            expected=strict_json(row["expected"]) if row["expected"] is not None else None,
            attachments=tuple(row["attachments"] or ()),
            inputs=row["inputs"],
            labels=tuple(row["labels"] or ()),
        )

    def values(self, workflow: Workflow) -> dict[str, Any]:
        """What templates may use before any node has run."""
        given: dict[str, Any] = {"task_query": self.query, "variables": self.variables, "attachments": []}
        names = list(workflow.inputs)
        if names == ["task_query"]:
            return given
        if len(names) == 1 and not isinstance(self.query, Mapping):
            return {**given, names[0]: self.query}
        return {**given, **{name: self.query.get(name) for name in names}} if isinstance(self.query, Mapping) else given


Origin = Callable[[str, TaskRow], Row | None]
"""The row that the origin has for a node and a task, or None."""


def _no_origin(node: str, task: TaskRow) -> Row | None:
    return None


def _no_attachments(task: TaskRow) -> list[dict[str, Any]]:
    return []


def _unlimited() -> None:
    return None


def _drop(row: Row) -> None:
    return None


@dataclass
class Desk:
    """What every step of a run works with."""

    run_id: str
    workflow: Workflow
    models: Mapping[str, Model]
    identities: Mapping[str, str]
    """Model name to what makes its answers what they are."""
    tools: Tools
    allow_writes: bool = True
    sample: int = 0
    """Which sample of the same definition the run is."""
    execute: frozenset[str] | None = None
    """In a rerun from a node: the nodes to execute; all others are taken from the origin as they are."""
    borrow: bool = False
    """Whether a step with the origin's fingerprint is taken from it."""
    attachments: Callable[[TaskRow], list[dict[str, Any]]] = _no_attachments
    """Opens a task's attachments, for the nodes whose templates ask for them."""
    ruler_only: bool = False
    """Whether the run only scores the origin's outputs by other criteria."""
    origin: Origin = _no_origin
    kept: Origin = _no_origin
    """Rows that an earlier driver of this run paid for and could not commit."""
    afford: Callable[[], None] = _unlimited
    """Asked before anything is spent; raises when the budget is reached."""
    keep: Callable[[Row], None] = _drop
    """Told of every answer that more work hangs on, such as one that is yet to be judged."""

    @cached_property
    def nodes(self) -> dict[str, "Prepared"]:
        """What each node needs and what is the same for all rows."""
        return {name: Prepared.of(self, name) for name in self.workflow.order}


@dataclass(frozen=True)
class Prepared:
    """A node with everything about it that is the same for all rows."""

    name: str
    node: Node
    model: str | None
    judge: str | None
    settings: tuple[Any, ...]
    """The part of the fingerprint that no row changes."""
    ruler: tuple[Any, ...]
    """The same for the criteria."""
    ruler_uses: tuple[str, ...]
    """The names, beside the output, that the criteria look at."""
    attaches: bool
    """Whether its prompt or arguments ask for the attachments; then images go with the last user turn."""
    plain: tuple[Criterion, ...]
    rules: tuple[Criterion, ...]

    @classmethod
    def of(cls, desk: Desk, name: str) -> "Prepared":
        node = desk.workflow.nodes[name]
        model, judge = desk.workflow.model_of(name), desk.workflow.judge_of(name)
        settings: tuple[Any, ...]
        if node.llm:
            call = node.llm
            settings = ("llm/1", desk.identities[str(model)], call.returns, call.temperature, call.top_p, call.max_tokens, call.seed)
        else:
            settings = ("tool/1", node.tool, node.version or desk.tools.version(str(node.tool)))
        criteria = node.evaluate.criteria if node.evaluate else ()
        ruler = (
            [[item.kind, item.text if item.kind == "plain" else "", item.weight, item.field, item.want, item.ignore] for item in criteria],
            desk.identities[judge] if judge else None,
            node.evaluate.threshold if node.evaluate else None,
            node.auto_rerun.model_dump() if node.auto_rerun else None,
        )
        asked = {use.root for item in criteria for expression in _expressions(item) for use in uses(expression, expression=True)}
        return cls(
            name,
            node,
            model,
            judge,
            settings,
            ruler,
            tuple(sorted(asked - {name, "output"})),
            any(use.root == "attachments" for text in _templates(node) for use in uses(text)),
            tuple(item for item in criteria if item.kind == "plain"),
            tuple(item for item in criteria if item.kind != "plain"),
        )


def _templates(node: Node) -> list[str]:
    if node.llm:
        return [turn.content for turn in node.llm.prompt]
    return [value for value in flatten(node.arguments).values() if isinstance(value, str)]


def _expressions(item: Criterion) -> list[str]:
    return [item.want] if item.kind == "check" or (item.kind == "equals" and isinstance(item.want, str)) else []
