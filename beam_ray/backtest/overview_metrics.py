"""What MLflow shows of a side among several candidates."""

from beam_ray.compare.verdict_json import BacktestDocument


def overview_metrics(verdict: BacktestDocument, name: str) -> dict[str, float]:
    """
    The gains of the side *name* as found and shrunk, and 1 or 0 for whether it is on the fronts of score against cost and time.

    Nothing for a backtest of a single candidate.
    """
    found = verdict.get("overview")
    metrics: dict[str, float] = {}
    if not found:
        return metrics
    for gain in found["gains"]:
        if gain["name"] == name:
            metrics[f"Candidates/{gain['metric']}_gain"] = gain["found"]
            metrics[f"Candidates/{gain['metric']}_gain_shrunk"] = gain["shrunk"]
    for front in found["fronts"]:
        for point in front["points"]:
            if point["name"] == name:
                metrics[f"Candidates/on_front_{front['score']}_{front['cost']}"] = float(point["dominated_by"] is None)
    return metrics
