"""A changed prompt of one step, tried on a task and on others of its run: what it costs, what so many can show, and what it brought."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from beam_ray.address import Address
from beam_ray.api.comparisons import Metric
from beam_ray.api.detection import Detectable, detectable
from beam_ray.api.drafts import Draft, DraftEdit, create_draft, draft, drafts, edit_draft
from beam_ray.api.location import Location
from beam_ray.api.plans import Plan
from beam_ray.api.prompts import SentPrompt, rendered_prompt
from beam_ray.api.reruns import Rerun, Rerunning, plan_rerun
from beam_ray.api.tasks import task
from beam_ray.compare.compare_runs import compare_done
from beam_ray.compare.gate_file import default_gate
from beam_ray.compare.report import Result, document
from beam_ray.compare.verdict import judge
from beam_ray.define.workflow import Workflow
from beam_ray.errors import BadDefinition, BeamRayError, Unusable
from beam_ray.improve.draft_limits import require_allowed
from beam_ray.improve.draft_text import text_of_draft
from beam_ray.improve.drafts import with_prompt
from beam_ray.improve.prompt_text import turns_of, written
from beam_ray.publish import current
from beam_ray.store.runs import Run as StoredRun

if TYPE_CHECKING:
    from beam_ray.api.tasks import Task

MOST_TASKS = 200
"""Tasks that a prompt is tried on; a backtest takes more."""

Turns = Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class PromptTry:
    """What running a changed prompt would do. No model was called, and nothing was saved."""

    workflow: Workflow | None = field(repr=False)
    """The definition with the prompt; None where it has errors."""
    faults: tuple[str, ...]
    """What is wrong with the prompt, or why it cannot be run."""
    changed: bool
    """Whether it differs from the prompt that it began with."""
    sent: SentPrompt | None
    """What the step's model would get for the task; None where the prompt has errors."""
    tasks: tuple[str, ...]
    """Addresses of the tasks: the one that is looked at first, then those that are drawn."""
    available: int
    """How many can be drawn: tasks of the run that reach the step, without the one that is looked at."""
    plan: Plan | None = field(repr=False)
    """What a rerun of these tasks from the step would do and cost."""
    detectable: Detectable
    """What those that are drawn can show."""


@dataclass(frozen=True)
class PairedResult:
    """Tasks of a rerun against their originals, pair by pair."""

    tasks: int
    """Pairs that are done."""
    wanted: int
    newly_passing: tuple[str, ...]
    newly_failing: tuple[str, ...]
    metrics: Mapping[str, Metric]
    """success_rate and score, once all are done: intervals that are looked at earlier would not hold."""


def base_of(store: Location, address: Address, reference: str = "") -> Workflow:
    """The definition whose prompt is changed: the draft that is named, else the draft that was run, else the published version."""
    run = StoredRun(store.existing(), address.run)
    if reference:
        found = _draft(store, reference)
        if found.definition is None:
            raise Unusable(f"the draft {found.reference} has errors\n  beam-ray check {found.reference}  lists them")
        return found.definition
    latest = current(store.existing(), run.record.workflow)
    return run.record.plan if latest is None or _is_draft(run, latest.plan) else latest.plan


def prompt_of(store: Location, address: str, node: str, base: str = "") -> tuple[Mapping[str, str], ...]:
    """See ``Store.prompt_of``."""
    found = task(store, address)
    workflow = base_of(store, Address(found.run.id, found.id), base)
    _require_prompt(workflow, node)
    return written(turns_of(workflow, node))


def try_prompt(store: Location, address: str, node: str, prompt: Turns, *, base: str = "", count: int = 0) -> PromptTry:
    """See ``Store.try_prompt``."""
    found = task(store, address)
    place = Address(found.run.id, found.id, found.trial, node)
    before = base_of(store, place, base)
    _require_prompt(before, node)
    others = drawn_tasks(found, node)
    count = min(max(count, 0), MOST_TASKS, len(others))
    tasks = (found.address, *others[:count])
    power = detectable(store, found.run.record.workflow, count)
    changed = written(turns_of(before, node)) != tuple(prompt)
    try:
        workflow = with_prompt(before, node, prompt) if changed else before
    except BadDefinition as error:
        faults = tuple(each.text for each in error.problems) or (str(error),)
        return PromptTry(None, faults, changed, None, tasks, len(others), None, power)
    sent = rendered_prompt(found, node, workflow)
    try:
        [plan] = plan_rerun(store, list(tasks), how=Rerunning(node, workflow))
    except BeamRayError as error:
        return PromptTry(workflow, (str(error),), changed, sent, tasks, len(others), None, power)
    return PromptTry(workflow, (), changed, sent, tasks, len(others), plan, power)


def save_try(store: Location, address: str, node: str, prompt: Turns, *, base: str = "", by: str = "") -> Draft:
    """See ``Store.save_try``."""
    found = task(store, address)
    workflow = found.run.record.workflow
    edits = [DraftEdit(f"nodes.{node}.{_require_prompt(base_of(store, Address(found.run.id, found.id), base), node)}.prompt", list(prompt))]
    there = {each.name: each for each in drafts(store, workflow)}
    before = _draft(store, base) if base else None
    if before and before.name in there and there[before.name].number == before.number:
        return edit_draft(store, before, edits, by=by)
    text = before.text if before else _text_of_run(store, found.run.id)
    made = create_draft(store, workflow, _free_name(f"try-{node}"[:56], there), text=text, by=by)
    return edit_draft(store, made, edits, by=by)


def drawn_tasks(found: "Task", node: str) -> list[str]:
    """
    Addresses of the other tasks of the run that reach *node*, in a random order that is the same every time.

    Tasks with a failed step before the node are left out, since there is nothing to borrow for them.
    """
    run = found.run
    upstream = [name for name in run.workflow.order if name in run.workflow.upstream[node]]
    steps = run.steps([node, *upstream], ["task_id", "trial", "node", "outcome"])
    here = steps.filter(pc.and_(pc.equal(steps["node"], node), pc.is_in(steps["outcome"], pa.array(["done", "borrowed", "failed"]))))
    lost = steps.filter(pc.and_(pc.not_equal(steps["node"], node), pc.equal(steps["outcome"], "failed")))
    ids = set(here["task_id"].to_pylist()) - set(lost["task_id"].to_pylist()) - {found.id}
    drawn = sorted(ids, key=lambda name: hashlib.sha256(f"{run.id}/{node}/{name}".encode("utf-8", "surrogatepass")).digest())
    return [str(Address(run.id, name)) for name in drawn]


def paired(rerun: Rerun, leaving_out: Iterable[str] = ()) -> PairedResult:
    """See ``Rerun.paired``."""
    out = set(leaving_out)
    asked = [name for name in rerun.run.inputs()["task_id"].to_pylist() if name not in out]
    done = [name for name in rerun.run.tasks()["task_id"].to_pylist() if name not in out]
    if not done:
        return PairedResult(0, len(set(asked)), (), (), {})
    gate = default_gate()
    found = compare_done(rerun.origin.stored, rerun.run.stored, gate, ("before", "after"), pa.array(sorted(set(done))))
    said = document([Result(found, judge(found, gate))])["candidates"][0]["comparison"]
    metrics = {entry["name"]: Metric.of(entry) for entry in said["metrics"] if entry["name"] in ("success_rate", "score")}
    return PairedResult(len(set(done)), len(set(asked)), tuple(said["newly_passing"]), tuple(said["newly_failing"]), metrics if rerun.run.finished else {})


def _is_draft(run: StoredRun, published: Workflow) -> bool:
    """Whether the run was of a draft, such as a backtest's candidate, that anybody may make; its own prompt is then the one to change."""
    if run.record.version is not None or run.record.definition_digest == published.digest:
        return False
    try:
        require_allowed(run.record.plan, [published])
    except Unusable:
        return False  # only an author may bring what it has
    return True


def _text_of_run(store: Location, run_id: str) -> str | None:
    """The text that a first try begins with; None for the published version's own."""
    run = StoredRun(store.existing(), run_id)
    latest = current(store.existing(), run.record.workflow)
    return text_of_draft(run.record.plan, latest.plan, latest.source) if latest and _is_draft(run, latest.plan) else None


def _draft(store: Location, reference: str) -> Draft:
    workflow, _, rest = reference.partition("@")
    name, _, number = rest.partition(":")
    return draft(store, workflow, name, int(number) if number.isdecimal() else None)


def _require_prompt(workflow: Workflow, node: str) -> str:
    """The kind of the node, whose prompt is changed."""
    if node not in workflow.nodes:
        raise Unusable(f"the workflow {workflow.name!r} has no node {node!r}; it has {', '.join(workflow.order)}")
    if workflow.nodes[node].call is None:
        raise Unusable(f"the step {node!r} is a tool and has no prompt")
    return workflow.nodes[node].kind


def _free_name(base: str, there: Mapping[str, Draft]) -> str:
    number = 1
    while (name := base if number == 1 else f"{base}-{number}") in there:
        number += 1
    return name
