"""
What production answered, as the output of a workflow's last node.

A task that was a trace keeps what came out of it. As the baseline of a backtest that output is
judged like any other: no step is executed, the nodes before the last one have no output, and
what it cost is unknown.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from beam_ray.define.criterion import CALL_KINDS
from beam_ray.define.fingerprint import digest, strict_json
from beam_ray.define.workflow import Node, Workflow
from beam_ray.errors import BadAnswer, FailedInProduction, StepFailed, Unusable
from beam_ray.llm.answer import first_fault
from beam_ray.run.outcome import output_nodes
from beam_ray.store.parquet import to_json

RECORDED = "recorded in production"
"""Reason of the step that has the recorded output."""
NOT_RECORDED = "not recorded: only the output of the last node is"
"""Reason of the other steps."""
SHOWN = 5


@dataclass(frozen=True)
class RecordedOutput:
    """What production answered to one task."""

    node: str
    """The node whose output it is."""
    value: Any = None
    error: StepFailed | None = None
    """Why there is no output that can be judged."""


def recorded_output(workflow: Workflow, written: str | None) -> RecordedOutput:
    """
    The output that a task's column *recorded* holds.

    Raises:
        Unusable: there is none, or it does not say which of several last nodes gave it.
    """
    recorded = _object(written)
    ends = [name for name in workflow.order if name in output_nodes(workflow)]
    steps = recorded.get("steps")
    named = [name for name in ends if isinstance(steps, Mapping) and name in steps]
    if recorded.get("failed"):
        return RecordedOutput((named or ends)[-1], error=FailedInProduction("the execution failed in production"))
    if recorded.get("output") is None:
        raise Unusable("no recorded output")
    if len(ends) > 1 and not named:
        raise Unusable(f"the workflow ends in {', '.join(ends)}, and no step of the trace has one of these names")
    name = (named or ends)[-1]
    try:
        return RecordedOutput(name, _fitted(workflow.nodes[name], name, recorded["output"]))
    except BadAnswer as error:
        return RecordedOutput(name, error=error)


def require_recorded(workflow: Workflow, tasks: pa.Table) -> str:
    """
    Check that every task has a recorded output; what should be known of those that do not fit, or nothing.

    Raises:
        Unusable: a task has none, no output fits what the last node returns, or a criterion needs calls, which are not recorded.
    """
    for name in output_nodes(workflow):
        evaluation = workflow.nodes[name].evaluate
        needing = [item.text for item in evaluation.criteria if item.kind in CALL_KINDS] if evaluation else []
        if needing:
            raise Unusable(
                f"baseline: recorded: production did not record what {name!r} called, so this criterion cannot be decided: {needing[0]}\n"
                "  remove it for this backtest, or choose another baseline"
            )
    missing: dict[str, list[str]] = {}
    bad: list[tuple[str, BadAnswer]] = []
    for batch in tasks.select(["task_id", "recorded"]).to_batches(max_chunksize=1_000):
        for row in batch.to_pylist():
            try:
                found = recorded_output(workflow, row["recorded"])
            except Unusable as error:
                missing.setdefault(str(error), []).append(row["task_id"])
                continue
            if isinstance(found.error, BadAnswer):
                bad.append((row["task_id"], found.error))
    for why, names in missing.items():
        raise Unusable(
            f"baseline: recorded: {len(names):,} of {tasks.num_rows:,} tasks cannot be the baseline, {why}: {_listed(names)}\n"
            "  traces have recorded outputs (beam-ray library import NAME --from …); remove these tasks, or choose another baseline"
        )
    if not bad:
        return ""
    if len(bad) == tasks.num_rows:
        raise Unusable(f"baseline: recorded: no recorded output can be judged; of task {bad[0][0]}: {bad[0][1]}")
    return f"note: {len(bad):,} of {tasks.num_rows:,} recorded outputs count as failed: {_listed([name for name, _ in bad])}; the first: {bad[0][1]}"


def recorded_digest(tasks: pa.Table) -> str:
    """Identifies the recorded outputs of the tasks, whatever their order."""
    sha = hashlib.sha256()
    rows = sorted(zip(tasks["task_id"].to_pylist(), tasks["recorded"].to_pylist(), strict=True))
    for row in rows:
        sha.update(json.dumps(row).encode("utf-8", "surrogatepass"))
    return digest("recorded/1", sha.hexdigest())


def judged_alike(one: Workflow, other: Workflow) -> bool:
    """Whether recorded outputs get the same scores by both workflows: the same last nodes, criteria and judges."""
    ends = output_nodes(one)
    if ends != output_nodes(other):
        return False
    return all(
        one.nodes[name].evaluate == other.nodes[name].evaluate
        and one.judge_of(name) == other.judge_of(name)
        and _returns(one.nodes[name]) == _returns(other.nodes[name])
        for name in ends
    )


def _object(written: str | None) -> Mapping[str, Any]:
    value = strict_json(written) if written else None
    return value if isinstance(value, Mapping) else {}


def _returns(node: Node) -> tuple[bool, Any]:
    return (node.call is not None, node.call.returns if node.call else None)


def _fitted(node: Node, name: str, value: Any) -> Any:
    """The output in the shape in which the node would give it."""
    if node.call is None:
        return value
    schema = node.call.returns
    if schema is None:
        fits = isinstance(value, Mapping) and set(value) == {"text"} and isinstance(value["text"], str)
        return value if fits else {"text": value if isinstance(value, str) else to_json(value)}
    fields = schema.get("properties", {})
    if not isinstance(value, Mapping) and len(fields) == 1:
        value = {next(iter(fields)): value}
    # the length limits are for what models write, and production may answer more than this workflow asks for
    lenient = {key: {inner: limit for inner, limit in kind.items() if inner != "maxLength"} for key, kind in fields.items()}
    fault = first_fault(value, {**schema, "properties": lenient, "additionalProperties": True})
    if fault:
        raise BadAnswer(f"the recorded output does not match what {name!r} returns: {fault}")
    return value


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
