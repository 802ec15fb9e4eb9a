"""Steps of tasks: what one node did for one task, attempt by attempt and criterion by criterion."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from beam_ray.address import Address
from beam_ray.api.display import Display, Displayed
from beam_ray.api.runs import Run
from beam_ray.define.fingerprint import Json
from beam_ray.define.workflow import Node
from beam_ray.run.context import RAN
from beam_ray.run.replay import DivergenceDocument
from beam_ray.store.tables import AttemptRow, CriterionRow, StepRow

if TYPE_CHECKING:
    from beam_ray.api.prompts import TemplateTurn


class StepDocument(StepRow):
    """A step as ``--json`` prints it: its row, with the output as a JSON value."""

    output: Json  # type: ignore[misc]


@dataclass(frozen=True)
class JudgeVerdict:
    """What one judge of a panel said about a criterion."""

    judge: str
    met: bool | None
    """None when it gave no usable answer."""
    reason: str


@dataclass(frozen=True)
class CriterionResult:
    """Whether one criterion holds for an output."""

    id: str
    text: str
    met: bool | None
    """None when that could not be decided."""
    reason: str
    judge: str | None
    """The model that judged, or all models of a panel; None for a rule."""
    weight: float
    judges: tuple[JudgeVerdict, ...] = ()
    """What each judge of a panel said; empty where one model or a rule decided."""


@dataclass(frozen=True)
class Attempt:
    """One attempt at a step."""

    number: int
    """1 is the first."""
    output: Any
    """The answer as JSON value; None when there was none."""
    score: float | None
    """0 to 100; None when unscored."""
    error: str | None
    seconds: float | None
    """From request to answer, without waiting for rate limits."""
    input_tokens: int | None
    output_tokens: int | None
    usd: float | None
    """None when the model has no price."""
    criteria: tuple[CriterionResult, ...]
    reasoning: str | None = None
    """The model's reasoning, at most 64,000 characters; None where none was returned."""
    cached_tokens: int | None = None
    """Input tokens read from the provider's cache; None where the endpoint does not report them."""
    reasoning_tokens: int | None = None
    """Output tokens that were reasoning; None where the endpoint does not report them."""
    estimated: bool | None = None
    """Whether the endpoint reported no usage, so that tokens and price are estimates; None in runs of version 0.1."""


@dataclass(frozen=True, repr=False)
class Step(Displayed):
    """One node's work on one task."""

    address: str
    """``RUN/TASK/NODE``."""
    node: str
    definition: Node
    """The node as it was defined."""
    model: str | None
    """The model that was called; None for a tool."""
    outcome: str
    """done, failed, skipped or borrowed."""
    output: Any
    """The output as JSON value; None when there is none."""
    score: float | None
    """0 to 100; None when unscored."""
    passed: bool | None
    """Whether the score reaches the threshold; None when unscored or without output."""
    threshold: float | None
    first_score: float | None
    """Score of the first attempt."""
    route: str | None
    reason: str | None
    """Why the step was skipped, executed or borrowed."""
    unscored: str | None
    """Why there is no score."""
    borrowed_from: str | None
    """Address of the step whose output this is."""
    error_type: str | None
    error: str | None
    criteria: tuple[CriterionResult, ...]
    attempts: tuple[Attempt, ...]
    seconds: float
    """In model or tool, over all attempts, without waiting for rate limits."""
    tokens: int
    """Input and output tokens, judges included."""
    usd: float | None
    """US dollars, judges left out; None when the model has no price."""
    record: StepRow = field(compare=False)
    """The row as the store has it."""

    @property
    def title(self) -> str:
        """The node's title; its name in words where it has none."""
        return self.definition.title or self.node.replace("_", " ")

    @property
    def divergence(self) -> DivergenceDocument | None:
        """The first call that left the recording of the step that this one redoes; None where none did or nothing was recorded."""
        found: DivergenceDocument | None = json.loads(self.record["divergence"] or "null")
        return found

    @property
    def ran(self) -> bool:
        """Whether the step has an output: it was executed or borrowed."""
        return self.outcome in RAN

    @property
    def not_optimisable(self) -> str:
        """Why no better prompt can be proposed for the step; empty where one can."""
        from beam_ray.improve.optimise import why_not

        return why_not(self.record, self.definition)

    @property
    def template(self) -> "tuple[TemplateTurn, ...]":
        """The prompt as it is defined, in its pieces; empty for a tool."""
        from beam_ray.api.prompts import template_turns

        return template_turns(self.definition.call.prompt) if self.definition.call else ()

    def display(self) -> Display:
        facts = (("outcome", self.outcome), ("score", self.score), ("threshold", self.threshold), ("reason", self.reason), ("error", self.error))
        rows = [(item.text, {True: "met", False: "not met", None: "undecided"}[item.met], item.reason) for item in self.criteria]
        return Display(self.address, facts, ("criterion", "", "reason"), rows)

    def document(self) -> StepDocument:
        """The step's row with its output as a JSON value."""
        return {**self.record, "output": self.output}


def step_of(row: StepRow, run: Run) -> Step:
    node = row["node"]
    return Step(
        address=str(Address(row["run_id"], row["task_id"], row["trial"], node)),
        node=node,
        definition=run.workflow.nodes[node],
        model=run.workflow.model_of(node),
        outcome=row["outcome"],
        output=_value(row["output"]),
        criteria=_criteria(row["criteria"]),
        attempts=tuple(_attempt(entry) for entry in row["attempts"] or ()),
        seconds=row["seconds"] or 0.0,
        tokens=sum(count or 0 for count in (row["input_tokens"], row["output_tokens"], row["judge_input_tokens"], row["judge_output_tokens"])),
        record=row,
        score=row["score"],
        passed=row["passed"],
        threshold=row["threshold"],
        first_score=row["first_score"],
        route=row["route"],
        reason=row["reason"],
        unscored=row["unscored"],
        borrowed_from=row["borrowed_from"],
        error_type=row["error_type"],
        error=row["error"],
        usd=row["usd"],
    )


def _attempt(entry: AttemptRow) -> Attempt:
    return Attempt(
        number=entry["number"],
        output=_value(entry["output"]),
        score=entry["score"],
        error=entry["error"],
        seconds=entry["seconds"],
        input_tokens=entry["input_tokens"],
        output_tokens=entry["output_tokens"],
        usd=entry["usd"],
        criteria=_criteria(entry["criteria"]),
        reasoning=entry["reasoning"],
        cached_tokens=entry["cached_tokens"],
        reasoning_tokens=entry["reasoning_tokens"],
        estimated=entry["estimated"],
    )


def _criteria(entries: Iterable[CriterionRow] | None) -> tuple[CriterionResult, ...]:
    return tuple(
        CriterionResult(
            entry["id"],
            entry["text"],
            entry["met"],
            entry["reason"],
            entry["judge"],
            entry["weight"],
            tuple(JudgeVerdict(**said) for said in entry["judges"] or ()),
        )
        for entry in entries or ()
    )


def _value(text: str | None) -> Any:
    return None if text is None else json.loads(text)
