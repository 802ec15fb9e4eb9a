"""
Plan a run: what it will do and what it will cost, before any model is called.

A plan is a run record that is not stored yet, with an estimate per node.
"""

import functools
import math
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from beam_ray.define.check import check
from beam_ray.define.criterion import Criterion
from beam_ray.define.fingerprint import JsonObject, digest, strict_json
from beam_ray.define.load import load
from beam_ray.define.returns import object_schema
from beam_ray.define.tool_source import program_versions
from beam_ray.define.workflow import Workflow
from beam_ray.errors import BadDefinition, Problem, Unusable, did_you_mean
from beam_ray.evaluate.judge import judged_together
from beam_ray.evaluate.transcript import MAX_TRANSCRIPT
from beam_ray.llm.answer import first_fault
from beam_ray.llm.lanes import lane_of
from beam_ray.llm.prices import Pricing, Tokens
from beam_ray.llm.prices import price_of as listed_price
from beam_ray.llm.scripted import Models, ScriptedModel
from beam_ray.llm.settings import LANES, ModelSettings
from beam_ray.run.agent_tools import record_servers
from beam_ray.run.budget import require_known_limits
from beam_ray.run.conversation import shows_attachments
from beam_ray.run.model_identity import identity
from beam_ray.run.prompt_size import CHARACTERS_PER_TOKEN, prompt_characters
from beam_ray.run.tools import tool_folders
from beam_ray.store.run_record import RunRecord, new_run_id, now, plan_shards, tasks_digest

RESULT_TOKENS = 200
"""Tokens of the results of one turn's tool calls, for estimates."""
MAX_PROBLEMS = 20
OPEN_ROWS = 1_000


class Lineage(BaseModel):
    """
    Where a run comes from: what it redoes, and what it is part of.

    Fields that are set explicitly are part of the run's key, except *because* and *pauses*.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, use_attribute_docstrings=True)

    origin: str | None = None
    """The run that is redone or borrowed from."""
    borrow_from: tuple[str, ...] = ()
    """Further runs that unchanged steps are borrowed from, where the origin has none."""
    start_node: str | None = None
    """The node from which the origin is redone; None for all of it."""
    pinned_node: str | None = None
    """The node whose outputs are taken from the run *pinned_from*; what descends from it is executed, and all else is the origin's."""
    pinned_from: str | None = None
    """The run that has these outputs."""
    borrow: bool = False
    """Whether unchanged steps are taken from the origin."""
    rescore_only: bool = Field(default=False, serialization_alias="ruler_only")
    """Whether the origin's outputs are only scored again, by other criteria."""
    recorded: str = ""
    """Digest of what production answered, where the run only scores that; empty otherwise."""
    sample: int = 0
    """Independent sample number; enters every seed."""
    mode: str = "run"
    """run, rerun, what-if, proof, repair, or the side of a backtest."""
    because: str = ""
    """Reason for the run, stored with it."""
    changed: tuple[str, ...] = ()
    """What differs from the origin's definition, by node and field."""
    changed_inputs: JsonObject = {}
    """What differs from the input of the origin's tasks: field to its new value."""
    backtest: str = ""
    """Id of the backtest or search that the run belongs to."""
    allow_writes: bool = True
    """Whether tools with write effects are called."""
    tool_answers: dict[str, list[JsonObject]] = {}
    """Tool to its static answers: cases with ``when`` and ``answer`` or ``error``."""
    pauses: tuple[int, ...] = Field(default=(), exclude=True)
    """Numbers of tasks after which the run may pause or end early; shards end there."""

    def record_fields(self) -> JsonObject:
        """The fields that were set, as the run record names them."""
        fields = self.model_dump(exclude_unset=True, by_alias=True)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}


@dataclass(frozen=True)
class NodePlan:
    """What a run will do at one node, in rows; an upper bound where a condition decides."""

    node: str
    kind: str
    """llm, agent, tool or command"""
    model: str | None
    run: int
    borrow: int = 0
    rescore: int = 0
    judge_calls: int = 0
    conditional: bool = False
    why: tuple[str, ...] = ()
    input_tokens: int = 0
    output_tokens: int = 0
    usd: float | None = 0.0
    """In the lanes in which the models are asked."""
    judge_usd: float | None = 0.0
    """The judge's part of *usd*."""
    usd_by_lane: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    """Lane to US dollars for outputs and for judges, if all models that can be are asked in it."""
    turns: int = 1
    """Model calls of an agent or a program for one output at most."""
    recorded_calls: int = 0
    """Model calls of agents that the recording is sure to answer: those before the first that it does not have."""
    recorded_usd: float | None = 0.0
    """What these took when they were made; None when a model has no price."""
    spared_calls: int = 0
    """Of the calls at most those that the recording spares: those, and all further ones of agents that it answers to the end."""

    @property
    def calls(self) -> int:
        """Model calls for outputs, of agents and programs at most, without auto-reruns and retries."""
        return max(self.run * self.turns - self.spared_calls, 0)


@dataclass(frozen=True)
class Plan:
    """A run as it will be executed."""

    record: RunRecord
    workflow: Workflow
    tasks: pa.Table
    nodes: tuple[NodePlan, ...]
    warnings: tuple[Problem, ...] = ()

    @property
    def calls(self) -> int:
        """Estimated model calls, judges included."""
        return sum(node.calls + node.judge_calls for node in self.nodes)

    @property
    def auto_reruns(self) -> int:
        """Auto-reruns at most; not part of *calls* and *usd*."""
        return sum(node.run * again.max for node in self.nodes if (again := self.workflow.nodes[node.node].auto_rerun))

    @property
    def usd(self) -> float | None:
        """US dollars at most, without auto-reruns; None when a model has no price, or a program asks one that has."""
        return _sum(node.usd for node in self.nodes)

    @property
    def usd_by_lane(self) -> dict[str, float | None]:
        """Lane to US dollars at most, if all models that can be are asked in it."""
        return {lane: _sum(usd for node in self.nodes for usd in node.usd_by_lane.get(lane, ())) for lane in LANES}


def load_workflow(path: Path) -> tuple[Workflow, list[Problem]]:
    """
    The workflow in the file, fully checked, and warnings about it.

    Raises:
        BadDefinition: with every problem that was found.
    """
    workflow, source = load(path)
    return workflow, check(workflow, source, folders=tool_folders(workflow))


def make_plan(
    workflow: Workflow,
    tasks: pa.Table,
    models: Models,
    *,
    source: str = "",
    version_number: int | None = None,
    trials: int = 1,
    budget: Mapping[str, float] | None = None,
    lineage: Lineage | None = None,
) -> Plan:
    """
    Plan a run of *workflow* over *tasks*; nothing is written and no model is called. MCP servers that agents use are asked for their tools.

    Args:
        source: Where the tasks come from, in the user's words.
        version_number: Number of the published version; None for a draft.
        lineage: What the run redoes or belongs to; None for a new run.

    Raises:
        Unusable: a model is unknown or has no price under max_usd; an MCP server does not answer.
        BadDefinition: a task does not fit the inputs.
    """
    lineage = lineage or Lineage()
    fields, pauses = lineage.record_fields(), lineage.pauses
    needed = require_models(workflow, models)
    _require_prices(needed, budget or {})
    _require_inputs(workflow, tasks, source)
    tools = program_versions(workflow, tool_folders(workflow))
    servers = record_servers(workflow, models)
    summary = tasks_digest(tasks)
    identities = {name: identity(written) for name, written in needed.items()}
    parts = (workflow.digest, tools | {f"mcp:{name}": server.version for name, server in servers.items()}, summary, trials)
    rest = ({name: value for name, value in fields.items() if name != "because"}, *([list(pauses)] if pauses else []))
    key = digest("run/2", *parts, identities, *rest)
    record = RunRecord(
        run_id=new_run_id(),
        key=key,
        refused_key=digest("refused/1", *parts, sorted(identities), *rest),
        created_at=now(),
        workflow=workflow.name,
        version=version_number,
        definition=workflow.document(),
        definition_digest=workflow.digest,
        tools=tools,
        mcp=servers,
        models={name: _described(written) for name, written in needed.items()},
        source=source,
        tasks=tasks.num_rows,
        trials=trials,
        shards=[shard for start, stop in pairwise(sorted({0, tasks.num_rows, *pauses})) for shard in _shards(start * trials, stop * trials, trials)],
        early=bool(pauses),
        tasks_digest=summary,
        budget=dict(budget or {}),
        versions=dict(_versions()),
        **fields,
    )
    return Plan(record, workflow, tasks, tuple(estimate(workflow, tasks, needed, trials)))


@functools.cache
def _versions() -> Mapping[str, str]:
    """Versions of Python and of the packages that a run depends on, read once per process."""
    return {"python": platform.python_version(), **{name: version(name) for name in ("beam-ray", "ray", "openai", "pyarrow")}}


def _shards(start: int, stop: int, trials: int) -> list[tuple[int, int]]:
    return plan_shards(stop - start, trials, shard_size(stop - start), start)


def shard_size(rows: int) -> int:
    """Rows per shard: 50 for small runs, of which a runner has two; up to 500 for large ones."""
    return min(max(math.ceil(rows / 8), 50), 250 if rows <= 20_000 else 500)


def runner_count(rows: int, cpus: int) -> int:
    """Runners to start: one per CPU, but at most one per 100 rows."""
    return max(1, min(cpus, math.ceil(rows / 100), int(os.environ.get("BEAM_RAY_MAX_RUNNERS", "64"))))


def open_rows(workflow: Workflow) -> int:
    """Rows that a run has open at least; those with images or with recorded calls are large, and only as few are open as keep the permits busy."""
    large = any(node.records_calls or shows_attachments(node) for node in workflow.nodes.values())
    return 0 if large else OPEN_ROWS


def require_models(workflow: Workflow, models: Models) -> dict[str, ModelSettings | ScriptedModel]:
    """
    Those of *models* that the workflow uses.

    Raises:
        Unusable: it uses a model that is not among them.
    """
    for name in workflow.models:
        if name not in models:
            known = ", ".join(models) or "none"
            raise Unusable(
                "\n  ".join(
                    [
                        f"the workflow {workflow.name!r} uses the model {name!r}, which is not in the models file",
                        f"models in the file: {known}",
                        *did_you_mean(name, models),
                    ]
                )
            )
    return {name: models[name] for name in workflow.models}


def _require_prices(models: Models, budget: Mapping[str, float]) -> None:
    require_known_limits(budget)
    if "max_usd" in budget:
        for name, written in models.items():
            if price_of(written) is None:
                raise Unusable(
                    f"the model {name!r} has no price, so max_usd cannot be enforced\n  add usd_per_million: {{input: …, output: …}} to the models file; genai-prices lists no price at its address"
                )


def _require_inputs(workflow: Workflow, tasks: pa.Table, source: str) -> None:
    names = list(workflow.inputs)
    schema = object_schema(workflow.inputs)
    for written in schema["properties"].values():
        written.pop("maxLength", None)  # the length limit is for what models write
    problems = []
    columns = ["task_id", "task_query", "query_is_json"]
    for batch in tasks.select(columns).to_batches(max_chunksize=5_000):
        for row in batch.to_pylist():
            query = strict_json(row["task_query"]) if row["query_is_json"] else row["task_query"]
            given = query if isinstance(query, dict) and names != ["task_query"] else {names[0]: query}
            fault = (
                first_fault(given, {**schema, "additionalProperties": True}) if names != ["task_query"] or workflow.inputs != {"task_query": "str"} else None
            )
            if fault is None and names == ["task_query"] and workflow.inputs["task_query"] == "str" and row["query_is_json"]:
                fault = "the task query is JSON, but the workflow takes text; declare its fields under 'inputs'"
            if fault:
                problems.append(Problem(source or "tasks", 0, 0, f"task {row['task_id']!r} does not match the inputs of {workflow.name!r}: {fault}"))
                if len(problems) >= MAX_PROBLEMS:
                    raise BadDefinition(problems=problems)
    if problems:
        raise BadDefinition(problems=problems)


def price_of(written: ModelSettings | ScriptedModel) -> Pricing | None:
    """What calls of the model cost, or None where that is unknown."""
    return listed_price(written) if isinstance(written, ModelSettings) else written.price


def _described(written: ModelSettings | ScriptedModel) -> JsonObject:
    if isinstance(written, ModelSettings):
        price = price_of(written)
        source = price.source if price else "unpriced"
        return {**written.model_dump(mode="json", exclude={"api_key", "headers"}), "identity": identity(written), "price_source": source}
    return {"model": written.identity, "scripted": True, "identity": identity(written)}


def estimate(workflow: Workflow, tasks: pa.Table, models: Models, trials: int) -> list[NodePlan]:
    """What each node will do if nothing is borrowed."""
    rows = tasks.num_rows * trials
    lengths = [len(query) for query in tasks["task_query"].slice(0, 500).to_pylist()]
    typical = sum(lengths) / max(len(lengths), 1)
    messages = [len(written or "") for written in tasks["messages"].slice(0, 500).to_pylist()]
    before = sum(messages) / max(len(messages), 1)
    plans = []
    for name in workflow.order:
        node = workflow.nodes[name]
        conditional = node.when is not None or any(workflow.nodes[parent].when for parent in workflow.upstream[name])
        model, judges = workflow.model_of(name), workflow.judges_of(name)
        given = said = 0.0
        turns = node.agent.max_turns if node.agent else node.calls_at_most if node.program else 1
        # a program writes its own requests, of whatever length
        unknown = any(_usd(models[each], 1_000, 1_000, 1, "") != 0 for each in node.asks)
        if node.call:
            given = prompt_characters(workflow, name, typical, before) / CHARACTERS_PER_TOKEN
            said = node.call.max_tokens
        # each turn of an agent is asked with all that was said before
        asked = [given + turn * (said + RESULT_TOKENS) for turn in range(turns)]
        judged = judged_together(node.evaluate.criteria) if node.evaluate else ()
        usd_by_lane: dict[str, tuple[float | None, float | None]] = {}
        for lane in ("", *LANES):
            shown = given + said + 200 + (MAX_TRANSCRIPT // CHARACTERS_PER_TOKEN if node.records_calls else 0)
            judging = [_usd(models[judge], shown + _criteria_tokens(group), 200 * len(group) + 100, rows, lane) for group in judged for judge in judges]
            own = None if unknown else 0.0
            if model:
                own = _sum(_usd(models[model], input_tokens, said, rows, lane) for input_tokens in asked)
            usd_by_lane[lane] = own, _sum(judging)
        prices = usd_by_lane.pop("")
        plans.append(
            NodePlan(
                name,
                node.kind,
                model,
                rows,
                judge_calls=rows * len(judged) * len(judges),
                conditional=conditional,
                input_tokens=int(sum(asked) * rows),
                output_tokens=int(said * turns * rows),
                usd=_sum(prices),
                judge_usd=prices[1],
                usd_by_lane=usd_by_lane,
                turns=turns,
            )
        )
    return plans


def _criteria_tokens(group: Sequence[Criterion]) -> float:
    """Input tokens of the criteria as a judge reads them."""
    return sum(40 + sum(len(each.shown()) for each in item.examples) / CHARACTERS_PER_TOKEN for item in group)


def _sum(prices: Iterable[float | None]) -> float | None:
    """The sum; None where one is unknown."""
    known = list(prices)
    return None if None in known else math.fsum(value for value in known if value is not None)


def _usd(written: ModelSettings | ScriptedModel, input_tokens: float, output_tokens: float, calls: int, lane: str) -> float | None:
    """US dollars of *calls* with about so many tokens each, where *lane* was asked for."""
    price = price_of(written)
    # per call, because the price of a token may depend on the length of the request
    usd = price.cost(Tokens(math.ceil(input_tokens), math.ceil(output_tokens)), "batch" if lane_of(written, lane) == "batch" else "") if price else None
    return None if usd is None else usd * calls
