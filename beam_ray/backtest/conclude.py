"""From finished sides to a verdict: comparison, reports, and what MLflow is told."""

import contextlib
import dataclasses
import functools
import hashlib
import io
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

import pyarrow.parquet as pq

from beam_ray.backtest.confirm import confirm, repeated_names
from beam_ray.backtest.early_stopping import run_interim_analyses
from beam_ray.backtest.manifest import ComparedRuns, make_manifest
from beam_ray.backtest.overview_metrics import overview_metrics
from beam_ray.backtest.rescored_baseline import rescored_name
from beam_ray.backtest.results import read_verdict
from beam_ray.backtest.sides import Backtest
from beam_ray.backtest.spec import RECORDED, Resolved, Side
from beam_ray.backtest.winner_rerun import announce, chosen, rerun_of
from beam_ray.compare.candidates import overview
from beam_ray.compare.compare_runs import compare_done
from beam_ray.compare.comparison import Comparison
from beam_ray.compare.gate import NONE, Gate, sliced_rule
from beam_ray.compare.gate_file import NAMED, default_gate, load_gate
from beam_ray.compare.html import html
from beam_ray.compare.markdown import markdown
from beam_ray.compare.multiplicity import correct
from beam_ray.compare.report import ON_FRESH_TASKS, Result, document, junit, table
from beam_ray.compare.terminal import terminal
from beam_ray.compare.verdict import judge
from beam_ray.compare.verdict_json import BacktestDocument, CandidateDocument, ComparisonDocument, SideDocument
from beam_ray.errors import Damaged, Unusable
from beam_ray.review.corrected_rates import CorrectedRate, corrected_rates, sentences
from beam_ray.store.checksummed_json import seal
from beam_ray.store.libraries import used
from beam_ray.store.manifest import RunSummary
from beam_ray.store.objects import Objects
from beam_ray.store.run_record import now
from beam_ray.store.runs import Run
from beam_ray.store.step_lookup import calls_of_tasks
from beam_ray.tracking import BacktestLog, Logged, SideLog, log_backtest


def conclude(backtest: Backtest, gate: Gate | None = None) -> BacktestDocument:
    """
    Bring every side to its end, compare, judge, and keep the reports; the content of verdict.json.

    A backtest that has its verdict is not run again. *gate* takes the place of the spec's.

    Raises:
        Stopped: before the end; the same call goes on.
    """
    done = backtest.verdict
    if done is not None:
        return done
    gate = gate or gate_of(backtest.resolved)
    with contextlib.closing(backtest.connection):
        judged, again = _judged(backtest, gate), None
        if backtest.fresh_tasks is not None:
            winner = chosen(judged.results, backtest.resolved.candidates)
            announce(backtest, winner)
            again = _judged(rerun_of(backtest, winner), gate) if winner else None
    used(backtest.objects, backtest.source, backtest.backtest_id)
    return _keep(backtest, gate, judged, again)


class _Judged(NamedTuple):
    """A backtest, or its rerun, with every side at its end."""

    backtest: Backtest
    results: list[Result]
    baseline: Run
    sides: list[tuple[Side, Run, Run]]
    """Each candidate, the run that it is compared with, and its own."""


def _judged(backtest: Backtest, gate: Gate) -> _Judged:
    """Bring every side to its end, compare, and judge."""
    results, sides = [], list[tuple[Side, Run, Run]]()
    baseline = backtest.baseline()
    if backtest.pauses:
        run_interim_analyses(backtest, gate, baseline, functools.partial(_compare, backtest))
    baseline = backtest.finish("baseline", baseline)
    for side in backtest.resolved.candidates:
        run = backtest.finish(side.name, backtest.candidate(side, baseline))
        before = backtest.rescored_baseline(side, baseline)
        before = before if before.run_id == baseline.run_id else backtest.finish(rescored_name(side), before)
        comparison = _confirmed(backtest, side, before, run, _compare(backtest, gate, side, before, run))
        results.append(Result(comparison, judge(comparison, gate)))
        sides.append((side, before, run))
    if not backtest.resolved.spec.aa:
        results = correct(results, gate, functools.partial(_at_confidence, backtest, gate, results, sides))
    return _Judged(backtest, results, baseline, sides)


def gate_of(resolved: Resolved) -> Gate:
    """The spec's gate, or the default one."""
    written = resolved.spec.gate
    if written is None:
        gate = default_gate()
    else:
        file = resolved.find(written)
        gate = load_gate(file if written not in NAMED and (file.is_file() or file.suffix) else written, resolved.baseline.workflow)
    for limit in gate.limits:
        if (sliced := sliced_rule(limit.rule)) and sliced.field not in resolved.spec.slices:
            raise Unusable(
                f"the gate {gate.name!r} has a rule for {limit.rule!r}, but the spec's 'slices' lack {sliced.field}\n  slices: [{sliced.field}]  adds it"
            )
    # of a baseline and itself nothing is asked but how far apart they are
    return NONE.model_copy(update={"confidence": gate.confidence}) if resolved.spec.aa else gate


def _compare(backtest: Backtest, gate: Gate, side: Side, before: Run, after: Run, looked: int | None = None) -> Comparison:
    """A candidate against the baseline; at a look, over the first *looked* tasks."""
    version, early = backtest.resolved.baseline.version, bool(backtest.pauses)
    name = f"{side.name}{ON_FRESH_TASKS}" if backtest.confirms else side.name
    names = RECORDED if backtest.resolved.baseline.recorded else f"version {version}" if version else "baseline", name
    how: dict[str, Any] = {"family": len(backtest.resolved.candidates), "planned": backtest.tasks.num_rows if early else 0, "same": backtest.resolved.spec.aa}
    tasks = backtest.tasks["task_id"].slice(0, looked or after.record.tasks).combine_chunks() if early or backtest.is_part_of_baseline else None
    return compare_done(before, after, gate, names, tasks, by=backtest.resolved.spec.by, **how)


def _confirmed(backtest: Backtest, side: Side, before: Run, after: Run, found: Comparison) -> Comparison:
    """*found*, with its newly failing tasks repeated where the spec wants that."""
    return confirm(backtest, side, before, after, found) if backtest.resolved.spec.confirm and found.newly_failing else found


def _at_confidence(
    backtest: Backtest, gate: Gate, results: Sequence[Result], sides: Sequence[tuple[Side, Run, Run]], index: int, confidence: float
) -> Comparison:
    """A candidate's comparison, by its place, with intervals of another confidence."""
    found = _compare(backtest, gate.model_copy(update={"confidence": confidence}), *sides[index])
    return dataclasses.replace(found, regressions=results[index].comparison.regressions)


def _keep(backtest: Backtest, gate: Gate, judged: _Judged, again: _Judged | None) -> BacktestDocument:
    spec, title, results = backtest.resolved.spec, backtest.backtest_id, judged.results
    rerun = again.results[0] if again else None
    every = [*results, *([rerun] if rerun else [])]
    sink = io.BytesIO()
    pq.write_table(table(every), sink, compression="zstd", write_page_checksum=True)
    baselines = [judged.baseline.run_id, *([again.baseline.run_id] if again else [])]
    compared = _compared(again)[0] if again else None
    corrected = [_corrected(backtest.objects, side) for side in judged.sides]
    shown = [_with_corrected(result, rates) for result, rates in zip(results, corrected, strict=True)]
    files = {
        "report.html": html(shown, title, rerun).encode(),
        "report.md": markdown(shown, title, rerun).encode(),
        "report.txt": terminal(shown, title, rerun).encode(),
        "junit.xml": junit(every, title).encode(),
        "comparison.parquet": sink.getvalue(),
        "manifest.json": seal(make_manifest(backtest.objects, title, gate, _compared(judged), baselines, rerun=compared, aa=spec.aa, by=spec.by)),
    }
    for name, body in files.items():
        # a driver that died here, maybe one with other versions installed, wrote some of them: what is kept is what the verdict names
        if not backtest.objects.create(f"{backtest.prefix}/{name}", body):
            files[name] = backtest.objects.read(f"{backtest.prefix}/{name}")
    found = document(results, rerun)
    verdict: BacktestDocument = {
        "schema": found["schema"],
        "backtest_id": backtest.backtest_id,
        "name": spec.name,
        "workflow": backtest.resolved.baseline.workflow.name,
        "finished_at": now(),
        "tasks_source": backtest.source,
        "trials": spec.trials,
        "aa": spec.aa,
        "baseline": _described(backtest.resolved.baseline, judged.baseline),
        "word": found["word"],
        "exit_code": found["exit_code"],
        "best": found["best"],
        "candidates": [_candidate(*entry) for entry in zip(results, judged.sides, corrected, strict=True)],
        "files": {name: hashlib.sha256(body).hexdigest() for name, body in files.items()},
    }
    if again:
        verdict["rerun"] = {
            "tasks": again.backtest.tasks.num_rows,
            "baseline": _described(backtest.resolved.baseline, again.baseline),
            "candidate": _candidate(again.results[0], again.sides[0]),
        }
    if several := overview(results):
        verdict["overview"] = several.document()
    backtest.objects.create(f"{backtest.prefix}/verdict.json", seal(verdict))
    return read_verdict(backtest.objects, backtest.backtest_id)


def _candidate(result: Result, side: tuple[Side, Run, Run], corrected: Sequence[CorrectedRate] = ()) -> CandidateDocument:
    candidate, before, run = side
    return {
        "verdict": result.verdict.document(),
        "comparison": result.comparison.document(),
        **_described(candidate, run),
        "baseline_run": before.run_id,
        "corrected": [rate.document() for rate in corrected],
    }


def _corrected(objects: Objects, side: tuple[Side, Run, Run]) -> list[CorrectedRate]:
    """Rates corrected by the reviews that there are; reviews that cannot be read are no reason to lose a verdict."""
    try:
        return corrected_rates(objects, side[1], side[2])
    except Damaged:
        return []


def _with_corrected(result: Result, rates: Sequence[CorrectedRate]) -> Result:
    """The result as reports show it. The comparison itself stays as rows alone give it, so that it can be reproduced."""
    found = result.comparison
    notes = sentences(rates, (found.baseline.name, found.candidate.name))
    return result._replace(comparison=dataclasses.replace(found, judge_notes=(*found.judge_notes, *notes))) if notes else result


def _compared(judged: _Judged) -> list[ComparedRuns]:
    backtest = judged.backtest
    own_tasks: dict[Literal["own_tasks"], bool] = {"own_tasks": True} if backtest.is_part_of_baseline else {}
    return [
        {
            "candidate": comparison.candidate.name,
            "baseline_name": comparison.baseline.name,
            "baseline_run": before.run_id,
            "candidate_run": run.run_id,
            "repeats": [run_id for name in repeated_names(side) if (run_id := backtest.known_run(name))] if comparison.newly_failing else [],
            "planned": comparison.planned,
            **own_tasks,  # type: ignore[typeddict-item]  # mypy does not see through the literal
        }
        for (comparison, _), (side, before, run) in zip(judged.results, judged.sides, strict=True)
    ]


def _usage(run: Run) -> RunSummary:
    assert run.manifest is not None, "every side was brought to its end"
    return run.manifest["usage"]


def _described(side: Side, run: Run) -> SideDocument:
    usage = _usage(run)
    return {
        "name": side.name,
        "run_id": run.run_id,
        "version": side.version,
        # what production answered is no definition: it is evidence for a first version, and never against a published one
        "definition_digest": RECORDED if side.recorded else side.workflow.digest,
        "definition": side.workflow.document(),
        "paid": {
            "calls": usage["calls"],
            "input_tokens": usage["input_tokens"],
            "output_tokens": usage["output_tokens"],
            "usd": usage["usd"],
            "steps_done": usage["steps_done"],
            "steps_borrowed": usage["steps_borrowed"],
            "seconds": usage["seconds"],
        },
    }


def log_verdict(objects: Objects, verdict: BacktestDocument, uri: str, **how: Any) -> Logged:
    """
    Show the backtest in MLflow; telling it again changes nothing.

    Raises:
        TrackingUnavailable: MLflow does not answer; nothing is lost.
    """
    candidates = verdict["candidates"]
    first = candidates[0]["comparison"]
    sides = [_side_log("baseline", "baseline", Run(objects, candidates[0]["baseline_run"]), first, "before")]
    sides += [_side_log(entry["name"], "candidate", Run(objects, entry["run_id"]), entry["comparison"], "after") for entry in candidates]
    names = [first["baseline"]["name"], *(entry["name"] for entry in candidates)]
    sides = [dataclasses.replace(side, metrics={**side.metrics, **overview_metrics(verdict, name)}) for side, name in zip(sides, names, strict=True)]
    logged = log_backtest(uri, _log(objects, verdict, sides, candidates), **how)
    if "rerun" not in verdict:
        return logged
    # runs over other tasks have traces of their own
    again = verdict["rerun"]["candidate"]
    found = again["comparison"]
    pair = [
        _side_log(f"baseline{ON_FRESH_TASKS}", "baseline", Run(objects, again["baseline_run"]), found, "before"),
        _side_log(found["candidate"]["name"], "candidate", Run(objects, again["run_id"]), found, "after"),
    ]
    more = log_backtest(uri, _log(objects, verdict, pair, [again]), **how)
    return Logged(logged.experiment_id, {**logged.run_ids, **more.run_ids}, more.url)


def _log(objects: Objects, verdict: BacktestDocument, sides: Sequence[SideLog], candidates: Sequence[CandidateDocument]) -> BacktestLog:
    changed = [task for entry in candidates for task in (*entry["comparison"]["newly_passing"], *entry["comparison"]["newly_failing"])]
    prefix = f"backtests/{verdict['backtest_id']}"
    return BacktestLog(
        backtest_id=verdict["backtest_id"],
        name=verdict["name"],
        workflow=verdict["workflow"],
        sides=tuple(sides),
        note=objects.read(f"{prefix}/report.md").decode(),
        verdict=verdict["word"],
        files={name: objects.read(f"{prefix}/{name}") for name in (*verdict["files"], "verdict.json")},
        changed=list(dict.fromkeys(changed)),
        tasks=Run(objects, candidates[0]["run_id"]).tasks(),
    )


def _side_log(name: str, role: str, run: Run, comparison: ComparisonDocument, side: Literal["before", "after"]) -> SideLog:
    started_at, ended_at = times_of([run])
    return SideLog(
        name=name,
        role=role,
        record=run.record,
        outcome=run.outcome(),
        steps=run.steps(),
        metrics=metrics_of(comparison, side),
        started_at=started_at,
        ended_at=ended_at,
        read_calls=functools.partial(calls_of_tasks, run),
    )


def times_of(runs: Sequence[Run]) -> tuple[datetime, datetime]:
    """When the first step of finished *runs* began, and when the last one ended."""
    usages = [_usage(run) for run in runs]
    started = [datetime.fromisoformat(usage["started_at"]) for usage in usages if usage["started_at"]]
    ended = [datetime.fromisoformat(usage["ended_at"]) for usage in usages if usage["ended_at"]]
    return min(started), max(ended)


def metrics_of(comparison: ComparisonDocument, side: Literal["before", "after"]) -> dict[str, float]:
    """One side of a comparison's document in numbers, by the names that MLflow shows."""
    metrics: dict[str, float] = {}
    for metric in comparison["metrics"]:
        value = metric[side]
        if value is not None:
            metrics[f"Overall/{metric['name']}"] = value
    if side == "after":
        metrics["Overall/newly_passing"] = float(len(comparison["newly_passing"]))
        metrics["Overall/newly_failing"] = float(len(comparison["newly_failing"]))
        metrics["Overall/both_failing"] = float(len(comparison["both_failing"]))
        replay = comparison.get("replay")
        for name in ("recorded_calls", "live_calls", "static_calls", "refused_calls") if replay else ():
            metrics[f"Overall/{name}"] = float(replay[name])  # type: ignore[index,literal-required]
    for part in comparison["slices"]:
        value = part[side]
        if part["kind"] == "node" and value is not None:
            metrics[f"{part['name']}/score"] = value
        elif part["kind"] == "criterion" and value is not None:
            metrics[_metric_name(part["name"])] = value
    for classification in comparison.get("classifications", ()):
        for measure in classification["measures"]:
            value = measure["metric"][side]
            if value is not None:
                metrics[_metric_name(measure["metric"]["name"].replace("[", ".").removesuffix("]"))] = value
    return metrics


def _metric_name(name: str) -> str:
    """A criterion's name as MLflow takes it: letters, digits and a few signs, one slash."""
    node, _, criterion = name.partition("/")
    return f"{node}/{''.join(sign if sign.isalnum() or sign in '_-. ' else '_' for sign in criterion)}"
