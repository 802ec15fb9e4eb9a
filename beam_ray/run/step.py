"""
One node applied to one row: decide, borrow or execute, evaluate, try again.

No Ray and no store: a step gets the rows of its predecessors and gives a row of the steps table.
"""

import asyncio
import datetime
import time
from collections.abc import Mapping, Sequence
from typing import Any, cast

from beam_ray.address import Address
from beam_ray.define.fingerprint import Json, digest
from beam_ray.define.llm_call import CONVERSATION
from beam_ray.define.template import evaluate, fill
from beam_ray.errors import BadAnswer, StepFailed
from beam_ray.evaluate.score import Finding, score
from beam_ray.evaluate.tool_uses import Trajectory, trajectory
from beam_ray.llm.request import Deferred, Message
from beam_ray.llm.usage import Usage
from beam_ray.run.agent import run_agent
from beam_ray.run.attempt import Attempt
from beam_ray.run.borrowing import Borrow, Copy, Skip, decide
from beam_ray.run.calls import CallLog
from beam_ray.run.context import RAN, PreparedNode, StepContext, TaskTrial
from beam_ray.run.conversation import (
    Transcripts,
    needs_attachments,
    prompt_messages,
    transcript_messages,
    unseen_images,
    with_attachments,
    with_images,
)
from beam_ray.run.evaluation import Evaluated, findings
from beam_ray.run.model_call import call_model, feedback_turns
from beam_ray.run.program_call import call_program
from beam_ray.run.recorded import NOT_RECORDED, RECORDED, recorded_output
from beam_ray.run.replay import work_of
from beam_ray.run.step_row import StepFrame, attempt_of, output_value, usage_of_row, with_costs, without_work
from beam_ray.store.call_table import CallRow
from beam_ray.store.parquet import text, to_json
from beam_ray.store.tables import AttemptRow, StepRow
from beam_ray.tasks.messages import KEPT_IMAGE, TaskMessage, conversation_text

ANSWER_TRIES = 2
"""Answers that cannot be parsed before the step fails."""


async def run_step(context: StepContext, name: str, task: TaskTrial, values: Mapping[str, Json], above: Mapping[str, StepRow]) -> StepRow:
    """
    The row of node *name* for *task*.

    *values* are what templates may use; *above* are the rows of the node's predecessors.
    The row's own failure becomes its outcome; only what stops the whole run is raised.

    Raises:
        Deferred: it waits for a batch.
    """
    return await _StepExecution(context, context.nodes[name], task, values).run(above)


def failed_row(context: StepContext, name: str, task: TaskTrial, error: StepFailed) -> StepRow:
    """The row of a step that could not even be tried."""
    return _StepExecution(context, context.nodes[name], task, {}).row_without_output("failed", error=error)


class _StepExecution:
    def __init__(self, context: StepContext, prepared: PreparedNode, task: TaskTrial, values: Mapping[str, Json]):
        self.context, self.prepared, self.node, self.task, self.values = context, prepared, prepared.node, task, values
        self.threshold = self.node.evaluate.threshold if self.node.evaluate else 0.0
        started_at = datetime.datetime.now(datetime.UTC)
        self.frame = StepFrame(context.run_id, task, prepared.name, self.threshold if self.node.evaluate else None, started_at)
        self.attempts: list[Attempt] = []
        self.usage, self.judging = Usage(), Usage()
        self.messages: tuple[Message, ...] = ()
        self.arguments: Mapping[str, Json] = {}
        self.transcripts: Transcripts = {}
        self.earlier: dict[int, AttemptRow] = {}
        """Attempts that were paid for before, by an earlier driver or in the origin."""
        self.call_log: CallLog | None = None
        """The calls of an agent or a program."""
        self.borrowed: StepRow | None = None
        """The origin's row, where its output is taken from there."""

    async def run(self, above: Mapping[str, StepRow]) -> StepRow:
        try:
            if self.context.recorded:
                return await self._score_recorded()
            reason = self._reason_to_skip(above)
            if reason:
                return self.row_without_output("skipped", reason=reason)
            if self.prepared.uses_attachments or (self.node.call and needs_attachments(self.context.workflow, self.prepared.name, self.task)):
                # a PDF takes seconds to read, in which no other row would move
                self.values = {**self.values, "attachments": await asyncio.to_thread(self.context.read_attachments, self.task)}
            self.transcripts = {name: await self._transcript(above[name]) for name in self.prepared.agents_taken_in if name in above}
            self._identify()
            spooled = self._spooled_row()
            if spooled:
                return spooled
            match decide(self.context, self.prepared, self.task, self.frame.fingerprint, self.frame.criteria_fingerprint):
                case Skip(reason):
                    return self.row_without_output("skipped", reason=reason)
                case Copy(origin):
                    return self.frame.on(origin, origin["outcome"])
                case Borrow() as borrow:
                    return await self._borrow(borrow)
                case executed:
                    if executed.attempts:
                        self._keep_attempts(executed.attempts)
                    if self.node.records_calls:
                        self.call_log = await self._open_log(adopted=len(executed.attempts))
                    return await self._execute()
        except StepFailed as error:
            return self.row_without_output("failed", error=error)
        except Deferred:
            self.context.on_deferred(self.usage, self.judging)
            raise

    # -- deciding ---------------------------------------------------------------------------

    def _reason_to_skip(self, above: Mapping[str, StepRow]) -> str:
        """Why the step does not run; empty when it does."""
        for parent in self.node.after:
            row = above[parent]
            if row["outcome"] == "failed":
                return f"upstream failed: {parent}"
            if row["outcome"] == "skipped" and str(row["reason"]).startswith("upstream failed"):
                return str(row["reason"])
        if self.node.after and not any(above[parent]["outcome"] in RAN for parent in self.node.after):
            return "route not taken: no predecessor ran"
        if self.node.when is not None and not evaluate(self.node.when, self.values):
            return f"route not taken: {self.node.when}"
        return ""

    def _identify(self) -> None:
        """Render the inputs, and fingerprint them and the criteria."""
        node, prepared = self.node, self.prepared
        given: Any
        if node.call:
            self.messages = prompt_messages(self.context.workflow, prepared.name, self.task, self.values, self.transcripts)
            given = [*self.messages, *(image.removeprefix(KEPT_IMAGE) for image in self._images())]
        else:
            self.arguments = {key: fill(value, self.values) for key, value in node.arguments.items()}
            given = self.arguments
        self.frame.inputs = digest("inputs/1", given)
        answers = [self.context.tool_answers] if self.context.tool_answers and node.records_calls else []
        self.frame.fingerprint = digest("step/1", prepared.settings, self.frame.inputs, *answers)
        self._identify_criteria()

    def _identify_criteria(self) -> None:
        prepared = self.prepared
        used = {name: self.values.get(name) for name in prepared.criteria_inputs if name != "expected"}
        self.frame.criteria_fingerprint = digest("criteria/1", prepared.criteria, used, self.task.expected if "expected" in prepared.criteria_inputs else None)

    def _spooled_row(self) -> StepRow | None:
        """The row as an earlier driver of this run finished it; what it paid for an unfinished one is kept."""
        spooled = self.context.spooled_row(self.prepared.name, self.task)
        if not spooled or spooled["fingerprint"] != self.frame.fingerprint or spooled["criteria_fingerprint"] != self.frame.criteria_fingerprint:
            return None
        if spooled["outcome"] != "open":
            return {**spooled, "run_id": self.context.run_id, "shard": self.task.shard}
        self._keep_attempts(spooled["attempts"] or ())
        self.usage, self.judging = usage_of_row(spooled)
        return None

    # -- what production answered -------------------------------------------------------------

    async def _score_recorded(self) -> StepRow:
        """The row of a step that is not executed: of the last node, with what production answered; of the others, without output."""
        found = recorded_output(self.context.workflow, self.task.recorded)
        if found.node != self.prepared.name:
            return without_work(self.row_without_output("skipped", reason=NOT_RECORDED))
        if found.error:
            return without_work(self.row_without_output("failed", error=found.error))
        # the judge is told what production was asked, as nobody knows by which prompt
        asked = self.task.query if isinstance(self.task.query, str) else to_json(self.task.query)
        before = [conversation_text(self.task.messages)] if self.task.messages else []
        self.messages = (Message(role="user", content="\n".join([*before, asked, *([to_json(self.task.variables)] if self.task.variables else [])])),)
        self.frame.inputs = digest("inputs/1", self.messages)
        self.frame.fingerprint = digest("recorded/1", found.value)
        self._identify_criteria()
        row: StepRow = {**self.frame.row("borrowed"), "output": to_json(found.value), "reason": RECORDED}
        spooled = self._spooled_row()
        if spooled:
            return spooled
        origin = self.context.origin_row(self.prepared.name, self.task) if self.context.borrow else None
        if origin and origin["fingerprint"] == self.frame.fingerprint and origin["criteria_fingerprint"] == self.frame.criteria_fingerprint:
            address = str(Address(origin["run_id"], self.task.task_id, self.task.trial, self.prepared.name))
            return {**self.frame.on(origin, "borrowed"), "borrowed_from": origin["borrowed_from"] or address}
        attempt = Attempt(1, output=found.value)
        await self._evaluate(attempt)
        return without_work(with_costs(self._judged(row, attempt), self.usage, self.judging))

    # -- borrowing --------------------------------------------------------------------------

    async def _borrow(self, borrow: Borrow) -> StepRow:
        self.borrowed = origin = borrow.origin
        row: StepRow = {
            **self.frame.on(origin, "borrowed"),
            "reason": borrow.reason,
            "borrowed_from": origin["borrowed_from"] or str(Address(origin["run_id"], self.task.task_id, self.task.trial, self.prepared.name)),
            "route": self.node.route,
        }
        if not borrow.rescore:
            return row
        reasoning = origin["attempts"][-1].get("reasoning") if origin["attempts"] else None
        attempt = Attempt(1, output=output_value(origin["output"]), reasoning=reasoning or "")
        await self._evaluate(attempt)
        attempts = [*(origin["attempts"] or [])[:-1], self._rescored(attempt, (origin["attempts"] or [])[-1:])]
        work = work_of(await self.context.origin_calls(self.prepared.name, self.task)) if self.node.records_calls else Usage()
        for made in () if work.calls else attempts:
            work.add(Usage(1 if self.node.llm else 0, made["input_tokens"], made["output_tokens"], made["usd"], made["seconds"]))
        judged = with_costs(self._judged(row, attempt), Usage(), self.judging, work)
        return {**judged, "attempts": attempts, "first_score": attempt.score_value}

    def _rescored(self, attempt: Attempt, last: list[AttemptRow]) -> AttemptRow:
        """The origin's *last* attempt, with the score that its output has now."""
        row = attempt.row()
        return {**last[0], "output": row["output"], "score": row["score"], "error": row["error"], "criteria": row["criteria"]} if last else row

    def _keep_attempts(self, attempts: Any) -> None:
        """Continue from attempts that were paid for before."""
        self.earlier = {attempt["number"]: attempt for attempt in attempts}

    # -- executing --------------------------------------------------------------------------

    async def _open_log(self, adopted: int) -> CallLog:
        """The log of the step's calls, with those that an earlier driver of this run spooled, and those of *adopted* attempts of the origin."""
        spooled = self.context.spooled_row(self.prepared.name, self.task)
        log = CallLog(
            self.context,
            self.prepared.name,
            self.task,
            self._spool_call,
            on_miss=self.node.agent.on_miss if self.node.agent else self.node.on_miss,
            recording=await self.context.recorded_calls(self.prepared.name, self.task),
            # a call is identified by what it asks, so also calls of a row that was finished from other inputs may answer
            known=(spooled.get("call_rows") or ()) if spooled else (),
        )
        for number in self.earlier:
            if number <= adopted:
                log.adopt(number)
            else:
                log.keep(number)
        return log

    def _spool_call(self, call: CallRow) -> None:
        """Keep a call that was answered, although its attempt is not finished."""
        row: StepRow = {**self.frame.row("open"), "attempts": [attempt.row() for attempt in self.attempts], "call_rows": [call]}
        self.context.on_row(with_costs(row, self.usage, self.judging))

    async def _execute(self) -> StepRow:
        again = self.node.auto_rerun
        allowed = 1 + (again.max if again else 0)
        feedback: list[Finding] = []
        while len([attempt for attempt in self.attempts if attempt.error is None]) < allowed:
            attempt = await self._attempt(len(self.attempts) + 1, feedback if again and again.feedback else [])
            self.attempts.append(attempt)
            if attempt.error is not None:
                unparsed = [tried for tried in self.attempts if isinstance(tried.error, BadAnswer)]
                if isinstance(attempt.error, BadAnswer) and attempt.error.again and len(unparsed) < ANSWER_TRIES:
                    continue
                break
            await self._evaluate(attempt)
            if self._passes(attempt) is not False:
                return self._done_row(attempt)
            feedback = [finding for finding in attempt.findings if finding.met is False]
            self._spool_attempts()
        scored = [attempt for attempt in self.attempts if attempt.error is None]
        if not scored:
            return self.row_without_output("failed", error=self.attempts[-1].error)
        best = max(scored, key=lambda attempt: (-1.0 if attempt.score_value is None else attempt.score_value, -attempt.number))
        row = self._done_row(best)
        if again and again.on_exhausted == "fail":
            error = f"no attempt reached the threshold of {self.threshold:g}; the best of {len(scored)} scored {row['score']:g}"
            return {**row, "outcome": "failed", "error_type": "BelowThreshold", "error": error}
        return {**row, "review": bool(again and again.on_exhausted == "review")}

    async def _attempt(self, number: int, feedback: list[Finding]) -> Attempt:
        earlier = self.earlier.get(number)
        if earlier:
            return Attempt.from_row(earlier)
        attempt = Attempt(number)
        self.context.require_budget()
        try:
            if self.node.call:
                messages = with_attachments(with_images(self.messages, self._images()), self.values["attachments"])
                if feedback and self.attempts:
                    messages = (*messages, *feedback_turns(self.attempts[-1].output, feedback))
                if self.node.agent:
                    assert self.call_log
                    await run_agent(self.context, self.prepared, self.task, attempt, messages, self.call_log.begin(attempt))
                else:
                    await call_model(self.context, self.prepared, self.task, attempt, messages)
            elif self.node.command or self.node.asks:
                calls = self.call_log.begin(attempt) if self.call_log else None
                await call_program(self.context, self.prepared, self.task, attempt, self.arguments, calls)
            else:
                await self._call_tool(attempt)
        except StepFailed as error:
            attempt.error = error
        self.usage.add(attempt.usage)
        return attempt

    def _images(self) -> list[str]:
        """The addresses of the images that are shown in the last user turn."""
        return unseen_images(self.messages, self.values) if self.prepared.uses_attachments else []

    async def _call_tool(self, attempt: Attempt) -> None:
        started = time.monotonic()
        try:
            memory = self.node.resources.memory if self.node.resources else None
            attempt.output = await self.context.tools.call(str(self.node.tool), self.arguments, self.node.timeout_s, memory)
        finally:
            attempt.usage.seconds = time.monotonic() - started

    # -- evaluating -------------------------------------------------------------------------

    async def _evaluate(self, attempt: Attempt) -> None:
        if self.node.evaluate is None:
            return
        if not attempt.findings:
            calls = await self._trajectory(attempt) if self.prepared.reads_calls else None
            given = Evaluated(self.values, self._question(), calls)
            attempt.findings = await findings(self.context, self.prepared, self.task, attempt, given, self.judging, lambda: self._spool_attempts(attempt))
        attempt.score = score(attempt.findings)

    async def _trajectory(self, attempt: Attempt) -> Trajectory | None:
        """What the attempt called; None where that is not recorded."""
        if self.call_log:
            return await self._read_calls(self.call_log.rows, attempt.number)
        if self.borrowed is None or self.borrowed["turns"] is None:
            return None
        calls = await self._read_calls(await self.context.origin_calls(self.prepared.name, self.task), attempt_of(self.borrowed))
        return None if self.borrowed["turns"] and not calls.turns else calls

    async def _read_calls(self, rows: Sequence[CallRow], attempt: int, *, agent: bool | None = None) -> Trajectory:
        mine = [row for row in rows if row["attempt"] == attempt]
        return await asyncio.to_thread(trajectory, mine, self.context.read_text, agent=self.node.agent is not None if agent is None else agent)

    async def _transcript(self, row: StepRow) -> Sequence[TaskMessage]:
        """What the agent of an earlier step said and called before its answer."""
        if row["outcome"] not in RAN:
            return ()
        return transcript_messages(await self._read_calls(await self.context.step_calls(row), attempt_of(row), agent=True))

    def _question(self) -> str:
        """What the step was asked, as a judge is told."""
        call = self.node.call
        if call and any(turn.role == CONVERSATION for turn in call.prompt):
            return conversation_text(self.messages)
        return "\n".join(str(message["content"]) for message in self.messages) or to_json(self.arguments)

    def _passes(self, attempt: Attempt) -> bool | None:
        return attempt.score.passes(self.threshold) if attempt.score else None

    # -- rows -------------------------------------------------------------------------------

    def _spool_attempts(self, unjudged: Attempt | None = None) -> None:
        """Keep what is paid for although the step is not finished."""
        attempts = [*self.attempts, unjudged] if unjudged and unjudged not in self.attempts else self.attempts
        row: StepRow = {**self.frame.row("open"), "attempts": [attempt.row() for attempt in attempts]}
        self.context.on_row(with_costs(row, self.usage, self.judging))

    def _judged(self, row: StepRow, attempt: Attempt) -> StepRow:
        found = attempt.score
        return {
            **row,
            "score": attempt.score_value,
            "passed": self._passes(attempt),
            "unscored": found.unscored if found else "no criteria",
            "criteria": [finding.row() for finding in attempt.findings],
        }

    def _done_row(self, attempt: Attempt) -> StepRow:
        first = next((tried for tried in self.attempts if tried.error is None), attempt)
        row: StepRow = {
            **self.frame.row("done"),
            "output": to_json(attempt.output),
            "route": self.node.route,
            "attempts": [tried.row() for tried in self.attempts],
            "first_score": first.score_value,
        }
        return self._with_costs(self._judged(row, attempt), attempt.number)

    def _with_costs(self, row: StepRow, counts: int) -> StepRow:
        """The row with what it cost, and with its calls; *counts* is the attempt whose output counts."""
        if self.call_log is None:
            return with_costs(row, self.usage, self.judging)
        return cast(StepRow, {**with_costs(row, self.usage, self.judging, self.call_log.work), **self.call_log.columns(counts)})

    def row_without_output(self, outcome: str, *, reason: str | None = None, error: StepFailed | None = None) -> StepRow:
        """The row of the step, skipped or failed."""
        row: StepRow = {
            **self.frame.row(outcome),
            "reason": reason,
            "attempts": [tried.row() for tried in self.attempts],
            "error_type": type(error).__name__ if error else None,
            "error": text(str(error)) if error else None,
        }
        return self._with_costs(row, len(self.attempts))
