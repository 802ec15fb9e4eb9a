"""
Which node made a task flip: the candidate's tasks run again with the baseline's output in its place at one node.

The question: the sides part first at a node, and the task flips. Is it that node's output that does it? The
candidate's run is taken as it is, the node's output is replaced by the baseline's, and what descends from the
node is executed anew. If the task then has the baseline's result, the output of that node decided it.

What descends is never borrowed from the baseline, also where its definition is unchanged: a copy of a passing
row would recover by definition and show nothing. The seeds are those of another sample, for the same reason.
By chance alone some tasks pass when they are run again. The control is the same experiment with the candidate's
own output pinned, so that the two differ in nothing but that output.

Each experiment is a run of the store with mode ``proof``. It is named by backtests/<backtest>/proofs/<digest>.json,
so that a task is never paid for twice.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypedDict

import pyarrow as pa

from beam_ray.compare.compare_runs import repeats_of
from beam_ray.define.fingerprint import JsonObject, digest
from beam_ray.define.workflow import Workflow
from beam_ray.errors import Damaged, Unusable
from beam_ray.llm.answer import first_fault
from beam_ray.llm.scripted import Models
from beam_ray.rerun import count_borrowed
from beam_ray.run.context import RAN
from beam_ray.run.model_identity import identity
from beam_ray.run.plan import Lineage, Plan, make_plan, require_models
from beam_ray.run.step_row import output_value
from beam_ray.store.checksummed_json import read_document, seal
from beam_ray.store.objects import NotThere, Objects
from beam_ray.store.run_record import RunRecord
from beam_ray.store.runs import Run
from beam_ray.store.step_lookup import StepRows
from beam_ray.store.tables import StepRow
from beam_ray.tasks.sources import only

MODE = "proof"
SAMPLE = 2
"""Independent of the sides of a backtest, which are sample 0, and of the second side of an A/A test, which is 1."""
PINNED, CONTROL = "pinned", "control"


class ProofMark(TypedDict):
    """An experiment of a backtest, in backtests/<backtest>/proofs/."""

    run_id: str
    candidate: str
    candidate_run: str
    baseline_run: str
    node: str
    arm: str
    """pinned: with the baseline's output at the node; control: with the candidate's own."""
    tasks: list[str]


@dataclass(frozen=True)
class Sides:
    """The two runs of which one lends its output to the other."""

    backtest_id: str
    candidate: str
    before: Run
    after: Run


class Pin(NamedTuple):
    """A task, and the node at which the baseline's output is pinned."""

    task: str
    node: str | None
    """The first node whose output differs; None where none does."""
    obstacle: str
    """Why it cannot be pinned; empty where it can."""


class Replayed(NamedTuple):
    """What became of a task in an experiment."""

    passed: bool
    executed: int
    """Steps that were executed after the pinned one, over all trials."""
    run_id: str


def pins(sides: Sides, pairs: pa.Table, tasks: Iterable[str]) -> list[Pin]:
    """Where each of the *tasks* is pinned: at the first node whose output differs in the first trial with another result."""
    at: dict[str, tuple[bool, str | None]] = {}
    for row in pairs.select(["task_id", "diverges_at", "before_passed", "after_passed"]).to_pylist():
        flips = bool(row["before_passed"]) != bool(row["after_passed"])
        if row["task_id"] not in at or (flips and not at[row["task_id"]][0]):
            at[row["task_id"]] = flips, row["diverges_at"]
    by_node: dict[str | None, list[str]] = {}
    for task in tasks:
        by_node.setdefault(at[task][1], []).append(task)
    return [Pin(task, node, obstacle) for node, mine in by_node.items() for task, obstacle in _obstacles(sides, node, mine).items()]


def _obstacles(sides: Sides, node: str | None, tasks: Sequence[str]) -> dict[str, str]:
    """Why the baseline's output cannot be pinned, per task; empty where it can."""
    before, after = sides.before.record.plan, sides.after.record.plan
    if node is None:
        return dict.fromkeys(tasks, "no output differs: only the scores do")
    for side, workflow in (("baseline", before), ("candidate", after)):
        if node not in workflow.nodes:
            return dict.fromkeys(tasks, f"the {side} has no node {node!r}")
    trials = range(1, sides.after.record.trials + 1)
    keys = [(task, trial) for task in tasks for trial in trials]
    old, new = (StepRows(run).rows(node, keys, columns=("outcome", "output")) for run in (sides.before, sides.after))
    found = {}
    for task in tasks:
        rows = ((old.get((task, trial)), new.get((task, trial))) for trial in trials)
        found[task] = next(filter(None, (_obstacle(after, node, *both) for both in rows)), "")
    return found


def _obstacle(workflow: Workflow, node: str, old: StepRow | None, new: StepRow | None) -> str:
    if old is None or old["outcome"] == "skipped":
        return f"the baseline did not run {node!r}: the routes differ"
    if old["outcome"] not in RAN:
        return f"{node!r} failed on the baseline: there is no output to pin"
    if new is None or new["outcome"] == "skipped":
        return f"the candidate did not run {node!r}: the routes differ"
    call = workflow.nodes[node].call
    fault = first_fault(output_value(old["output"]), call.returns) if call and call.returns else None
    return f"the baseline's output of {node!r} does not have the fields that the candidate returns: {fault}" if fault else ""


def proof_plan(objects: Objects, models: Models, sides: Sides, node: str, arm: str, tasks: Sequence[str], *, budget: Mapping[str, float] | None = None) -> Plan:
    """
    The run of the candidate's definition with the output of *node* pinned; tools that write are not called.

    Raises:
        Unusable: a model of that name is another one than the candidate was run with.
    """
    after = sides.after
    _require_same(after.record, models)
    special: JsonObject = {"tool_answers": after.record.tool_answers} if after.record.tool_answers else {}
    plan = make_plan(
        after.record.plan,
        only(after.tasks(), list(tasks)),
        models,
        source=f"{len(tasks)} flipped tasks of run {after.run_id}",
        version_number=after.record.version,
        trials=after.record.trials,
        budget=budget,
        lineage=Lineage(
            origin=after.run_id,
            pinned_node=node,
            pinned_from=(sides.before if arm == PINNED else after).run_id,
            sample=SAMPLE,
            mode=MODE,
            backtest=sides.backtest_id,
            allow_writes=False,
            **special,
        ),
    )
    return count_borrowed(objects, plan, models)


def _require_same(record: RunRecord, models: Models) -> None:
    for name, written in require_models(record.plan, models).items():
        if record.models.get(name, {}).get("identity") != identity(written):
            raise Unusable(
                f"the model {name!r} is not the one that run {record.run_id} asked, so a task could recover because of that"
                "\n  prove it with the model and settings of the backtest"
            )


def marks(objects: Objects, backtest_id: str) -> list[ProofMark]:
    """The experiments of a backtest, the finished ones and those that were begun."""
    return [read_document(objects, key, ProofMark) for key, _ in sorted(objects.keys(f"backtests/{backtest_id}/proofs/"))]


def remember(objects: Objects, sides: Sides, node: str, arm: str, tasks: Sequence[str], run_id: str) -> None:
    """Keep that the run is an experiment of the backtest; of two that keep the same the first one counts."""
    mark: ProofMark = {
        "run_id": run_id,
        "candidate": sides.candidate,
        "candidate_run": sides.after.run_id,
        "baseline_run": sides.before.run_id,
        "node": node,
        "arm": arm,
        "tasks": list(tasks),
    }
    objects.create(f"backtests/{sides.backtest_id}/proofs/{digest('proof/1', mark)}.json", seal(mark))


def replayed(objects: Objects, mark: ProofMark) -> dict[str, Replayed]:
    """What became of the tasks of an experiment; nothing while it goes on, or where its run is not in this store."""
    run = Run(objects, mark["run_id"])
    try:
        if not run.finished:
            return {}
        rows = run.outcome(["task_id", "passed", "steps_done"]).to_pylist()
    except (NotThere, Unusable, Damaged):
        return {}
    trials: dict[str, list[tuple[bool, int]]] = {}
    for row in rows:
        trials.setdefault(row["task_id"], []).append((bool(row["passed"]), row["steps_done"] or 0))
    # as in the comparison: a task passes when it does in most of its trials
    return {
        task: Replayed(2 * sum(passed for passed, _ in each) > len(each), sum(executed for _, executed in each), run.run_id) for task, each in trials.items()
    }


def passes_by_chance(objects: Objects, sides: Sides, repeats: Sequence[str], tasks: Iterable[str]) -> tuple[int, int]:
    """
    Of the repeats that confirmed the tasks, those of the candidate that pass, and how many there are.

    Args:
        repeats: Runs that repeat newly failing tasks, as the backtest's manifest has them: baseline and candidate by turns.
    """
    wanted, passed, made, trials = set(tasks), 0, 0, sides.after.record.trials
    for first, second in zip(repeats[::2], repeats[1::2], strict=False):
        before, after = Run(objects, first), Run(objects, second)
        found = repeats_of(trials, before, after)
        trials = before.record.trials
        for task in wanted & set(found):
            passed, made = passed + found[task].candidate_passed, made + found[task].candidate_repeats
    return passed, made
