"""
Searching for better prompts over a library, and believing only what was held out.

The search may look as often as it likes at its part of the tasks, and so will always find
something that looks better there. One draft, the best of them, is then compared with the
baseline on the other tasks, once, pair by pair. Every further draft that is tried on the
same held-out tasks is another chance to be lucky. So each is given half the chance of the
one before: however many are tried, luck alone gets one accepted in at most 5 of 100 cases.

All runs are ordinary ones that borrow from the baseline's what the change does not reach,
and all answers are kept: the same command goes on where it was stopped and pays for
nothing twice.
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
from beam_ray.define.fingerprint import digest
from beam_ray.define.workflow import Workflow
from beam_ray.errors import BeamRayError, BudgetReached, Unusable
from beam_ray.improve.drafts import prompts_text
from beam_ray.improve.execute_plan import Player
from beam_ray.improve.executions import runs_of
from beam_ray.improve.gepa_search import Prompts, evolve
from beam_ray.improve.holdout import drafts_before, require_fresh_holdout, split
from beam_ray.improve.model_query import TRIES, Asker
from beam_ray.improve.optimise import propose, read_failure
from beam_ray.improve.prompt_text import turns_of, written
from beam_ray.improve.search_result import Candidate, Found, Tried, best_of, keep, usage_of
from beam_ray.llm.usage import Usage
from beam_ray.rerun import count_borrowed
from beam_ray.run.plan import Lineage, Plan, make_plan, price_of
from beam_ray.run.runner import identity
from beam_ray.store.checksummed_json import seal, unseal
from beam_ray.store.libraries import Library, library_at
from beam_ray.store.objects import Objects
from beam_ray.store.runs import Run
from beam_ray.tasks.sources import only

FEW = 6
"""Search tasks on which a change is tried first."""

LIMITS = ("max_usd", "max_calls", "max_tokens")


class _BudgetUsed(BeamRayError):
    """What the budget leaves for the search is used up."""


@dataclass
class Search:
    """A search that is under way."""

    objects: Objects
    workflow: Workflow
    file: Path
    """Where the workflow is written."""
    library: Library
    models: Mapping[str, Any]
    player: Player
    ask: Asker
    budget: Mapping[str, float]
    version: int | None = None
    """The published version that the workflow is."""
    nodes: tuple[str, ...] = ()
    """Whose prompts may change; all that fail unless given."""
    rounds: int = 20
    few: int = FEW
    seed: int = 0
    say: Callable[[str], None] = lambda line: None

    def __post_init__(self) -> None:
        self.name = f"optimise-{self.workflow.name}"[:64]
        self.paid = Usage()
        self.aside = dict.fromkeys(LIMITS, 0.0)
        """What is set aside for the held-out tasks."""
        self.refused = list[str]()
        self.candidates = dict[str, Candidate]()
        self.proposals = 0
        identities = {name: identity(self.models[name]) for name in self.workflow.models}
        about = [self.workflow.digest, str(self.library), identities, identity(self.ask.written), self.nodes, self.rounds, self.few, self.seed]
        self.search_id = f"{self.name}-search-{digest('search/1', about)[:8]}"
        self._require()

    def run(self) -> Found:
        """
        The result; whatever was done before is not done again.

        Raises:
            Unusable: the budget does not reach, or the library is too small; nothing was spent.
            Stopped: before the end; the same call goes on.
        """
        require_fresh_holdout(self.objects, self.library)
        sides = split(self.objects, self.library)
        base, held = self.plan(self.workflow, sides.search, self._origin(sides.search)), sides.held.num_rows
        self._reserve(base, self._plan(self.workflow, sides.held, None))
        self.say(f"{sides.search.num_rows} tasks to search on, {held} held out")
        # from here until the search is over, no object that it can reach has a held-out row, or the name of one
        self.library = replace(self.library, tasks=sides.search, since={})
        del sides
        tasks = self.library.tasks["task_id"].to_pylist()
        ended = self._search(_Scorer(self, self.library.tasks, self.player(base)))
        scores = [one.mean(tasks) for one in self.candidates.values()]
        best = best_of(list(self.candidates.values()), tasks)
        verdict, tests = self._hold_out(best) if best else (None, 0)
        self.paid.add(self.ask.paid)
        rest = (tuple(self.candidates.values()), tuple(scores), tuple(self.refused), ended, best, verdict, tests, self.paid)
        found = Found(self.search_id, str(self.library), len(tasks), held, *rest)
        keep(self.objects, found)
        return found

    def draft(self, best: Candidate) -> str:
        """The text of the workflow's file with the candidate's prompts."""
        changed = {node: as_turns(text) for node, text in best.prompts.items() if as_turns(text) != as_turns(prompt(self.workflow, node))}
        return prompts_text(self.file, changed, best.workflow)

    # -- searching ----------------------------------------------------------------------------

    def _search(self, scores: "_Scorer") -> str:
        nodes = self.nodes or scores.failing()
        if not nodes:
            return "ended at once: no step with a prompt fails on the search tasks"
        self.say(f"searching over the prompts of {', '.join(nodes)}")
        seed = {node: prompt(self.workflow, node) for node in nodes}
        try:
            evolve(seed, scores.ids, scores, self._propose, rounds=self.rounds, few=self.few, seed=self.seed)
        except (_BudgetUsed, BudgetReached):
            return "ended by the budget: the rest of it is for the held-out tasks"
        return f"ended after {plural(self.rounds, 'round')}"

    def _propose(self, prompts: Prompts, node: str, rows: Sequence[Mapping[str, Any]]) -> str | None:
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
        """What is known of *prompts*."""
        workflow = self.with_prompts(prompts)
        name = "baseline" if workflow.digest == self.workflow.digest else f"candidate-{len(self.candidates)}"
        return self.candidates.setdefault(workflow.digest, Candidate(name, dict(prompts), workflow))

    def with_prompts(self, prompts: Prompts) -> Workflow:
        """The workflow with other prompts."""
        document = self.workflow.document()
        for node, text in prompts.items():
            if as_turns(text) != as_turns(prompt(self.workflow, node)):
                document["nodes"][node]["llm"]["prompt"] = as_turns(text)
        return Workflow.model_validate(document)

    # -- holding out ----------------------------------------------------------------------------

    def _hold_out(self, best: Candidate) -> tuple[dict[str, Any], int]:
        held = split(self.objects, library_at(self.objects, str(self.library))).held
        self.say(f"{best.name} did best; it is compared with the baseline on the {held.num_rows} tasks held out")
        left = {name: value for name, value in self.left(reserve=False).items() if name in self.budget}
        spec = Spec.model_validate({"backtest": self.name, "workflow": self.workflow.name, "tasks": f"library:{self.library}", "budget": left})
        baseline, candidate = Side("baseline", self.workflow, self.version), Side("optimised", best.workflow)
        backtest = Backtest(
            self.objects,
            Resolved(spec, self.file.parent, baseline, (candidate,)),
            held,
            f"library:{self.library}",
            self.models,
            progress=lambda report: self.say(report.message) if report.message else None,
            execute=self.player.execute,
        )
        tests = drafts_before(self.objects, self.library, backtest.backtest_id)
        return conclude(backtest, gate(tests)), tests

    # -- paying -----------------------------------------------------------------------------------

    def left(self, *, reserve: bool = True) -> dict[str, float]:
        """What is left of each limit, without what is set aside for the held-out tasks; without a limit there is no end."""
        asked = self.ask.paid
        spent = {
            "max_calls": self.paid.calls + asked.calls,
            "max_usd": (self.paid.usd or 0.0) + (asked.usd or 0.0),
            "max_tokens": self.paid.input_tokens + self.paid.output_tokens + asked.input_tokens + asked.output_tokens,
        }
        aside = self.aside if reserve else dict.fromkeys(LIMITS, 0.0)
        return {name: max(self.budget.get(name, float("inf")) - spent[name] - aside[name], 0.0) for name in LIMITS}

    def play(self, plan: Plan) -> Run:
        """The finished run of *plan*, if the search can afford it."""
        left, needed = self.left(), _needs(plan)
        if any(needed[name] > left[name] for name in LIMITS):
            raise _BudgetUsed
        run = self.player(plan)
        assert run.manifest is not None
        self.paid.add(usage_of(run.manifest["usage"]))
        return run

    def plan(self, workflow: Workflow, tasks: Any, origin: str | None) -> Plan:
        """The plan of a run of *workflow* over some search tasks, borrowing from the run *origin*."""
        return count_borrowed(self.objects, self._plan(workflow, tasks, origin), self.models)

    def _origin(self, tasks: Any) -> str | None:
        """
        The run of the workflow as it is that has most of the *tasks*, the newest of those: what it has of them is paid for.

        Chosen once for a search: with another one the same command would not find its own runs again.
        """
        key, wanted = f"searches/{self.search_id}.json", set(tasks["task_id"].to_pylist())
        shared = {run.run_id: len(wanted & set(run.tasks()["task_id"].to_pylist())) for run in runs_of(self.objects, self.workflow)}
        best = max(shared, key=lambda run_id: shared[run_id], default=None)
        self.objects.create(key, seal({"origin": best if best and shared[best] else None}))
        found: str | None = unseal(self.objects.read(key), key)["origin"]
        return found

    def _plan(self, workflow: Workflow, tasks: Any, origin: str | None) -> Plan:
        left = {name: value for name, value in self.left(reserve=False).items() if name in self.budget}
        borrowed: dict[str, Any] = {"origin": origin, "borrow": True} if origin else {}
        lineage = Lineage(mode="search", backtest=self.name, allow_writes=False, **borrowed)
        source = f"{tasks.num_rows} tasks of library {self.library}"
        return make_plan(workflow, tasks, self.models, source=source, budget=left, lineage=lineage)

    def _reserve(self, base: Plan, held: Plan) -> None:
        self.aside = {name: 2 * amount for name, amount in _needs(held).items()}
        for name, amount in _needs(base).items():
            needed = amount + self.aside[name]
            if needed > self.budget.get(name, float("inf")):
                raise Unusable(
                    f"the budget of {name}={self.budget[name]:g} does not reach: the baseline and the held-out tasks alone may take {needed:,.10g}\n"
                    "  raise it, or take a smaller library"
                )

    def _require(self) -> None:
        unknown = [name for name in self.budget if name not in LIMITS]
        if unknown:
            raise Unusable(f"the budget of a search has no {unknown[0]!r}\n  it has {', '.join(LIMITS)}")
        if not self.budget:
            raise Unusable("a search wants a budget\n  --budget max_usd=5  or max_calls=2000, or max_tokens=…")
        if "max_usd" in self.budget and price_of(self.ask.written) is None:
            raise Unusable(f"the model {self.ask.name!r} has no price, so max_usd could not hold\n  add usd_per_million to the models file")
        for node in self.nodes:
            if node not in self.workflow.nodes or self.workflow.nodes[node].llm is None:
                asking = [name for name in self.workflow.order if self.workflow.nodes[name].llm]
                raise Unusable(f"the workflow {self.workflow.name!r} has no step {node!r} with a prompt\n  it has: {', '.join(asking) or 'none'}")


class _Scorer:
    """Scores prompts on search tasks, each task once: all that the optimiser can reach."""

    def __init__(self, search: Search, tasks: Any, baseline: Run):
        self._search, self._tasks, self._baseline = search, tasks, baseline.run_id
        self.ids: list[str] = tasks["task_id"].to_pylist()
        assert baseline.manifest is not None
        search.paid.add(usage_of(baseline.manifest["usage"]))
        self._learn(search.candidate({}), baseline)

    def __call__(self, prompts: Prompts, tasks: Sequence[str]) -> list[Tried]:
        one = self._search.candidate(prompts)
        missing = [task for task in tasks if task not in one.tried]
        if missing:
            self._learn(one, self._search.play(self._search.plan(one.workflow, only(self._tasks, missing), self._baseline)))
        return [one.tried[task] for task in tasks]

    def failing(self) -> tuple[str, ...]:
        """The steps with a prompt that fail somewhere, in order."""
        workflow = self._search.workflow
        known = {node for tried in self._search.candidate({}).tried.values() for node in tried.failures}
        return tuple(name for name in workflow.order if name in known and workflow.nodes[name].llm)

    def _learn(self, one: Candidate, run: Run) -> None:
        one.runs.append(run.run_id)
        failures: dict[str, dict[str, Any]] = {}
        for row in run.steps().to_pylist():
            if row["outcome"] == "failed" or row["passed"] is False:
                failures.setdefault(row["task_id"], {})[row["node"]] = row
        for row in run.outcome(["task_id", "outcome", "score"]).to_pylist():
            # what failed or has no score is worth nothing to the search; it decides nothing, the hold-out does
            score = 0.0 if row["outcome"] == "failed" else (row["score"] or 0.0) / 100
            one.tried[row["task_id"]] = Tried(score, failures.get(row["task_id"], {}))


def gate(tests: int) -> Gate:
    """What a draft must show on held-out tasks that were used for *tests* others before."""
    limits = (
        # a target of nothing: all that is asked is that the whole interval lies above it
        Limit(rule="score", kind="up_by", amount=0),
        Limit(rule="compared", kind="at_least", amount=95),
        Limit(rule="regressions", kind="at_most", amount=0, level="warn"),
    )
    return Gate(name="held-out", confidence=100 - 5 / 2**tests, limits=limits)


def prompt(workflow: Workflow, node: str) -> str:
    """The node's prompt as one text."""
    return as_text(written(turns_of(workflow, node)))


def as_text(turns: Sequence[Mapping[str, str]]) -> str:
    """Turns as one text, for an optimiser to which a prompt is one."""
    return json.dumps([dict(turn) for turn in turns], ensure_ascii=False)


def as_turns(text: str) -> list[dict[str, str]]:
    """The turns that ``as_text`` made a text of."""
    found: list[dict[str, str]] = json.loads(text)
    return found


def _needs(plan: Plan) -> dict[str, float]:
    """What the run of *plan* may take with all its auto-reruns; calls that are repeated after a fault are not counted."""
    needs = dict.fromkeys(LIMITS, 0.0)
    for node in plan.nodes:
        again = plan.workflow.nodes[node.node].auto_rerun
        tries = 1 + (again.max if again else 0)
        needs["max_calls"] += tries * (node.calls + node.judge_calls)
        needs["max_usd"] += tries * (node.usd or 0.0)
        needs["max_tokens"] += tries * (node.input_tokens + node.output_tokens)
    return needs
