"""
Criteria: proposed by a model and evaluated on stored outputs before anyone relies on them.

A criterion that always or never holds does not distinguish outputs. A criterion that the judge
decides differently each time is noise. Both are detected here by judging outputs that are
already in the store; no step is executed.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from beam_ray.define.criterion import Criterion
from beam_ray.define.fingerprint import Json, JsonObject, strict_json
from beam_ray.define.llm_call import TEXT_SCHEMA
from beam_ray.define.workflow import DEFAULT_THRESHOLD, Workflow
from beam_ray.errors import BadDefinition, Unusable
from beam_ray.evaluate.rules import same
from beam_ray.improve.drafts import with_criteria
from beam_ray.improve.execute_plan import PlanExecutor
from beam_ray.improve.model_query import CachedModel, QueryAttempt, Question
from beam_ray.improve.prompt_text import prompt_text
from beam_ray.review.agreement import cohen, fleiss
from beam_ray.run.context import RAN
from beam_ray.run.plan import Lineage, Plan, make_plan
from beam_ray.store.lookup import newest_first, resolve
from beam_ray.store.objects import Objects
from beam_ray.store.runs import Run
from beam_ray.store.tables import StepRow
from beam_ray.tasks.sources import only

SHOWN = 3
"""Number of good outputs shown to the proposing model, and of bad outputs."""

MOST_CRITERIA = 8
"""Criteria that are asked for at once."""

ENOUGH = 5
"""Minimum number of decided outputs to say that a criterion holds always or never."""

TRYING = ("criteria", "search", "repeats", "proof")
"""Modes of runs that are experiments, whose outputs are not used."""


@dataclass(frozen=True)
class ProposedCriterion:
    """A proposed criterion as it would be written in a file, with the reason for it."""

    written: Any
    """A text, or a mapping with ``check``."""
    reason: str


class CriterionStatsDocument(TypedDict):
    """Statistics of a criterion as JSON; the names are those of 0.1."""

    id: str
    text: str
    kind: str
    met: int
    unmet: int
    undecided: int
    good: Sequence[int]
    bad: Sequence[int]
    itself: float | None
    itself_word: str
    repeated: int
    alike: int
    expected: float | None
    expected_word: str
    labelled: int
    share: float | None


@dataclass(frozen=True)
class CriterionStats:
    """Statistics of a criterion on stored outputs."""

    id: str
    text: str
    kind: str
    met: int
    unmet: int
    undecided: int
    """Not judged, or not applicable."""
    good: tuple[int, int]
    """Among outputs that passed so far: number that meet it, and number decided."""
    bad: tuple[int, int]
    """The same among outputs that did not pass."""
    self_agreement: float | None = None
    """The judge's agreement with itself over repeats, Fleiss' kappa; None where unknown."""
    self_agreement_note: str = ""
    """Why it is unknown."""
    repeated: int = 0
    """Number of outputs decided in every repeat."""
    same_verdict: int = 0
    """Number of those with the same verdict in every repeat."""
    expected: float | None = None
    """Agreement with whether the output matches the expected outcome, Cohen's kappa; None where unknown."""
    expected_note: str = ""
    labelled: int = 0
    """Number of outputs whose task has an expected outcome."""

    def document(self) -> CriterionStatsDocument:
        """The statistics as a JSON document."""
        return {
            "id": self.id,
            "text": self.text,
            "kind": self.kind,
            "met": self.met,
            "unmet": self.unmet,
            "undecided": self.undecided,
            "good": self.good,
            "bad": self.bad,
            "itself": self.self_agreement,
            "itself_word": self.self_agreement_note,
            "repeated": self.repeated,
            "alike": self.same_verdict,
            "expected": self.expected,
            "expected_word": self.expected_note,
            "labelled": self.labelled,
            "share": self.share,
        }

    @property
    def share(self) -> float | None:
        """Percentage of decided outputs that meet it; None where nothing was decided."""
        decided = self.met + self.unmet
        return 100 * self.met / decided if decided else None

    @property
    def useless(self) -> str:
        """Why it does not distinguish outputs; empty when it does."""
        if not self.met + self.unmet:
            return "never decided"
        if self.met + self.unmet < ENOUGH:
            return ""
        return "never holds" if not self.met else "always holds" if not self.unmet else ""


def _executes(run: Run) -> bool:
    """Whether the run is of the workflow as people use it: no trial of other criteria, and not what production answered."""
    return run.record.mode not in TRYING and not run.record.recorded


def stored_outputs(objects: Objects, workflow: Workflow, node: str, most: int, run_id: str | None = None) -> tuple[Run, list[str]]:
    """
    A finished run with outputs of *node*, by default the newest, and at most *most* of its tasks: half passed and half failed where possible.

    Raises:
        Unusable: There is none, or the named run has no outputs of the node.
    """
    runs = [Run(objects, resolve(objects, run_id))] if run_id else [run for run in newest_first(objects) if _executes(run)]
    # prefer a run with many tasks: a newer rerun of one task says less
    for run in sorted(runs, key=lambda run: -min(run.record.tasks, most)):
        if not run.finished or run.record.workflow != workflow.name or node not in run.record.plan.nodes:
            continue
        rows = _rows(run, node)
        good, bad = ([name for name, row in rows.items() if (row["passed"] is not False) == wanted] for wanted in (True, False))
        if rows:
            half = max(most - len(bad), most // 2)
            chosen = good[:half]
            return run, [*chosen, *bad[: most - len(chosen)]]
    where = f"run {run_id}" if run_id else f"no finished run of {workflow.name!r}"
    raise Unusable(f"{where} has {'no ' if run_id else ''}outputs of {node!r}\n  make some with: beam-ray run WORKFLOW --tasks SOURCE")


def propose_criteria(
    ask: CachedModel, workflow: Workflow, node: str, run: Run, tasks: Sequence[str], *, keep: bool
) -> tuple[list[ProposedCriterion], tuple[QueryAttempt, ...], list[str]]:
    """
    Let a model propose criteria for *node* from outputs of *run*.

    Args:
        keep: Keep the present criteria and propose only others.

    Returns:
        The usable criteria, the model's attempts with their cost, and why other criteria or their expressions were dropped.

    Raises:
        Stopped: The model did not answer.
    """
    found: list[ProposedCriterion] = []
    dropped: list[str] = []

    def fault(answer: Mapping[str, Json]) -> str:
        found.clear()
        dropped.clear()
        known = {item.text.lower(): "already present" for item in criteria_of(workflow, node)} if keep else {}
        for entry in answer["criteria"]:
            text, check = entry["criterion"].strip(), entry["expression"].strip()
            if text.lower() in known:
                dropped.append(f"{text}: {known[text.lower()]}")
                continue
            known[text.lower()] = "proposed twice"
            written: Any = {"check": check, "text": text} if check else text
            why = _unusable(workflow, node, written)
            if why and check and not _unusable(workflow, node, text):
                dropped.append(f"{text}: the expression is not usable, so a judge decides: {why}")
                written, why = text, ""
            if why:
                dropped.append(f"{text or check}: {why}")
                continue
            found.append(ProposedCriterion(written, entry["reason"]))
        return "" if found else f"none of the criteria is usable: {'; '.join(dropped)[:1_000]}"

    asked = ask(criteria_question(workflow, node, run, tasks, keep=keep), fault)
    return (found if asked.answer is not None else []), asked.tries, dropped


def evaluate_criteria(
    executor: PlanExecutor, run: Run, node: str, criteria: Sequence[Any], tasks: Sequence[str], *, source: Workflow, repeats: int = 1
) -> list[CriterionStats]:
    """
    Evaluate *criteria* on the outputs of *node* in *run* for *tasks*. Only judge models are called.

    Args:
        criteria: As written in a workflow file.
        source: The workflow whose judge is used.
        repeats: How often the judge decides each plain-language criterion.

    Raises:
        Stopped: Interrupted; the same call resumes.
    """
    judged = [_rows(each, node) for each in judged_runs(executor, run, node, criteria, tasks, source=source, repeats=repeats)]
    items = criteria_of(_judged(run.record.plan, node, criteria, source), node)
    before = _rows(run, node)
    expected = {row["task_id"]: row["expected"] for row in run.tasks().select(["task_id", "expected"]).to_pylist()}
    right = {name: is_expected(before[name]["output"], expected[name]) for name in judged[0]}
    return [_stats(item, judged, before, right) for item in items]


def judged_runs(executor: PlanExecutor, run: Run, node: str, criteria: Sequence[Any], tasks: Sequence[str], *, source: Workflow, repeats: int) -> list[Run]:
    """The runs in which the outputs are judged, one per repeat; a single one where no judge is asked. They are executed once, whoever asks for them."""
    return [executor(plan) for plan in repeated_plans(executor, run, node, criteria, tasks, source=source, repeats=repeats)]


def repeated_plans(executor: PlanExecutor, run: Run, node: str, criteria: Sequence[Any], tasks: Sequence[str], *, source: Workflow, repeats: int) -> list[Plan]:
    """The plans of these runs."""
    items = criteria_of(_judged(run.record.plan, node, criteria, source), node)
    if repeats < 2 or not any(item.kind == "plain" for item in items):
        repeats = 1
    return [rescoring_plan(executor, run, node, criteria, tasks, source=source, sample=sample) for sample in range(repeats)]


def rescoring_plan(executor: PlanExecutor, run: Run, node: str, criteria: Sequence[Any], tasks: Sequence[str], *, source: Workflow, sample: int = 0) -> Plan:
    """The plan of a run that judges stored outputs of *node* by *criteria*, for the *sample*-th time; equal judges cost nothing the first time."""
    return _plan(executor, run, _judged(run.record.plan, node, criteria, source), tasks, sample)


def is_expected(output: str | None, expected: str | None) -> bool | None:
    """Whether an output equals the expected outcome in their common fields; None where they have none."""
    wanted, found = strict_json(expected) if expected else None, strict_json(output) if output else None
    if not isinstance(wanted, dict) or not isinstance(found, dict):
        return None
    common = [name for name in wanted if name in found]
    return all(same(found[name], wanted[name], ("case", "space")) for name in common) if common else None


def _unusable(workflow: Workflow, node: str, written: Any) -> str:
    try:
        with_criteria(workflow, node, [written])
    except BadDefinition as error:
        return str(error).splitlines()[0]
    return ""


def _judged(plan: Workflow, node: str, criteria: Sequence[Any], source: Workflow) -> Workflow:
    """*plan* with only these criteria, at *node*, judged by the judge of *source*."""
    document = plan.document()
    for name, written in document["nodes"].items():
        evaluate = written.pop("evaluate", None) or {}
        written.pop("auto_rerun", None)
        if name == node:
            evaluate = {"threshold": evaluate.get("threshold", DEFAULT_THRESHOLD), "criteria": list(criteria)}
            judge = source.judge_of(node) or source.judge or source.model_of(node) or source.model
            written["evaluate"] = {**evaluate, **({"judge": judge} if judge else {})}
    return Workflow.model_validate(document)


def _plan(executor: PlanExecutor, run: Run, workflow: Workflow, tasks: Sequence[str], sample: int) -> Plan:
    chosen = only(run.tasks(), list(tasks))
    # the first sample has no number in its record
    samples: JsonObject = {"sample": sample} if sample else {}
    return make_plan(
        workflow,
        chosen,
        executor.models,
        source=f"{chosen.num_rows} tasks of run {run.run_id}",
        trials=run.record.trials,
        lineage=Lineage(origin=run.run_id, borrow=True, rescore_only=True, mode="criteria", allow_writes=False, **samples),
    )


def _rows(run: Run, node: str) -> dict[str, StepRow]:
    """Rows of the first trial with an output, by task."""
    return {row["task_id"]: row for row in run.steps([node]).to_pylist() if row["trial"] == 1 and row["outcome"] in RAN}


def criteria_of(workflow: Workflow, node: str) -> tuple[Criterion, ...]:
    """The node's criteria."""
    evaluate = workflow.nodes[node].evaluate
    return evaluate.criteria if evaluate else ()


def _stats(item: Criterion, judged: Sequence[Mapping[str, StepRow]], before: Mapping[str, StepRow], right: Mapping[str, bool | None]) -> CriterionStats:
    verdicts = {name: [_verdict(rows.get(name), item.id) for rows in judged] for name in judged[0]}
    first = {name: found[0] for name, found in verdicts.items() if found[0] is not None}
    good, bad = ([met for name, met in first.items() if before[name]["passed"] is wanted] for wanted in (True, False))
    whole = [[met for met in found if met is not None] for found in verdicts.values() if None not in found] if len(judged) > 1 else []
    self_agreement = fleiss(whole) if item.kind == "plain" else None
    labels = [(met, bool(right[name])) for name, met in first.items() if right[name] is not None]
    agreed = cohen(labels)
    return CriterionStats(
        id=item.id,
        text=item.text,
        kind=item.kind,
        met=sum(first.values()),
        unmet=len(first) - sum(first.values()),
        undecided=len(verdicts) - len(first),
        good=(sum(good), len(good)),
        bad=(sum(bad), len(bad)),
        self_agreement=self_agreement,
        self_agreement_note="" if self_agreement is not None else _why_not(item, len(judged), whole),
        repeated=len(whole),
        same_verdict=sum(len(set(found)) == 1 for found in whole),
        expected=agreed,
        expected_note="" if agreed is not None else "always the same" if labels else "nothing expected",
        labelled=len(labels),
    )


def _why_not(item: Criterion, times: int, whole: Sequence[Any]) -> str:
    """Why the judge's agreement with itself is unknown."""
    if item.kind != "plain":
        return "a rule"
    if times < 2:
        return "not repeated"
    return "always the same" if whole else "nothing decided"


def _verdict(row: StepRow | None, name: str) -> bool | None:
    return next((item["met"] for item in row["criteria"] or () if item["id"] == name), None) if row else None


def criteria_question(workflow: Workflow, node: str, run: Run, tasks: Sequence[str], *, keep: bool) -> Question:
    """What the proposing model is asked."""
    found = workflow.nodes[node]
    rows = _rows(run, node)
    queries = dict(zip(run.tasks()["task_id"].to_pylist(), run.tasks()["task_query"].to_pylist(), strict=True))
    blocks = [
        ("prompt", prompt_text(found.call.prompt) if found.call else f"(the {found.kind} {found.program})"),
        ("returns", json.dumps((found.call.returns or TEXT_SCHEMA) if found.call else {}, ensure_ascii=False)),
    ]
    for word, wanted in (("good", True), ("bad", False)):
        chosen = [name for name in tasks if name in rows and (rows[name]["passed"] is not False) == wanted][:SHOWN]
        blocks += [(f"{word}-{number}", f"task:\n{queries[name][:4_000]}\noutput:\n{rows[name]['output']}") for number, name in enumerate(chosen, 1)]
    present = "\n".join(f"- {item.text}" for item in criteria_of(workflow, node))
    if keep and present:
        blocks.append(("criteria", present))
    task = (
        f"Write criteria by which every output of the step {node!r} can be judged, "
        + ("other ones than those that are there. " if keep and present else "")
        + "Each says one thing that must hold of the output, in one plain sentence, and can be decided from the task and the output alone. "
        f"Where it can be computed, also give it as an expression over the output, such as {_example(workflow, node)}; otherwise leave the expression empty. "
        "They must tell good outputs from bad ones: one that every output meets is of no use. Give the reason for each."
    )
    return Question("criteria", _SYSTEM, blocks, task, _SCHEMA)


def _example(workflow: Workflow, node: str) -> str:
    return f"{node}.{(workflow.nodes[node].fields or ('text',))[0]} != ''"


_SYSTEM = "You write criteria by which the output of one step of a workflow is judged. You are given the step's prompt, what it must return, and outputs."

_SCHEMA = {
    "type": "object",
    "properties": {
        "criteria": {
            "type": "array",
            "minItems": 1,
            "maxItems": MOST_CRITERIA,
            "items": {
                "type": "object",
                "properties": {
                    "criterion": {"type": "string", "maxLength": 300},
                    "expression": {"type": "string", "maxLength": 300},
                    "reason": {"type": "string", "maxLength": 300},
                },
                "required": ["criterion", "expression", "reason"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["criteria"],
    "additionalProperties": False,
}


def present_criteria(workflow: Workflow, node: str) -> list[Any]:
    """The present criteria of *node* as JSON."""
    return [item.model_dump(mode="json") for item in criteria_of(workflow, node)]
