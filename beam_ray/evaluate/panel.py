"""
A panel of judges: each model is asked the same, and a majority decides.

A criterion is met or not met when more than half of the panel say so, however many of the others
gave no answer. Otherwise it stays undecided, so that the output is unscored: neither a tie nor a
lone voice is a verdict. What each judge said is kept.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

from beam_ray.define.criterion import Criterion
from beam_ray.evaluate.judge import JudgedOutput, judge_by_model
from beam_ray.evaluate.score import Finding
from beam_ray.llm.request import Deferred, Model, Request
from beam_ray.llm.usage import Usage
from beam_ray.store.tables import JudgementRow


async def judge_by_panel(judges: Mapping[str, Model], criteria: Sequence[Criterion], judged: JudgedOutput, request: Request, usage: Usage) -> list[Finding]:
    """
    The findings of the judges about an output, one per criterion; of a single judge its own.

    Raises:
        Deferred: a judge's answer waits for a batch; all of them have been asked.
    """
    if len(judges) == 1:
        [(name, model)] = judges.items()
        return await judge_by_model(model, name, criteria, judged, request, usage)
    asked = [judge_by_model(model, name, criteria, judged, replace(request, question=name), usage) for name, model in judges.items()]
    answers: list[list[Finding]] = []
    waits: Deferred | None = None
    # an error of one ends none of the others, whose answers are paid for
    for found in await asyncio.gather(*asked, return_exceptions=True):
        if isinstance(found, Deferred):
            waits = found
        elif isinstance(found, BaseException):
            raise found
        else:
            answers.append(found)
    if waits:
        raise waits
    return [majority([findings[index] for findings in answers]) for index in range(len(criteria))]


def majority(findings: Sequence[Finding]) -> Finding:
    """What the judges of a panel decide about one criterion."""
    said: list[JudgementRow] = [{"judge": str(each.judge), "met": each.met, "reason": each.reason} for each in findings]
    votes = {met: [each for each in findings if each.met is met] for met in (True, False)}
    names = ", ".join(each["judge"] for each in said)
    whole = replace(findings[0], judge=names, judges=tuple(said))
    for met, agreeing in votes.items():
        if 2 * len(agreeing) > len(findings):
            return replace(whole, met=met, reason=f"{len(agreeing)} of {len(findings)} judges: {agreeing[0].reason}")
    silent = [each for each in findings if each.met is None]
    words = [f"{len(votes[True])} of {len(findings)} judges say met, {len(votes[False])} not met"]
    if silent:
        words.append(f"{silent[0].judge}: {silent[0].reason}")
    return replace(whole, met=None, reason=f"no majority: {'; '.join(words)}")


def disagree(judges: Sequence[JudgementRow] | None) -> bool:
    """Whether the judges of a panel said different things about a criterion."""
    return len({each["met"] for each in judges or () if each["met"] is not None}) > 1
