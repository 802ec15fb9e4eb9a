"""What a reader must know of costs: where prices come from, what was read from a cache, and what is an estimate."""

from collections.abc import Mapping

from beam_ray.store.runs import Run


def cost_notes(before: Run, after: Run, names: tuple[str, str]) -> tuple[str, ...]:
    """Sentences about two finished runs; none for what no endpoint reported."""
    sides = dict(zip(names, (before, after), strict=True))
    notes = (_prices(sides), _cached(sides), *(_estimated(name, run) for name, run in sides.items()))
    return tuple(note for note in notes if note)


def _prices(sides: Mapping[str, Run]) -> str:
    found: dict[str, dict[str, None]] = {}
    for run in sides.values():
        for model, written in run.record.models.items():
            source = str(written.get("price_source", ""))
            if source:
                found.setdefault(source, {})[model] = None
    listed = [f"{source} ({', '.join(models)})" for source, models in found.items()]
    return f"Prices: {'; '.join(listed)}." if listed else ""


def _cached(sides: Mapping[str, Run]) -> str:
    shares = []
    for name, run in sides.items():
        usage = run.manifest["usage"] if run.manifest else None
        cached = usage.get("cached_tokens") if usage else None
        if usage and cached is not None and usage["input_tokens"]:
            shares.append(f"{name} {cached / usage['input_tokens']:.0%}")
    return f"Input tokens that the runs read from the provider's cache: {', '.join(shares)}." if shares else ""


def _estimated(name: str, run: Run) -> str:
    usage = run.manifest["usage"] if run.manifest else None
    estimated = usage.get("estimated_calls", 0) if usage else 0
    if not usage or not estimated:
        return ""
    return f"{name}: {estimated:,} of {usage['calls']:,} calls reported no usage, so their tokens and cost are estimates."
