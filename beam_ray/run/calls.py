"""
The calls of agents and programs to models and tools: answered and recorded here, and nowhere else.

A call is answered, in this order, from

1. the spool of this very run, where a process died after the answer had come;
2. the static answers of the backtest's spec (tools only);
3. the recording of the step that this one redoes;
4. the model or the tool, where that is allowed: see ``CallLog.on_miss``.

An answer from outside is handed on at once to be spooled, so that a crash repeats at most the
calls in flight and those answered in the last second.
"""

import asyncio
import datetime
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

from beam_ray.define.fingerprint import Json, JsonObject
from beam_ray.errors import StepFailed, ToolFailed
from beam_ray.evaluate.tool_uses import tool_counts
from beam_ray.llm.request import Deferred, Request
from beam_ray.llm.usage import Usage
from beam_ray.run.attempt import Attempt
from beam_ray.run.context import StepContext, TaskTrial
from beam_ray.run.replay import (
    Recording,
    canonical_arguments,
    divergence,
    is_answer,
    model_fingerprint,
    paid_for,
    replayed,
    static_answer,
    tool_fingerprint,
    work_of,
)
from beam_ray.store.call_table import CallRow, PlacedCallRow
from beam_ray.store.parquet import to_json

MAX_TEXT = 1_000_000
"""Bytes of a request or a reply above which it is kept as an attachment."""

OnMiss = Literal["live", "refuse", "fail"]
"""What happens in a test to a call that no recording answers: it is made, it is refused, or its step fails."""


@dataclass(frozen=True)
class ToolPolicy:
    """What is known of a tool that an agent or a program may call."""

    name: str
    effects: str = "none"
    """none, read or write"""
    version: str = ""
    on_miss: OnMiss | None = None
    """None is the default: live, and refuse for a tool with write effects unless writes are allowed."""
    key: str | None = None
    """An importable function from the arguments to what identifies the call, such as ``tools.orders:key``."""


@dataclass(frozen=True, slots=True)
class ToolReply:
    """What came back from a tool."""

    value: Json = None
    error: str | None = None
    """What went wrong; then there is no value."""
    source: str = "live"
    """live, recorded, static or refused"""


class CallColumns(TypedDict):
    """The columns of a step that its calls add up to."""

    turns: int
    tool_calls: int
    tool_errors: int | None
    calls_recorded: int
    calls_refused: int
    diverged_at: int | None
    divergence: str | None
    call_rows: list[CallRow]


class CallLog:
    """The calls of one step, over all its attempts."""

    def __init__(
        self,
        context: StepContext,
        node: str,
        task: TaskTrial,
        on_call: Callable[[CallRow], None],
        *,
        on_miss: OnMiss | None = None,
        recording: Sequence[PlacedCallRow] = (),
        known: Sequence[CallRow] = (),
    ):
        """
        Args:
            on_call: Receives every call that was answered from outside, at once.
            on_miss: What the node's calls do in a test where nothing answers them; a model call is never refused.
            recording: The calls of the step that this one redoes.
            known: Calls that an earlier driver of this very run has spooled.
        """
        self.context, self.node, self.task, self.on_call, self.node_on_miss = context, node, task, on_call, on_miss
        self.recording = Recording(recording)
        self.rows: list[CallRow] = []
        self._known: dict[int, list[CallRow]] = {}
        for row in known:
            self._known.setdefault(row["attempt"], []).append(row)
        self._left: tuple[CallRow, CallRow | None] | None = None

    def begin(self, attempt: Attempt) -> "Calls":
        """The calls of a new attempt, whose usage begins with what an earlier driver paid for it."""
        known = self._known.get(attempt.number, [])
        for row in known:
            attempt.usage.add(paid_for(row))
        return Calls(self, attempt, known)

    def keep(self, attempt: int) -> None:
        """Keep the known calls of an attempt that an earlier driver finished."""
        self.rows += self._known.get(attempt, [])

    def adopt(self, attempt: int) -> None:
        """Take over the recorded calls of an attempt whose output is taken from the recording."""
        self.rows += [replayed(row) for row in self.recording.calls if row["attempt"] == attempt]

    def on_miss(self, tool: ToolPolicy) -> OnMiss:
        """What a call of the tool does that nothing answers; in a plain run it is made."""
        wanted = tool.on_miss or self.node_on_miss
        if tool.effects == "write" and not self.context.allow_writes:
            return "fail" if wanted == "fail" else "refuse"
        return (wanted or "live") if self.context.testing else "live"

    def left_recording(self, row: CallRow) -> None:
        """Note a call that no recording answered."""
        if not self.recording or self.recording.refused_too(row):
            return
        place = row["attempt"], row["number"]
        if self._left is None or place < (self._left[0]["attempt"], self._left[0]["number"]):
            self._left = row, self.recording.at(*place)

    @property
    def work(self) -> Usage:
        """What the answers take, whoever paid for them."""
        return work_of(self.rows)

    def columns(self, counts: int) -> CallColumns:
        """What the step's row says of its calls; *counts* is the attempt whose output counts."""
        rows = sorted(self.rows, key=lambda row: (row["attempt"], row["number"]))
        counted = [row for row in rows if row["attempt"] == counts]
        of_agent = self.context.workflow.nodes[self.node].agent is not None
        made, failed = tool_counts(counted, agent=of_agent)
        return {
            "turns": sum(row["kind"] == "model" for row in counted),
            "tool_calls": made,
            "tool_errors": failed,
            "calls_recorded": sum(row["source"] == "recorded" for row in rows),
            "calls_refused": sum(row["source"] == "refused" for row in rows),
            "diverged_at": self._left[0]["number"] if self._left else None,
            "divergence": to_json(divergence(*self._left)) if self._left else None,
            "call_rows": rows,
        }


@dataclass(slots=True)
class _Begun:
    """A call that has begun."""

    kind: str
    name: str
    api: str | None
    request: str
    fingerprint: str
    occurrence: int
    effects: str | None
    started_at: datetime.datetime
    number: int = 0


class Calls:
    """The calls of one attempt; the only place where a call of an agent or a program is answered."""

    def __init__(self, log: CallLog, attempt: Attempt, known: Sequence[CallRow]):
        self.log, self.attempt = log, attempt
        self._known = {(row["fingerprint"], row["occurrence"]): row for row in known if is_answer(row)}
        # a request that failed was paid for, and is made again
        log.rows += [row for row in known if not is_answer(row)]
        self._taken = {row["number"] for row in known}
        self._next = 1
        self._occurrences: dict[str, int] = {}

    @property
    def rows(self) -> list[CallRow]:
        """The attempt's calls that have ended, by number."""
        return sorted((row for row in self.log.rows if row["attempt"] == self.attempt.number), key=lambda row: row["number"])

    async def ask(self, model: str, body: JsonObject, request: Request, usage: Usage, *, api: str | None = None) -> JsonObject:
        """
        A model's raw reply to *body*; what it costs is added to *usage*.

        Args:
            model: The model's name in the models file.
            request: Whose call it is.
            api: chat, responses or embeddings; None for the model's own.

        Raises:
            StepFailed: there is no answer; also where the recording has none and the node's ``on_miss`` is ``fail``.
            Deferred: the call waits for a batch.
            Stopped: the budget is reached, or no row could be answered.
        """
        context, log = self.log.context, self.log
        spoken = api or ("chat" if "messages" in body else "responses")
        fingerprint = model_fingerprint(context.identities[model], spoken, body, context.sample, log.task.trial, self.attempt.number)
        begun = self._begin("embedding" if spoken == "embeddings" else "model", model, spoken, body, fingerprint, None)
        known = self._from_spool(begun)
        if known:
            reply: JsonObject = await self._reply_of(known)
            return reply
        recorded = log.recording.model_call(begun.fingerprint, begun.occurrence, self.attempt.number)
        if recorded:
            log.rows.append(self._renumbered(replayed(recorded), begun))
            reply = await self._reply_of(recorded)
            return reply
        if context.testing and log.node_on_miss == "fail":
            raise StepFailed(f"call {begun.number} left the recording, which has no answer of {model!r} to it; on_miss is fail")
        context.require_budget()
        spent = Usage()
        try:
            reply = await context.models[model].reply(body, request, spent, api=api)
        except Deferred:
            raise
        except StepFailed as error:
            await self._end(begun, "live", spent, error=str(error))
            raise
        finally:
            usage.add(spent)
        await self._end(begun, "live", spent, reply=reply)
        return reply

    async def use(self, tool: ToolPolicy, arguments: Mapping[str, Json], call: Callable[[], Awaitable[Json]]) -> ToolReply:
        """
        What a tool returns for *arguments*; *call* calls it, and is called only where nothing else answers and that is allowed.

        An error of the tool is a reply: the model is told of it.

        Raises:
            StepFailed: nothing answers the call, and its ``on_miss`` is ``fail``; or the tool's key function failed.
            Stopped: no more calls are to begin.
        """
        log = self.log
        begun = self._begin("tool", tool.name, None, dict(arguments), tool_fingerprint(tool.name, self._identity(tool, arguments)), tool.effects)
        known = self._from_spool(begun)
        if known:
            return await self._tool_reply(known)
        static = static_answer(log.context.tool_answers.get(tool.name, ()), arguments)
        if static:
            error = static.get("error")
            await self._end(begun, "static", Usage(), reply=static.get("answer"), error=error)
            return ToolReply(static.get("answer"), error, "static")
        recorded = log.recording.tool_call(begun.fingerprint, begun.occurrence, self.attempt.number)
        if recorded:
            log.rows.append(self._renumbered(replayed(recorded), begun))
            return await self._tool_reply(log.rows[-1])
        action = log.on_miss(tool)
        if action == "fail":
            raise StepFailed(f"call {begun.number} left the recording, which has no result of the tool {tool.name!r} for it; on_miss is fail")
        if action == "refuse":
            error = f"the tool {tool.name!r} is not available in a test: its result for these arguments was not recorded"
            await self._end(begun, "refused", Usage(), error=error)
            return ToolReply(None, error, "refused")
        return await self._live(begun, call)

    async def _live(self, begun: _Begun, call: Callable[[], Awaitable[Json]]) -> ToolReply:
        self.log.context.require_budget()
        started = time.monotonic()
        value, error = None, None
        try:
            value = await call()
        except ToolFailed as failed:
            error = str(failed)
        finally:
            spent = Usage(seconds=time.monotonic() - started)
            self.attempt.usage.add(spent)
        await self._end(begun, "live", spent, reply=value, error=error)
        return ToolReply(value, error)

    def _identity(self, tool: ToolPolicy, arguments: Mapping[str, Json]) -> Json:
        if tool.key is None:
            return canonical_arguments(arguments)
        try:
            return self.log.context.tools.function(tool.key)(dict(arguments))
        except Exception as error:  # the author's function may raise anything
            raise StepFailed(f"{tool.key}, the key of the tool {tool.name!r}: {type(error).__name__}: {error}") from None

    # -- recording --------------------------------------------------------------------------

    def _begin(self, kind: str, name: str, api: str | None, request: JsonObject, fingerprint: str, effects: str | None) -> _Begun:
        occurrence = self._occurrences[fingerprint] = self._occurrences.get(fingerprint, 0) + 1
        begun = _Begun(kind, name, api, json.dumps(request, ensure_ascii=False), fingerprint, occurrence, effects, datetime.datetime.now(datetime.UTC))
        if (fingerprint, occurrence) not in self._known:
            while self._next in self._taken:
                self._next += 1
            begun.number = self._next
            self._taken.add(begun.number)
        return begun

    def _from_spool(self, begun: _Begun) -> CallRow | None:
        """The call as an earlier driver of this run spooled it."""
        known = self._known.get((begun.fingerprint, begun.occurrence))
        if known:
            self.log.rows.append(known)
            if known["source"] in ("live", "refused"):
                self.log.left_recording(known)
        return known

    def _renumbered(self, row: CallRow, begun: _Begun) -> CallRow:
        now = datetime.datetime.now(datetime.UTC)
        return {**row, "attempt": self.attempt.number, "number": begun.number, "started_at": begun.started_at, "ended_at": now, "request": begun.request}

    async def _end(self, begun: _Begun, source: str, spent: Usage, *, reply: Json = None, error: str | None = None) -> None:
        answer = None if error is not None else json.dumps(reply, ensure_ascii=False)
        row: CallRow = {
            "attempt": self.attempt.number,
            "number": begun.number,
            "kind": begun.kind,
            "name": begun.name,
            "api": begun.api,
            "request": begun.request,
            "request_sha256": None,
            "reply": answer,
            "reply_sha256": None,
            "fingerprint": begun.fingerprint,
            "occurrence": begun.occurrence,
            "source": source,
            "recorded_from": None,
            "effects": begun.effects,
            "error": error,
            "started_at": begun.started_at,
            "ended_at": datetime.datetime.now(datetime.UTC),
            "seconds": spent.seconds,
            "waited": spent.waited,
            "calls": spent.calls,
            "input_tokens": spent.input_tokens,
            "output_tokens": spent.output_tokens,
            "cached_tokens": spent.cached_tokens,
            "reasoning_tokens": spent.reasoning_tokens,
            "usd": spent.usd,
            "estimated": spent.estimated_calls > 0,
        }
        if source in ("live", "refused"):
            self.log.left_recording(row)
        if len(begun.request) > MAX_TEXT // 4 or (answer and len(answer) > MAX_TEXT // 4):
            row = await asyncio.to_thread(self._without_large, row)
        self.log.rows.append(row)
        if source == "live":
            self.log.on_call(row)

    def _without_large(self, row: CallRow) -> CallRow:
        """The row with its large texts kept as attachments."""
        keep = self.log.context.keep_text
        request, reply = (text.encode("utf-8", "surrogatepass") if text else b"" for text in (row["request"], row["reply"]))
        if len(request) > MAX_TEXT:
            row = {**row, "request": None, "request_sha256": keep(request)}
        if len(reply) > MAX_TEXT:
            row = {**row, "reply": None, "reply_sha256": keep(reply)}
        return row

    # -- answers ----------------------------------------------------------------------------

    async def _tool_reply(self, row: CallRow) -> ToolReply:
        if row["error"] is not None:
            return ToolReply(None, row["error"], row["source"])
        return ToolReply(await self._reply_of(row), None, row["source"])

    async def _reply_of(self, row: CallRow) -> Json:
        if row["reply_sha256"]:
            return json.loads(await asyncio.to_thread(self.log.context.read_text, row["reply_sha256"]))
        return json.loads(row["reply"] or "null")
