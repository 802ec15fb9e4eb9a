"""
One node applied to one row: decide, borrow or execute, evaluate, try again.

No Ray and no store: a step gets what stands above it and gives a row of the steps table.
"""

import asyncio
import datetime
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from beam_ray.address import Address
from beam_ray.define.fingerprint import digest, strict_json
from beam_ray.define.template import evaluate, fill, render
from beam_ray.errors import BadAnswer, ModelRefused, StepFailed
from beam_ray.evaluate.judge import judge_by_model
from beam_ray.evaluate.rules import judge_by_rule
from beam_ray.evaluate.score import Finding, Score, score
from beam_ray.llm.answer import parse_answer
from beam_ray.llm.request import Request
from beam_ray.llm.usage import Usage
from beam_ray.run.context import RAN, Desk, Prepared, Row, TaskRow
from beam_ray.store.tables import text, to_json

ANSWER_TRIES = 2
"""Answers asked for while they cannot be read, before the step fails."""

FRESH_TEMPERATURE = 0.7
"""Of a second try at an answer that could not be read, where the node's own is 0."""

SEED_STEP = 1_000
"""Added to a node's seed per trial, so that trials and attempts are samples of their own."""

SAMPLE_STEP = 1_000_000
"""Added per sample of the same definition."""


@dataclass
class Attempt:
    """One try at a step."""

    number: int
    output: Any = None
    findings: list[Finding] = field(default_factory=list)
    score: Score | None = None
    error: StepFailed | None = None
    usage: Usage = field(default_factory=Usage)
    temperature: float | None = None
    seed: int | None = None

    def row(self) -> Row:
        """The attempt as the steps table keeps it."""
        return {
            "number": self.number,
            "output": None if self.output is None else to_json(self.output),
            "score": self.score.value if self.score else None,
            "error": str(self.error) if self.error else None,
            "seconds": self.usage.seconds,
            "input_tokens": self.usage.input_tokens,
            "output_tokens": self.usage.output_tokens,
            "usd": self.usage.usd,
            "temperature": self.temperature,
            "seed": self.seed,
            "criteria": [finding.row() for finding in self.findings],
        }


async def run_step(desk: Desk, name: str, task: TaskRow, values: Mapping[str, Any], above: Mapping[str, Row]) -> Row:
    """
    The row of node *name* for *task*.

    *values* are what templates may use; *above* are the rows of the node's predecessors.
    Whatever the row's fault is becomes the row's outcome; only what stops the whole run is raised.
    """
    return await _Step(desk, desk.nodes[name], task, values).run(above)


class _Step:
    def __init__(self, desk: Desk, prepared: Prepared, task: TaskRow, values: Mapping[str, Any]):
        self.desk, self.prepared, self.node, self.task, self.values = desk, prepared, prepared.node, task, values
        self.attempts: list[Attempt] = []
        self.usage, self.judging = Usage(), Usage()
        self.started = datetime.datetime.now(datetime.UTC)
        self.fingerprint = self.ruler = self.inputs = ""
        self.messages: tuple[Mapping[str, Any], ...] = ()
        self.arguments: Mapping[str, Any] = {}
        self.earlier: dict[int, Row] = {}

    async def run(self, above: Mapping[str, Row]) -> Row:
        try:
            reason = self._skipped(above)
            if reason:
                return self._row("skipped", reason=reason)
            if self.prepared.attaches:
                # a PDF takes seconds to read, in which no other row would move
                self.values = {**self.values, "attachments": await asyncio.to_thread(self.desk.attachments, self.task)}
            self._identify()
            kept = self.desk.kept(self.prepared.name, self.task)
            if kept and kept["fingerprint"] == self.fingerprint and kept["criteria_fingerprint"] == self.ruler:
                if kept["outcome"] != "open":
                    return {**kept, "run_id": self.desk.run_id, "shard": self.task.shard}
                self._take_up(kept)
                self.usage, self.judging = _paid(kept)
            borrowed = await self._borrowed()
            return borrowed or await self._execute()
        except StepFailed as error:
            return self._row("failed", error=error)

    # -- deciding ---------------------------------------------------------------------------

    def _skipped(self, above: Mapping[str, Row]) -> str:
        """Why the step does not run, or nothing."""
        for parent in self.node.after:
            row = above[parent]
            if row["outcome"] == "failed":
                return f"upstream failed: {parent}"
            if row["outcome"] == "skipped" and str(row["reason"]).startswith("upstream failed"):
                return str(row["reason"])
        if self.node.after and not any(above[parent]["outcome"] in RAN for parent in self.node.after):
            return "route not taken: nothing before it ran"
        if self.node.when is not None and not evaluate(self.node.when, self.values):
            return f"route not taken: {self.node.when}"
        return ""

    def _identify(self) -> None:
        node, prepared = self.node, self.prepared
        given: Any
        if node.llm:
            self.messages = tuple({"role": turn.role, "content": render(turn.content, self.values)} for turn in node.llm.prompt)
            given = [*self.messages, *(found["sha256"] for found in self._images())]
        else:
            self.arguments = {key: fill(value, self.values) for key, value in node.arguments.items()}
            given = self.arguments
        self.inputs = digest("inputs/1", given)
        self.fingerprint = digest("step/1", prepared.settings, self.inputs)
        looked_at = {name: self.values.get(name) for name in prepared.ruler_uses if name != "expected"}
        self.ruler = digest("criteria/1", prepared.ruler, looked_at, self.task.expected if "expected" in prepared.ruler_uses else None)

    # -- borrowing --------------------------------------------------------------------------

    async def _borrowed(self) -> Row | None:
        desk, name = self.desk, self.prepared.name
        writes = self.node.effects == "write" and not desk.allow_writes
        fixed = desk.execute is not None and name not in desk.execute
        origin = desk.origin(name, self.task) if (writes or fixed or desk.borrow) else None
        usable = origin is not None and origin["outcome"] in RAN
        if desk.ruler_only and origin is not None:
            if not usable:
                return {**origin, **self._frame(origin["outcome"]), **_costs(Usage(), Usage()), **{name: origin[name] for name in WORK}}
            changed = origin["criteria_fingerprint"] != self.ruler
            why = "only its criteria have changed" if changed else "judged once more" if desk.sample else "nothing that it depends on has changed"
            return await self._take(origin, why, rescore=changed or desk.sample > 0)
        if writes and not fixed:
            if not usable:
                return self._row("skipped", reason="a write tool is not called in a rerun or backtest, and the origin has no output to replay")
            assert origin is not None
            return await self._take(origin, "write not repeated: the origin's output is replayed", rescore=True)
        if not usable:
            return None
        assert origin is not None
        if fixed:
            return await self._take(origin, "before the node that the rerun starts from", rescore=False)
        if desk.borrow and (desk.execute is None) and origin["fingerprint"] == self.fingerprint:
            if origin["criteria_fingerprint"] == self.ruler:
                return await self._take(origin, "nothing that it depends on has changed", rescore=False)
            if not self.node.auto_rerun and len(origin["attempts"] or ()) <= 1:
                return await self._take(origin, "only its criteria have changed", rescore=True)
            # what the first attempt said does not depend on criteria; what came after may
            self._take_up({**origin, "attempts": [{**attempt, "criteria": []} for attempt in (origin["attempts"] or ())[:1]]})
        return None

    async def _take(self, origin: Row, reason: str, *, rescore: bool) -> Row:
        source = origin["borrowed_from"] or str(Address(origin["run_id"], self.task.task_id, self.task.trial, self.prepared.name))
        row = {
            **origin,
            **self._frame("borrowed"),
            "reason": reason,
            "borrowed_from": source,
            "route": self.node.route,
            **_costs(Usage(), Usage()),
            **{name: origin[name] for name in WORK},
        }
        if not rescore:
            return row
        attempt = Attempt(1, output=_value(origin["output"]))
        await self._evaluate(attempt)
        self.attempts = [attempt]
        judged = self._judgement(attempt)
        last = (origin["attempts"] or [{}])[-1]
        attempts = [
            *(origin["attempts"] or ())[:-1],
            {
                **attempt.row(),
                **{key: last.get(key) for key in ("number", "seconds", "input_tokens", "output_tokens", "usd", "temperature", "seed") if key in last},
            },
        ]
        work = Usage()
        for made in attempts:
            work.add(Usage(1 if self.node.llm else 0, made["input_tokens"], made["output_tokens"], made["usd"], made["seconds"]))
        spent = {**_costs(Usage(), self.judging), **{name: value for name, value in _costs(work, self.judging).items() if name in WORK}}
        return {**row, **judged, **spent, "attempts": attempts, "first_score": attempt.score.value if attempt.score else None}

    def _take_up(self, kept: Row) -> None:
        """Go on from attempts that were made before: by a driver that crashed, or in the origin."""
        self.earlier = {attempt["number"]: attempt for attempt in kept["attempts"] or ()}

    # -- executing --------------------------------------------------------------------------

    async def _execute(self) -> Row:
        again = self.node.auto_rerun
        allowed = 1 + (again.max if again else 0)
        feedback: list[Finding] = []
        while len([attempt for attempt in self.attempts if attempt.error is None]) < allowed:
            attempt = await self._attempt(len(self.attempts) + 1, feedback if again and again.feedback else [])
            self.attempts.append(attempt)
            if attempt.error is not None:
                unreadable = [tried for tried in self.attempts if isinstance(tried.error, BadAnswer)]
                if isinstance(attempt.error, BadAnswer) and attempt.error.again and len(unreadable) < ANSWER_TRIES:
                    continue
                break
            await self._evaluate(attempt)
            passed = self._passes(attempt)
            if passed is not False:
                return self._settled(attempt)
            feedback = [finding for finding in attempt.findings if finding.met is False]
            self._remember()
        scored = [attempt for attempt in self.attempts if attempt.error is None]
        if not scored:
            return self._row("failed", error=self.attempts[-1].error)
        best = max(scored, key=lambda attempt: (attempt.score.value if attempt.score and attempt.score.value is not None else -1.0, -attempt.number))
        if again and again.on_exhausted == "fail":
            row = self._settled(best)
            error = f"no attempt reached the threshold of {self._threshold:g}; the best of {len(scored)} scored {row['score']:g}"
            return {**row, "outcome": "failed", "error_type": "BelowThreshold", "error": error}
        return {**self._settled(best), "review": bool(again and again.on_exhausted == "review")}

    async def _attempt(self, number: int, feedback: list[Finding]) -> Attempt:
        attempt = Attempt(number)
        earlier = self.earlier.get(number)
        if earlier:
            return self._earlier(attempt, earlier)
        self.desk.afford()
        try:
            if self.node.llm:
                await self._ask(attempt, feedback)
            else:
                await self._call(attempt)
        except StepFailed as error:
            attempt.error = error
        self.usage.add(attempt.usage)
        return attempt

    def _earlier(self, attempt: Attempt, earlier: Row) -> Attempt:
        attempt.output = _value(earlier["output"])
        attempt.error = BadAnswer(earlier["error"]) if earlier["error"] else None
        attempt.usage = Usage(0, earlier["input_tokens"] or 0, earlier["output_tokens"] or 0, earlier["usd"], earlier["seconds"] or 0.0)
        attempt.temperature, attempt.seed = earlier["temperature"], earlier["seed"]
        attempt.findings = [Finding(item["id"], item["text"], item["met"], item["reason"], item["judge"], item["weight"]) for item in earlier["criteria"] or ()]
        return attempt

    async def _ask(self, attempt: Attempt, feedback: list[Finding]) -> None:
        call, desk = self.node.llm, self.desk
        assert call is not None
        attempt.seed = call.seed + desk.sample * SAMPLE_STEP + (self.task.trial - 1) * SEED_STEP + attempt.number - 1
        attempt.temperature = call.temperature
        if attempt.number > 1 and not call.temperature:
            # at 0 a fresh sample would be the same one
            attempt.temperature = self.node.auto_rerun.temperature if self.node.auto_rerun else FRESH_TEMPERATURE
        request = Request(
            messages=(*self._with_images(), *self._feedback(feedback)),
            schema=call.returns,
            temperature=attempt.temperature,
            top_p=call.top_p,
            max_tokens=call.max_tokens,
            seed=attempt.seed,
            timeout_s=self.node.timeout_s,
            node=self.prepared.name,
            task_id=self.task.task_id,
            trial=self.task.trial,
            attempt=attempt.number,
        )
        answer = await desk.models[str(self.prepared.model)].ask(request, attempt.usage)
        if answer.refusal or answer.finish == "content_filter":
            raise ModelRefused(f"the model declined: {answer.refusal or 'content filter'}")
        try:
            attempt.output = parse_answer(answer.text, call.returns)
        except BadAnswer as error:
            if answer.finish == "length":
                raise BadAnswer(f"the answer was cut off at max_tokens ({call.max_tokens}): {error}", raw=error.raw, again=False) from None
            raise

    def _images(self) -> list[dict[str, Any]]:
        return [found for found in self.values["attachments"] if found["image"]] if self.prepared.attaches else []

    def _with_images(self) -> tuple[Mapping[str, Any], ...]:
        """The messages, with the images as parts of the last user turn."""
        images = self._images()
        if not images:
            return self.messages
        last = max((index for index, message in enumerate(self.messages) if message["role"] == "user"), default=len(self.messages) - 1)
        parts = [{"type": "text", "text": self.messages[last]["content"]}, *({"type": "image_url", "image_url": {"url": found["image"]}} for found in images)]
        return (*self.messages[:last], {**self.messages[last], "content": parts}, *self.messages[last + 1 :])

    def _feedback(self, findings: list[Finding]) -> tuple[Mapping[str, str], ...]:
        if not findings or not self.attempts:
            return ()
        wrong = "\n".join(f"- {finding.text}" + (f" ({finding.reason})" if finding.judge else "") for finding in findings)
        said = to_json(self.attempts[-1].output)
        return (
            {"role": "assistant", "content": said},
            {"role": "user", "content": f"This answer does not meet:\n{wrong}\nAnswer the same question again so that it does."},
        )

    async def _call(self, attempt: Attempt) -> None:
        started = time.monotonic()
        try:
            memory = self.node.resources.memory if self.node.resources else None
            attempt.output = await self.desk.tools.call(str(self.node.tool), self.arguments, self.node.timeout_s, memory)
        finally:
            attempt.usage.seconds = time.monotonic() - started

    # -- judging ----------------------------------------------------------------------------

    async def _evaluate(self, attempt: Attempt) -> None:
        if self.node.evaluate is None:
            return
        if not attempt.findings:
            attempt.findings = await self._findings(attempt)
        attempt.score = score(attempt.findings)

    async def _findings(self, attempt: Attempt) -> list[Finding]:
        prepared, desk, output = self.prepared, self.desk, attempt.output
        known = {**self.values, prepared.name: output, "output": output, "expected": self.task.expected or {}}
        findings = {item.id: judge_by_rule(item, output, known, desk.tools.function) for item in prepared.rules}
        if prepared.plain:
            self._remember(attempt)
            question = "\n".join(str(message["content"]) for message in self.messages) or to_json(self.arguments)
            request = Request(
                (),
                seed=desk.sample * SAMPLE_STEP + attempt.number - 1,
                timeout_s=self.node.timeout_s,
                node=prepared.name,
                task_id=self.task.task_id,
                trial=self.task.trial,
                attempt=attempt.number,
            )
            judged = await judge_by_model(desk.models[str(prepared.judge)], str(prepared.judge), prepared.plain, question, output, request, self.judging)
            findings |= {finding.id: finding for finding in judged}
        assert self.node.evaluate is not None
        return [findings[item.id] for item in self.node.evaluate.criteria]

    def _remember(self, unjudged: Attempt | None = None) -> None:
        """What is paid for is kept although the step is not finished."""
        attempts = [*self.attempts, unjudged] if unjudged and unjudged not in self.attempts else self.attempts
        self.desk.keep({**self._frame("open"), "attempts": [attempt.row() for attempt in attempts], "criteria": [], **_costs(self.usage, self.judging)})

    @property
    def _threshold(self) -> float:
        return self.node.evaluate.threshold if self.node.evaluate else 0.0

    def _passes(self, attempt: Attempt) -> bool | None:
        return attempt.score.passes(self._threshold) if attempt.score else None

    # -- rows -------------------------------------------------------------------------------

    def _frame(self, outcome: str) -> Row:
        return {
            "run_id": self.desk.run_id,
            "task_id": self.task.task_id,
            "node": self.prepared.name,
            "trial": self.task.trial,
            "outcome": outcome,
            "shard": self.task.shard,
            "fingerprint": self.fingerprint or None,
            "criteria_fingerprint": self.ruler or None,
            "inputs": self.inputs or None,
            "review": False,
            "threshold": self._threshold if self.node.evaluate else None,
            "started_at": self.started,
            "ended_at": datetime.datetime.now(datetime.UTC),
        }

    def _judgement(self, attempt: Attempt) -> Row:
        found = attempt.score
        return {
            "score": found.value if found else None,
            "passed": self._passes(attempt),
            "unscored": found.unscored if found else "no criteria",
            "criteria": [finding.row() for finding in attempt.findings],
        }

    def _settled(self, attempt: Attempt) -> Row:
        first = next((tried for tried in self.attempts if tried.error is None), attempt)
        return {
            **self._frame("done"),
            "output": to_json(attempt.output),
            "route": self.node.route,
            "attempts": [tried.row() for tried in self.attempts],
            "first_score": first.score.value if first.score else None,
            **self._judgement(attempt),
            **_costs(self.usage, self.judging),
        }

    def _row(self, outcome: str, *, reason: str | None = None, error: StepFailed | None = None) -> Row:
        return {
            **self._frame(outcome),
            "reason": reason,
            "criteria": [],
            "attempts": [tried.row() for tried in self.attempts],
            "error_type": type(error).__name__ if error else None,
            "error": text(str(error)) if error else None,
            **_costs(self.usage, self.judging),
        }


def _costs(usage: Usage, judging: Usage) -> Row:
    return {
        "seconds": usage.seconds,
        "waited": usage.waited + judging.waited,
        "calls": usage.calls,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "usd": usage.usd,
        "judge_calls": judging.calls,
        "judge_input_tokens": judging.input_tokens,
        "judge_output_tokens": judging.output_tokens,
        "judge_usd": judging.usd,
        "work_seconds": usage.seconds,
        "work_calls": usage.calls + judging.calls,
        "work_tokens": usage.input_tokens + usage.output_tokens + judging.input_tokens + judging.output_tokens,
        "work_usd": None if usage.usd is None or judging.usd is None else usage.usd + judging.usd,
    }


WORK = ("work_seconds", "work_calls", "work_tokens", "work_usd")


def _paid(kept: Row) -> tuple[Usage, Usage]:
    """What the calls behind a kept row cost: this run paid for them, if before a crash."""
    usage = Usage(kept["calls"], kept["input_tokens"], kept["output_tokens"], kept["usd"], kept["seconds"], kept["waited"])
    return usage, Usage(kept["judge_calls"], kept["judge_input_tokens"], kept["judge_output_tokens"], kept["judge_usd"])


def _value(output: str | None) -> Any:
    return None if output is None else strict_json(output)


def output_of(row: Row) -> Any:
    """What templates see of a step: its output, or None when it did not run."""
    return _value(row["output"]) if row["outcome"] in RAN else None


def failure(desk: Desk, name: str, task: TaskRow, error: StepFailed) -> Row:
    """The row of a step that could not even be tried."""
    return _Step(desk, desk.nodes[name], task, {})._row("failed", error=error)
