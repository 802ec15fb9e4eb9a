"""The findings about one attempt: by rules, from its calls, and by judge models."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from beam_ray.define.criterion import CALL_KINDS
from beam_ray.define.fingerprint import Json
from beam_ray.evaluate.call_rules import judge_by_calls
from beam_ray.evaluate.judge import JudgedOutput
from beam_ray.evaluate.panel import judge_by_panel
from beam_ray.evaluate.rules import judge_by_rule
from beam_ray.evaluate.score import Finding
from beam_ray.evaluate.tool_uses import Trajectory
from beam_ray.evaluate.transcript import transcript
from beam_ray.llm.request import Deferred
from beam_ray.llm.usage import Usage
from beam_ray.run.attempt import Attempt
from beam_ray.run.context import PreparedNode, StepContext, TaskTrial
from beam_ray.run.model_call import judge_request


@dataclass(frozen=True)
class Evaluated:
    """What an attempt is evaluated with, besides its output."""

    values: Mapping[str, Json]
    """What the step's templates may use."""
    question: str
    """What the step was asked, as a judge is told."""
    calls: Trajectory | None = None
    """What an agent or a program called; None where that is not recorded, and for other steps."""


async def findings(
    context: StepContext, node: PreparedNode, task: TaskTrial, attempt: Attempt, given: Evaluated, judging: Usage, before_judging: Callable[[], None]
) -> list[Finding]:
    """
    The finding of each criterion of the node about *attempt*; what judges cost is added to *judging*.

    Args:
        before_judging: Called before a judge is asked, to keep what the attempt cost.

    Raises:
        Deferred: a judge's answer waits for a batch; all questions have been asked.
    """
    output, evaluation = attempt.output, node.node.evaluate
    assert evaluation is not None
    known = {"reasoning": attempt.reasoning, **given.values, node.name: output, "output": output, "expected": task.expected or {}}
    found = {
        item.id: judge_by_calls(item, given.calls, known) if item.kind in CALL_KINDS else judge_by_rule(item, output, known, context.tools.function)
        for item in node.rules
    }
    if node.judged:
        before_judging()
    waits = False
    for criteria in node.judged:
        reasoning = (attempt.reasoning or "(none was returned)") if criteria[0].reasoning else ""
        shown = JudgedOutput(given.question, output, reasoning, transcript(given.calls) if given.calls else None)
        judges = {name: context.models[name] for name in node.judges}
        try:
            judged = await judge_by_panel(judges, criteria, shown, judge_request(context, node, task, attempt), judging)
        except Deferred:
            waits = True  # what else is asked goes in the same batch
            continue
        found |= {finding.id: finding for finding in judged}
    if waits:
        raise Deferred
    return [found[item.id] for item in evaluation.criteria]
