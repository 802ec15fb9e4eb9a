"""
Criteria: proposed by a model, tried on stored outputs before anyone relies on them.

A criterion that always holds, or never, tells no output from another. One that its judge
answers otherwise when asked again tells what the judge feels. Both are found out here by
judging outputs that are in the store already: no step is executed.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from beam_ray.define.criterion import Criterion
from beam_ray.define.fingerprint import strict_json
from beam_ray.define.workflow import DEFAULT_THRESHOLD, TEXT_SCHEMA, Workflow
from beam_ray.errors import BadDefinition, Unusable
from beam_ray.evaluate.rules import same
from beam_ray.improve.agreement import cohen, fleiss
from beam_ray.improve.drafts import with_criteria
from beam_ray.improve.execute_plan import Player
from beam_ray.improve.model_query import Asker, Question, Try
from beam_ray.improve.prompt_text import prompt_text
from beam_ray.run.context import RAN
from beam_ray.run.plan import Lineage, Plan, make_plan
from beam_ray.store.lookup import newest_first
from beam_ray.store.objects import Objects
from beam_ray.store.runs import Run, resolve
from beam_ray.tasks.sources import only

SHOWN = 3
"""Good outputs that a proposer is shown, and bad ones."""

ENOUGH = 5
"""Outputs below which nothing is said to hold always or never."""

TRYING = ("criteria", "search", "repeats")
"""Kinds of runs that only try something out."""


@dataclass(frozen=True)
class Proposed:
    """A criterion as a file would have it, and why it was proposed."""

    written: Any
    """A text, or a mapping with ``check``."""
    reason: str


@dataclass(frozen=True)
class Fared:
    """How a criterion fared on stored outputs."""

    id: str
    text: str
    kind: str
    met: int
    unmet: int
    undecided: int
    """Not judged, or it does not apply."""
    good: tuple[int, int]
    """Of the outputs that passed until now: met, and decided."""
    bad: tuple[int, int]
    """Of those that did not."""
    itself: float | None = None
    """The judge's agreement with itself, Fleiss' kappa; none where it is not known."""
    itself_word: str = ""
    """Why it is not."""
    repeated: int = 0
    """Outputs that were decided at every repeat."""
    alike: int = 0
    """Of those, how many were decided alike each time."""
    expected: float | None = None
    """Agreement with whether the output is what the task expects, Cohen's kappa; none where it is not known."""
    expected_word: str = ""
    labelled: int = 0
    """Outputs of which that is known."""

    @property
    def share(self) -> float | None:
        """The share of decided outputs that meet it, in percent; none where nothing was decided."""
        decided = self.met + self.unmet
        return 100 * self.met / decided if decided else None

    @property
    def useless(self) -> str:
        """Why it tells no output from another, or nothing."""
        if not self.met + self.unmet:
            return "never decided"
        if self.met + self.unmet < ENOUGH:
            return ""
        return "never holds" if not self.met else "always holds" if not self.unmet else ""


def stored_outputs(objects: Objects, workflow: Workflow, node: str, most: int, run_id: str | None = None) -> tuple[Run, list[str]]:
    """
    A finished run with outputs of *node*, the newest unless one is named, and at most *most* of its tasks: as many good ones as bad ones, if there are.

    Raises:
        Unusable: there is none, or the one named has no outputs of the node.
    """
    runs = [Run(objects, resolve(objects, run_id))] if run_id else [run for run in newest_first(objects) if run.record.mode not in TRYING]
    # a rerun of one task is newer than the run of all of them, and says less
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
    raise Unusable(f"{where} has {'no ' if run_id else ''}outputs of {node!r}\n  beam-ray run WORKFLOW --tasks …  makes some")


def propose_criteria(
    ask: Asker, workflow: Workflow, node: str, run: Run, tasks: Sequence[str], *, keep: bool
) -> tuple[list[Proposed], tuple[Try, ...], list[str]]:
    """
    Criteria for *node* that a model proposes who has seen outputs of *run*; what its tries cost; and why some were dropped, in whole or their expression.

    With *keep* the present ones stay, and are not proposed again.

    Raises:
        Stopped: the model cannot be asked now.
    """
    found: list[Proposed] = []
    dropped: list[str] = []

    def fault(answer: Mapping[str, Any]) -> str:
        found.clear()
        dropped.clear()
        known = {item.text.lower(): "it is there already" for item in criteria_of(workflow, node)} if keep else {}
        for entry in answer["criteria"]:
            text, check = entry["criterion"].strip(), entry["expression"].strip()
            if text.lower() in known:
                dropped.append(f"{text}: {known[text.lower()]}")
                continue
            known[text.lower()] = "it was proposed twice"
            written: Any = {"check": check, "text": text} if check else text
            why = _unusable(workflow, node, written)
            if why and check and not _unusable(workflow, node, text):
                dropped.append(f"{text}: its expression cannot be used, a judge decides: {why}")
                written, why = text, ""
            if why:
                dropped.append(f"{text or check}: {why}")
                continue
            found.append(Proposed(written, entry["reason"]))
        return "" if found else f"none of the criteria can be used: {'; '.join(dropped)[:1_000]}"

    asked = ask(_question(workflow, node, run, tasks, keep), fault)
    return (found if asked.answer is not None else []), asked.tries, dropped


def try_out(player: Player, run: Run, node: str, criteria: Sequence[Any], tasks: Sequence[str], *, source: Workflow, repeats: int = 1) -> list[Fared]:
    """
    How *criteria*, as a file would have them, fare on the outputs that *run* has of *node* for *tasks*; nothing but judges is asked.

    With *repeats* above 1, plain ones are judged that often.

    Raises:
        Stopped: before the end; the same call goes on.
    """
    workflow = _judged(run.record.plan, node, criteria, source)
    items = criteria_of(workflow, node)
    if repeats < 2 or not any(item.kind == "plain" for item in items):
        repeats = 1
    judged = [_rows(player(_plan(player, run, workflow, tasks, sample)), node) for sample in range(repeats)]
    before = _rows(run, node)
    expected = {row["task_id"]: row["expected"] for row in run.tasks().select(["task_id", "expected"]).to_pylist()}
    right = {name: is_expected(before[name]["output"], expected[name]) for name in judged[0]}
    return [_fared(item, judged, before, right) for item in items]


def is_expected(output: str | None, expected: str | None) -> bool | None:
    """Whether an output has what the task expects, in the fields that both name; None where they share none."""
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
    """The workflow of a run with these criteria at *node*, judged as *source* says, and with none elsewhere."""
    document = plan.document()
    for name, written in document["nodes"].items():
        evaluate = written.pop("evaluate", None) or {}
        written.pop("auto_rerun", None)
        if name == node:
            evaluate = {"threshold": evaluate.get("threshold", DEFAULT_THRESHOLD), "criteria": list(criteria)}
            judge = source.judge_of(node) or source.judge or source.model_of(node) or source.model
            written["evaluate"] = {**evaluate, **({"judge": judge} if judge else {})}
    return Workflow.model_validate(document)


def _plan(player: Player, run: Run, workflow: Workflow, tasks: Sequence[str], sample: int) -> Plan:
    chosen = only(run.tasks(), list(tasks))
    # a record of the first sample says nothing of it
    samples: dict[str, Any] = {"sample": sample} if sample else {}
    return make_plan(
        workflow,
        chosen,
        player.models,
        source=f"{chosen.num_rows} tasks of run {run.run_id}",
        trials=run.record.trials,
        lineage=Lineage(origin=run.run_id, borrow=True, rescore_only=True, mode="criteria", allow_writes=False, **samples),
    )


def _rows(run: Run, node: str) -> dict[str, dict[str, Any]]:
    """By task, the rows of the first trial that gave an output."""
    return {row["task_id"]: row for row in run.steps([node]).to_pylist() if row["trial"] == 1 and row["outcome"] in RAN}


def criteria_of(workflow: Workflow, node: str) -> tuple[Criterion, ...]:
    """The node's criteria."""
    evaluate = workflow.nodes[node].evaluate
    return evaluate.criteria if evaluate else ()


def _fared(
    item: Criterion, judged: Sequence[Mapping[str, Mapping[str, Any]]], before: Mapping[str, Mapping[str, Any]], right: Mapping[str, bool | None]
) -> Fared:
    verdicts = {name: [_verdict(rows.get(name), item.id) for rows in judged] for name in judged[0]}
    first = {name: found[0] for name, found in verdicts.items() if found[0] is not None}
    good, bad = ([met for name, met in first.items() if before[name]["passed"] is wanted] for wanted in (True, False))
    whole = [[met for met in found if met is not None] for found in verdicts.values() if None not in found] if len(judged) > 1 else []
    itself = fleiss(whole) if item.kind == "plain" else None
    labels = [(met, bool(right[name])) for name, met in first.items() if right[name] is not None]
    agreed = cohen(labels)
    return Fared(
        id=item.id,
        text=item.text,
        kind=item.kind,
        met=sum(first.values()),
        unmet=len(first) - sum(first.values()),
        undecided=len(verdicts) - len(first),
        good=(sum(good), len(good)),
        bad=(sum(bad), len(bad)),
        itself=itself,
        itself_word="" if itself is not None else _why_not(item, len(judged), whole),
        repeated=len(whole),
        alike=sum(len(set(found)) == 1 for found in whole),
        expected=agreed,
        expected_word="" if agreed is not None else "always the same" if labels else "nothing expected",
        labelled=len(labels),
    )


def _why_not(item: Criterion, times: int, whole: Sequence[Any]) -> str:
    """Why a judge's agreement with itself is not known."""
    if item.kind != "plain":
        return "a rule"
    if times < 2:
        return "not repeated"
    return "always the same" if whole else "nothing decided"


def _verdict(row: Mapping[str, Any] | None, name: str) -> bool | None:
    return next((item["met"] for item in (row or {}).get("criteria") or () if item["id"] == name), None)


def _question(workflow: Workflow, node: str, run: Run, tasks: Sequence[str], keep: bool) -> Question:
    found = workflow.nodes[node]
    rows = _rows(run, node)
    queries = dict(zip(run.tasks()["task_id"].to_pylist(), run.tasks()["task_query"].to_pylist(), strict=True))
    blocks = [
        ("prompt", prompt_text(found.llm.prompt) if found.llm else f"(the tool {found.tool})"),
        ("returns", json.dumps((found.llm.returns or TEXT_SCHEMA) if found.llm else {}, ensure_ascii=False)),
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
            "maxItems": 8,
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


def written_present(workflow: Workflow, node: str) -> list[Any]:
    """The present criteria of *node*, as the store keeps them."""
    return [item.model_dump(mode="json") for item in criteria_of(workflow, node)]
