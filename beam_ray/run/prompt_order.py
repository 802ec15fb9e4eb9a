"""The order in which rows begin: prompts with a common beginning follow each other, so that providers read it from their cache."""

from collections.abc import Sequence

from beam_ray.define.llm_call import CONVERSATION, TASK, LlmCall
from beam_ray.define.template import render
from beam_ray.define.workflow import Workflow
from beam_ray.errors import BadTemplate
from beam_ray.run.context import TaskTrial
from beam_ray.tasks.messages import conversation_text

CACHED_CHARACTERS = 4_000
"""Length of a common beginning from which the order matters: about 1,024 tokens, the least that providers cache."""


def grouped_by_beginning(tasks: Sequence[TaskTrial], workflow: Workflow) -> list[TaskTrial]:
    """The rows in their order, but for those whose first prompt begins like that of an earlier row: they follow it."""
    first = workflow.nodes[workflow.order[0]].call
    if first is None:
        return list(tasks)
    groups: dict[str, list[TaskTrial]] = {}
    for task in tasks:
        groups.setdefault(_beginning(first, task, workflow), []).append(task)
    return [task for group in groups.values() for task in group]


def _beginning(call: LlmCall, task: TaskTrial, workflow: Workflow) -> str:
    """The beginning of the row's first prompt; empty where it is too short to be cached, or cannot be rendered."""
    values, text = task.values(workflow), ""
    try:
        for turn in call.prompt:
            of_task = turn.role == CONVERSATION and turn.content.strip() == TASK
            text += conversation_text(task.messages) if of_task else render(turn.content, values)
            if len(text) >= CACHED_CHARACTERS:
                return text[:CACHED_CHARACTERS]
    except BadTemplate:  # the row fails with it when it begins; attachments are read only then
        pass
    return ""
