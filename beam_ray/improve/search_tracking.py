"""Log a search to MLflow: every candidate is a run of one experiment, and so is each side of its holdout backtest."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from beam_ray.backtest.conclude import log_verdict, metrics_of, times_of
from beam_ray.backtest.results import read_verdict
from beam_ray.compare.comparison import compare
from beam_ray.compare.pairs import Side
from beam_ray.improve.search_result import CandidateDocument, SearchDocument
from beam_ray.store.objects import Objects
from beam_ray.store.runs import Run
from beam_ray.tracking import BacktestLog, Logged, SideLog, log_backtest


def log_search(objects: Objects, search: SearchDocument, uri: str, **how: Any) -> Logged:
    """
    Log *search*, the document of a search result, to MLflow. Logging again changes nothing.

    Raises:
        TrackingUnavailable: MLflow does not answer; no result is lost.
    """
    runs = {entry["name"]: [Run(objects, run_id) for run_id in entry["run_ids"]] for entry in search["candidates"]}
    baseline = _rows("baseline", runs["baseline"])
    log = BacktestLog(
        backtest_id=search["search_id"],
        name=f"optimise-{search['workflow']}"[:64],
        workflow=search["workflow"],
        sides=tuple(_side(entry, runs[entry["name"]], baseline, search["library"]) for entry in search["candidates"] if entry["run_ids"]),
        note=_note(search),
        verdict=search["verdict"] or "no draft",
        tasks=runs["baseline"][0].tasks(),
    )
    logged = log_backtest(uri, log, **how)
    if search["backtest_id"]:
        log_verdict(objects, read_verdict(objects, search["backtest_id"]), uri, **how)
    return logged


def _side(entry: CandidateDocument, runs: Sequence[Run], baseline: Side, library: str) -> SideLog:
    rows, first = _rows(entry["name"], runs), entry["name"] == baseline.name
    metrics = {"Overall/tasks": float(entry["tasks"])}
    # a dropped candidate has results for few tasks only, which are not comparable with the others
    if entry["score"] is not None:
        found = compare(baseline, rows, order=runs[0].record.plan.order)
        metrics |= {"Overall/search score": entry["score"], **metrics_of(found.document(), "before" if first else "after")}
    started_at, ended_at = times_of(runs)
    return SideLog(
        name=entry["name"],
        role="baseline" if first else "candidate",
        record=runs[-1].record.model_copy(update={"tasks": entry["tasks"], "source": f"library:{library}"}),
        outcome=rows.outcome,
        steps=rows.steps,
        metrics=metrics,
        started_at=started_at,
        ended_at=ended_at,
    )


def _rows(name: str, runs: Sequence[Run]) -> Side:
    """Several runs over different tasks, combined to one side."""
    return Side(name, runs[-1].run_id, pa.concat_tables([run.outcome() for run in runs]), pa.concat_tables([run.steps() for run in runs]))


def _note(search: SearchDocument) -> str:
    counts = search["tasks"]
    rows = [f"| {entry['name']} | {_score(entry['score'])} | {entry['tasks']} |" for entry in search["candidates"]]
    return "\n".join(["| prompts | score | tasks |", "|---|--:|--:|", *rows, "", f"Searched on {counts['search']} tasks; {counts['held_out']} held out."])


def _score(score: float | None) -> str:
    return "" if score is None else f"{score:.1f}"
