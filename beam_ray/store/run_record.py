"""run.json: what a run is to do."""

import datetime
import hashlib
import json
import secrets
from functools import cached_property
from itertools import pairwise

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from beam_ray.define.fingerprint import JsonObject, digest
from beam_ray.define.mcp_server import RecordedServer
from beam_ray.define.workflow import Workflow


class RunRecord(BaseModel):
    """run.json: everything that is needed to execute the run, or to resume it."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    format: int = 1
    run_id: str
    key: str
    """Identifies what is done; the same command has the same key."""
    refused_key: str = ""
    """As *key*, without how models are asked; the same command with mended settings has the same one. Empty in runs of version 0.1."""
    created_at: str
    workflow: str
    version: int | None = None
    """The published version's number; none for a draft."""
    definition: JsonObject
    definition_digest: str
    tools: dict[str, str] = {}
    """Tool to the version that its source had when the run was planned."""
    mcp: dict[str, RecordedServer] = {}
    """MCP servers that agents use, with the tools that they listed when the run was planned."""
    models: dict[str, JsonObject] = {}
    """Name to model id, address and prices; never a key."""
    source: str = ""
    """Where the tasks came from, in the user's words."""
    tasks: int
    trials: int = 1
    sample: int = 0
    """Enters every seed: two runs of one definition with other numbers are independent samples."""
    shards: list[tuple[int, int]]
    """Rows [start, stop) of each shard; row r is task r // trials, trial r % trials + 1."""
    tasks_digest: str
    origin: str | None = None
    """The run that this one redoes or borrows from."""
    borrow_from: list[str] = []
    """Further runs that unchanged steps are borrowed from, where the origin has none."""
    start_node: str | None = None
    """The node from which the origin is redone."""
    pinned_node: str | None = None
    """The node whose outputs are those of the run *pinned_from*; what descends from it is executed, and all else is the origin's."""
    pinned_from: str | None = None
    """The run that has these outputs."""
    mode: str = "run"
    """run, rerun, what-if (a rerun with changed input), proof (with a pinned node), or the side of a backtest."""
    borrow: bool = False
    """Whether unchanged steps are taken from the origin."""
    ruler_only: bool = False
    """Whether the run only scores the origin's outputs by other criteria."""
    recorded: str = ""
    """Digest of what production answered, where the run only scores that; empty for runs that execute steps."""
    because: str = ""
    changed: list[str] = []
    """What differs from the origin's definition, by node and field."""
    changed_inputs: JsonObject = {}
    """What differs from the input of the origin's tasks: field to its new value."""
    backtest: str = ""
    allow_writes: bool = True
    """Whether tools with write effects are called."""
    tool_answers: dict[str, list[JsonObject]] = {}
    """Tool to its static answers: cases with ``when`` and ``answer`` or ``error``."""
    budget: dict[str, float] = {}
    early: bool = False
    """Whether the run may end before its last shard; where it does, cut.json says after how many."""
    cut_from: int | None = None
    """The tasks that were planned, where the run ended early; *tasks* and *shards* are then those it did."""
    versions: dict[str, str] = {}
    """Of beam_ray, ray, openai, pyarrow and Python."""

    @cached_property
    def plan(self) -> Workflow:
        """The workflow that the run is of."""
        return Workflow.model_validate(self.definition)

    @property
    def executed_nodes(self) -> frozenset[str] | None:
        """The nodes that are executed, where all others are borrowed from the origin as they are; None where fingerprints decide."""
        if self.pinned_node:
            return self.plan.downstream(self.pinned_node)
        return frozenset({self.start_node}) | self.plan.downstream(self.start_node) if self.start_node else None

    @property
    def testing(self) -> bool:
        """Whether the run is a rerun or part of a backtest, where a tool's call that nothing answers may be refused."""
        return self.mode not in ("run", "repair") or self.origin is not None or not self.allow_writes

    @property
    def executes(self) -> bool:
        """Whether the run executes its tasks; not where it only scores what another run or production has answered."""
        return not self.ruler_only and not self.recorded

    @property
    def rows(self) -> int:
        """Tasks times trials."""
        return self.tasks * self.trials


def new_run_id() -> str:
    """The day and six hexadecimal characters, as in 261123-a3f19c."""
    return f"{datetime.datetime.now(datetime.UTC):%y%m%d}-{secrets.token_hex(3)}"


def now() -> str:
    """The time in UTC, fine enough to tell which of two runs began first."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")


def plan_shards(rows: int, trials: int, size: int, first: int = 0) -> list[tuple[int, int]]:
    """Row ranges of about *size* rows from row *first* on, spread evenly; a task's trials stay together."""
    tasks = max(rows // trials, 1)
    count = max(1, -(-rows // max(size, 1)))
    count = min(count, tasks)
    edges = [first + round(index * tasks / count) * trials for index in range(count + 1)]
    return [(start, stop) for start, stop in pairwise(edges) if stop > start]


def tasks_digest(tasks: pa.Table) -> str:
    """Identifies the tasks of a run: ids, inputs and expected outcomes, in order."""
    columns = ["task_id", "inputs", "expected"]
    sha = hashlib.sha256()
    for batch in tasks.select(columns).to_batches(max_chunksize=5_000):
        sha.update(json.dumps([batch.column(name).to_pylist() for name in columns]).encode("utf-8", "surrogatepass"))
    return digest("tasks/1", sha.hexdigest())
