"""The prompt of a step as it was sent to its model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from beam_ray.define.llm_call import CONVERSATION, Turn
from beam_ray.define.template import TemplateFault, uses
from beam_ray.define.workflow import Workflow
from beam_ray.errors import BeamRayError, Unusable
from beam_ray.improve.prompt_text import template_pieces
from beam_ray.run.context import TaskTrial
from beam_ray.run.sent_prompt import sent_messages
from beam_ray.tasks.messages import text_of_message

if TYPE_CHECKING:
    from beam_ray.api.tasks import Task


@dataclass(frozen=True)
class PromptTurn:
    """One message of a prompt."""

    role: str
    text: str


@dataclass(frozen=True)
class SentPrompt:
    """
    The messages that a model got in one attempt; of an agent those that it began with.

    They are rendered from the run's definition and the stored outputs of earlier steps, and their digest is
    compared with the one that was stored when they were sent.
    """

    node: str
    attempt: int
    turns: tuple[PromptTurn, ...]
    """Empty where the prompt cannot be shown."""
    images: tuple[str, ...]
    """Names of the images that were sent with the last user turn."""
    verified: bool
    """Whether the messages of the first attempt have the digest that was stored when they were sent."""
    note: str
    """Why the prompt cannot be shown, or is perhaps not what was sent; else empty."""


@dataclass(frozen=True)
class TemplatePart:
    """A piece of a prompt's template: text, or a tag."""

    text: str
    names: tuple[str, ...]
    """What a tag takes in, such as ``task_query`` or ``extract.vendor``; empty for text."""


@dataclass(frozen=True)
class TemplateTurn:
    """One turn of a prompt before it is rendered."""

    role: str
    parts: tuple[TemplatePart, ...]


def template_turns(turns: Sequence[Turn]) -> tuple[TemplateTurn, ...]:
    """A prompt's template in its pieces, each with what it takes in."""
    return tuple(
        TemplateTurn(turn.role, (TemplatePart(turn.content, (turn.content.strip(),)),) if turn.role == CONVERSATION else tuple(_parts(turn.content)))
        for turn in turns
    )


def _parts(content: str) -> list[TemplatePart]:
    found = []
    for number, piece in enumerate(template_pieces(content)):
        names: tuple[str, ...] = ()
        if number % 2:
            try:
                # a tag such as {% if x %} is no template alone, so what it has is read as an expression where it can be
                taken = uses(piece) if piece.startswith("{{") else uses(piece[2:-2].strip(" -").removeprefix("if ").removeprefix("elif "), expression=True)
                names = tuple(dict.fromkeys(".".join(filter(None, (use.root, use.field))) for use in taken))
            except TemplateFault:
                names = ()
        if piece:
            found.append(TemplatePart(piece, names))
    return found


def rendered_prompt(task: "Task", node: str, workflow: Workflow) -> SentPrompt:
    """The messages that the model of *node* would get for the task by another definition, from the stored outputs of earlier steps."""
    rows = {each.node: each.record for each in task.steps}
    if node not in rows:
        return SentPrompt(node, 1, (), (), False, "The prompt cannot be shown: the run has no such step.")
    try:
        found = sent_messages(task.run.stored.objects, workflow, TaskTrial.of(task.given, task.trial, 0), rows, node)
    except (BeamRayError, KeyError) as error:
        return SentPrompt(node, 1, (), (), False, f"The prompt cannot be shown: {str(error).splitlines()[0]}")
    turns = tuple(PromptTurn(str(message["role"]), text_of_message(message)) for message in found.messages)
    return SentPrompt(node, 1, turns, found.images, found.verified, "")


def sent_prompt(task: "Task", node: str, attempt: int = 1) -> SentPrompt:
    """See ``Task.prompt``."""
    step = task.step(node)
    if step.definition.call is None:
        raise Unusable(f"the step {step.address} is a tool and has no prompt")
    if step.outcome == "skipped":
        return SentPrompt(node, attempt, (), (), False, f"Nothing was sent: the step was skipped ({step.reason}).")
    rows = {each.node: each.record for each in task.steps}
    try:
        found = sent_messages(task.run.stored.objects, task.run.workflow, TaskTrial.of(task.given, task.trial, 0), rows, node, attempt)
    except BeamRayError as error:
        return SentPrompt(node, attempt, (), (), False, f"The prompt cannot be shown: {str(error).splitlines()[0]}")
    turns = tuple(PromptTurn(str(message["role"]), text_of_message(message)) for message in found.messages)
    note = "" if found.verified else "Rendered again from what is stored; it is not known to be what was sent, because its digest differs or was not kept."
    return SentPrompt(node, attempt, turns, found.images, found.verified, note)
