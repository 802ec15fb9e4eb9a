"""Prove it: flipped tasks of a backtest run again with the baseline's output pinned at the node where the sides part."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from beam_ray.address import Address
from beam_ray.api.flips import FLIPS, Pairs
from beam_ray.api.location import Location
from beam_ray.api.plans import plan_of, time_of, times_of
from beam_ray.api.progress import ProgressOption, progress_callback
from beam_ray.api.proofs import NOT_PINNED, NOT_TRIED, OTHER_RESULTS, RESULTS, Experiment, FlippedTasks, Proof, ProofPlan, ProofTask
from beam_ray.api.runs import Budget, Run, checked_budget, finish, probe_models
from beam_ray.api.verdicts import Verdict, verdict
from beam_ray.backtest.manifest import read_manifest
from beam_ray.backtest.proof import CONTROL, PINNED, Pin, Replayed, Sides, marks, passes_by_chance, pins, proof_plan, remember, replayed
from beam_ray.backtest.spec import RECORDED
from beam_ray.compare.flips import NEWLY_FAILING, WORDS
from beam_ray.errors import BeamRayError, Unusable
from beam_ray.llm.lanes import require_lane
from beam_ray.llm.scripted import Models
from beam_ray.run.plan import Plan as EnginePlan
from beam_ray.run.progress import Progress
from beam_ray.store.beginning import begin
from beam_ray.store.runs import Run as StoredRun

KEPT_PLANS = 8
"""Plans of experiments that are kept with the pairs of a backtest."""


@dataclass(frozen=True)
class _Question:
    """The tasks that a proof is about, and what is known of them."""

    store: Location
    verdict: Verdict
    of: FlippedTasks
    pairs: Pairs

    @cached_property
    def sides(self) -> Sides:
        candidate = self.pairs.candidate
        return Sides(self.verdict.id, candidate.name, candidate.baseline_run.stored, candidate.run.stored)

    @property
    def flip(self) -> str:
        word = self.of.group.replace("-", " ")
        return word if word in FLIPS else self.pairs.group(self.of.group).flip

    @cached_property
    def tasks(self) -> list[str]:
        table = self.pairs.select(self.of.group)
        asked = pa.array(self.of.tasks, pa.string())
        if unknown := asked.filter(pc.invert(pc.is_in(asked, value_set=self.pairs.table["task_id"]))).to_pylist():
            raise Unusable(f"the backtest {self.verdict.id} has no task {unknown[0]!r}\n  beam-ray flips {self.verdict.id}  lists the flipped ones")
        chosen = [task for task in dict.fromkeys(table["task_id"].to_pylist()) if not self.of.tasks or task in self.of.tasks]
        if self.of.tasks and (others := set(self.of.tasks) - set(chosen)):
            raise Unusable(
                f"task {min(others)!r} is not {self.of.group.replace('-', ' ')}: only flipped tasks are proven\n  --group newly-passing  is the other side"
            )
        return chosen

    @property
    def pins(self) -> list[Pin]:
        """The tasks in their order, with where each is pinned."""
        if self.of not in self.pairs.pins:
            self.pairs.pins[self.of] = self._pins()
        return self.pairs.pins[self.of]

    def _pins(self) -> list[Pin]:
        table = self.pairs.table
        found = pins(self.sides, table.filter(pc.is_in(table["task_id"], value_set=pa.array(self.tasks, pa.string()))), self.tasks)
        at = {each.task: each for each in found if not self.of.node or each.node == self.of.node}
        return [at[task] for task in self.tasks if task in at]

    @cached_property
    def results(self) -> Mapping[tuple[str, str, str], Replayed]:
        """What is known, by node, arm and task."""
        found: dict[tuple[str, str, str], Replayed] = {}
        for mark in marks(self.store.existing(), self.verdict.id):
            if mark["candidate_run"] == self.sides.after.run_id and mark["baseline_run"] == self.sides.before.run_id:
                for task, result in replayed(self.store.objects, mark).items():
                    found.setdefault((mark["node"], mark["arm"], task), result)
        return found

    def begun(self) -> list[StoredRun]:
        """Experiments with some of these tasks that were begun and not finished."""
        wanted = {each.task for each in self.pins}
        runs = [(StoredRun(self.store.objects, mark["run_id"]), mark) for mark in marks(self.store.objects, self.verdict.id)]
        return [run for run, mark in runs if mark["candidate_run"] == self.sides.after.run_id and wanted & set(mark["tasks"]) and not run.finished]

    def missing(self, arms: Sequence[str], results: Mapping[tuple[str, str, str], Replayed]) -> list[tuple[str, str, list[str]]]:
        """Node, arm and tasks of each experiment that is still to be made."""
        found = []
        for node in dict.fromkeys(each.node for each in self.pins if each.node and not each.obstacle):
            for arm in arms:
                tasks = [each.task for each in self.pins if each.node == node and not each.obstacle and (node, arm, each.task) not in results]
                if tasks:
                    found.append((str(node), arm, tasks))
        return found

    def proof(self) -> Proof:
        """Everything that is known."""
        results = self.results
        return Proof(self.verdict.id, self.sides.candidate, self.of.group, self.flip, tuple(self._task(each, results) for each in self.pins), *self._chance())

    def _task(self, pin: Pin, results: Mapping[tuple[str, str, str], Replayed]) -> ProofTask:
        if pin.obstacle or pin.node is None:
            return ProofTask(pin.task, pin.node, NOT_PINNED, pin.obstacle)
        control = results.get((pin.node, CONTROL, pin.task))
        found = results.get((pin.node, PINNED, pin.task))
        if found is None:
            return ProofTask(pin.task, pin.node, NOT_TRIED, control=control.passed if control else None)
        return _tried(pin, self.flip, found, control)

    def _chance(self) -> tuple[int, int]:
        """How many unpinned repeats the backtest made of the tried tasks, and how many of them pass."""
        tried = [each.task for each in self.pins if each.node and (each.node, PINNED, each.task) in self.results]
        if not tried:
            return 0, 0
        try:
            manifest = read_manifest(self.store.objects, self.verdict.document())
            compared = next((each for each in manifest["comparisons"] if each["candidate_run"] == self.sides.after.run_id), None)
            passed, made = passes_by_chance(self.store.objects, self.sides, compared["repeats"] if compared else (), tried)
        except BeamRayError:
            return 0, 0  # a backtest of a version that kept no manifest
        return made, passed


def _question(pairs: Pairs, of: FlippedTasks | None) -> _Question:
    """What is asked of these pairs."""
    of = of or FlippedTasks()
    found = pairs.verdict
    if found.document()["baseline"]["definition_digest"] == RECORDED:
        raise Unusable(f"the baseline of {found.id} is what production answered: it has no steps whose output could be pinned")
    word = of.group.replace("-", " ")
    if word in WORDS and word not in FLIPS:
        raise Unusable(f"tasks that are {word} did not flip, so there is nothing to prove\n  groups are: newly-failing, newly-passing")
    question = _Question(found.store, found, of, pairs)
    if of.node and of.node not in {each.node for each in question.pins}:
        nodes = dict.fromkeys(node for node in pairs.select(of.group)["diverges_at"].to_pylist() if node)
        raise Unusable(f"no task of the group parts at {of.node!r}\n  they part at: {', '.join(nodes) or 'no node'}")
    return question


def _pairs(store: Location, backtest: str, of: FlippedTasks | None) -> Pairs:
    return verdict(store, backtest).pairs_of(of.candidate if of else None)


def proof(store: Location, backtest: str, of: FlippedTasks | None = None) -> Proof:
    """See ``Store.proof``."""
    return proof_of(_pairs(store, backtest, of), of)


def proof_of(pairs: Pairs, of: FlippedTasks | None = None) -> Proof:
    """See ``Pairs.proof``."""
    return _question(pairs, of).proof()


def plan_prove(store: Location, backtest: str, of: FlippedTasks | None = None, *, control: bool = False) -> ProofPlan:
    """See ``Store.plan_prove``."""
    return plan_of_proof(_pairs(store, backtest, of), of, control=control)


def plan_of_proof(pairs: Pairs, of: FlippedTasks | None = None, *, control: bool = False) -> ProofPlan:
    """See ``Pairs.plan_prove``."""
    question, store = _question(pairs, of), pairs.verdict.store
    made = _experiments(store, question, control, None)
    times = times_of(store, question.sides.after.record.plan)
    experiments = tuple(Experiment(node, arm, plan_of(plan, seconds=time_of(plan, store.known_models, times))) for node, arm, plan in made)
    results = question.results
    barred = tuple((each.task, each.obstacle) for each in question.pins if each.obstacle)
    known = sum((each.node or "", PINNED, each.task) in results for each in question.pins)
    return ProofPlan(question.verdict.id, question.sides.candidate, len(question.pins), known, barred, experiments)


def _experiments(store: Location, question: _Question, control: bool, budget: Mapping[str, float] | None) -> list[tuple[str, str, EnginePlan]]:
    arms = (PINNED, CONTROL) if control else (PINNED,)
    models = store.known_models
    require_lane(store.lane, models, question.sides.after.record.plan.models)
    missing = question.missing(arms, question.results)
    if budget is None:
        return [(node, arm, _planned(question, models, node, arm, tasks)) for node, arm, tasks in missing]
    return [(node, arm, proof_plan(store.objects, models, question.sides, node, arm, tasks, budget=budget)) for node, arm, tasks in missing]


def _planned(question: _Question, models: Models, node: str, arm: str, tasks: list[str]) -> EnginePlan:
    """The plan of an experiment, which is made once as long as the models are the same: a page of it is read again and again."""
    known, key = question.pairs.plans, (node, arm, tuple(tasks))
    if key not in known or known[key][0] != models:
        if len(known) >= KEPT_PLANS:
            known.clear()
        known[key] = dict(models), proof_plan(question.store.objects, models, question.sides, node, arm, tasks)
    return known[key][1]


def prove(
    store: Location,
    backtest: str,
    of: FlippedTasks | None = None,
    *,
    control: bool = False,
    budget: Budget | None = None,
    takeover: bool = False,
    progress: ProgressOption = None,
) -> Proof:
    """See ``Store.prove``."""
    left = dict(checked_budget(budget)) if budget else {}
    pairs = _pairs(store, backtest, of)
    question = _question(pairs, of)
    with progress_callback(progress) as callback:
        for run in question.begun():
            callback(Progress(message=f"resuming run {run.run_id}, which was begun for this before"))
            _spend(left, finish(store, run.record, takeover=takeover, callback=callback))
        question = _question(pairs, of)
        made = _experiments(store, question, control, left)
        if made:
            probe_models(store, question.sides.after.record.plan)
        for node, arm, plan in made:
            tasks = plan.tasks["task_id"].to_pylist()
            whose = "the baseline's" if arm == PINNED else "the candidate's own"
            callback(Progress(message=f"{len(tasks)} tasks with {whose} output pinned at {node!r}"))
            record = begin(store.objects, plan.record, plan.tasks)
            remember(store.objects, question.sides, node, arm, tasks, record.run_id)
            _spend(left, finish(store, record.model_copy(update={"budget": dict(left)}), takeover=takeover, callback=callback))
    return _question(pairs, of).proof()


def _spend(left: dict[str, float], run: Run) -> None:
    """Take what the run used from what is left of the budget."""
    numbers = run.summary
    used = {
        "max_calls": numbers["calls"],
        "max_tokens": numbers["input_tokens"] + numbers["output_tokens"],
        "max_usd": numbers["usd"] or 0.0,
        "max_minutes": numbers["seconds"] / 60,
    }
    left.update({name: max(limit - used[name], 0.0) for name, limit in left.items()})


def proven(store: Location, pairs: Pairs) -> dict[str, ProofTask]:
    """See ``Pairs.proven``."""
    made = marks(store.existing(), pairs.verdict.id)
    if not made:
        return {}
    results: dict[tuple[str, str, str], Replayed] = {}
    for mark in made:
        if mark["candidate_run"] == pairs.candidate.run.id and mark["baseline_run"] == pairs.candidate.baseline_run.id:
            for task, result in replayed(store.objects, mark).items():
                results.setdefault((mark["node"], mark["arm"], task), result)
    tried = pa.array(list({task for _, _, task in results}), pa.string())
    rows = pairs.table.filter(pc.is_in(pairs.table["task_id"], value_set=tried)).select(["task_id", "flip"]).to_pylist()
    flip_of = {row["task_id"]: row["flip"] for row in rows}
    return {
        task: _tried(Pin(task, node, ""), flip_of[task], result, results.get((node, CONTROL, task)))
        for (node, arm, task), result in results.items()
        if arm == PINNED
    }


def _tried(pin: Pin, flip: str, found: Replayed, control: Replayed | None) -> ProofTask:
    words = RESULTS.get(flip, OTHER_RESULTS)
    same = found.passed == (flip == NEWLY_FAILING)
    address = Address(found.run_id, pin.task)
    return ProofTask(pin.task, pin.node, words[0] if same else words[1], "", found.executed, address, control.passed if control else None)


def proof_runs(store: Location, backtest: str) -> list[str]:
    """See ``Store.proof_runs``."""
    runs = (StoredRun(store.existing(), mark["run_id"]) for mark in marks(store.existing(), backtest))
    return [run.run_id for run in runs if not run.finished]
