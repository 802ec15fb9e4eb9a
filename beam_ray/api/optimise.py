"""Prompt optimisation: a better prompt for a failed step, kept in the store and tried by a rerun."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from beam_ray.address import Address
from beam_ray.api.display import Display, Displayed
from beam_ray.api.location import Location
from beam_ray.api.progress import ProgressOption, progress_callback
from beam_ray.api.runs import Run, connection, probe_models
from beam_ray.define.diff import Change, changes
from beam_ray.define.workflow import Workflow
from beam_ray.errors import Unusable, did_you_mean
from beam_ray.improve.drafts import file_of, load_same, require_place
from beam_ray.improve.execute_plan import PlanExecutor
from beam_ray.improve.exposure import note_use
from beam_ray.improve.model_query import CachedModel, QueryAttempt, QueryAttemptDocument
from beam_ray.improve.optimise import Proposal, ProposalOutcome, failure_of, proposal_fault, propose, rerun_with_draft, rerun_with_proposal
from beam_ray.improve.proposals import PromptChangeDocument, StoredProposal, keep_proposal, kept_proposals, said_same, stored_proposal
from beam_ray.llm.probe import probe
from beam_ray.llm.scripted import Models
from beam_ray.llm.settings import ModelSettings
from beam_ray.publish import Version, find_workflow
from beam_ray.rerun import require_start
from beam_ray.run.execute import execute
from beam_ray.store.lookup import find_task
from beam_ray.store.objects import Objects
from beam_ray.store.run_record import RunRecord
from beam_ray.store.runs import Run as StoredRun
from beam_ray.tasks.sources import only

if TYPE_CHECKING:
    from beam_ray.api.drafts import Draft
    from beam_ray.api.steps import Step


@dataclass(frozen=True)
class ModelTry:
    """One answer of a proposing model."""

    refused: str
    """Why it cannot be used; empty for one that is used."""
    calls: int
    tokens: int
    """Input and output tokens."""
    usd: float | None
    """None when the model has no price."""
    from_store: bool
    """Whether it was stored already, paid for by an earlier command."""


@dataclass(frozen=True)
class DraftFile:
    """Which file a draft is made from, and where it goes."""

    using: str | None = None
    """The workflow file; None for the one that the run was made from."""
    to: str | None = None
    """The draft's path; None for a file next to the original, with -draft in its name."""


class PromptProposalDocument(TypedDict):
    """A proposed prompt as ``--json`` prints it."""

    step: str
    model: str
    weaknesses: list[str]
    changes: list[PromptChangeDocument]
    prompt: list[Mapping[str, str]]
    """The proposed turns, with role and content."""
    tries: list[QueryAttemptDocument]
    number: int
    at: str


class ProposalScores(TypedDict):
    """The rerun with a proposed prompt, and the scores of the step and its task before and after, 0 to 100."""

    run_id: str
    step_before: float | None
    step_after: float | None
    task_before: float | None
    task_after: float | None


class AppliedProposalDocument(PromptProposalDocument):
    """A proposed prompt that was tried, as ``--json`` prints it."""

    draft: str
    rerun: ProposalScores


@dataclass(frozen=True, repr=False)
class PromptProposal(Displayed):
    """A better prompt for a failed step, as a model proposes it. Nothing was published or changed."""

    step: str
    """Address of the step."""
    model: str
    """The proposing model."""
    weaknesses: tuple[str, ...]
    """Weaknesses of the present prompt."""
    changes: tuple[tuple[str, str], ...]
    """Each change and its reason."""
    prompt: tuple[Mapping[str, str], ...]
    """The proposed turns, with role and content."""
    workflow: Workflow | None
    """The definition with the proposed prompt; None when no answer could be used."""
    diff: tuple[Change, ...]
    """What differs from the present definition."""
    tries: tuple[ModelTry, ...]
    held_out: str
    """That the task is held out for searches and this draft counts as tested on it, in a sentence; empty where it is not held out."""
    number: int
    """Its number among the kept proposals for the step; 1 is the oldest."""
    made_at: str
    """When it was made: ISO 8601, UTC."""
    _store: Location = field(compare=False)
    _apply: "_Apply | None" = field(compare=False)
    _proposal: Proposal = field(compare=False)

    def apply(self, *, takeover: bool = False, progress: ProgressOption = None) -> "AppliedProposal":
        """
        Write the draft, rerun the step and what follows with it, and compare scores before and after.

        Raises:
            Unusable: the proposal was made without a draft file, or cannot be used.
            Stopped: before the end.
        """
        if self._apply is None or self.workflow is None:
            raise Unusable("this proposal has no draft to write; pass draft=DraftFile() or the name of a draft to Store.optimise")
        return self._apply.run(self, takeover, progress)

    def drafted(self) -> Workflow:
        """
        The definition that ``save_draft`` would save: the published one, or that of the run, with the proposed prompt.

        Raises:
            Unusable: as for ``save_draft``.
        """
        from beam_ray.api.proposed_drafts import proposed_definition

        self._require_usable()
        return proposed_definition(self._store, self.step, self.prompt)

    def save_draft(self, name: str = "", *, by: str = "") -> "Draft":
        """
        Put the proposed prompt into a draft of the store; one that has it already stays as it is.

        Args:
            name: The draft: a new one, or one whose prompt is still the one that failed. By default ``optimised-NODE``.
            by: Who saves it; by default the user of this machine.

        Raises:
            Unusable: the proposal cannot be used, or the prompt has changed since the failed run.
        """
        from beam_ray.api.proposed_drafts import save_proposed

        self._require_usable()
        return save_proposed(self._store, self.step, self.prompt, name, by=by)

    def _require_usable(self) -> None:
        if self.workflow is None:
            raise Unusable("this proposal has no prompt that could be used\n  --again asks for another one")

    def display(self) -> Display:
        facts = (("proposed by", self.model), ("weaknesses", "; ".join(self.weaknesses)))
        return Display(self.step, facts, ("change", "reason"), self.changes)

    def document(self) -> PromptProposalDocument:
        """The proposal as a JSON document."""
        return {
            "step": self.step,
            "model": self.model,
            "weaknesses": list(self.weaknesses),
            "changes": [{"change": change, "reason": reason} for change, reason in self.changes],
            "prompt": list(self.prompt),
            "tries": [one.document() for one in self._proposal.tries],
            "number": self.number,
            "at": self.made_at,
        }


@dataclass(frozen=True, repr=False)
class AppliedProposal(Displayed):
    """A proposal that was tried: the step and its task before and after."""

    proposal: PromptProposal
    draft: str
    """Path of the file that the proposal was written to, or ``NAME@DRAFT:N`` of a draft in the store."""
    run: Run
    """The rerun."""
    before: "Step"
    after: "Step"
    task_before: float | None
    """Score of the task, 0 to 100; None when unscored."""
    task_after: float | None

    def display(self) -> Display:
        rows = [("step", self.before.score, self.after.score), ("task", self.task_before, self.task_after)]
        return Display(self.proposal.step, (("draft", self.draft),), ("score", "before", "after"), rows)

    def document(self) -> AppliedProposalDocument:
        """The result as a JSON document."""
        scores: ProposalScores = {
            "run_id": self.run.id,
            "step_before": self.before.score,
            "step_after": self.after.score,
            "task_before": self.task_before,
            "task_after": self.task_after,
        }
        return {**self.proposal.document(), "draft": self.draft, "rerun": scores}


@dataclass(frozen=True)
class _Apply:
    """What is needed to try a proposal."""

    store: Location
    address: Address
    file: Path | None
    """The workflow's file; None for a draft in the store."""
    place: Path | None
    draft: str = ""
    """Name of the draft in the store; empty for the default name."""

    def run(self, proposal: PromptProposal, takeover: bool, progress: ProgressOption) -> AppliedProposal:
        from beam_ray.api.tasks import task

        store = self.store
        assert proposal.workflow
        probe_models(store, proposal.workflow)
        with executing(store, takeover, progress) as run_plan:
            found = self._rerun(proposal, run_plan)
        before = task(store, str(Address(self.address.run, self.address.task, self.address.trial))).step(self.address.node)
        after = task(store, str(Address(found.run_id, self.address.task, self.address.trial))).step(self.address.node)
        return AppliedProposal(proposal, found.draft, Run(store, found.run_id), before, after, found.task_before, found.task_after)

    def _rerun(self, proposal: PromptProposal, run_plan: PlanExecutor) -> ProposalOutcome:
        objects = self.store.objects
        if self.file and self.place:
            return rerun_with_proposal(objects, self.address, proposal._proposal, self.file, self.place, run_plan)
        draft = proposal.save_draft(self.draft)
        assert draft.definition
        require_start(StoredRun(objects, self.address.run), draft.definition, self.address.node, [self.address.task])
        return rerun_with_draft(objects, self.address, draft.definition, draft.reference, run_plan)


def optimise(
    store: Location, task: str, node: str, *, model: str | None = None, again: bool = False, proposal: int | None = None, draft: DraftFile | str | None = None
) -> PromptProposal:
    """See ``Store.optimise``."""
    objects = store.existing()
    address = step_address(objects, task, node)
    origin = StoredRun(objects, address.run)
    if proposal is not None:
        return _kept(store, address, proposal, *_trial(store, origin, address, draft))
    failure = failure_of(objects, address)
    workflow, trial = _trial(store, origin, address, draft)
    proposer = proposer_of(store, model, workflow, node)
    file = trial.file if trial else None
    made = propose(CachedModel(objects, proposer, store.known_models[proposer], again=again), workflow, node, [failure], file=file)
    document = stored_proposal(address, proposer, (made.weaknesses, made.changes, made.turns), made.tries)
    keep_proposal(objects, document)
    numbers = [number for number, each in enumerate(kept_proposals(objects, str(address)), 1) if said_same(each, document)]
    shown = only(origin.tasks(), [address.task])
    said = note_use(objects, shown, f"optimise {address}", [made.workflow] if made.workflow else [])
    return replace(_proposal(store, document, numbers[-1], address, made, workflow, trial), held_out=said)


def proposals(store: Location, task: str, node: str) -> list[PromptProposal]:
    """See ``Store.proposals``."""
    objects = store.existing()
    address = step_address(objects, task, node)
    workflow = StoredRun(objects, address.run).record.plan
    count = len(kept_proposals(objects, str(address)))
    return [_kept(store, address, number, workflow, None) for number in range(count, 0, -1)]


def step_address(objects: Objects, task: str, node: str) -> Address:
    """The address of the step of *node* for a task."""
    found = find_task(objects, task)
    return Address(found.run, found.task, found.trial, node)


def _trial(store: Location, origin: StoredRun, address: Address, draft: DraftFile | str | None) -> "tuple[Workflow, _Apply | None]":
    """The definition that a better prompt is proposed for, and what is needed to try it."""
    workflow = origin.record.plan
    if draft is None:
        return workflow, None
    if isinstance(draft, str):
        return workflow, _Apply(store, address, None, None, draft)
    file = file_of(workflow, draft.using)
    workflow = load_same(file, workflow, address.node)
    require_start(origin, workflow, address.node, [address.task])
    return workflow, _Apply(store, address, file, require_place(file, draft.to, "draft"))


def _kept(store: Location, address: Address, number: int, workflow: Workflow, trial: "_Apply | None") -> PromptProposal:
    """The kept proposal of that number."""
    found = kept_proposals(store.objects, str(address))
    if not 1 <= number <= len(found):
        raise Unusable(f"the step {address} has no proposal {number}; it has {len(found)}\n  beam-ray optimise TASK --step {address.node}  asks for one")
    kept = found[number - 1]
    turns = tuple(dict(turn) for turn in kept["prompt"])
    made = proposal_fault(workflow, address.node, turns) if turns else None
    changes_ = tuple((each["change"], each["reason"]) for each in kept["changes"])
    tries = tuple(replace(QueryAttempt(**one), kept=True) for one in kept["tries"])
    proposal = Proposal(tuple(kept["weaknesses"]), changes_, turns, made if isinstance(made, Workflow) else None, tries)
    return _proposal(store, kept, number, address, proposal, workflow, trial)


def _proposal(
    store: Location, kept: StoredProposal, number: int, address: Address, made: Proposal, workflow: Workflow, trial: "_Apply | None"
) -> PromptProposal:
    differences = tuple(changes(workflow, made.workflow)) if made.workflow else ()
    how = (differences, tries_of(made.tries), "", number, kept["at"])
    return PromptProposal(str(address), kept["model"], made.weaknesses, made.changes, made.turns, made.workflow, *how, store, trial, made)


def _first(judge: str | tuple[str, ...] | None) -> str | None:
    return judge[0] if isinstance(judge, tuple) else judge


def proposer_of(store: Location, name: str | None, workflow: Workflow, node: str) -> str:
    """
    The model that proposes: the one named, the judge's, or the step's own.

    Raises:
        Unusable: there is no such model.
        Stopped: it does not answer; no model was called.
    """
    name = proposer_name(store, name, workflow, node)
    if isinstance(written := store.known_models[name], ModelSettings):
        probe(written, name)
    return name


def proposer_name(store: Location, name: str | None, workflow: Workflow, node: str) -> str:
    """
    As ``proposer_of``, without asking whether it answers.

    Raises:
        Unusable: there is no such model.
    """
    models = store.known_models
    name = name or next(iter(workflow.judges_of(node)), None) or _first(workflow.judge) or workflow.model_of(node) or workflow.model
    if not name or name not in models:
        notes = [
            f"the models file has no {name!r} to propose with",
            f"it has: {', '.join(models)}",
            *did_you_mean(str(name), models),
            "--model NAME  names one",
        ]
        raise Unusable("\n  ".join(notes))
    return name


@contextlib.contextmanager
def executing(store: Location, takeover: bool, progress: ProgressOption) -> Iterator[PlanExecutor]:
    """Executes plans, all on one Ray, which is started when the first of them needs it. Models are asked interactively."""
    store = replace(store, lane="interactive")
    with progress_callback(progress) as callback, connection(store) as opened:

        def one(objects: Objects, record: RunRecord, models: Models, **more: Any) -> Any:
            return execute(objects, record, models, connection=opened, takeover=takeover, progress=callback)

        yield PlanExecutor(store.objects, store.known_models, one)


def tries_of(tries: tuple[QueryAttempt, ...]) -> tuple[ModelTry, ...]:
    """The answers of a proposing model as public values."""
    return tuple(ModelTry(one.refused, one.calls, one.input_tokens + one.output_tokens, one.usd, one.kept) for one in tries)


def workflow_file(objects: Objects, written: str) -> Path:
    """
    The workflow file that is named, or the one that a published ``NAME`` or ``NAME@VERSION`` was made from.

    Raises:
        Unusable: there is none; a draft is made from a file.
    """
    version = find_workflow(objects, written)
    if isinstance(version, Path):
        return Path(written)
    if not isinstance(version, Version):
        raise Unusable(f"{written!r} is a draft in the store; name a workflow file, next to which the new draft is written")
    try:
        return file_of(version.plan, None)
    except Unusable:
        raise Unusable(
            f"no file here has the definition of {version.workflow!r} version {version.version}\n  name the file: the draft is written next to it"
        ) from None
