"""
Search for better prompts over a library, and accept only what a holdout set confirms.

The search may use its part of the tasks as often as it likes, so it will always find something
that looks better there. The best draft is therefore compared with the baseline on the holdout
set, once and pair by pair. Every further draft tested on the same holdout set is another chance
of a false positive, so each gets half the error probability of the one before (alpha spending):
however many drafts are tested, the overall false positive rate is at most 5%.

All runs are ordinary runs that borrow unaffected steps from the baseline's run, and all answers
are stored: the same command resumes where it was stopped and pays for nothing twice.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from beam_ray.backtest.conclude import conclude
from beam_ray.backtest.sides import Backtest
from beam_ray.backtest.spec import Resolved, Side, Spec
from beam_ray.compare.formatting import plural
from beam_ray.compare.gate import Gate, Limit
from beam_ray.compare.verdict_json import BacktestDocument
from beam_ray.define.fingerprint import JsonObject, digest
from beam_ray.define.workflow import Workflow
from beam_ray.errors import BeamRayError, BudgetReached, Unusable
from beam_ray.improve.drafts import prompts_text
from beam_ray.improve.execute_plan import PlanExecutor
from beam_ray.improve.executions import runs_of
from beam_ray.improve.gepa_search import Prompts, evolve
from beam_ray.improve.holdout import drafts_before, require_fresh_holdout, split
from beam_ray.improve.model_query import TRIES, CachedModel
from beam_ray.improve.optimise import propose, read_failure
from beam_ray.improve.prompt_text import turns_of, written
from beam_ray.improve.search_result import Candidate, SearchOrigin, SearchResult, TaskScore, best_of, save_search, usage_from
from beam_ray.llm.scripted import Models
from beam_ray.llm.usage import Usage
from beam_ray.rerun import count_borrowed
from beam_ray.run.model_identity import identity
from beam_ray.run.plan import Lineage, Plan, make_plan, price_of
from beam_ray.store.checksummed_json import read_document, seal
from beam_ray.store.libraries import Library, library_at
from beam_ray.store.objects import Objects
from beam_ray.store.runs import Run
from beam_ray.store.tables import StepRow
from beam_ray.tasks.sources import only

FEW = 6
"""Number of search tasks on which a change is tested first (minibatch)."""

LIMITS = ("max_usd", "max_calls", "max_tokens")


class _BudgetUsed(BeamRayError):
    """The part of the budget for the search is used up."""


@dataclass
class Search:
    """A prompt search over a library."""

    objects: Objects
    workflow: Workflow
    file: Path
    """The workflow's file."""
    library: Library
    models: Models
    executor: PlanExecutor
    ask: CachedModel
    budget: Mapping[str, float]
    version: int | None = None
    """The workflow's published version; None for a draft."""
    nodes: tuple[str, ...] = ()
    """Nodes whose prompts may change; by default all that fail."""
    rounds: int = 20
    few: int = FEW
    seed: int = 0
    cluster: str | None = None
    """A field of tasks: those that have the same value there are on the same side, and count together."""
    say: Callable[[str], None] = lambda line: None

    def __post_init__(self) -> None:
        self.name = f"optimise-{self.workflow.name}"[:64]
        self.paid = Usage()
        self.aside = dict.fromkeys(LIMITS, 0.0)
        """The budget reserved for the holdout set."""
        self.refused = list[str]()
        self.candidates = dict[str, Candidate]()
        self.proposals = 0
        identities = {name: identity(self.models[name]) for name in self.workflow.models}
        about = [
            self.workflow.digest,
            str(self.library),
            identities,
            identity(self.ask.written),
            self.nodes,
            self.rounds,
            self.few,
            self.seed,
            *([self.cluster] if self.cluster is not None else []),
        ]
        self.search_id = f"{self.name}-search-{digest('search/1', about)[:8]}"
        self._require()

    def run(self) -> SearchResult:
        """
        Run the search, or resume it; runs and answers that exist are reused.

        Raises:
            Unusable: The budget or the library is too small; no model was called.
            Stopped: Interrupted; the same call resumes.
        """
        sides = split(self.objects, self.library, self.cluster)
        require_fresh_holdout(self.objects, sides.held)
        base, held = self.plan(self.workflow, sides.search, self._origin(sides.search)), sides.held.num_rows
        self._reserve(base, self._plan(self.workflow, sides.held, None))
        self.say(f"{sides.search.num_rows} tasks to search on, {held} held out")
        # from here until the search is over, nothing that it can reach contains a holdout task or its id
        self.library = replace(self.library, tasks=sides.search, since={})
        del sides
        tasks = self.library.tasks["task_id"].to_pylist()
        ended = self._search(_Scorer(self, self.library.tasks, self.executor(base)))
        scores = [one.mean(tasks) for one in self.candidates.values()]
        best = best_of(list(self.candidates.values()), tasks)
        verdict, tests = self._hold_out(best) if best else (None, 0)
        self.paid.add(self.ask.paid)
        rest = (tuple(self.candidates.values()), tuple(scores), tuple(self.refused), ended, best, verdict, tests, self.paid)
        found = SearchResult(self.search_id, str(self.library), len(tasks), held, *rest)
        save_search(self.objects, found)
        return found

    def draft(self, best: Candidate) -> str:
        """The text of the workflow's file with the candidate's prompts."""
        changed = {node: as_turns(text) for node, text in best.prompts.items() if as_turns(text) != as_turns(prompt(self.workflow, node))}
        return prompts_text(self.file, changed, best.workflow)

    # -- searching ----------------------------------------------------------------------------

    def _search(self, scores: "_Scorer") -> str:
        nodes = self.nodes or scores.failing()
        if not nodes:
            return "nothing to optimise: no step with a prompt fails on the search tasks"
        self.say(f"optimising the prompts of {', '.join(nodes)}")
        seed = {node: prompt(self.workflow, node) for node in nodes}
        try:
            evolve(seed, scores.ids, scores, self._propose, rounds=self.rounds, few=self.few, seed=self.seed)
        except (_BudgetUsed, BudgetReached):
            return "stopped by the budget; the rest is reserved for the holdout set"
        return f"stopped after {plural(self.rounds, 'round')}"

    def _propose(self, prompts: Prompts, node: str, rows: Sequence[StepRow]) -> str | None:
        if self.left()["max_calls"] < TRIES or self.left()["max_usd"] <= 0 or self.left()["max_tokens"] <= 0:
            raise _BudgetUsed
        failures = [failure for row in rows if (failure := read_failure(self.objects, row))]
        workflow = self.with_prompts(prompts)
        self.proposals += 1
        made = propose(self.ask, workflow, node, failures, sample=self.proposals)
        self.refused += [one.refused for one in made.tries if one.refused]
        if made.workflow is None:
            return None
        try:
            self.draft(self.candidate({**prompts, node: as_text(made.turns)}))
        except Unusable as error:
            self.refused.append(str(error))
            return None
        self.say(f"proposal {self.proposals}, for {node}: {made.changes[0][0]}")
        return as_text(made.turns)

    def candidate(self, prompts: Prompts) -> Candidate:
        """The candidate with these prompts."""
        workflow = self.with_prompts(prompts)
        name = "baseline" if workflow.digest == self.workflow.digest else f"candidate-{len(self.candidates)}"
        return self.candidates.setdefault(workflow.digest, Candidate(name, dict(prompts), workflow))

    def with_prompts(self, prompts: Prompts) -> Workflow:
        """The workflow with other prompts."""
        document = self.workflow.document()
        for node, text in prompts.items():
            if as_turns(text) != as_turns(prompt(self.workflow, node)):
                document["nodes"][node][self.workflow.nodes[node].kind]["prompt"] = as_turns(text)
        return Workflow.model_validate(document)

    # -- holding out ----------------------------------------------------------------------------

    def _hold_out(self, best: Candidate) -> tuple[BacktestDocument, int]:
        held = split(self.objects, library_at(self.objects, str(self.library)), self.cluster).held
        self.say(f"{best.name} is best; comparing it with the baseline on the {held.num_rows} holdout tasks")
        left = {name: value for name, value in self.left(reserve=False).items() if name in self.budget}
        spec = Spec.model_validate(
            {"backtest": self.name, "workflow": self.workflow.name, "tasks": f"library:{self.library}", "budget": left, "cluster": self.cluster}
        )
        baseline, candidate = Side("baseline", self.workflow, self.version), Side("optimised", best.workflow)
        backtest = Backtest(
            self.objects,
            Resolved(spec, self.file.parent, baseline, (candidate,)),
            held,
            f"library:{self.library}",
            self.models,
            progress=lambda report: self.say(report.message) if report.message else None,
            execute=self.executor.execute,
        )
        tests = drafts_before(self.objects, held, backtest.backtest_id, best.workflow.digest)
        return conclude(backtest, gate(tests)), tests

    # -- paying -----------------------------------------------------------------------------------

    def left(self, *, reserve: bool = True) -> dict[str, float]:
        """The remaining budget per limit, minus the reserve for the holdout set; infinite where there is no limit."""
        asked = self.ask.paid
        spent = {
            "max_calls": self.paid.calls + asked.calls,
            "max_usd": (self.paid.usd or 0.0) + (asked.usd or 0.0),
            "max_tokens": self.paid.input_tokens + self.paid.output_tokens + asked.input_tokens + asked.output_tokens,
        }
        aside = self.aside if reserve else dict.fromkeys(LIMITS, 0.0)
        return {name: max(self.budget.get(name, float("inf")) - spent[name] - aside[name], 0.0) for name in LIMITS}

    def run_plan(self, plan: Plan) -> Run:
        """The finished run of *plan*, if the remaining budget covers it."""
        left, needed = self.left(), _needs(plan)
        if any(needed[name] > left[name] for name in LIMITS):
            raise _BudgetUsed
        run = self.executor(plan)
        assert run.manifest is not None
        self.paid.add(usage_from(run.manifest["usage"]))
        return run

    def plan(self, workflow: Workflow, tasks: Any, origin: str | None) -> Plan:
        """The plan of a run of *workflow* over some search tasks, borrowing from the run *origin*."""
        return count_borrowed(self.objects, self._plan(workflow, tasks, origin), self.models)

    def _origin(self, tasks: Any) -> str | None:
        """
        The run of the unchanged workflow with the most of these *tasks*, and among equals the newest: its results can be borrowed.

        Chosen once per search and stored, so that the same command finds its own runs again.
        """
        key, wanted = f"searches/{self.search_id}.json", set(tasks["task_id"].to_pylist())
        shared = {run.run_id: len(wanted & set(run.tasks()["task_id"].to_pylist())) for run in runs_of(self.objects, self.workflow)}
        best = max(shared, key=lambda run_id: shared[run_id], default=None)
        origin: SearchOrigin = {"origin": best if best and shared[best] else None}
        self.objects.create(key, seal(origin))
        return read_document(self.objects, key, SearchOrigin)["origin"]

    def _plan(self, workflow: Workflow, tasks: Any, origin: str | None) -> Plan:
        left = {name: value for name, value in self.left(reserve=False).items() if name in self.budget}
        borrowed: JsonObject = {"origin": origin, "borrow": True} if origin else {}
        lineage = Lineage(mode="search", backtest=self.name, allow_writes=False, **borrowed)
        source = f"{tasks.num_rows} tasks of library {self.library}"
        return make_plan(workflow, tasks, self.models, source=source, budget=left, lineage=lineage)

    def _reserve(self, base: Plan, held: Plan) -> None:
        self.aside = {name: 2 * amount for name, amount in _needs(held).items()}
        for name, amount in _needs(base).items():
            needed = amount + self.aside[name]
            if needed > self.budget.get(name, float("inf")):
                raise Unusable(
                    f"the budget {name}={self.budget[name]:g} is too small: the baseline and the holdout set alone may need {needed:,.10g}\n"
                    "  raise it, or use a smaller library"
                )

    def _require(self) -> None:
        unknown = [name for name in self.budget if name not in LIMITS]
        if unknown:
            raise Unusable(f"a search has no limit {unknown[0]!r}\n  its limits are {', '.join(LIMITS)}")
        if not self.budget:
            raise Unusable("a search needs a budget\n  e.g. --budget max_usd=5, max_calls=2000 or max_tokens=1000000")
        if "max_usd" in self.budget and price_of(self.ask.written) is None:
            raise Unusable(f"the model {self.ask.name!r} has no price, so max_usd cannot be enforced\n  add usd_per_million to the models file")
        for node in self.nodes:
            if node not in self.workflow.nodes or self.workflow.nodes[node].call is None:
                asking = [name for name in self.workflow.order if self.workflow.nodes[name].call]
                raise Unusable(f"the workflow {self.workflow.name!r} has no step {node!r} with a prompt\n  steps with a prompt: {', '.join(asking) or 'none'}")


class _Scorer:
    """Scores prompts on search tasks, each task once. The optimiser sees nothing else."""

    def __init__(self, search: Search, tasks: Any, baseline: Run):
        self._search, self._tasks, self._baseline = search, tasks, baseline.run_id
        self.ids: list[str] = tasks["task_id"].to_pylist()
        assert baseline.manifest is not None
        search.paid.add(usage_from(baseline.manifest["usage"]))
        self._learn(search.candidate({}), baseline)

    def __call__(self, prompts: Prompts, tasks: Sequence[str]) -> list[TaskScore]:
        one = self._search.candidate(prompts)
        missing = [task for task in tasks if task not in one.tried]
        if missing:
            self._learn(one, self._search.run_plan(self._search.plan(one.workflow, only(self._tasks, missing), self._baseline)))
        return [one.tried[task] for task in tasks]

    def failing(self) -> tuple[str, ...]:
        """Steps with a prompt that fail on some task, in workflow order."""
        workflow = self._search.workflow
        known = {node for tried in self._search.candidate({}).tried.values() for node in tried.failures}
        return tuple(name for name in workflow.order if name in known and workflow.nodes[name].call)

    def _learn(self, one: Candidate, run: Run) -> None:
        one.runs.append(run.run_id)
        failures: dict[str, dict[str, StepRow]] = {}
        for row in run.steps().to_pylist():
            if row["outcome"] == "failed" or row["passed"] is False:
                failures.setdefault(row["task_id"], {})[row["node"]] = row
        for row in run.outcome(["task_id", "outcome", "score"]).to_pylist():
            # failed and unscored tasks count 0 in the search; the decision is made on the holdout set
            score = 0.0 if row["outcome"] == "failed" else (row["score"] or 0.0) / 100
            one.tried[row["task_id"]] = TaskScore(score, failures.get(row["task_id"], {}))


def gate(tests: int) -> Gate:
    """The gate for a draft on a holdout set on which *tests* other drafts were tested before."""
    limits = (
        # a target of 0: the entire interval must be above it
        Limit(rule="score", kind="up_by", amount=0),
        Limit(rule="compared", kind="at_least", amount=95),
        Limit(rule="regressions", kind="at_most", amount=0, level="warn"),
    )
    return Gate(name="held-out", confidence=100 - 5 / 2**tests, limits=limits)


def prompt(workflow: Workflow, node: str) -> str:
    """The node's prompt, serialized as one text."""
    return as_text(written(turns_of(workflow, node)))


def as_text(turns: Sequence[Mapping[str, str]]) -> str:
    """Serialize turns as one text, because gepa treats a prompt as one text."""
    return json.dumps([dict(turn) for turn in turns], ensure_ascii=False)


def as_turns(text: str) -> list[dict[str, str]]:
    """The inverse of ``as_text``."""
    found: list[dict[str, str]] = json.loads(text)
    return found


def _needs(plan: Plan) -> dict[str, float]:
    """The most that the run of *plan* may use with all auto-reruns; retries after network errors are not counted."""
    needs = dict.fromkeys(LIMITS, 0.0)
    for node in plan.nodes:
        again = plan.workflow.nodes[node.node].auto_rerun
        tries = 1 + (again.max if again else 0)
        needs["max_calls"] += tries * (node.calls + node.judge_calls)
        needs["max_usd"] += tries * (node.usd or 0.0)
        needs["max_tokens"] += tries * (node.input_tokens + node.output_tokens)
    return needs
