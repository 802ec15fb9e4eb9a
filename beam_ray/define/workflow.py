"""
The workflow: a graph of nodes, each with what it asks, what it returns and how it is judged.

The same frozen value comes from a YAML file (see ``load``) and from a stored version;
prompts are inside it as text, so that it is the whole definition.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, field_validator, model_validator

from beam_ray.define.criterion import Criterion, expand, numbered
from beam_ray.define.fingerprint import digest
from beam_ray.define.returns import Faults, object_schema

DEFAULT_THRESHOLD = 90.0
TEXT_SCHEMA = object_schema({"text": {"type": "string"}})
ROLES = ("system", "user", "assistant")


class Frozen(BaseModel):
    """A value that is never changed, and that refuses what it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, populate_by_name=True)


class Turn(Frozen):
    """One message of a prompt."""

    role: Literal["system", "user", "assistant"]
    content: str
    file: str = ""
    """The file that the text came from, for messages; no part of the definition's identity."""


def turn_fault(turn: Any) -> str:
    """What is wrong with one turn of a prompt as written, or nothing."""
    if isinstance(turn, Turn):
        return ""
    if isinstance(turn, Mapping) and {"role", "content"} <= set(turn):
        role, content = turn["role"], turn["content"]
    elif isinstance(turn, Mapping) and len(turn) == 1:
        [(role, content)] = turn.items()
    else:
        return "a turn is one role and its text, such as '- user: …'"
    if role not in ROLES:
        return f"the role of a turn must be {', '.join(ROLES[:-1])} or {ROLES[-1]}, not {role!r}"
    if not isinstance(content, str):
        return f"the text of a turn must be a text, not {'null' if content is None else repr(content)}; put it in quotes"
    return "" if content.strip() else "the prompt is empty"


class LlmCall(Frozen):
    """How a model is asked. Temperature and the like are the model's own unless given here."""

    prompt: tuple[Turn, ...] = Field(min_length=1)
    """A Jinja2 template, or a list of turns, inline or in a file."""
    returns: dict[str, Any] | None = None
    """The JSON schema of the answer; without it the output is ``{text: …}``."""
    model: str | None = None
    """A name from the models file; the workflow's model unless given."""
    temperature: StrictFloat | None = Field(default=None, ge=0, le=2)
    top_p: StrictFloat | None = Field(default=None, gt=0, le=1)
    max_tokens: StrictInt = Field(default=1024, ge=1, le=1_000_000)
    seed: StrictInt = Field(default=0, ge=0, le=2**31)
    """Trial and attempt numbers are added to it, so that each is a sample of its own."""

    @field_validator("prompt", mode="before")
    @classmethod
    def _turns(cls, written: Any) -> Any:
        if isinstance(written, str):
            written = [{"user": written}]
        if not isinstance(written, (list, tuple)):
            quotes = "\na text that begins with {{ needs quotes" if isinstance(written, Mapping) else ""
            raise ValueError(f"a prompt is a text or a list of turns such as '- user: …'{quotes}")
        turns = []
        for turn in written:
            if isinstance(turn, Mapping) and len(turn) == 1:
                [(role, content)] = turn.items()
                turn = {"role": role, "content": content}
            turns.append(turn)
        faults: list[tuple[int | str, str]] = [(index, fault) for index, fault in enumerate(map(turn_fault, turns)) if fault]
        if faults:
            raise Faults(faults)
        return turns

    @field_validator("returns", mode="before")
    @classmethod
    def _schema(cls, written: Any) -> Any:
        if not isinstance(written, Mapping):
            return written
        if written.get("type") == "object" and isinstance(written.get("properties"), Mapping):
            return object_schema(written["properties"])
        return object_schema(written)


class Evaluation(Frozen):
    """What must hold of the node's output, and how much of it."""

    threshold: StrictFloat = Field(default=DEFAULT_THRESHOLD, ge=0, le=100)
    """The score from which a step passes."""
    criteria: tuple[Criterion, ...] = Field(min_length=1)
    judge: str | None = None
    """The model that judges plain-language criteria; the workflow's judge, or its model, unless given."""

    @field_validator("criteria", mode="before")
    @classmethod
    def _criteria(cls, written: Any) -> Any:
        if not isinstance(written, (list, tuple)):
            return written
        found: list[Criterion] = []
        faults: list[tuple[int | str, str]] = []
        for index, entry in enumerate(written):
            try:
                found += [entry] if isinstance(entry, Criterion) else expand(entry)
            except ValueError as error:
                faults.append((index, str(error)))
        if faults:
            raise Faults(faults)
        return numbered(found)


class AutoRerun(Frozen):
    """New attempts of the step while its score is below the threshold."""

    max: StrictInt = Field(ge=1, le=3)
    """How many attempts beyond the first, 1 to 3."""
    feedback: StrictBool = False
    """Show the model which criteria failed, and why."""
    on_exhausted: Literal["best", "fail", "review"] = "best"
    temperature: StrictFloat = Field(default=0.7, gt=0, le=2)
    """Used from the second attempt on where the node's own is 0: at 0 a fresh sample would be the same one."""


class Resources(Frozen):
    """What a step needs of the cluster; such a node runs as a plain Ray task."""

    num_cpus: StrictFloat | None = Field(default=None, ge=0)
    num_gpus: StrictFloat | None = Field(default=None, ge=0)
    memory: StrictInt | None = Field(default=None, ge=0)
    """Bytes."""


class Node(Frozen):
    """One vertex as written: a model call or a tool."""

    title: str = ""
    llm: LlmCall | None = None
    tool: str | None = Field(default=None, pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$")
    """An importable function, ``module:function``, from an allowed root."""
    arguments: dict[str, Any] = Field(default_factory=dict, alias="with")
    version: str | None = None
    """The tool's declared version; otherwise the digest of its source file."""
    after: tuple[str, ...] = ()
    when: str | None = None
    route: str | None = None
    evaluate: Evaluation | None = None
    auto_rerun: AutoRerun | None = None
    effects: Literal["none", "read", "write"] = "none"
    resources: Resources | None = None
    timeout_s: StrictFloat = Field(default=120, gt=0, le=86_400)
    """Seconds that one attempt may take, waiting for permits left out."""

    @field_validator("after", mode="before")
    @classmethod
    def _after(cls, written: Any) -> Any:
        return [written] if isinstance(written, str) else written

    @model_validator(mode="after")
    def _one_kind(self) -> "Node":
        if (self.llm is None) == (self.tool is None):
            raise ValueError("a node is either an 'llm' or a 'tool'")
        return self

    @property
    def fields(self) -> tuple[str, ...] | None:
        """The names of the output's fields; none when only the tool knows."""
        if self.llm is None:
            return None
        return tuple((self.llm.returns or TEXT_SCHEMA)["properties"])


class Workflow(Frozen):
    """A named graph of nodes."""

    name: str = Field(alias="workflow", pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")
    description: str = ""
    inputs: dict[str, Any] = Field(default_factory=lambda: {"task_query": "str"})
    """Field to type of what a task gives; with one field, the task query is its value."""
    model: str | None = None
    judge: str | None = None
    nodes: dict[str, Node] = Field(min_length=1)
    tools_from: str = ""
    """The folder that tools are imported from, relative to the project; set when the file is loaded."""

    @cached_property
    def order(self) -> tuple[str, ...]:
        """The nodes' names, each after everything it stands on, in the order written where there is a choice."""
        placed: list[str] = []
        waiting = list(self.nodes)
        while waiting:
            ready = next((name for name in waiting if set(self.nodes[name].after) <= set(placed)), None)
            if ready is None:
                raise ValueError(f"the nodes {', '.join(waiting)} wait for each other")
            placed.append(ready)
            waiting.remove(ready)
        return tuple(placed)

    @cached_property
    def upstream(self) -> dict[str, frozenset[str]]:
        """For each node, every node that it stands on, near or far."""
        above: dict[str, frozenset[str]] = {}
        for name in self.order:
            after = self.nodes[name].after
            above[name] = frozenset(after).union(*(above[parent] for parent in after))
        return above

    def downstream(self, name: str) -> frozenset[str]:
        """Every node that stands on *name*, near or far."""
        return frozenset(other for other, above in self.upstream.items() if name in above)

    def model_of(self, name: str) -> str | None:
        """The name, in the models file, of the model that the node *name* asks."""
        call = self.nodes[name].llm
        return (call.model or self.model) if call else None

    def judge_of(self, name: str) -> str | None:
        """The name of the model that judges the node's plain-language criteria; none when it has none."""
        evaluate = self.nodes[name].evaluate
        if evaluate is None or not any(criterion.kind == "plain" for criterion in evaluate.criteria):
            return None
        return evaluate.judge or self.judge or self.model_of(name) or self.model

    @cached_property
    def models(self) -> tuple[str, ...]:
        """The names of all models that a run may ask."""
        asked = [self.model_of(name) for name in self.order] + [self.judge_of(name) for name in self.order]
        return tuple(dict.fromkeys(name for name in asked if name))

    def document(self) -> dict[str, Any]:
        """The definition as plain JSON, from which the same value can be made again."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)

    def identity(self) -> dict[str, Any]:
        """The definition without what is only for the eye (title, description, where a prompt's text lies)."""
        document = self.model_dump(mode="json", by_alias=True)
        for key in ("description", "tools_from"):
            document.pop(key)
        for node in document["nodes"].values():
            node.pop("title")
            for turn in (node["llm"] or {}).get("prompt", ()):
                turn.pop("file")
        return document

    @cached_property
    def digest(self) -> str:
        """Identifies the definition: equal for files that differ in layout, comments or titles only."""
        return digest("workflow/1", self.identity())
