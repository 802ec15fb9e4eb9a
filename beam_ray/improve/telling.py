"""Telling MLflow of a search: each candidate is a run of one experiment."""

from datetime import datetime

from beam_ray.improve.search import Candidate, Found
from beam_ray.store.objects import Objects
from beam_ray.store.runs import Run
from beam_ray.tracking import BacktestLog, Logged, SideLog, log_backtest


def tell_search(objects: Objects, found: Found, uri: str) -> Logged:
    """
    Show the search in MLflow; telling it again changes nothing.

    Raises:
        TrackingUnavailable: MLflow does not answer; nothing is lost.
    """
    sides = [_side(objects, one, score) for one, score in zip(found.candidates, found.scores, strict=True) if one.runs]
    first = Run(objects, found.candidates[0].runs[0])
    workflow = found.candidates[0].workflow.name
    log = BacktestLog(
        backtest_id=found.search_id,
        name=f"optimise-{workflow}"[:64],
        workflow=workflow,
        sides=tuple(sides),
        note=_note(found),
        verdict=str(found.verdict["word"]) if found.verdict else "none",
        tasks=first.tasks(),
    )
    return log_backtest(uri, log)


def _side(objects: Objects, one: Candidate, score: float | None) -> SideLog:
    # the last run is over the most tasks: a change is tried on a few first
    run = Run(objects, one.runs[-1])
    usage = run.manifest["usage"] if run.manifest else {}
    metrics = {"Overall/score": score} if score is not None else {}
    return SideLog(
        name=one.name,
        role="baseline" if one.name == "baseline" else "candidate",
        record=run.record,
        outcome=run.outcome(),
        steps=run.steps(),
        metrics={**metrics, "Overall/tasks": float(len(one.tried))},
        started_at=datetime.fromisoformat(usage["started_at"]),
        ended_at=datetime.fromisoformat(usage["ended_at"]),
    )


def _note(found: Found) -> str:
    rows = [f"| {one.name} | {'' if score is None else f'{score:.1f}'} | {len(one.tried)} |" for one, score in zip(found.candidates, found.scores, strict=True)]
    return "\n".join(["| prompts | score | tasks |", "|---|--:|--:|", *rows, "", f"Searched on {found.tasks} tasks, {found.held} held out."])
