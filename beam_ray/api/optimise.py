"""Prompt optimisation: a better prompt for a failed step, or a search over a library."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from beam_ray.address import Address
from beam_ray.api.comparisons import checked_fields
from beam_ray.api.display import Display, Displayed
from beam_ray.api.location import Location
from beam_ray.api.progress import ProgressOption, progress_callback
from beam_ray.api.runs import Budget, Run, checked_budget, connection, probe_models
from beam_ray.api.workflows import check
from beam_ray.define.diff import Change, changes
from beam_ray.define.workflow import Workflow
from beam_ray.errors import Stopped, Unusable, did_you_mean
from beam_ray.improve.drafts import file_of, load_same, require_place, write_draft
from beam_ray.improve.execute_plan import PlanExecutor
from beam_ray.improve.exposure import note_use
from beam_ray.improve.model_query import CachedModel, QueryAttempt, QueryAttemptDocument
from beam_ray.improve.optimise import Proposal, ProposalOutcome, failure_of, propose, rerun_with_proposal
from beam_ray.improve.search import Search
from beam_ray.improve.search_result import SearchDocument, SearchResult
from beam_ray.llm.probe import probe
from beam_ray.llm.scripted import Models
from beam_ray.llm.settings import ModelSettings
from beam_ray.publish import Version, current, find_workflow
from beam_ray.rerun import require_start
from beam_ray.run.execute import execute
from beam_ray.run.progress import Progress
from beam_ray.store.libraries import library_at
from beam_ray.store.lookup import find_task
from beam_ray.store.objects import Objects
from beam_ray.store.run_record import RunRecord
from beam_ray.store.runs import Run as StoredRun
from beam_ray.tasks.sources import only

if TYPE_CHECKING:
    from beam_ray.api.tasks import Step


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


class PromptChangeDocument(TypedDict):
    """A change to a prompt as ``--json`` prints it."""

    change: str
    reason: str


class PromptProposalDocument(TypedDict):
    """A proposed prompt as ``--json`` prints it."""

    step: str
    model: str
    weaknesses: list[str]
    changes: list[PromptChangeDocument]
    prompt: list[Mapping[str, str]]
    """The proposed turns, with role and content."""
    tries: list[QueryAttemptDocument]


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


class PromptSearchDocument(SearchDocument):
    """A search as ``--json`` prints it."""

    draft: str | None


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
            raise Unusable("this proposal has no draft to write; pass draft=DraftFile() to Store.optimise")
        return self._apply.run(self, takeover, progress)

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
        }


@dataclass(frozen=True, repr=False)
class AppliedProposal(Displayed):
    """A proposal that was tried: the step and its task before and after."""

    proposal: PromptProposal
    draft: Path
    """The file that the proposal was written to."""
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
        return {**self.proposal.document(), "draft": str(self.draft), "rerun": scores}


@dataclass(frozen=True)
class SearchOptions:
    """How prompts are searched for."""

    nodes: tuple[str, ...] = ()
    """Only the prompts of these nodes; empty for all nodes that fail."""
    model: str | None = None
    """The proposing model; None for the judge, or the model of the first prompt."""
    rounds: int = 20
    """Proposals at most."""
    seed: int = 0
    """Another seed is another search."""
    to: str | None = None
    """The draft's path; None for a file next to the original, with -draft in its name."""
    cluster: str | None = None
    """A field of tasks such as ``variables.customer``: tasks that have the same value there are on the same side of the split, and count together."""


@dataclass(frozen=True, repr=False)
class PromptSearch(Displayed):
    """A search for better prompts over a library, and what its best draft scored on the holdout set."""

    id: str
    workflow: Workflow
    """The definition that was searched from."""
    tasks: int
    """Tasks of the search set."""
    held_out: int
    """Tasks of the holdout set."""
    accepted: bool
    """Whether the holdout set supports the best draft: the whole confidence interval is above 0."""
    draft: Path | None
    """The draft that was written; None when none was accepted."""
    diff: tuple[Change, ...]
    """What the best draft changes; empty without one."""
    found: SearchResult = field(compare=False)
    """Everything: candidates, scores, costs and the verdict on the holdout set."""

    @property
    def evidence(self) -> str:
        """Id of the backtest on the holdout set; empty without one."""
        return self.found.verdict["backtest_id"] if self.found.verdict else ""

    def display(self) -> Display:
        rows = [(one.name, score) for one, score in zip(self.found.candidates, self.found.scores, strict=True)]
        return Display(self.id, (("accepted", self.accepted), ("draft", self.draft)), ("prompts", "score"), rows)

    def document(self) -> PromptSearchDocument:
        """The search as a JSON document."""
        return {**self.found.document(), "draft": str(self.draft) if self.draft else None}


@dataclass(frozen=True)
class _Apply:
    """What is needed to try a proposal."""

    store: Location
    address: Address
    file: Path
    place: Path

    def run(self, proposal: PromptProposal, takeover: bool, progress: ProgressOption) -> AppliedProposal:
        from beam_ray.api.tasks import task

        store = self.store
        assert proposal.workflow
        probe_models(store, proposal.workflow)
        with executing(store, takeover, progress) as run_plan:
            found: ProposalOutcome = rerun_with_proposal(store.objects, self.address, proposal._proposal, self.file, self.place, run_plan)
        before = task(store, str(Address(self.address.run, self.address.task, self.address.trial))).step(self.address.node)
        after = task(store, str(Address(found.run_id, self.address.task, self.address.trial))).step(self.address.node)
        return AppliedProposal(proposal, found.draft, Run(store, found.run_id), before, after, found.task_before, found.task_after)


def optimise(store: Location, task: str, node: str, *, model: str | None = None, again: bool = False, draft: DraftFile | None = None) -> PromptProposal:
    """See ``Store.optimise``."""
    objects = store.existing()
    found = find_task(objects, task)
    address = Address(found.run, found.task, found.trial, node)
    failure = failure_of(objects, address)
    origin = StoredRun(objects, address.run)
    workflow = origin.record.plan
    file, trial = None, None
    if draft is not None:
        file = file_of(workflow, draft.using)
        workflow = load_same(file, workflow, node)
        trial = _Apply(store, address, file, require_place(file, draft.to, "draft"))
        require_start(origin, workflow, node, [address.task])
    proposer = proposer_of(store, model, workflow, node)
    made = propose(CachedModel(objects, proposer, store.known_models[proposer], again=again), workflow, node, [failure], file=file)
    differences = tuple(changes(workflow, made.workflow)) if made.workflow else ()
    shown = only(origin.tasks(), [address.task])
    said = note_use(objects, shown, f"optimise {address}", [made.workflow] if made.workflow else [])
    how = (differences, tries_of(made.tries), said)
    return PromptProposal(str(address), proposer, made.weaknesses, made.changes, made.turns, made.workflow, *how, trial, made)


def search_prompts(
    store: Location,
    workflow: str,
    library: str,
    *,
    options: SearchOptions | None = None,
    budget: Budget | None = None,
    takeover: bool = False,
    progress: ProgressOption = None,
) -> PromptSearch:
    """See ``Store.search_prompts``."""
    options = options or SearchOptions()
    # each round waits for the last one, and would wait for a day
    store = replace(store, lane="interactive")
    objects = store.existing()
    file = workflow_file(objects, workflow)
    place = require_place(file, options.to, "draft")
    checked = check(file)
    definition = checked.workflow
    chosen, version = library_at(objects, library), _current_version(objects, definition, file)
    asking = next((node for node in definition.order if definition.nodes[node].call), None)
    if asking is None:
        raise Unusable(f"{file}: no step of {definition.name!r} has a prompt")
    proposer = proposer_of(store, options.model, definition, asking)
    limits = checked_budget(budget)
    checked_fields(options.cluster)
    probe_models(store, definition)
    with progress_callback(progress) as callback, executing(store, takeover, callback) as run_plan:
        for warning in checked.warnings:
            callback(Progress(message=str(warning)))
        search = Search(
            objects,
            definition,
            file,
            chosen,
            store.known_models,
            run_plan,
            CachedModel(objects, proposer, store.known_models[proposer]),
            limits,
            version=version,
            nodes=options.nodes,
            rounds=options.rounds,
            seed=options.seed,
            cluster=options.cluster,
            say=lambda line: callback(Progress(message=line)),
        )
        try:
            found = search.run()
        except Stopped as error:
            error.resume = "the same command"
            raise
    draft = write_draft(place, search.draft(found.best)) if found.accepted and found.best else None
    differences = tuple(changes(definition, found.best.workflow)) if found.best else ()
    return PromptSearch(found.search_id, definition, found.tasks, found.held, found.accepted, draft, differences, found)


def _first(judge: str | tuple[str, ...] | None) -> str | None:
    return judge[0] if isinstance(judge, tuple) else judge


def proposer_of(store: Location, name: str | None, workflow: Workflow, node: str) -> str:
    """
    The model that proposes: the one named, the judge's, or the step's own.

    Raises:
        Unusable: there is no such model.
        Stopped: it does not answer; no model was called.
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
    if isinstance(written := models[name], ModelSettings):
        probe(written, name)
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


def _current_version(objects: Objects, workflow: Workflow, file: Path) -> int | None:
    """The published version that the workflow is; a draft can only be published on evidence against the current one."""
    latest = current(objects, workflow.name)
    if latest and latest.digest != workflow.digest:
        raise Unusable(
            f"{file} is not the published version {latest.version} of {workflow.name!r}, so evidence against it could not be used\n"
            f"  beam-ray diff {workflow.name} {file}  shows what differs"
        )
    return latest.version if latest else None
