"""The model call of one attempt: its messages, its seed and its temperature. Its retries are in ``llm.client``."""

from collections.abc import Sequence
from typing import Any

from beam_ray.evaluate.score import Finding
from beam_ray.llm.answer import read_answer
from beam_ray.llm.request import Message, Request
from beam_ray.run.attempt import Attempt
from beam_ray.run.context import PreparedNode, StepContext, TaskTrial
from beam_ray.store.parquet import to_json

FRESH_TEMPERATURE = 0.7
"""Temperature of another try at an answer that could not be parsed, where the node's own is 0."""

SEED_STEP = 1_000
"""Added to a node's seed per trial, so that trials and attempts are independent samples."""

SAMPLE_STEP = 1_000_000
"""Added per sample of the same definition."""


async def call_model(context: StepContext, node: PreparedNode, task: TaskTrial, attempt: Attempt, messages: tuple[Message, ...]) -> None:
    """
    Ask the node's model, and keep its answer and what it cost in *attempt*.

    Raises:
        ModelRefused: it declined to answer.
        BadAnswer: the answer is not what the node returns.
        ModelUnavailable: there was no answer in time.
    """
    request = request_of(context, node, task, attempt, messages)
    answer = await context.models[str(node.model)].ask(request, attempt.usage)
    attempt.reasoning = answer.reasoning
    attempt.output = read_answer(answer, request.schema, request.max_tokens)


def request_of(context: StepContext, node: PreparedNode, task: TaskTrial, attempt: Attempt, messages: tuple[Message, ...]) -> Request:
    """The request of an attempt to the node's model; its seed and temperature are noted in the attempt."""
    call = node.node.call
    assert call is not None
    attempt.seed = call.seed + context.sample * SAMPLE_STEP + (task.trial - 1) * SEED_STEP + attempt.number - 1
    attempt.temperature = call.temperature
    if attempt.number > 1 and not call.temperature:
        # at temperature 0 another sample would be the same one
        attempt.temperature = node.node.auto_rerun.temperature if node.node.auto_rerun else FRESH_TEMPERATURE
    return Request(
        messages=messages,
        schema=call.returns,
        temperature=attempt.temperature,
        top_p=call.top_p,
        max_tokens=call.max_tokens,
        seed=attempt.seed,
        timeout_s=node.node.timeout_s,
        node=node.name,
        task_id=task.task_id,
        trial=task.trial,
        attempt=attempt.number,
    )


def judge_request(context: StepContext, node: PreparedNode, task: TaskTrial, attempt: Attempt) -> Request:
    """The request in which a judge model is asked about the attempt's output; the judge adds its messages."""
    return Request(
        (),
        seed=context.sample * SAMPLE_STEP + attempt.number - 1,
        timeout_s=node.node.timeout_s,
        node=node.name,
        task_id=task.task_id,
        trial=task.trial,
        attempt=attempt.number,
    )


def feedback_turns(answer: Any, failed: Sequence[Finding]) -> tuple[Message, ...]:
    """Turns that show the model its last *answer* and the criteria that it *failed*."""
    wrong = "\n".join(f"- {finding.text}" + (f" ({finding.reason})" if finding.judge else "") for finding in failed)
    return (
        {"role": "assistant", "content": to_json(answer)},
        {"role": "user", "content": f"This answer does not meet:\n{wrong}\nAnswer the same question again so that it does."},
    )
