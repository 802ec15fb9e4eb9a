"""
What came of a search, and where it is kept.

    searches/<search>.json              the run that its baseline borrows from
    searches/<search>/<progress>.json   the result of a search that had come so far

The same search with a larger budget comes further; the result that came furthest counts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from beam_ray.define.workflow import Workflow
from beam_ray.errors import Unusable
from beam_ray.llm.usage import Usage
from beam_ray.store.checksummed_json import seal, unseal
from beam_ray.store.objects import Objects

COUNTED = ("calls", "input_tokens", "output_tokens", "usd")
"""What is told of a cost."""


def usage_of(paid: Mapping[str, Any]) -> Usage:
    """A cost as the store tells it."""
    return Usage(**{name: paid[name] for name in COUNTED})


@dataclass(frozen=True)
class Tried:
    """How prompts fared on one task."""

    score: float
    """0 to 1."""
    failures: Mapping[str, Any]
    """Node to what went wrong there."""


@dataclass
class Candidate:
    """Prompts that were tried."""

    name: str
    prompts: dict[str, str]
    workflow: Workflow
    tried: dict[str, Tried] = field(default_factory=dict)
    """By task."""
    runs: list[str] = field(default_factory=list)
    """Each over tasks of its own."""

    def mean(self, tasks: Sequence[str]) -> float | None:
        """The mean score over *tasks*, 0 to 100; none while it was not tried on all of them."""
        return 100 * sum(self.tried[task].score for task in tasks) / len(tasks) if all(task in self.tried for task in tasks) else None


def best_of(candidates: Sequence[Candidate], tasks: Sequence[str]) -> Candidate | None:
    """The one of highest mean score over *tasks*, if that is above the first one's, which is the baseline."""
    known = [(score, one) for one in candidates if (score := one.mean(tasks)) is not None]
    best = max(known, key=lambda entry: entry[0])  # of equals the first
    return best[1] if best[1] is not candidates[0] else None


@dataclass(frozen=True)
class Found:
    """What came of a search. ``document()`` is plain JSON."""

    search_id: str
    library: str
    tasks: int
    held: int
    candidates: tuple[Candidate, ...]
    """The baseline first, the others as they were proposed."""
    scores: tuple[float | None, ...]
    """Of the candidates, over all search tasks; none for one that was dropped before."""
    refused: tuple[str, ...]
    """Why proposals could not be used."""
    ended: str
    """Why no more proposals were made."""
    best: Candidate | None
    verdict: Mapping[str, Any] | None
    """Of the backtest on the held-out tasks; none when nothing looked better."""
    tests: int
    """Drafts that were tried on the same held-out tasks before."""
    paid: Usage
    """All that the search and its proposals took, the hold-out left out."""

    @property
    def accepted(self) -> bool:
        """Whether the held-out tasks speak for the best candidate."""
        return self.verdict is not None and self.verdict["word"] in ("PASS", "WARN")

    @property
    def paid_held_out(self) -> Usage:
        """What the backtest on the held-out tasks took."""
        total = Usage()
        for side in [self.verdict["baseline"], *self.verdict["candidates"]] if self.verdict else []:
            total.add(usage_of(side["paid"]))
        return total

    def document(self) -> dict[str, Any]:
        """Everything as plain JSON."""
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
            "paid": {name: getattr(self.paid, name) for name in COUNTED},
            "paid_held_out": {name: getattr(self.paid_held_out, name) for name in COUNTED},
        }


def keep(objects: Objects, found: Found) -> None:
    """Keep the result; one that came further is kept beside it."""
    progress = len(found.refused) + sum(len(one.tried) for one in found.candidates)
    objects.create(f"searches/{found.search_id}/{progress:06d}.json", seal(found.document()))


def read_search(objects: Objects, search_id: str) -> dict[str, Any]:
    """
    The document of the search, as far as it came.

    Raises:
        Unusable: there is none of that id.
    """
    keys = sorted(key for key, _ in objects.keys(f"searches/{search_id}/"))
    if not keys:
        raise Unusable(f"there is no search {search_id!r}\n  there are: {', '.join(objects.folders('searches')[-5:]) or 'none'}")
    return unseal(objects.read(keys[-1]), keys[-1])
