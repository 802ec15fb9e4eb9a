"""Budgets: limits on what a run may spend, and the check that it stays within them."""

from collections.abc import Mapping, Sequence

from beam_ray.errors import BudgetReached, Unusable
from beam_ray.llm.prices import Pricing, Tokens
from beam_ray.run.progress import Counts
from beam_ray.store.batches import InputEntry

LIMITS = ("max_usd", "max_tokens", "max_calls", "max_minutes")


def require_known_limits(budget: Mapping[str, float]) -> None:
    """
    Check the names of the limits.

    Raises:
        Unusable: one is not among LIMITS.
    """
    unknown = [name for name in budget if name not in LIMITS]
    if unknown:
        raise Unusable(f"unknown budget limit {unknown[0]!r}\n  the limits are max_usd, max_tokens, max_calls and max_minutes")


def is_free(price: Pricing | None) -> bool:
    """Whether calls of a model with this price are known to cost nothing: a limit of dollars is then never reached, not even one of 0."""
    kinds = (Tokens(1_000, 1_000), Tokens(1_000, 0, cached=1_000), Tokens(1_000, 0, cache_write=1_000))
    tiers = ("", *(name for name, _ in getattr(price, "tiers", ())))
    return price is not None and all(price.cost(each, tier) == 0 for each in kinds for tier in tiers)


def remaining(budget: Mapping[str, float], counts: Counts) -> dict[str, float]:
    """What is left of the money, tokens and calls; minutes are for the driver to count."""
    used = _used(counts)
    return {name: limit - (used[name] or 0) for name, limit in budget.items() if name in used}


def require_within(budget: Mapping[str, float], counts: Counts, seconds: float = 0.0) -> None:
    """
    Check that nothing of the budget is used up.

    Raises:
        BudgetReached: a limit is reached.
    """
    used = {**_used(counts), "max_minutes": seconds / 60}
    for name, limit in budget.items():
        value = used[name]
        if value is not None and value >= limit:
            raise _reached(name, f"the budget is reached: {name}; raise it and run the same command again to resume, all finished results are kept")


def require_room(budget: Mapping[str, float], counts: Counts, inputs: Sequence[InputEntry]) -> None:
    """
    Check that what is left of the budget covers batches, at the most that they can cost.

    Raises:
        BudgetReached: it does not, and none of them is submitted.
    """
    rows = sum(entry["rows"] for entry in inputs)
    prices = [entry["max_usd"] for entry in inputs]
    most = {
        "max_usd": sum(price or 0.0 for price in prices),
        "max_tokens": sum(entry["input_tokens"] + entry["max_output_tokens"] for entry in inputs),
        "max_calls": rows,
    }
    for name, left in remaining(budget, counts).items():
        if most[name] > left:
            needed, there, more = (_shown(name, value) for value in (most[name], max(left, 0.0), most[name] - max(left, 0.0)))
            raise _reached(
                name,
                f"the budget does not cover the next batches: {rows:,} requests may take up to {needed} of {name}, and {there} is left; none was submitted\n"
                f"  raise {name} by {more} and run the same command again to resume, all finished results are kept",
            )


def _reached(name: str, message: str) -> BudgetReached:
    error = BudgetReached(message)
    error.limit = name
    return error


def _shown(name: str, value: float) -> str:
    return f"${value:,.4f}" if name == "max_usd" else f"{value:,.0f}"


def _used(counts: Counts) -> dict[str, float | None]:
    return {"max_usd": counts.usd, "max_tokens": counts.tokens, "max_calls": counts.calls}
