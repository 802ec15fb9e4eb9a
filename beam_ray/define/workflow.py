"""
A workflow: a graph of nodes, each with its prompt or tool, its output type and its criteria.

The same frozen value comes from a YAML file (see ``load``), from Python code and from a stored
version. Prompts are contained as text, so that it is the whole definition:

    Workflow(
        name="tickets",
        model="local/small",
        nodes={"sort": Node(llm=LlmCall(prompt="Sort: {{ task_query }}", returns={"team": {"one of": ["sales", "support"]}}),
                            evaluate=Evaluation(criteria=["The team fits the ticket."]))},
    )
"""

import shlex
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from pydantic import AliasChoices, Field, StrictBool, StrictFloat, StrictInt, field_validator, model_validator

from beam_ray.define.agent import FUNCTION, Agent, Effects, OnMiss
from beam_ray.define.criterion import Criterion, expand, numbered
from beam_ray.define.fingerprint import Json, digest
from beam_ray.define.frozen import Frozen
from beam_ray.define.llm_call import TEXT_SCHEMA, LlmCall
from beam_ray.define.requirements import requirement_fault
from beam_ray.define.returns import Faults

DEFAULT_THRESHOLD = 90.0
MAX_JUDGES = 9
"""Models in a panel of judges."""


Judge = str | tuple[str, ...] | None
"""A model's name, or the names of a panel of models."""


def judge_as_written(written: Json) -> Json:
    """
    A judge as a definition keeps it: a name, or two or more in a tuple.

    Raises:
        ValueError: it is neither.
    """
    if written is None or isinstance(written, str):
        return written
    if not isinstance(written, (list, tuple)) or not written or not all(isinstance(name, str) and name for name in written):
        raise ValueError(f"a judge must be a model's name or a list of names, not {written!r}")
    if len(written) > MAX_JUDGES:
        raise ValueError(f"a panel must have at most {MAX_JUDGES} judges, not {len(written)}")
    twice = next((name for index, name in enumerate(written) if name in written[:index]), None)
    if twice is not None:
        raise ValueError(f"the panel of judges names {twice!r} twice; a model has one vote")
    return written[0] if len(written) == 1 else tuple(written)


MAX_CALLS = 100
"""Model calls that one attempt of a tool or command may make unless its node says otherwise."""


class Evaluation(Frozen):
    """How the node's output is scored: criteria, and the threshold from which a step passes."""

    threshold: StrictFloat = Field(default=DEFAULT_THRESHOLD, ge=0, le=100)
    """The score, 0 to 100, from which a step passes."""
    criteria: tuple[Criterion, ...] = Field(min_length=1)
    judge: Judge = None
    """The model that judges plain-language criteria, or a panel of models whose majority decides. Default: the workflow's judge, else the node's model."""

    if TYPE_CHECKING:  # what the validator below accepts

        def __init__(
            self, *, criteria: Sequence[str | Mapping[str, Json] | Criterion], threshold: float = DEFAULT_THRESHOLD, judge: str | Sequence[str] | None = None
        ) -> None: ...

    @field_validator("judge", mode="before")
    @classmethod
    def _judge(cls, written: Json) -> Json:
        return judge_as_written(written)

    def identity(self) -> dict[str, Json]:
        """The evaluation as JSON, without what is newer than a definition that does not use it."""
        document = self.model_dump(mode="json")
        for criterion in document["criteria"]:
            if not criterion["examples"]:
                criterion.pop("examples")
        return document

    @field_validator("criteria", mode="before")
    @classmethod
    def _criteria(cls, written: Json) -> Json:
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
    """Attempts after the first one, 1 to 3."""
    feedback: StrictBool = False
    """Show the model which criteria its answer failed, with the judge's reasons."""
    on_exhausted: Literal["best", "fail", "review"] = "best"
    """When no attempt passes: use the best one, fail the step, or use the best one and flag it for a person."""
    temperature: StrictFloat = Field(default=0.7, gt=0, le=2)
    """Used from the second attempt on where the node's own temperature is 0, at which the answer would be the same again."""


class Resources(Frozen):
    """Cluster resources of a step; a node with resources runs as a Ray task of its own."""

    num_cpus: StrictFloat | None = Field(default=None, ge=0)
    num_gpus: StrictFloat | None = Field(default=None, ge=0)
    memory: StrictInt | None = Field(default=None, ge=0)
    """Bytes."""


class Node(Frozen):
    """One node of the graph: a model call, an agent, a tool or a command."""

    title: str = ""
    llm: LlmCall | None = None
    agent: Agent | None = None
    """A model that may call tools, turn by turn, until it answers."""
    tool: str | None = Field(default=None, pattern=FUNCTION)
    """An importable function, ``module:function``, from an allowed folder."""
    command: tuple[str, ...] | None = Field(default=None, min_length=1)
    """A program with its arguments, started in the project's folder without a shell: reads ``with`` as JSON, and writes its result as JSON."""
    asks: tuple[str, ...] = ()
    """Models that the tool or command may ask, by their names in the models file; its process gets the address and a key of a gateway to them."""
    max_calls: StrictInt | None = Field(default=None, ge=1, le=10_000)
    """Model calls that one attempt of a tool or command may make. Default: 100."""
    on_miss: OnMiss | None = None
    """What calls of a tool or command that asks models do in reruns and backtests that the recording does not answer. Default: live, and refuse for write tools."""
    arguments: dict[str, Json] = Field(default_factory=dict, validation_alias=AliasChoices("with", "arguments"), serialization_alias="with")
    """The arguments of a tool or command; strings in them are templates. The key ``with`` of a file."""
    version: str | None = None
    """The declared version of a tool or command. Default: the digest of its source file, or of the files that the command names."""
    after: tuple[str, ...] = ()
    when: str | None = None
    route: str | None = None
    evaluate: Evaluation | None = None
    auto_rerun: AutoRerun | None = None
    effects: Effects = "none"
    resources: Resources | None = None
    timeout_s: StrictFloat = Field(default=120, gt=0, le=86_400)
    """Seconds that one attempt may take, without the time spent waiting for a free slot of the model."""

    @field_validator("after", "asks", mode="before")
    @classmethod
    def _after(cls, written: Json) -> Json:
        return [written] if isinstance(written, str) else written

    @model_validator(mode="after")
    def _one_kind(self) -> "Node":
        if [self.llm, self.agent, self.tool, self.command].count(None) != 3:
            raise ValueError("a node must have exactly one of 'llm', 'agent', 'tool' and 'command'")
        return self

    @property
    def kind(self) -> Literal["llm", "agent", "tool", "command"]:
        """What the node is."""
        return "llm" if self.llm else "agent" if self.agent else "tool" if self.tool else "command"

    @property
    def program(self) -> str | None:
        """What identifies the tool or command: ``module:function``, or the command line; None for a model call."""
        return shlex.join(self.command) if self.command else self.tool

    @property
    def calls_at_most(self) -> int:
        """Model calls that one attempt of a tool or command may make."""
        return (self.max_calls or MAX_CALLS) if self.asks else 0

    @property
    def records_calls(self) -> bool:
        """Whether the calls that it makes to models and tools are recorded."""
        return self.agent is not None or bool(self.asks)

    @property
    def call(self) -> LlmCall | None:
        """How the node asks its model, an agent's included; None for a tool."""
        return self.llm or self.agent

    @property
    def fields(self) -> tuple[str, ...] | None:
        """The names of the output's fields; None for a tool, whose output is not declared."""
        if self.call is None:
            return None
        return tuple((self.call.returns or TEXT_SCHEMA)["properties"])


class Workflow(Frozen):
    """A named graph of nodes."""

    name: str = Field(validation_alias=AliasChoices("workflow", "name"), serialization_alias="workflow", pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")
    description: str = ""
    inputs: dict[str, Json] = Field(default_factory=lambda: {"task_query": "str"})
    """Field to type of a task's input; with one field, the task query is its value."""
    model: str | None = None
    judge: Judge = None
    """The model that judges plain-language criteria, or a panel of models whose majority decides. Default: each node's own model."""
    nodes: dict[str, Node] = Field(min_length=1)
    requirements: tuple[str, ...] = ()
    """Python packages that its tools need, one requirement a line; a cluster installs them for the run. In a file, also the name of a requirements file."""
    tools_from: str = ""
    """The folder that tools are imported from, relative to the project; set when a file is loaded."""

    @field_validator("judge", mode="before")
    @classmethod
    def _judge(cls, written: Json) -> Json:
        return judge_as_written(written)

    @field_validator("requirements", mode="after")
    @classmethod
    def _requirements(cls, written: tuple[str, ...]) -> tuple[str, ...]:
        faults: list[tuple[int | str, str]] = [(index, fault) for index, fault in enumerate(map(requirement_fault, written)) if fault]
        if faults:
            raise Faults(faults)
        return written

    @cached_property
    def order(self) -> tuple[str, ...]:
        """The nodes in topological order; where several orders are possible, in the order written."""
        placed: list[str] = []
        waiting = list(self.nodes)
        while waiting:
            ready = next((name for name in waiting if set(self.nodes[name].after) <= set(placed)), None)
            if ready is None:
                raise ValueError(f"the nodes {', '.join(waiting)} form a cycle")
            placed.append(ready)
            waiting.remove(ready)
        return tuple(placed)

    @cached_property
    def upstream(self) -> dict[str, frozenset[str]]:
        """For each node, all nodes upstream of it."""
        above: dict[str, frozenset[str]] = {}
        for name in self.order:
            after = self.nodes[name].after
            above[name] = frozenset(after).union(*(above[parent] for parent in after))
        return above

    def downstream(self, name: str) -> frozenset[str]:
        """All nodes downstream of *name*."""
        return frozenset(other for other, above in self.upstream.items() if name in above)

    def title_of(self, name: str) -> str:
        """The node's title; its name in words where it has none."""
        return self.nodes[name].title or name.replace("_", " ")

    def model_of(self, name: str) -> str | None:
        """The model that the node *name* calls, by its name in the models file; None for a tool."""
        call = self.nodes[name].call
        return (call.model or self.model) if call else None

    def judge_of(self, name: str) -> Judge:
        """The model that judges the node's plain-language criteria, or the panel, as written; None where it has no such criterion."""
        evaluate = self.nodes[name].evaluate
        if evaluate is None or not any(criterion.kind == "plain" for criterion in evaluate.criteria):
            return None
        return evaluate.judge or self.judge or self.model_of(name) or self.model

    def judges_of(self, name: str) -> tuple[str, ...]:
        """The models that judge the node's plain-language criteria; empty where it has no such criterion."""
        judge = self.judge_of(name)
        return judge if isinstance(judge, tuple) else (judge,) if judge else ()

    @cached_property
    def models(self) -> tuple[str, ...]:
        """The names of all models that a run may call, judges included."""
        asked = [self.model_of(name) for name in self.order] + [judge for name in self.order for judge in self.judges_of(name)]
        asked += [model for name in self.order for model in self.nodes[name].asks]
        return tuple(dict.fromkeys(name for name in asked if name))

    def document(self) -> dict[str, Json]:
        """The definition as plain JSON, from which ``Workflow.model_validate`` makes the same value."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)

    def identity(self) -> dict[str, Json]:
        """The definition without what cannot change a result: titles, descriptions and the files of prompts."""
        document = self.model_dump(mode="json", by_alias=True)
        for key in ("description", "tools_from"):
            document.pop(key)
        if not self.requirements:  # definitions of earlier versions have none
            document.pop("requirements")
        for node in document["nodes"].values():
            node.pop("title")
            for key, unused in (("command", None), ("asks", []), ("max_calls", None), ("on_miss", None)):
                if node[key] == unused:
                    node.pop(key)  # newer than 0.1
            if node["agent"] is None:
                node.pop("agent")  # newer than 0.1
            else:
                node["agent"]["tools"] = [{key: value for key, value in tool.items() if value not in (None, "", [])} for tool in node["agent"]["tools"]]
            for turn in (node["llm"] or node.get("agent") or {}).get("prompt", ()):
                turn.pop("file")
            for criterion in (node["evaluate"] or {}).get("criteria", ()):
                if not criterion["reasoning"]:
                    criterion.pop("reasoning")  # newer than 0.1, whose definitions keep their digests
                if not criterion["examples"]:
                    criterion.pop("examples")  # the same
        return document

    @cached_property
    def digest(self) -> str:
        """Identifies the definition; equal for files that differ in layout, comments or titles only."""
        return digest("workflow/1", self.identity())
