"""The messages of a stored step as its model got them, rendered again from what the run has stored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from beam_ray.define.conversation import agents_taken_in
from beam_ray.define.fingerprint import Json, digest
from beam_ray.define.workflow import Workflow
from beam_ray.errors import StepFailed
from beam_ray.evaluate.score import Finding
from beam_ray.evaluate.tool_uses import trajectory
from beam_ray.llm.request import Message
from beam_ray.run.context import RAN, TaskTrial
from beam_ray.run.conversation import Transcripts, needs_attachments, prompt_messages, shows_attachments, transcript_messages, unseen_images
from beam_ray.run.model_call import feedback_turns
from beam_ray.run.recordings import recorded_calls
from beam_ray.run.step_row import attempt_of, output_of, output_value
from beam_ray.store.attachments import read_attachment, read_bytes
from beam_ray.store.objects import Objects
from beam_ray.store.runs import Run
from beam_ray.store.step_lookup import StepRows
from beam_ray.store.tables import StepRow
from beam_ray.tasks.messages import KEPT_IMAGE, TaskMessage


@dataclass(frozen=True)
class SentMessages:
    """The messages of one attempt; of an agent those that it begins with."""

    messages: tuple[Message, ...]
    images: tuple[str, ...]
    """Names of the images that went with the last user turn."""
    verified: bool
    """Whether they have the digest that was stored when they were sent."""


def sent_messages(objects: Objects, workflow: Workflow, task: TaskTrial, rows: Mapping[str, StepRow], node: str, attempt: int = 1) -> SentMessages:
    """
    What the model of *node* got in its *attempt*.

    Args:
        rows: The task's steps by node; those upstream of *node* and *node* itself are needed.

    Raises:
        StepFailed: the prompt cannot be rendered from what is stored.
        Damaged: an attachment is not what was kept.
    """
    call, row = workflow.nodes[node].call, rows[node]
    if call is None:
        raise StepFailed("a tool gets no prompt")
    values: dict[str, Json] = dict(task.values(workflow))
    values |= {name: output_of(rows[name]) for name in workflow.order if name in workflow.upstream[node] and name in rows}
    if needs_attachments(workflow, node, task):
        values["attachments"] = [dict(read_attachment(entry, objects)) for entry in task.attachments]
    messages = prompt_messages(workflow, node, task, values, _transcripts(objects, workflow, rows, node))
    images = [image.removeprefix(KEPT_IMAGE) for image in unseen_images(messages, values)] if shows_attachments(workflow.nodes[node]) else []
    verified = row["inputs"] == digest("inputs/1", [*messages, *images])
    names = {entry["sha256"]: entry["name"] for entry in task.attachments}
    return SentMessages((*messages, *_feedback(workflow, row, attempt)), tuple(names[image] for image in images), verified)


def _transcripts(objects: Objects, workflow: Workflow, rows: Mapping[str, StepRow], node: str) -> Transcripts:
    """The transcripts of the agents whose conversations the prompt takes in."""
    found: dict[str, Sequence[TaskMessage]] = {}
    for name in agents_taken_in(workflow, node):
        row = rows.get(name)
        if row is None or row["outcome"] not in RAN:
            continue
        key, counts = (row["task_id"], row["trial"]), attempt_of(row)
        stored = recorded_calls({row["run_id"]: StepRows(Run(objects, row["run_id"]))}, {key: row}).get(key, [])
        calls = [call for call in stored if call["attempt"] == counts]
        found[name] = transcript_messages(trajectory(calls, lambda sha256: read_bytes(sha256, objects).decode("utf-8", "surrogatepass"), agent=True))
    return found


def _feedback(workflow: Workflow, row: StepRow, number: int) -> tuple[Message, ...]:
    """The turns that told the model what was wrong with the attempt before, where auto-rerun does so."""
    again = workflow.nodes[row["node"]].auto_rerun
    before = [entry for entry in row["attempts"] or () if entry["number"] < number]
    if not again or not again.feedback or not before:
        return ()
    judged = [entry for entry in before if not entry["error"]]
    failed = [
        Finding(item["id"], item["text"], item["met"], item["reason"], item["judge"], item["weight"])
        for item in (judged[-1]["criteria"] or () if judged else ())
        if item["met"] is False
    ]
    return feedback_turns(output_value(before[-1]["output"]), failed) if failed else ()
