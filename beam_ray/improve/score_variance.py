"""Components of the variance of a node's score, from runs that judged the same outputs again."""

from collections import Counter
from collections.abc import Sequence

from beam_ray.review.variance import VarianceComponents, components
from beam_ray.run.context import RAN
from beam_ray.store.runs import Run


def node_variance(node: str, origin: Run, runs: Sequence[Run]) -> VarianceComponents | None:
    """
    Where the scatter of the node's scores comes from; None where too few outputs, trials or judgements can tell.

    Args:
        origin: the run whose outputs were judged again: of its passed and failed outputs maybe not equally many.
        runs: judged the same outputs, once each.
    """
    scores: dict[str, dict[int, list[float]]] = {}
    spent: list[tuple[float | None, float | None]] = []
    for number, run in enumerate(runs):
        for row in run.steps([node]).to_pylist():
            if row["outcome"] in RAN and row["score"] is not None:
                scores.setdefault(row["task_id"], {}).setdefault(row["trial"], []).append(row["score"])
                spent += [(row["work_usd"], row["judge_usd"])] if number and row["judge_calls"] else []
    trials = runs[0].record.trials
    whole = {task: list(found.values()) for task, found in scores.items() if len(found) == trials and all(len(each) == len(runs) for each in found.values())}
    if len(whole) < 2 or (trials < 2 and len(runs) < 2):
        return None
    judging = [judge for _, judge in spent if judge is not None]
    working = [work - judge for work, judge in spent if work is not None and judge is not None]
    costs = [sum(found) / len(found) if found else None for found in (working, judging)]
    columns = ["task_id", "trial", "outcome", "passed"]
    passed = {row["task_id"]: row["passed"] is not False for row in origin.steps([node], columns).to_pylist() if row["trial"] == 1 and row["outcome"] in RAN}
    # outputs are chosen half passed and half failed; each stands for those of its kind
    all_of, chosen = Counter(passed.values()), Counter(passed[task] for task in whole)
    weights = [all_of[passed[task]] / chosen[passed[task]] for task in whole]
    return components(node, list(whole.values()), weights=weights, tasks=len(passed), usd_output=costs[0], usd_judgement=costs[1])
