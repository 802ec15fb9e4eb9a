"""What tests of improvement share: a proposer that answers from a script, and runs without Ray."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

from beam_ray.improve.execute_plan import PlanExecutor
from beam_ray.improve.model_query import CachedModel
from beam_ray.llm import Request, ScriptedModel
from tests.conftest import Lab, drive_here


def here(objects: Any, record: Any, models: Any, **how: Any) -> None:
    """Brings a run to its end in this process."""
    asyncio.run(drive_here(objects, record, models))


def executor(lab: Lab, answer: Callable[[Request], Any]) -> PlanExecutor:
    """Does plans in this process; the model 'm' answers by *answer*."""
    return PlanExecutor(lab.objects, {"m": ScriptedModel(answer)}, here)


class Proposer:
    """Answers questions in turn, the last one for ever, and keeps what it was asked."""

    def __init__(self, *answers: Any):
        self.answers, self.asked = answers, list[Request]()

    def __call__(self, request: Request) -> Any:
        self.asked.append(request)
        return self.answers[min(len(self.asked), len(self.answers)) - 1]

    @property
    def said(self) -> str:
        """All that the last question shows."""
        return "\n".join(str(message["content"]) for message in self.asked[-1].messages)


def ask(lab: Lab, proposer: Callable[[Request], Any], **how: Any) -> CachedModel:
    """Puts questions to *proposer*."""
    return CachedModel(lab.objects, "p", ScriptedModel(proposer, identity="proposer"), **how)


def proposal(change: str = "say it plainly", **texts: str) -> str:
    """A proposer's answer: the texts of a prompt without a system turn, by name."""
    return json.dumps(
        {
            "weaknesses": ["it does not say what is wanted"],
            "changes": [{"change": change, "reason": "it was not said"}],
            "texts": {"system": "", **texts},
        }
    )
