"""What asking a model for a better prompt costs, before it is asked."""

from dataclasses import dataclass
from typing import TypedDict

from beam_ray.api.display import Display, Displayed
from beam_ray.api.location import Location
from beam_ray.api.optimise import proposer_name, step_address
from beam_ray.improve.model_query import MAX_TOKENS, TRIES, CachedModel
from beam_ray.improve.optimise import failure_of, question_of
from beam_ray.llm.prices import Tokens
from beam_ray.run.plan import price_of
from beam_ray.run.prompt_size import CHARACTERS_PER_TOKEN
from beam_ray.store.runs import Run as StoredRun


class OptimisePlanDocument(TypedDict):
    """What asking for a better prompt costs, as ``--json`` prints it."""

    step: str
    model: str
    kept: bool
    calls: int
    max_calls: int
    input_tokens: int
    max_output_tokens: int
    max_usd: float | None


@dataclass(frozen=True, repr=False)
class OptimisePlan(Displayed):
    """What asking a model for a better prompt of a failed step costs. No model was called for it."""

    step: str
    """Address of the step."""
    model: str
    """The proposing model."""
    kept: bool
    """Whether its answer is stored already, so that asking costs nothing."""
    calls: int
    """Calls that are made in any case."""
    max_calls: int
    """Calls at most: an answer that cannot be used is asked for once more."""
    input_tokens: int
    """Estimated, of the first call."""
    max_output_tokens: int
    """Of each call."""
    max_usd: float | None
    """US dollars at most; None when the model has no price."""

    def display(self) -> Display:
        cost = "unpriced" if self.max_usd is None else f"${self.max_usd:,.4f} at most"
        facts = (("model", self.model), ("stored already", self.kept), ("model calls", f"{self.calls} to {self.max_calls}"), ("cost", cost))
        return Display(self.step, facts)

    def document(self) -> OptimisePlanDocument:
        """The plan as a JSON document."""
        return {
            "step": self.step,
            "model": self.model,
            "kept": self.kept,
            "calls": self.calls,
            "max_calls": self.max_calls,
            "input_tokens": self.input_tokens,
            "max_output_tokens": self.max_output_tokens,
            "max_usd": self.max_usd,
        }


def plan_optimise(store: Location, task: str, node: str, *, model: str | None = None, again: bool = False) -> OptimisePlan:
    """See ``Store.plan_optimise``."""
    objects = store.existing()
    address = step_address(objects, task, node)
    failure, workflow = failure_of(objects, address), StoredRun(objects, address.run).record.plan
    proposer = proposer_name(store, model, workflow, node)
    written = store.known_models[proposer]
    question = question_of(workflow, node, [failure])
    if CachedModel(objects, proposer, written, again=again).is_kept(question):
        return OptimisePlan(str(address), proposer, True, 0, 0, 0, 0, 0.0)
    shown = sum(len(str(message["content"])) for message in question.messages("0" * 12)) // CHARACTERS_PER_TOKEN
    price = price_of(written)
    # the second call brings the first one's answer along
    costs = [price.cost(Tokens(shown + MAX_TOKENS * number, MAX_TOKENS)) for number in range(TRIES)] if price else [None]
    usd = None if None in costs else sum(cost for cost in costs if cost is not None)
    return OptimisePlan(str(address), proposer, False, 1, TRIES, shown, MAX_TOKENS, usd)
