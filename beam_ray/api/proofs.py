"""Proofs: what is known of which node made tasks of a backtest flip, and what finding out would cost."""

from dataclasses import dataclass
from functools import cached_property
from typing import TypedDict

from beam_ray.address import Address
from beam_ray.api.display import Display, Displayed
from beam_ray.api.plans import Plan, PlanDocument
from beam_ray.compare.flips import NEWLY_FAILING
from beam_ray.compare.statistics import mcnemar

RESULTS = {NEWLY_FAILING: ("recovers", "does not recover")}
"""Words for a task that has the baseline's result with the baseline's output, and for one that has not."""
OTHER_RESULTS = ("fails again", "still passes")
NOT_PINNED, NOT_TRIED = "cannot be pinned", "not tried"


@dataclass(frozen=True)
class FlippedTasks:
    """Which flipped tasks of a backtest a proof is about."""

    candidate: str | None = None
    """A candidate's name; None for the best one."""
    group: str = NEWLY_FAILING
    """newly failing, newly passing, or the id of a flip group."""
    node: str | None = None
    """Only tasks whose sides part first at this node."""
    tasks: tuple[str, ...] = ()
    """Only these tasks."""


class ProofTaskDocument(TypedDict):
    """A task of a proof as ``--json`` prints it."""

    task: str
    node: str | None
    result: str
    why: str
    executed: int
    address: str | None
    control: str | None


class ProofNodeDocument(TypedDict):
    """What a proof says of one node, as ``--json`` prints it."""

    node: str
    tried: int
    recovered: int
    by_records: int
    controls: int
    controls_passed: int
    p: float | None


class ProofDocument(TypedDict):
    """A proof as ``--json`` prints it."""

    backtest_id: str
    candidate: str
    group: str
    tried: int
    recovered: int
    sentences: list[str]
    repeats: int
    repeats_passed: int
    nodes: list[ProofNodeDocument]
    tasks: list[ProofTaskDocument]


@dataclass(frozen=True)
class ProofTask:
    """A flipped task, and what became of it with the baseline's output pinned."""

    task: str
    node: str | None
    """Where the output is pinned: the first node whose output differs; None where none does."""
    result: str
    """recovers or does not recover; of a newly passing task fails again or still passes; cannot be pinned; not tried."""
    why: str = ""
    """Why it cannot be pinned."""
    executed: int = 0
    """Steps that were executed after the pinned one; without any, the result follows from recorded results alone."""
    address: Address | None = None
    """The task in the run of the experiment."""
    control: bool | None = None
    """Whether it passes with the candidate's own output pinned there; None where that was not tried."""

    @property
    def recovered(self) -> bool:
        """Whether it has the baseline's result."""
        return self.result in ("recovers", "fails again")

    @property
    def tried(self) -> bool:
        """Whether the experiment was made."""
        return self.address is not None

    def document(self) -> ProofTaskDocument:
        """The task as a JSON document."""
        control = None if self.control is None else "passes" if self.control else "fails"
        return {
            "task": self.task,
            "node": self.node,
            "result": self.result,
            "why": self.why,
            "executed": self.executed,
            "address": str(self.address) if self.address else None,
            "control": control,
        }


@dataclass(frozen=True, repr=False)
class Proof(Displayed):
    """What is known of the question which node made tasks flip, from every experiment so far."""

    backtest: str
    candidate: str
    group: str
    flip: str
    """newly failing or newly passing: what the tasks of the group are."""
    tasks: tuple[ProofTask, ...]
    repeats: int = 0
    """Unpinned repeats of the tried tasks on the candidate, made by the backtest's ``confirm``."""
    repeats_passed: int = 0
    """How many of them pass."""

    @property
    def tried(self) -> int:
        """Tasks with an experiment."""
        return sum(each.tried for each in self.tasks)

    @property
    def recovered(self) -> int:
        """Those of them that have the baseline's result."""
        return sum(each.recovered for each in self.tasks)

    @cached_property
    def nodes(self) -> tuple[ProofNodeDocument, ...]:
        """The experiments by node, the one with most of them first."""
        found = []
        for node in dict.fromkeys(each.node for each in self.tasks if each.tried and each.node):
            mine = [each for each in self.tasks if each.tried and each.node == node]
            both = [each for each in mine if each.control is not None]
            # of a newly failing task the control passes by chance; of a newly passing one it fails by chance
            by_chance = [each.control == (self.flip == NEWLY_FAILING) for each in both]
            only_pinned = sum(each.recovered and not chance for each, chance in zip(both, by_chance, strict=True))
            only_control = sum(chance and not each.recovered for each, chance in zip(both, by_chance, strict=True))
            found.append(
                ProofNodeDocument(
                    node=str(node),
                    tried=len(mine),
                    recovered=sum(each.recovered for each in mine),
                    by_records=sum(not each.executed for each in mine),
                    controls=len(both),
                    controls_passed=sum(bool(each.control) for each in both),
                    p=mcnemar(only_pinned, only_control) if both else None,
                )
            )
        return tuple(sorted(found, key=lambda each: -each["tried"]))

    @property
    def sentences(self) -> tuple[str, ...]:
        """What it shows, and how much of it may be chance."""
        if not self.tried:
            left = sum(each.result == NOT_TRIED for each in self.tasks)
            return (f"Nothing was tried yet: {left} of {len(self.tasks)} tasks can be pinned.",)
        word = "recover" if self.flip == NEWLY_FAILING else "fail again"
        said = []
        for each in self.nodes:
            said.append(f"{each['recovered']} of {each['tried']} {word} with the baseline's output at {each['node']!r}.")
            if each["by_records"]:
                said.append(f"After {each['by_records']} of them no step was executed: their result follows from recorded results.")
            if each["controls"]:
                said.append(
                    f"Control, with the candidate's own output pinned there: {each['controls_passed']} of {each['controls']} pass"
                    f" (McNemar's exact test against it: p = {each['p']:.2g})."
                )
        if self.repeats:
            said.append(f"Chance: without a pin, {self.repeats_passed} of {self.repeats} repeats of these tasks on the candidate pass.")
        if not self.repeats and not all(each["controls"] for each in self.nodes):
            said.append("Chance: how many would do so without the pin was not measured; a control measures it.")
        if barred := sum(each.result == NOT_PINNED for each in self.tasks):
            said.append(f"{barred} of {len(self.tasks)} tasks cannot be pinned.")
        return tuple(said)

    def display(self) -> Display:
        facts = (("candidate", self.candidate), ("group", self.group), ("tried", self.tried), ("recovered", self.recovered))
        return Display(self.backtest, facts, ("task", "pinned at", "result", ""), [(each.task, each.node, each.result, each.why) for each in self.tasks])

    def document(self) -> ProofDocument:
        """The proof as a JSON document."""
        return {
            "backtest_id": self.backtest,
            "candidate": self.candidate,
            "group": self.group,
            "tried": self.tried,
            "recovered": self.recovered,
            "sentences": list(self.sentences),
            "repeats": self.repeats,
            "repeats_passed": self.repeats_passed,
            "nodes": list(self.nodes),
            "tasks": [each.document() for each in self.tasks],
        }


class ExperimentDocument(PlanDocument):
    """One run of a proof's plan as ``--json`` prints it."""

    node: str
    arm: str


class ProofPlanDocument(TypedDict):
    """A proof's plan as ``--json`` prints it."""

    backtest_id: str
    candidate: str
    tasks: int
    known: int
    cannot_be_pinned: list[dict[str, str]]
    calls: int
    max_usd: float | None
    runs: list[ExperimentDocument]


@dataclass(frozen=True)
class Experiment:
    """One run of a proof: some tasks with the output of one node pinned."""

    node: str
    arm: str
    """pinned: with the baseline's output; control: with the candidate's own."""
    plan: Plan


@dataclass(frozen=True, repr=False)
class ProofPlan(Displayed):
    """What a proof would do and cost. No model was called for it."""

    backtest: str
    candidate: str
    tasks: int
    """Tasks that it is about."""
    known: int
    """Those of them that were tried before: they are not run again."""
    barred: tuple[tuple[str, str], ...]
    """Tasks that cannot be pinned, each with why."""
    experiments: tuple[Experiment, ...]

    @property
    def calls(self) -> int:
        """Model calls at most, judges included, without auto-reruns and retries."""
        return sum(each.plan.calls for each in self.experiments)

    @property
    def max_usd(self) -> float | None:
        """US dollars at most, without auto-reruns; None when a model has no price."""
        prices = [each.plan.max_usd for each in self.experiments]
        known = [price for price in prices if price is not None]
        return sum(known) if len(known) == len(prices) else None

    def display(self) -> Display:
        rows = [(each.node, each.arm, each.plan.tasks.num_rows, each.plan.calls, each.plan.max_usd) for each in self.experiments]
        facts = (("candidate", self.candidate), ("tasks", self.tasks), ("known", self.known), ("cannot be pinned", len(self.barred)))
        return Display(self.backtest, facts, ("node", "", "tasks", "model calls", "at most $"), rows)

    def document(self) -> ProofPlanDocument:
        """The plan as a JSON document."""
        return {
            "backtest_id": self.backtest,
            "candidate": self.candidate,
            "tasks": self.tasks,
            "known": self.known,
            "cannot_be_pinned": [{"task": task, "why": why} for task, why in self.barred],
            "calls": self.calls,
            "max_usd": self.max_usd,
            "runs": [{"node": each.node, "arm": each.arm, **each.plan.document()} for each in self.experiments],
        }
