"""Criteria: proposed by a model and tried on stored outputs, or checked for how reliable they are."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from beam_ray.api.criteria_plan import CriteriaPlan, definition_to_improve, with_node
from beam_ray.api.display import Display, Displayed
from beam_ray.api.location import Location
from beam_ray.api.optimise import ModelTry, executing, proposer_of, tries_of
from beam_ray.api.progress import ProgressOption, progress_callback
from beam_ray.api.runs import probe_models
from beam_ray.api.workflows import WorkflowOption, check
from beam_ray.define.fingerprint import Json
from beam_ray.define.workflow import Workflow
from beam_ray.errors import Unusable
from beam_ray.improve.criteria import (
    CriterionStats,
    CriterionStatsDocument,
    ProposedCriterion,
    evaluate_criteria,
    judged_runs,
    present_criteria,
    propose_criteria,
    repeated_plans,
    stored_outputs,
)
from beam_ray.improve.drafts import criteria_text, require_place, with_criteria, write_draft
from beam_ray.improve.execute_plan import PlanExecutor
from beam_ray.improve.exposure import note_use
from beam_ray.improve.model_query import CachedModel, QueryAttempt, QueryAttemptDocument
from beam_ray.improve.reviewed_criteria import plans_of, reports_of, reviews_of
from beam_ray.improve.score_variance import node_variance
from beam_ray.review.judge_report import JudgeReport, JudgeReportDocument
from beam_ray.review.variance import VarianceComponents, VarianceDocument
from beam_ray.run.progress import Progress
from beam_ray.store.runs import Run
from beam_ray.tasks.sources import only


@dataclass(frozen=True)
class Outputs:
    """Which stored outputs are judged."""

    run: str | None = None
    """A run, named as for ``Store.get_run``; None for the newest run with enough of them."""
    limit: int = 20
    """How many at most, as many good ones as bad ones where there are."""


@dataclass(frozen=True)
class CriterionCheck:
    """How a criterion did on stored outputs."""

    text: str
    kind: str
    """plain for a judge, or the kind of rule."""
    met: int
    not_met: int
    undecided: int
    """Not judged, or not applicable."""
    met_percent: float | None
    """Share of decided outputs that meet it, in percent; None where nothing was decided."""
    good: tuple[int, int]
    """Of the outputs that passed: how many meet it, and how many were decided."""
    bad: tuple[int, int]
    """Of the outputs that did not pass: the same."""
    agreement: float | None
    """The judge's agreement with itself over repeats, Fleiss' kappa; None where unknown."""
    agreement_note: str
    """Why it is unknown."""
    same: int
    """Outputs decided the same way at every repeat, of *repeated*."""
    repeated: int
    expected: float | None
    """Agreement with the tasks' expected outcomes, Cohen's kappa; None where unknown."""
    expected_note: str
    labelled: int
    """Outputs whose task has an expected outcome."""
    useless: str
    """Why it does not distinguish outputs; empty when it does."""
    reason: str = ""
    """Why a model proposes it."""


class CriteriaCheckDocument(TypedDict):
    """A check of criteria as ``--json`` prints it."""

    node: str
    run_id: str
    outputs: int
    criteria: list[CriterionStatsDocument]
    judges: list[JudgeReportDocument]
    """The judges beside what people said, for criteria that were reviewed."""
    variance: VarianceDocument | None
    """Where the scatter of the node's scores comes from; None where too little was judged to tell."""


class ProposedCriterionDocument(CriterionStatsDocument):
    """A proposed criterion as ``--json`` prints it."""

    useless: str
    reason: str
    written: Json
    """The criterion as a workflow file has it."""


class CriteriaProposalDocument(TypedDict):
    """Proposed criteria as ``--json`` prints them."""

    node: str
    run_id: str
    outputs: int
    criteria: list[ProposedCriterionDocument]
    dropped: list[str]
    tries: list[QueryAttemptDocument]
    draft: str | None


@dataclass(frozen=True, repr=False)
class CriteriaCheck(Displayed):
    """The criteria of one node, judged again on stored outputs."""

    node: str
    run_id: str
    """The run whose outputs were judged."""
    outputs: int
    repeats: int
    criteria: tuple[CriterionCheck, ...]
    judges: tuple[JudgeReport, ...]
    """Today's judge beside what people said, for each criterion whose present wording was reviewed."""
    variance: VarianceComponents | None
    """Where the scatter of the node's scores comes from; None where too little was judged to tell."""
    _stats: tuple[CriterionStats, ...] = field(compare=False)

    def display(self) -> Display:
        rows = [(each.text, each.met_percent, each.agreement, each.expected, each.useless) for each in self.criteria]
        return Display(self.node, (("outputs", self.outputs), ("run", self.run_id)), ("criterion", "met %", "kappa", "expected", ""), rows)

    def document(self) -> CriteriaCheckDocument:
        """The check as a JSON document."""
        return {
            "node": self.node,
            "run_id": self.run_id,
            "outputs": self.outputs,
            "criteria": [one.document() for one in self._stats],
            "judges": [each.document() for each in self.judges],
            "variance": self.variance.document() if self.variance else None,
        }


@dataclass(frozen=True)
class CriteriaDraft:
    """How criteria are proposed, and where the draft goes."""

    add: bool = False
    """Keep the existing criteria and add new ones."""
    model: str | None = None
    """The proposing model; None for the judge, or the step's own model."""
    to: str | None = None
    """The draft's path; None for a file next to the original, with -criteria in its name."""
    again: bool = False
    """Ask for other proposals than the stored ones."""


@dataclass(frozen=True, repr=False)
class CriteriaProposal(Displayed):
    """Criteria that a model proposes for a node, tried on stored outputs."""

    workflow: str
    node: str
    model: str
    """The proposing model."""
    run_id: str
    outputs: int
    criteria: tuple[CriterionCheck, ...]
    written: tuple[Any, ...] = field(compare=False)
    """The proposed criteria as a workflow file has them."""
    dropped: tuple[str, ...]
    """Why proposals could not be used."""
    tries: tuple[ModelTry, ...]
    draft: Path | None
    """The file that was written; None when every criterion is useless, and where criteria of a draft in the store are proposed."""
    _stats: tuple[CriterionStats, ...] = field(compare=False)
    _proposed: tuple[ProposedCriterion, ...] = field(compare=False)
    _tries: tuple[QueryAttempt, ...] = field(compare=False)

    def display(self) -> Display:
        rows = [(each.text, each.met_percent, each.useless, each.reason) for each in self.criteria]
        return Display(f"{self.workflow}/{self.node}", (("draft", self.draft),), ("criterion", "met %", "", "reason"), rows)

    def document(self) -> CriteriaProposalDocument:
        """The proposal as a JSON document."""
        criteria: list[ProposedCriterionDocument] = [
            {**seen.document(), "useless": seen.useless, "reason": one.reason, "written": one.written}
            for one, seen in zip(self._proposed, self._stats, strict=True)
        ]
        return {
            "node": self.node,
            "run_id": self.run_id,
            "outputs": self.outputs,
            "criteria": criteria,
            "dropped": list(self.dropped),
            "tries": [one.document() for one in self._tries],
            "draft": str(self.draft) if self.draft else None,
        }


def check_criteria(
    store: Location,
    workflow: WorkflowOption,
    node: str | None = None,
    *,
    outputs: Outputs | None = None,
    repeats: int = 3,
    takeover: bool = False,
    progress: ProgressOption = None,
) -> list[CriteriaCheck]:
    """See ``Store.criteria``."""
    objects = store.existing()
    definition, chosen = _chosen(store, workflow, node, outputs or Outputs())
    probe_models(store, definition)
    with progress_callback(progress) as callback:
        for planned in _planned(PlanExecutor(objects, store.known_models, _refuse), definition, chosen, repeats):
            callback(Progress(message=_words(planned)))
    checks = []
    with executing(store, takeover, progress) as run_plan:
        for name, (run, tasks) in chosen.items():
            present = present_criteria(definition, name)
            stats = evaluate_criteria(run_plan, run, name, present, tasks, source=definition, repeats=repeats)
            judged = judged_runs(run_plan, run, name, present, tasks, source=definition, repeats=repeats)
            reviewed = reports_of(run_plan, definition, name, reviews_of(objects, definition, name))
            found = (tuple(_check(one) for one in stats), tuple(reviewed), node_variance(name, run, judged), tuple(stats))
            checks.append(CriteriaCheck(name, run.run_id, len(tasks), len(judged), *found))
    return checks


def plan_criteria(
    store: Location, workflow: WorkflowOption, node: str | None = None, *, outputs: Outputs | None = None, repeats: int = 3
) -> list[CriteriaPlan]:
    """See ``Store.plan_criteria``."""
    definition, chosen = _chosen(store, workflow, node, outputs or Outputs())
    return _planned(PlanExecutor(store.objects, store.known_models, _refuse), definition, chosen, repeats)


def _chosen(store: Location, workflow: WorkflowOption, node: str | None, outputs: Outputs) -> tuple[Workflow, dict[str, tuple[Run, list[str]]]]:
    """The definition, and for each node to check the run and the tasks whose outputs are judged."""
    objects = store.existing()
    definition = with_node(check(workflow, store).workflow, node)
    nodes = [node] if node else [name for name in definition.order if definition.nodes[name].evaluate]
    if not nodes or (node and not definition.nodes[node].evaluate):
        raise Unusable(f"{node or definition.name!r} has no criteria\n  --generate --node NODE  proposes some")
    return definition, {name: stored_outputs(objects, definition, name, outputs.limit, outputs.run) for name in nodes}


def _planned(executor: PlanExecutor, definition: Workflow, chosen: Mapping[str, tuple[Run, list[str]]], repeats: int) -> list[CriteriaPlan]:
    found = []
    for name, (run, tasks) in chosen.items():
        plans = repeated_plans(executor, run, name, present_criteria(definition, name), tasks, source=definition, repeats=repeats)
        reviewed = plans_of(executor, definition, name, reviews_of(executor.objects, definition, name))
        nodes = [one for plan in (*plans, *reviewed) for one in plan.nodes if one.node == name]
        prices = [one.judge_usd for one in nodes]
        usd = None if None in prices else sum(price or 0.0 for price in prices)
        outputs = sum(plan.tasks.num_rows for plan in reviewed)
        found.append(CriteriaPlan(name, run.run_id, len(tasks), outputs, len(plans), sum(one.judge_calls for one in nodes), usd))
    return found


def _words(plan: CriteriaPlan) -> str:
    cost = "unpriced" if plan.max_usd is None else f"at most ${plan.max_usd:,.4f}"
    more = f" and {plan.reviewed} reviewed ones once" if plan.reviewed else ""
    times = f"{plan.repeats} times" if plan.repeats > 1 else "once"
    return f"{plan.node}: judging {plan.outputs} outputs of run {plan.run_id} {times}{more}: at most {plan.judge_calls:,} judge calls, {cost}"


def _refuse(*_: Any, **__: Any) -> None:
    raise AssertionError("a plan executes nothing")


def propose(
    store: Location,
    workflow: str,
    node: str,
    *,
    draft: CriteriaDraft | None = None,
    outputs: Outputs | None = None,
    takeover: bool = False,
    progress: ProgressOption = None,
) -> CriteriaProposal:
    """See ``Store.propose_criteria``."""
    draft, outputs = draft or CriteriaDraft(), outputs or Outputs()
    objects = store.existing()
    definition, file = definition_to_improve(store, workflow, node)
    if file is None and draft.to:
        raise Unusable(f"--to {draft.to}: {workflow} is a draft in the store, which has no file beside it")
    place = require_place(file, draft.to, "criteria") if file else None
    run, tasks = stored_outputs(objects, definition, node, outputs.limit, outputs.run)
    proposer = proposer_of(store, draft.model, definition, node)
    ask = CachedModel(objects, proposer, store.known_models[proposer], again=draft.again)
    proposed, tries, dropped = propose_criteria(ask, definition, node, run, tasks, keep=draft.add)
    stats: list[CriterionStats] = []
    if proposed:
        probe_models(store, with_criteria(definition, node, [one.written for one in proposed]))
        with executing(store, takeover, progress) as run_plan:
            stats = evaluate_criteria(run_plan, run, node, [one.written for one in proposed], tasks, source=definition)
    good = [one for one, seen in zip(proposed, stats, strict=True) if not seen.useless]
    path, drafts = None, list[Workflow]()
    if good:
        notes = [f"left out, {seen.useless} ({seen.met} of {seen.met + seen.unmet}): {seen.text}" for seen in stats if seen.useless]
        added = [one.written for one in good]
        wanted = with_criteria(definition, node, [*(present_criteria(definition, node) if draft.add else ()), *added])
        drafts.append(wanted)
        path = write_draft(place, criteria_text(file, node, added, notes, wanted, keep=draft.add)) if file and place else None
    with progress_callback(progress) as callback:
        if said := note_use(objects, only(run.tasks(), tasks), f"criteria of {node}", drafts):
            callback(Progress(message=said))
    return CriteriaProposal(
        definition.name,
        node,
        proposer,
        run.run_id,
        len(tasks),
        tuple(_check(seen, one.reason) for one, seen in zip(proposed, stats, strict=True)),
        tuple(one.written for one in proposed),
        tuple(dict.fromkeys(dropped)),
        tries_of(tries),
        path,
        tuple(stats),
        tuple(proposed),
        tries,
    )


def _check(one: CriterionStats, reason: str = "") -> CriterionCheck:
    return CriterionCheck(
        one.text,
        one.kind,
        one.met,
        one.unmet,
        one.undecided,
        one.share,
        one.good,
        one.bad,
        one.self_agreement,
        one.self_agreement_note,
        one.same_verdict,
        one.repeated,
        one.expected,
        one.expected_note,
        one.labelled,
        one.useless,
        reason,
    )
