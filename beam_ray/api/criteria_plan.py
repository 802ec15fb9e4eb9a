"""What checking or proposing criteria would ask models, and what that costs, before it is done."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from beam_ray.api.location import Location
from beam_ray.api.optimise import proposer_name, workflow_file
from beam_ray.api.workflows import check
from beam_ray.define.workflow import Workflow
from beam_ray.errors import Unusable
from beam_ray.improve.criteria import MOST_CRITERIA, criteria_question, rescoring_plan, stored_outputs
from beam_ray.improve.execute_plan import PlanExecutor
from beam_ray.improve.model_query import MAX_TOKENS, TRIES, CachedModel
from beam_ray.llm.prices import Tokens
from beam_ray.run.plan import price_of
from beam_ray.run.prompt_size import CHARACTERS_PER_TOKEN
from beam_ray.store.drafts import parse_draft_reference


class CriteriaPlanDocument(TypedDict):
    """What a check of criteria would judge, as ``--json`` prints it."""

    node: str
    run_id: str
    outputs: int
    reviewed: int
    repeats: int
    judge_calls: int
    usd: float | None


@dataclass(frozen=True)
class CriteriaPlan:
    """What checking the criteria of one node would ask judges, at most."""

    node: str
    run_id: str
    """The run whose outputs are judged."""
    outputs: int
    reviewed: int
    """Outputs that people reviewed; they are judged once more only where the judge has changed since."""
    repeats: int
    judge_calls: int
    """At most: what was judged before is not judged again."""
    max_usd: float | None
    """US dollars at most; None when a judge has no price."""

    def document(self) -> CriteriaPlanDocument:
        """The plan as a JSON document."""
        return {
            "node": self.node,
            "run_id": self.run_id,
            "outputs": self.outputs,
            "reviewed": self.reviewed,
            "repeats": self.repeats,
            "judge_calls": self.judge_calls,
            "usd": self.max_usd,
        }


class CriteriaProposalPlanDocument(TypedDict):
    """What proposing criteria would ask models, as ``--json`` prints it."""

    node: str
    run_id: str
    outputs: int
    model: str
    kept: bool
    max_calls: int
    judge_calls: int
    usd: float | None


@dataclass(frozen=True)
class CriteriaProposalPlan:
    """What proposing criteria for one node would ask models, at most."""

    node: str
    run_id: str
    """The run on whose outputs the proposals are tried."""
    outputs: int
    model: str
    """The proposing model."""
    kept: bool
    """Whether its answer is stored already, so that asking costs nothing."""
    max_calls: int
    """Calls of the proposing model: an answer that cannot be used is asked for once more."""
    judge_calls: int
    """Calls by which the proposals are tried on stored outputs."""
    max_usd: float | None
    """US dollars at most; None when a model has no price."""

    def document(self) -> CriteriaProposalPlanDocument:
        """The plan as a JSON document."""
        return {
            "node": self.node,
            "run_id": self.run_id,
            "outputs": self.outputs,
            "model": self.model,
            "kept": self.kept,
            "max_calls": self.max_calls,
            "judge_calls": self.judge_calls,
            "usd": self.max_usd,
        }


def plan_proposal(
    store: Location, workflow: str, node: str, *, add: bool = False, model: str | None = None, run: str | None = None, outputs: int = 20, again: bool = False
) -> CriteriaProposalPlan:
    """See ``Store.plan_criteria_proposal``."""
    objects = store.existing()
    definition, _ = definition_to_improve(store, workflow, node)
    origin, tasks = stored_outputs(objects, definition, node, outputs, run)
    proposer = proposer_name(store, model, definition, node)
    written = store.known_models[proposer]
    question = criteria_question(definition, node, origin, tasks, keep=add)
    kept = CachedModel(objects, proposer, written, again=again).is_kept(question)
    # what will be proposed is not known: as many sentences as there may be, each as long as it may be
    longest = [f"{number} {'x' * 296}" for number in range(MOST_CRITERIA)]
    planned = rescoring_plan(PlanExecutor(objects, store.known_models, _refuse), origin, node, longest, tasks, source=definition)
    [judged] = [each for each in planned.nodes if each.node == node]
    shown = sum(len(str(message["content"])) for message in question.messages("0" * 12)) // CHARACTERS_PER_TOKEN
    price = price_of(written)
    costs = [price.cost(Tokens(shown + MAX_TOKENS * number, MAX_TOKENS)) for number in range(TRIES)] if price else [None]
    asked = 0.0 if kept else None if None in costs else sum(cost or 0.0 for cost in costs)
    usd = None if asked is None or judged.judge_usd is None else asked + judged.judge_usd
    return CriteriaProposalPlan(node, origin.run_id, len(tasks), proposer, kept, 0 if kept else TRIES, judged.judge_calls, usd)


def definition_to_improve(store: Location, workflow: str, node: str) -> tuple[Workflow, Path | None]:
    """
    The definition that *workflow* names, and its file; None for a draft in the store.

    Raises:
        Unusable: there is none, or it has no such node.
    """
    if parse_draft_reference(workflow):
        return with_node(check(workflow, store).workflow, node), None
    file = workflow_file(store.existing(), workflow)
    return with_node(check(str(file), store).workflow, node), file


def with_node(workflow: Workflow, node: str | None) -> Workflow:
    """
    The workflow.

    Raises:
        Unusable: it has no such node.
    """
    if node and node not in workflow.nodes:
        raise Unusable(f"the workflow {workflow.name!r} has no node {node!r}\n  it has: {', '.join(workflow.order)}")
    return workflow


def _refuse(*_: Any, **__: Any) -> None:
    raise AssertionError("a plan executes nothing")
