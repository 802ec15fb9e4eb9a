"""Components of the variance of a node's score, from runs that judged the same outputs again."""

from collections.abc import Sequence

from beam_ray.review.variance import VarianceComponents, components
from beam_ray.run.context import RAN
from beam_ray.store.runs import Run


def node_variance(node: str, runs: Sequence[Run]) -> VarianceComponents | None:
    """Where the scatter of the node's scores comes from, over *runs* that judged the same outputs; None where fewer than two outputs or repeats can tell."""
    scores: dict[str, dict[int, list[float]]] = {}
    spent: list[tuple[float | None, float | None]] = []
    for number, run in enumerate(runs):
        for row in run.steps([node]).to_pylist():
            if row["outcome"] in RAN and row["score"] is not None:
                scores.setdefault(row["task_id"], {}).setdefault(row["trial"], []).append(row["score"])
                spent += [(row["work_usd"], row["judge_usd"])] if number and row["judge_calls"] else []
    trials = runs[0].record.trials
    whole = [list(task.values()) for task in scores.values() if len(task) == trials and all(len(found) == len(runs) for found in task.values())]
    if len(whole) < 2 or (trials < 2 and len(runs) < 2):
        return None
    judging = [judge for _, judge in spent if judge is not None]
    working = [work - judge for work, judge in spent if work is not None and judge is not None]
    costs = [sum(found) / len(found) if found else None for found in (working, judging)]
    return components(node, whole, usd_output=costs[0], usd_judgement=costs[1])
