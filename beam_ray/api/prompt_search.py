"""Searches for better prompts over a library."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from beam_ray.api.comparisons import checked_fields
from beam_ray.api.display import Display, Displayed
from beam_ray.api.location import Location
from beam_ray.api.optimise import executing, proposer_of, workflow_file
from beam_ray.api.progress import ProgressOption, progress_callback
from beam_ray.api.runs import Budget, checked_budget, probe_models
from beam_ray.api.workflows import check
from beam_ray.define.diff import Change, changes
from beam_ray.define.workflow import Workflow
from beam_ray.errors import Stopped, Unusable
from beam_ray.improve.drafts import require_place, write_draft
from beam_ray.improve.model_query import CachedModel
from beam_ray.improve.search import Search
from beam_ray.improve.search_result import SearchDocument, SearchResult
from beam_ray.publish import current
from beam_ray.run.progress import Progress
from beam_ray.store.libraries import library_at
from beam_ray.store.objects import Objects


class PromptSearchDocument(SearchDocument):
    """A search as ``--json`` prints it."""

    draft: str | None


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


def _current_version(objects: Objects, workflow: Workflow, file: Path) -> int | None:
    """The published version that the workflow is; a draft can only be published on evidence against the current one."""
    latest = current(objects, workflow.name)
    if latest and latest.digest != workflow.digest:
        raise Unusable(
            f"{file} is not the published version {latest.version} of {workflow.name!r}, so evidence against it could not be used\n"
            f"  beam-ray diff {workflow.name} {file}  shows what differs"
        )
    return latest.version if latest else None
