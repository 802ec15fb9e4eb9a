"""
The result of a search, and its files in the store.

    searches/<search>.json              the run that the baseline borrows from
    searches/<search>/<progress>.json   the result at this progress

The same search with a larger budget gets further; the result with the most progress counts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

from beam_ray.compare.verdict_json import BacktestDocument
from beam_ray.define.workflow import Workflow
from beam_ray.errors import Unusable
from beam_ray.llm.usage import Usage
from beam_ray.store.checksummed_json import read_document, seal
from beam_ray.store.objects import Objects
from beam_ray.store.tables import StepRow


class CostDocument(TypedDict):
    """A cost as JSON."""

    calls: int
    input_tokens: int
    output_tokens: int
    usd: float | None


class SearchOrigin(TypedDict):
    """The content of searches/<search>.json."""

    origin: str | None
    """The run that the baseline borrows from."""


class SearchTasks(TypedDict):
    """How many tasks a search had."""

    search: int
    held_out: int


class CandidateDocument(TypedDict):
    """A candidate of a search as JSON."""

    name: str
    score: float | None
    tasks: int
    """How many tasks it was evaluated on."""
    prompts: dict[str, str]
    run_ids: list[str]


class SearchDocument(TypedDict):
    """The content of searches/<search>/<progress>.json."""

    search_id: str
    workflow: str
    library: str
    tasks: SearchTasks
    candidates: list[CandidateDocument]
    refused: list[str]
    ended: str
    best: str | None
    accepted: bool
    drafts_before: int
    backtest_id: str | None
    verdict: str | None
    paid: CostDocument
    paid_held_out: CostDocument


def usage_from(paid: CostDocument) -> Usage:
    """A stored cost as a value."""
    return Usage(calls=paid["calls"], input_tokens=paid["input_tokens"], output_tokens=paid["output_tokens"], usd=paid["usd"])


def _cost(paid: Usage) -> CostDocument:
    return {"calls": paid.calls, "input_tokens": paid.input_tokens, "output_tokens": paid.output_tokens, "usd": paid.usd}


@dataclass(frozen=True)
class TaskScore:
    """The score of prompts on one task."""

    score: float
    """0 to 1."""
    failures: Mapping[str, StepRow]
    """Node to its failed step's row."""


@dataclass
class Candidate:
    """Prompts that were evaluated."""

    name: str
    prompts: dict[str, str]
    workflow: Workflow
    tried: dict[str, TaskScore] = field(default_factory=dict)
    """By task."""
    runs: list[str] = field(default_factory=list)
    """Ids of its runs, over different tasks."""

    def mean(self, tasks: Sequence[str]) -> float | None:
        """The mean score over *tasks*, 0 to 100; None unless evaluated on all of them."""
        return 100 * sum(self.tried[task].score for task in tasks) / len(tasks) if all(task in self.tried for task in tasks) else None


def best_of(candidates: Sequence[Candidate], tasks: Sequence[str]) -> Candidate | None:
    """The candidate with the highest mean score over *tasks*; None if that is the baseline, which comes first."""
    known = [(score, one) for one in candidates if (score := one.mean(tasks)) is not None]
    best = max(known, key=lambda entry: entry[0])  # the first of equals
    return best[1] if best[1] is not candidates[0] else None


@dataclass(frozen=True)
class SearchResult:
    """The result of a search. ``document()`` gives the JSON document."""

    search_id: str
    library: str
    tasks: int
    held: int
    candidates: tuple[Candidate, ...]
    """The baseline first, the others in the order of their proposal."""
    scores: tuple[float | None, ...]
    """Mean score per candidate over all search tasks; None for a candidate that was dropped before."""
    refused: tuple[str, ...]
    """Why proposals were not usable."""
    ended: str
    """Why the search stopped."""
    best: Candidate | None
    verdict: BacktestDocument | None
    """Verdict of the backtest on the holdout set; None when no candidate was better."""
    tests: int
    """Number of drafts tested on the same holdout set before."""
    paid: Usage
    """Cost of the search and its proposals, without the holdout backtest."""

    @property
    def accepted(self) -> bool:
        """Whether the holdout set confirms the best candidate."""
        return self.verdict is not None and self.verdict["word"] in ("PASS", "WARN")

    @property
    def paid_held_out(self) -> Usage:
        """Cost of the backtest on the holdout set."""
        total = Usage()
        for side in [self.verdict["baseline"], *self.verdict["candidates"]] if self.verdict else []:
            total.add(usage_from(side["paid"]))
        return total

    def document(self) -> SearchDocument:
        """The result as a JSON document."""
        return {
            "search_id": self.search_id,
            "workflow": self.candidates[0].workflow.name,
            "library": self.library,
            "tasks": {"search": self.tasks, "held_out": self.held},
            "candidates": [
                {"name": one.name, "score": score, "tasks": len(one.tried), "prompts": one.prompts, "run_ids": one.runs}
                for one, score in zip(self.candidates, self.scores, strict=True)
            ],
            "refused": list(self.refused),
            "ended": self.ended,
            "best": self.best.name if self.best else None,
            "accepted": self.accepted,
            "drafts_before": self.tests,
            "backtest_id": self.verdict["backtest_id"] if self.verdict else None,
            "verdict": self.verdict["word"] if self.verdict else None,
            "paid": _cost(self.paid),
            "paid_held_out": _cost(self.paid_held_out),
        }


def save_search(objects: Objects, found: SearchResult) -> None:
    """Store the result, under its progress."""
    progress = len(found.refused) + sum(len(one.tried) for one in found.candidates)
    objects.create(f"searches/{found.search_id}/{progress:06d}.json", seal(found.document()))


def read_search(objects: Objects, search_id: str) -> SearchDocument:
    """
    The stored result of the search with the most progress.

    Raises:
        Unusable: There is no search of that id.
    """
    keys = sorted(key for key, _ in objects.keys(f"searches/{search_id}/"))
    if not keys:
        raise Unusable(f"there is no search {search_id!r}\n  newest searches: {', '.join(objects.folders('searches')[-5:]) or 'none'}")
    return read_document(objects, keys[-1], SearchDocument)
