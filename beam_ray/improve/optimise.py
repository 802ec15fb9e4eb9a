"""
Optimise a prompt from failed executions: name its weaknesses and propose a better one.

A proposal changes the template, not the rendered text. A model gets the texts between the
prompt's variables and conditions and proposes new texts; variables, conditions and few-shot
examples stay in place. The result must load and pass every check of a workflow file. Whether it
is better is measured by a rerun or on a holdout set, never by the proposing model.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from beam_ray.address import Address
from beam_ray.define.fingerprint import Json, JsonSchema
from beam_ray.define.llm_call import TEXT_SCHEMA
from beam_ray.define.template import TemplateFault, render, uses
from beam_ray.define.workflow import Node, Workflow
from beam_ray.errors import StepFailed, Unusable
from beam_ray.improve.drafts import prompts_text, with_prompt, write_draft
from beam_ray.improve.execute_plan import PlanExecutor
from beam_ray.improve.model_query import CachedModel, QueryAttempt, Question
from beam_ray.improve.prompt_text import prompt_text, texts_of, turns_of, with_texts, written
from beam_ray.rerun import RerunOptions, make_rerun
from beam_ray.run.context import TaskTrial
from beam_ray.run.step_row import output_of
from beam_ray.store.attachments import read_attachment
from beam_ray.store.objects import Objects
from beam_ray.store.runs import Run
from beam_ray.store.step_lookup import StepRows
from beam_ray.store.tables import StepRow

MOST_FAILURES = 5
"""Maximum number of failed executions shown to the model."""

MAX_SHOWN = 6_000
"""Maximum characters shown of each part of a failed execution."""


@dataclass(frozen=True)
class Failure:
    """One failed execution of a step."""

    address: str
    question: str
    """The rendered prompt."""
    output: str
    """JSON; empty when there was no output."""
    error: str
    unmet: tuple[tuple[str, str], ...]
    """Each unmet criterion with the judge's reason."""

    def text(self) -> str:
        """The execution as text for a model."""
        parts = [f"asked:\n{self.question[:MAX_SHOWN]}", f"answered:\n{self.output[:MAX_SHOWN] or 'nothing'}"]
        if self.error:
            parts.append(f"error:\n{self.error[:1_000]}")
        parts += [f"not met: {text}\nbecause: {reason[:500]}" for text, reason in self.unmet]
        return "\n".join(parts)


@dataclass(frozen=True)
class Proposal:
    """A proposed prompt with its reasons; without a usable answer only *tries*."""

    weaknesses: tuple[str, ...]
    changes: tuple[tuple[str, str], ...]
    """Each change and its reason."""
    turns: tuple[dict[str, str], ...]
    workflow: Workflow | None
    """The workflow with the proposed prompt; None when no answer was usable."""
    tries: tuple[QueryAttempt, ...]


def step_of(objects: Objects, address: Address) -> StepRow:
    """
    The row of the step at *address*.

    Raises:
        Unusable: The run is not finished, or has no such node.
    """
    run = Run(objects, address.run)
    nodes = run.record.plan.nodes
    if address.node not in nodes:
        raise Unusable(f"the workflow of run {run.run_id} has no node {address.node!r}\n  it has: {', '.join(run.record.plan.order)}")
    if not run.finished:
        raise Unusable(f"run {run.run_id} is not finished\n  finish it with: beam-ray resume {run.run_id}")
    return StepRows(run).rows(address.node, [(address.task, address.trial)])[address.task, address.trial]


def why_not(row: StepRow, node: Node) -> str:
    """Why no better prompt can be proposed for a step; empty where one can."""
    if node.call is None:
        return "the step is a tool and has no prompt"
    if row["outcome"] == "skipped":
        return f"the step did not run: {row['reason']}"
    unmet = any(item["met"] is False for item in row["criteria"] or ())
    if row["error"] or (unmet and not row["passed"]):
        return ""
    return "the step passed" if row["passed"] else f"the step did not fail: {row['unscored'] or 'it has no criteria'}"


def failure_of(objects: Objects, address: Address) -> Failure:
    """
    The failed execution at *address*.

    Raises:
        Unusable: The step is not a model call, did not run, or did not fail.
    """
    row, workflow = step_of(objects, address), Run(objects, address.run).record.plan
    if workflow.nodes[address.node].call is None:
        asking = [name for name in workflow.order if workflow.nodes[name].call]
        raise Unusable(f"the step {address.node!r} is a tool and has no prompt\n  steps with a prompt: {', '.join(asking) or 'none'}")
    if row["outcome"] == "skipped":
        raise Unusable(f"the step {address.node!r} of {address.task!r} did not run: {row['reason']}")
    failure = read_failure(objects, row)
    if failure is None:
        why = "it passed" if row["passed"] else str(row["unscored"] or "it has no criteria")
        raise Unusable(f"the step {address} did not fail: {why}\n  list failed tasks with: beam-ray tasks --run {address.run} --status failing")
    return failure


def read_failure(objects: Objects, row: StepRow) -> Failure | None:
    """The failed execution in a row of the steps table; None when the step did not fail."""
    unmet = tuple((item["text"], item["reason"]) for item in row["criteria"] or () if item["met"] is False)
    if row["outcome"] == "skipped" or (not unmet and not row["error"]) or (row["passed"] and not row["error"]):
        return None
    address = Address(row["run_id"], row["task_id"], row["trial"], row["node"])
    return Failure(str(address), rendered(objects, address), row["output"] or "", row["error"] or "", unmet)


def rendered(objects: Objects, address: Address) -> str:
    """The step's prompt as sent to the model, rendered again from the stored inputs."""
    run = Run(objects, address.run)
    workflow = run.record.plan
    tasks = run.tasks()
    task = TaskTrial.of(tasks.slice(tasks["task_id"].to_pylist().index(address.task), 1).to_pylist()[0], address.trial, 0)
    values = task.values(workflow)
    reader = StepRows(run)
    for name in workflow.order:
        if name in workflow.upstream[address.node]:
            values[name] = output_of(reader.rows(name, [(task.task_id, task.trial)])[task.task_id, task.trial])
    turns = turns_of(workflow, address.node)
    try:
        if any(use.root == "attachments" for turn in turns for use in uses(turn.content)):
            values = {**values, "attachments": [read_attachment(entry, objects) for entry in task.attachments]}
        return "\n".join(f"[{turn.role}] {render(turn.content, values)}" for turn in turns)
    except StepFailed as error:
        return f"(the prompt could not be rendered: {error})"


def propose(ask: CachedModel, workflow: Workflow, node: str, failures: Sequence[Failure], *, file: Path | None = None, sample: int = 0) -> Proposal:
    """
    Let a model propose a better prompt for *node* from *failures*; where *file* is given, one that can be written into it.

    Raises:
        Stopped: The model did not answer.
    """
    changed = list[Workflow]()
    before = turns_of(workflow, node)

    def fault(answer: Mapping[str, Json]) -> str:
        found = proposal_fault(workflow, node, with_texts(before, answer["texts"]))
        if isinstance(found, str):
            return found
        changed[:] = [found]
        try:
            if file:
                prompts_text(file, {node: with_texts(before, answer["texts"])}, found)
        except Unusable as error:
            return str(error)
        return ""

    asked = ask(question_of(workflow, node, failures, sample), fault)
    if asked.answer is None:
        return Proposal((), (), (), None, asked.tries)
    answer = asked.answer
    return Proposal(
        tuple(answer["weaknesses"]),
        tuple((change["change"], change["reason"]) for change in answer["changes"]),
        with_texts(before, answer["texts"]),
        changed[0],
        asked.tries,
    )


def proposal_fault(workflow: Workflow, node: str, turns: Sequence[Mapping[str, str]]) -> Workflow | str:
    """*workflow* with the proposed prompt, or why the prompt is rejected."""
    before = turns_of(workflow, node)
    try:
        kept = {(use.root, use.field) for turn in turns for use in uses(turn["content"])}
        lost = sorted({(use.root, use.field) for turn in before for use in uses(turn.content)} - kept)
    except TemplateFault as fault:
        return f"the prompt is not a template: {fault}"
    if lost:
        return f"the prompt omits {', '.join('{{ ' + '.'.join(filter(None, use)) + ' }}' for use in lost)}; every variable must stay"
    if tuple(turns) == written(before):
        return "the prompt is unchanged"
    try:
        return with_prompt(workflow, node, turns)
    except Unusable as error:
        return str(error)


_SYSTEM = (
    "You improve the prompt of one step of a workflow. You are given the prompt as a template, what the step must return, its criteria, and "
    "executions that failed. Find out what in the prompt led to the failures, and change it so that the step also does well on tasks that you have not seen."
)


def question_of(workflow: Workflow, node: str, failures: Sequence[Failure], sample: int = 0) -> Question:
    """What a model is asked for a better prompt of *node*."""
    found = workflow.nodes[node]
    assert found.call is not None
    criteria = "\n".join(f"- {item.text}" for item in found.evaluate.criteria) if found.evaluate else "none"
    blocks = [
        ("prompt", prompt_text(found.call.prompt)),
        ("returns", json.dumps(found.call.returns or TEXT_SCHEMA, ensure_ascii=False)),
        ("criteria", criteria),
        *((f"failure-{number}", failure.text()) for number, failure in enumerate(failures[:MOST_FAILURES], 1)),
    ]
    texts = texts_of(found.call.prompt)
    blocks.append(("texts", json.dumps(texts, ensure_ascii=False, indent=1)))
    task = (
        "Name the weaknesses of the prompt. Then list your changes, each with its reason. Then give the prompt's texts as they are after your changes: "
        f"{', '.join(texts)}. What stands between them in the prompt, such as variables, stays where it is and is not repeated in a text. "
        "Do not put values from the failed executions into a text: the prompt is used for other tasks too."
    )
    return Question("prompt", _SYSTEM, blocks, task, _schema(texts), sample)


def _object(properties: Mapping[str, JsonSchema]) -> JsonSchema:
    return {"type": "object", "properties": dict(properties), "required": list(properties), "additionalProperties": False}


def _schema(texts: Mapping[str, str]) -> JsonSchema:
    short = {"type": "string", "maxLength": 200}
    return _object(
        {
            "weaknesses": {"type": "array", "items": short, "minItems": 1, "maxItems": 3},
            "changes": {"type": "array", "items": _object({"change": short, "reason": short}), "minItems": 1, "maxItems": 4},
            "texts": _object({name: {"type": "string", "maxLength": 2 * len(text) + 600} for name, text in texts.items()}),
        }
    )


@dataclass(frozen=True)
class ProposalOutcome:
    """The step and its task before and after a rerun with the proposed prompt."""

    draft: str
    """Path of the draft file, or ``NAME@DRAFT:N`` of a draft in the store."""
    run_id: str
    before: StepRow
    """The step's row."""
    after: StepRow
    task_before: float | None
    task_after: float | None


def rerun_with_proposal(objects: Objects, address: Address, proposal: Proposal, file: Path, place: Path, executor: PlanExecutor) -> ProposalOutcome:
    """
    Write the proposal to the draft *place* of *file*, and rerun the task from the step at *address* with it.

    Raises:
        Unusable: The steps before it cannot be borrowed.
        Stopped: Interrupted; the same call resumes.
    """
    assert proposal.workflow is not None
    draft = write_draft(place, prompts_text(file, {address.node: proposal.turns}, proposal.workflow))
    return rerun_with_draft(objects, address, proposal.workflow, str(draft), executor)


def rerun_with_draft(objects: Objects, address: Address, workflow: Workflow, draft: str, executor: PlanExecutor) -> ProposalOutcome:
    """Rerun the task from the step at *address* with the *workflow* of a draft, named by its path or reference."""
    because = f"optimised the prompt of {address.node}"
    origin = Run(objects, address.run)
    rerun = executor(make_rerun(objects, origin, [address.task], workflow, executor.models, options=RerunOptions(address.node, because)))
    again = Address(rerun.run_id, address.task, address.trial, address.node)
    return ProposalOutcome(draft, rerun.run_id, step_of(objects, address), step_of(objects, again), _score(origin, address), _score(rerun, address))


def _score(run: Run, address: Address) -> float | None:
    """The score of the task at *address* in *run*."""
    rows = run.outcome(["task_id", "trial", "score"]).to_pylist()
    scores: dict[tuple[str, int], float | None] = {(row["task_id"], row["trial"]): row["score"] for row in rows}
    return scores[address.task, address.trial]
