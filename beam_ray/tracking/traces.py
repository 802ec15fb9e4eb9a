"""
One task of one side as an MLflow trace: a span per step and per attempt, with assessments.

Ids are derived from ours, so logging a trace again updates the same trace.
"""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mlflow.entities import Assessment, AssessmentError, AssessmentSource, Feedback, Span, TraceInfo, TraceLocation, TraceState
from mlflow.entities.model_registry import PromptVersion

from beam_ray.address import Address
from beam_ray.define.fingerprint import JsonObject
from beam_ray.define.workflow import Workflow
from beam_ray.store.call_table import PlacedCallRow
from beam_ray.store.tables import AttemptRow, CriterionRow, OutcomeRow, StepRow
from beam_ray.tracking.backtest_log import TaskRequest

_PREVIEW = 1_000
_LONGEST_CALL = 20_000
"""Characters of a call's request or reply."""
_CODE = AssessmentSource("CODE", "beam_ray")


@dataclass(frozen=True)
class Case:
    """One task and trial of one side, with its stored rows."""

    backtest_id: str
    side: str
    mlflow_run: str
    workflow: Workflow
    models: Mapping[str, JsonObject]
    prompts: Mapping[str, PromptVersion]
    request: TaskRequest
    """The trace's input. MLflow pairs the traces of two sides by it, so it is the same on every side."""
    expected: Any
    changed: bool
    outcome: OutcomeRow
    steps: Sequence[StepRow]
    """All steps that were not skipped, in the workflow's order."""
    calls: Sequence[PlacedCallRow] = ()
    """The calls that agents and programs made in these steps."""
    recorded: bool = False
    """Whether it is what production answered: then how long it took, and in how many attempts, is unknown."""

    @property
    def key(self) -> bytes:
        """The trace id as 16 bytes."""
        return _hash(16, self.backtest_id, self.side, self.outcome["task_id"], self.outcome["trial"])

    @property
    def trace_id(self) -> str:
        """The trace id in MLflow's notation."""
        return f"tr-{self.key.hex()}"

    @property
    def address(self) -> Address:
        """The task's address."""
        return Address(self.outcome["run_id"], self.outcome["task_id"], self.outcome["trial"])

    def output(self, node: str) -> Any:
        """The output of *node*; None when it did not run."""
        return next((loads(step["output"]) for step in self.steps if step["node"] == node), None)


def trace(case: Case, experiment_id: str) -> TraceInfo:
    """The trace of *case* with its assessments, without spans."""
    outcome = case.outcome
    start, end = _nanoseconds(outcome["started_at"]), _nanoseconds(outcome["ended_at"])
    prompts = [{"name": version.name, "version": str(version.version)} for version in case.prompts.values()]
    return TraceInfo(
        trace_id=case.trace_id,
        trace_location=TraceLocation.from_experiment_id(experiment_id),
        request_time=start // 1_000_000,
        execution_duration=None if case.recorded else max(end - start, 0) // 1_000_000,
        state=TraceState.ERROR if outcome["outcome"] == "failed" else TraceState.OK,
        client_request_id=str(case.address),
        request_preview=cut(" · ".join(readable(part) for part in case.request.values()), _PREVIEW),
        response_preview=cut(readable(loads(outcome["output"])), _PREVIEW),
        trace_metadata={"mlflow.sourceRun": case.mlflow_run},
        tags={
            "mlflow.traceName": case.workflow.name,
            "mlflow.linkedPrompts": json.dumps(prompts),
            "beam_ray.address": str(case.address),
            "beam_ray.task": outcome["task_id"],
            "beam_ray.side": case.side,
            "beam_ray.changed": "yes" if case.changed else "no",
        },
        assessments=list(_assessments(case)),
    )


def _assessments(case: Case) -> Iterator[Assessment]:
    # MLflow shows the first three of them, by name: hence the numbers.
    outcome = case.outcome
    if outcome["score"] is not None:
        yield _feedback(case, "1 score", round(outcome["score"], 2), _CODE)
    yield _feedback(case, "2 passed", "yes" if outcome["passed"] else "no", _CODE, why=outcome["error"] or "")
    if not case.recorded:
        yield _feedback(case, "3 attempts", sum(len(step["attempts"] or ()) for step in case.steps), _CODE)
    for step in case.steps:
        for criterion in step["criteria"] or ():
            # An undecided criterion of a scored step does not apply.
            if criterion["met"] is None and step["score"] is not None:
                continue
            source = AssessmentSource("LLM_JUDGE", criterion["judge"]) if criterion["judge"] else _CODE
            yield _criterion(case, step, criterion, source)


def _criterion(case: Case, step: StepRow, criterion: CriterionRow, source: AssessmentSource) -> Assessment:
    name, span = f"{step['node']}/{criterion['id']}", _span_judged(case, step)
    why = ": ".join(part for part in (criterion["text"], criterion["reason"]) if part)
    if criterion["met"] is None:
        undecided = Feedback(name=name, error=AssessmentError("UNSCORED", why or "could not be decided"), source=source, span_id=span, trace_id=case.trace_id)
        return _named(case, undecided)
    return _feedback(case, name, "yes" if criterion["met"] else "no", source, why=why, span=span)


def _feedback(case: Case, name: str, value: Any, source: AssessmentSource, *, why: str = "", span: str | None = None) -> Assessment:
    return _named(case, Feedback(name=name, value=value, source=source, rationale=why or None, span_id=span, trace_id=case.trace_id))


def _named(case: Case, assessment: Assessment) -> Assessment:
    assessment.assessment_id = "a-" + _hash(16, case.trace_id, assessment.name).hex()
    assessment.metadata = {"mlflow.assessment.sourceRunId": case.mlflow_run}
    return assessment


def _span_judged(case: Case, step: StepRow) -> str:
    """Span of the attempt whose output became the step's output; the last of equal ones."""
    numbers = [attempt["number"] for attempt in step["attempts"] or () if attempt["output"] == step["output"]]
    return _hash(8, case.key, step["node"], numbers[-1] if numbers else "").hex()


def spans(case: Case) -> Iterator[Span]:
    """The spans of the trace of *case*."""
    outcome = case.outcome
    root = _hash(8, case.key)
    facts = {name: outcome[name] for name in ("outcome", "score", "passed", "routes", "path")}
    yield _span(
        case,
        root,
        None,
        case.workflow.name,
        "CHAIN",
        (_nanoseconds(outcome["started_at"]), _nanoseconds(outcome["ended_at"])),
        outcome["error"],
        {"mlflow.spanInputs": case.request, "mlflow.spanOutputs": loads(outcome["output"]), "expected": case.expected, **facts},
    )
    for step in case.steps:
        yield from _step_spans(case, root, step)


def _step_spans(case: Case, root: bytes, step: StepRow) -> Iterator[Span]:
    node = step["node"]
    start, end = _nanoseconds(step["started_at"] or case.outcome["started_at"]), _nanoseconds(step["ended_at"] or case.outcome["ended_at"])
    asks = case.workflow.nodes[node].call is not None
    identity = _hash(8, case.key, node, "")
    facts = {name: step[name] for name in ("outcome", "route", "score", "passed", "threshold", "unscored", "reason", "borrowed_from", "fingerprint")}
    about = {"mlflow.spanInputs": _inputs(case, node), "mlflow.spanOutputs": loads(step["output"]), **facts}
    yield _span(case, identity, root, node, "AGENT" if asks else "TOOL", (start, end), step["error"], about)
    for attempt in step["attempts"] or ():
        took = int((attempt["seconds"] or 0) * 1e9)
        stop = min(start + took, end)
        calls = [call for call in case.calls if call["node"] == node and call["attempt"] == attempt["number"]]
        if calls:
            start, stop = min(_nanoseconds(call["started_at"]) for call in calls), max(_nanoseconds(call["ended_at"]) for call in calls)
        yield _attempt_span(case, identity, node, attempt, (start, stop))
        for call in calls:
            yield _call_span(case, _hash(8, case.key, node, attempt["number"]), call)
        start = stop


def _attempt_span(case: Case, parent: bytes, node: str, attempt: AttemptRow, times: tuple[int, int]) -> Span:
    model = case.workflow.model_of(node)
    about = {"mlflow.spanOutputs": loads(attempt["output"]), "score": attempt["score"]}
    if model is not None:
        tokens = attempt["input_tokens"] or 0, attempt["output_tokens"] or 0
        about["mlflow.spanInputs"] = {"temperature": attempt["temperature"], "seed": attempt["seed"]}
        about["mlflow.llm.model"] = case.models.get(model, {}).get("model", model)
        about["mlflow.chat.tokenUsage"] = {"input_tokens": tokens[0], "output_tokens": tokens[1], "total_tokens": sum(tokens)}
        if attempt["usd"] is not None:
            about["mlflow.llm.cost"] = _cost(attempt["usd"], tokens, case.models.get(model, {}).get("usd_per_million"))
    identity = _hash(8, case.key, node, attempt["number"])
    return _span(case, identity, parent, f"{node} #{attempt['number']}", "LLM" if model else "TOOL", times, attempt["error"], about)


_CALL_KINDS = {"model": "LLM", "embedding": "EMBEDDING", "tool": "TOOL"}


def _call_span(case: Case, parent: bytes, call: PlacedCallRow) -> Span:
    """One call to a model or a tool, with where its answer came from."""
    about: dict[str, object] = {"mlflow.spanInputs": _bounded(call["request"]), "mlflow.spanOutputs": _bounded(call["reply"])}
    about |= {name: call[name] for name in ("number", "source", "recorded_from", "effects", "fingerprint")}  # type: ignore[literal-required]
    if call["kind"] != "tool":
        # not as mlflow.chat.tokenUsage: the attempt's has them, and MLflow would count them twice
        about |= {"mlflow.llm.model": case.models.get(call["name"], {}).get("model", call["name"])}
        about |= {name: call[name] for name in ("input_tokens", "output_tokens", "usd")}  # type: ignore[literal-required]
    identity = _hash(8, case.key, call["node"], call["attempt"], "call", call["number"])
    times = _nanoseconds(call["started_at"]), _nanoseconds(call["ended_at"])
    return _span(case, identity, parent, call["name"], _CALL_KINDS[call["kind"]], times, call["error"], about)


def _bounded(text: str | None) -> Any:
    """The JSON value, or the beginning of its text where it is long: every request holds the conversation so far."""
    return loads(text) if text is None or len(text) <= _LONGEST_CALL else cut(text, _LONGEST_CALL)


def _cost(usd: float, tokens: tuple[int, int], prices: Mapping[str, float] | None) -> dict[str, float]:
    """The cost split into input and output, as MLflow wants it; all of it counts as output where prices are unknown."""
    read = min(tokens[0] * prices["input"] / 1e6, usd) if prices else 0.0
    return {"input_cost": read, "output_cost": usd - read, "total_cost": usd}


def _inputs(case: Case, node: str) -> Any:
    """The node's inputs: the outputs of its predecessors, or the task itself."""
    after = {name: case.output(name) for name in case.workflow.nodes[node].after}
    return {name: output for name, output in after.items() if output is not None} or case.request


def _span(
    case: Case, identity: bytes, parent: bytes | None, name: str, kind: str, times: tuple[int, int], error: str | None, about: Mapping[str, object]
) -> Span:
    if case.recorded:
        # MLflow computes a trace's duration from its spans, and how long production took is unknown
        times = (_nanoseconds(case.outcome["started_at"]), 0)
    attributes = {"mlflow.traceRequestId": case.trace_id, "mlflow.spanType": kind, **{key: value for key, value in about.items() if value is not None}}
    return Span.from_dict(
        {
            "trace_id": _base64(case.key),
            "span_id": _base64(identity),
            "parent_span_id": _base64(parent) if parent else None,
            "name": name,
            "start_time_unix_nano": times[0],
            "end_time_unix_nano": max(times[1], times[0] + 1),
            "status": {"code": "STATUS_CODE_ERROR" if error else "STATUS_CODE_OK", "message": error or ""},
            "attributes": {key: json.dumps(value, ensure_ascii=False, default=str) for key, value in attributes.items()},
        }
    )


def loads(text: str | None) -> Any:
    """The value of JSON *text*; the text itself where it is not JSON."""
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text


def readable(value: Any) -> str:
    """*value* for people: text as it is, a single field as ``name: value``, anything else as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping) and list(value) == ["text"]:
        return readable(value["text"])
    if isinstance(value, Mapping) and len(value) == 1:
        [(name, inner)] = value.items()
        return f"{name}: {readable(inner)}"
    return json.dumps(value, ensure_ascii=False)


def cut(text: str, longest: int) -> str:
    """*text*, truncated with an ellipsis to *longest* characters."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _nanoseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1_000_000) * 1_000


def _hash(size: int, *parts: object) -> bytes:
    text = "\x1f".join(part.hex() if isinstance(part, bytes) else str(part) for part in parts)
    return hashlib.blake2b(text.encode(), digest_size=size).digest()


def _base64(identity: bytes) -> str:
    return base64.b64encode(identity).decode()
