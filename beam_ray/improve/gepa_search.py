"""
Prompt search with gepa; the only importer of gepa.

gepa decides which prompt to change, on which minibatch to test the change, and which candidate
to continue from. All model calls are ours: gepa gets a function that scores prompts on tasks, a
function that proposes a prompt, and the search tasks. It gets nothing of the holdout set, not
even task ids.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypedDict

import gepa
from gepa.core.adapter import EvaluationBatch

from beam_ray.improve.search_result import TaskScore
from beam_ray.store.tables import StepRow

Prompts = Mapping[str, str]
"""Node to its prompt, serialized as one text."""


Score = Callable[[Prompts, Sequence[str]], Sequence[TaskScore]]
Propose = Callable[[Prompts, str, Sequence[StepRow]], str | None]
"""Proposes a new prompt for a node from its failures; returns None when no proposal is usable."""


class _Silent:
    def log(self, message: str) -> None:
        """Ignore gepa's log; our progress is in the store."""


class Reflection(TypedDict):
    """What is shown of a failed step to whoever proposes another prompt."""

    failure: StepRow


class _Adapter:
    """A workflow as gepa sees it."""

    def __init__(self, score: Score, propose: Propose):
        self._score, self._propose = score, propose
        self.stopped: Exception | None = None

    def evaluate(self, batch: list[str], candidate: dict[str, str], capture_traces: bool = False) -> EvaluationBatch[TaskScore, None]:
        tried = list(self._score(candidate, batch))
        return EvaluationBatch(outputs=[None] * len(batch), scores=[one.score for one in tried], trajectories=tried if capture_traces else None)

    def make_reflective_dataset(
        self, candidate: dict[str, str], eval_batch: EvaluationBatch[TaskScore, None], components_to_update: list[str]
    ) -> Mapping[str, Sequence[Reflection]]:
        tried = eval_batch.trajectories or []
        return {node: [{"failure": one.failures[node]} for one in tried if node in one.failures] for node in components_to_update}

    def propose_new_texts(
        self, candidate: dict[str, str], reflective_dataset: Mapping[str, Sequence[Reflection]], components_to_update: list[str]
    ) -> dict[str, str]:
        found: dict[str, str] = {}
        for node in components_to_update:
            failures = [entry["failure"] for entry in reflective_dataset.get(node, ())]
            if self.stopped is None and failures:
                try:
                    text = self._propose(candidate, node, failures)
                except Exception as error:  # gepa would swallow the exception and ask again
                    self.stopped = error
                    continue
                found |= {node: text} if text is not None else {}
        return found


def evolve(prompts: Prompts, tasks: Sequence[str], score: Score, propose: Propose, *, rounds: int, few: int, seed: int) -> None:
    """
    Search from *prompts*. Each of at most *rounds* rounds changes one prompt, tests it on *few* tasks, and on all tasks if it did better there.

    The results are those that *score* has seen.

    Raises:
        Exception: Whatever *score* and *propose* raise.
    """
    adapter = _Adapter(score, propose)
    gepa.optimize(
        seed_candidate=dict(prompts),
        trainset=list(tasks),
        valset=list(tasks),
        adapter=adapter,  # type: ignore[arg-type]  # a protocol that wants attributes which a class may leave out
        reflection_minibatch_size=min(few, len(tasks)),
        # a score of 1 may be rounded
        perfect_score=1.0 - 1e-9,
        stop_callbacks=lambda state: state.i + 1 >= rounds or adapter.stopped is not None,
        logger=_Silent(),
        seed=seed,
        raise_on_exception=True,
    )
    if adapter.stopped is not None:
        raise adapter.stopped
