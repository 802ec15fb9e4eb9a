"""The calls that agents and programs made to models and tools."""

import datetime
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from beam_ray.address import parse
from beam_ray.errors import Unusable
from beam_ray.evaluate.tool_uses import said_in, tool_calls_in
from beam_ray.store.attachments import read_bytes
from beam_ray.store.call_table import PlacedCallRow
from beam_ray.store.lookup import find_runs
from beam_ray.store.runs import Run as StoredRun
from beam_ray.store.step_lookup import StepRows

if TYPE_CHECKING:
    from beam_ray.api.tasks import Task


@dataclass(frozen=True)
class ToolRequest:
    """A call of a tool that a model asked for."""

    name: str
    arguments: Any
    """As JSON value; text where the model's arguments are no JSON."""


@dataclass(frozen=True)
class Call:
    """One call of an agent or a program to a model or a tool."""

    attempt: int
    """The attempt that made it; 1 is the first."""
    number: int
    """Its place in the attempt, by the order in which calls began; 1 is the first."""
    kind: str
    """model, embedding or tool"""
    name: str
    """The model's name in the models file, or the tool's."""
    request: Any
    """The body that was sent, or the tool's arguments, as JSON value."""
    reply: Any
    """What came back, as JSON value and as it came; None where nothing did."""
    error: str | None
    source: str
    """Where the answer came from: live, recorded, static (given in a backtest's spec) or refused (not available in a test)."""
    recorded_from: str | None
    """Address of the attempt whose recorded answer this is."""
    effects: str | None
    """none, read or write; None for a model."""
    started_at: datetime.datetime
    seconds: float
    """That the answer took when it was made."""
    input_tokens: int
    """Of the answer, whoever paid for it, as are output_tokens and usd."""
    output_tokens: int
    usd: float | None
    """None when the model has no price."""

    @property
    def text(self) -> str:
        """What a model said besides the calls of tools; empty for a tool."""
        return said_in(self.reply) if self.kind == "model" and isinstance(self.reply, dict) else ""

    @property
    def tool_requests(self) -> tuple[ToolRequest, ...]:
        """The calls of tools that a model asked for; none for a tool."""
        found = tool_calls_in(self.reply) if self.kind == "model" and isinstance(self.reply, dict) else ()
        return tuple(ToolRequest(name, _value(arguments) if isinstance(arguments, str) else arguments) for _, name, arguments in found)


def step_calls(task: "Task", node: str) -> tuple[Call, ...]:
    """See ``Task.calls``."""
    step = task.step(node)
    run, there, key = task.run.stored, node, (task.id, task.trial)
    if step.borrowed_from:
        address = parse(step.borrowed_from)
        if address.run not in find_runs(run.objects):
            raise Unusable(f"the calls of {step.address} are those of {step.borrowed_from}, and run {address.run} is not in this store")
        run, there, key = StoredRun(run.objects, address.run), address.node, (address.task, address.trial)
    if run.manifest:
        rows = StepRows(run).calls(there, [key]).get(key, [])
    else:
        # a shard of which some steps are not committed has no outcome yet, by which StepRows finds them
        every: list[PlacedCallRow] = run.calls([there]).to_pylist()
        rows = [row for row in every if (row["task_id"], row["trial"]) == key]

    def text(written: str | None, sha256: str | None) -> Any:
        return _value(read_bytes(sha256, run.objects).decode("utf-8", "surrogatepass") if sha256 else written)

    return tuple(
        Call(
            attempt=row["attempt"],
            number=row["number"],
            kind=row["kind"],
            name=row["name"],
            request=text(row["request"], row["request_sha256"]),
            reply=text(row["reply"], row["reply_sha256"]),
            error=row["error"],
            source=row["source"],
            recorded_from=row["recorded_from"],
            effects=row["effects"],
            started_at=row["started_at"],
            seconds=row["seconds"],
            input_tokens=row["input_tokens"],
            output_tokens=row["output_tokens"],
            usd=row["usd"],
        )
        for row in sorted(rows, key=lambda row: (row["attempt"], row["number"]))
    )


def _value(text: str | None) -> Any:
    if not text:
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text
