"""What a backtest's runs have left of its budget."""

from collections.abc import Mapping

from beam_ray.run.summary import committed_counts
from beam_ray.store.checksummed_json import RunMark, read_document
from beam_ray.store.objects import Objects
from beam_ray.store.runs import Run


def budget_left(objects: Objects, backtest_id: str, budget: Mapping[str, float], run_id: str) -> dict[str, float]:
    """The part of the *budget* that runs made for the backtest have not used; what the run *run_id* used is not counted."""
    left = dict(budget)
    if not left:
        return left
    marks = (key for key, _ in objects.keys(f"backtests/{backtest_id}/") if "/sides/" in key)
    # a run may be several sides
    for side in {read_document(objects, key, RunMark)["run_id"] for key in marks}:
        run = Run(objects, side)
        if side != run_id and run.record.backtest == backtest_id:
            spent = _spent(run)
            left = {name: max(limit - spent[name], 0.0) for name, limit in left.items()}
    return left


def _spent(run: Run) -> dict[str, float]:
    if run.manifest:
        usage = run.manifest["usage"]
        tokens, minutes = usage["input_tokens"] + usage["output_tokens"], usage["seconds"] / 60
    else:
        counts = committed_counts(run)
        return {"max_calls": counts.calls, "max_tokens": counts.tokens, "max_usd": counts.usd or 0.0, "max_minutes": 0.0}
    return {"max_calls": usage["calls"], "max_tokens": tokens, "max_usd": usage["usd"] or 0.0, "max_minutes": minutes}
