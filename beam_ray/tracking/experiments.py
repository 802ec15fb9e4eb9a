"""
A backtest as an MLflow experiment with one MLflow run per side: its metrics, parameters, tags and files.

A run is looked up by its key before it is created, so logging again changes nothing.
"""

import json
import math
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypedDict, TypeVar
from urllib.parse import urlsplit

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.entities.model_registry import PromptVersion
from mlflow.exceptions import MlflowException
from mlflow.tracing.client import TracingClient
from mlflow.utils.validation import MAX_EXPERIMENT_TAG_VAL_LENGTH, MAX_TAG_VAL_LENGTH

from beam_ray.store.call_table import PlacedCallRow
from beam_ray.store.run_record import RunRecord
from beam_ray.store.tables import OutcomeRow, StepRow, TaskRow
from beam_ray.tracking import prompts
from beam_ray.tracking.backtest_log import BacktestLog, SideLog, TaskRequest, traced_tasks
from beam_ray.tracking.location import artifacts, is_server, page
from beam_ray.tracking.results_table import results
from beam_ray.tracking.traces import Case, loads, spans, trace
from beam_ray.tracking.watchdog import Heartbeat

_BATCH = 100
"""Traces per request."""

MOST_METRICS = 800
"""Metrics per request; MLflow takes 1,000 entries."""

_LINKED = 100
"""Traces that are linked to their prompt versions; each link costs a request."""

_Row = TypeVar("_Row", OutcomeRow, StepRow, PlacedCallRow)

_NOTE = "mlflow.note.content"
_NOTE_OF = "beam_ray.note_of"


class LoggedBacktest(TypedDict):
    """What the worker reports of a logged backtest."""

    experiment_id: str
    run_ids: dict[str, str]
    url: str


@dataclass(frozen=True)
class _LoggedSide:
    """A side and its MLflow run."""

    side: SideLog
    run_id: str
    prompts: Mapping[str, PromptVersion]


def log_backtest(uri: str, log: BacktestLog, beat: Heartbeat) -> LoggedBacktest:
    """Log everything: metrics and files first, traces last, so that an interruption costs the least."""
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    experiment_id = experiment_of(client, uri, f"beam_ray/{log.workflow}/{log.name}")
    beat("experiment")
    prompts.register_in_experiment(experiment_id)
    logged = [_log_side(client, uri, experiment_id, log, side, index, beat) for index, side in enumerate(log.sides)]
    run_ids = {one.side.name: one.run_id for one in logged}
    _note(client, experiment_id, log, run_ids)
    beat("note")
    for one in logged:
        _traces(TracingClient(uri), experiment_id, log, one, beat)
    for index, one in enumerate(logged):
        start = _start(log, index)
        client.set_terminated(one.run_id, "FINISHED", end_time=start + _milliseconds(one.side.ended_at) - _milliseconds(one.side.started_at))
        beat("end")
    return {"experiment_id": experiment_id, "run_ids": run_ids, "url": page(uri, experiment_id)}


def experiment_of(client: MlflowClient, uri: str, name: str) -> str:
    """The id of the experiment of that name, which is created or restored if needed."""
    found = client.get_experiment_by_name(name)
    if found is None:
        place = None if is_server(uri) else f"{artifacts(uri)}/{name}"
        try:
            return str(client.create_experiment(name, artifact_location=place))
        except MlflowException as error:
            found = client.get_experiment_by_name(name)
            if error.error_code != "RESOURCE_ALREADY_EXISTS" or found is None:
                raise
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def _log_side(client: MlflowClient, uri: str, experiment_id: str, log: BacktestLog, side: SideLog, index: int, beat: Heartbeat) -> _LoggedSide:
    # nobody knows which prompts and models gave what production answered
    versions = {} if side.record.recorded else prompts.register(client, side.record.plan, f"{side.name} of {log.name}", beat)
    prompts.link(client, versions, experiment_id, beat)
    run = _run(client, experiment_id, log, side, index)
    beat("run")
    run_id = run.info.run_id
    metrics = _metrics(run, side, _start(log, index))
    client.log_batch(run_id, metrics[:MOST_METRICS], _params(run, log, side, versions), _tags(log, side, versions))
    for start in range(MOST_METRICS, len(metrics), MOST_METRICS):
        client.log_batch(run_id, metrics[start : start + MOST_METRICS])
    beat("metrics")
    dataset = Dataset(
        name=side.record.source or "tasks", digest=side.record.tasks_digest[:12], source_type="beam_ray", source=side.record.source or side.record.run_id
    )
    client.log_inputs(run_id, [DatasetInput(dataset, tags=[InputTag("mlflow.data.context", "evaluation")])])
    beat("dataset")
    files = dict(log.files) if side.role == "candidate" else {}
    _files(client, uri, run, {**files, "results.json": json.dumps(results(log, side), ensure_ascii=False).encode()})
    beat("files")
    return _LoggedSide(side, run_id, versions)


def _run(client: MlflowClient, experiment_id: str, log: BacktestLog, side: SideLog, index: int) -> Run:
    key = f"{log.backtest_id}:{side.name}"
    found = client.search_runs([experiment_id], f"tags.`beam_ray.run_key` = '{key}'", max_results=1)
    if found:
        return found[0]
    tags = {"beam_ray.run_key": key, "beam_ray.role": side.role, "mlflow.runType": "genai_evaluate"}
    return client.create_run(experiment_id, start_time=_start(log, index), tags=tags, run_name=side.name)


def _start(log: BacktestLog, index: int) -> int:
    """
    A side's start time, in milliseconds.

    MLflow lists runs by start time, newest first. The baseline may be an older run, so all
    sides get nearly the same start time, in an order that puts the baseline on top.
    """
    return max(_milliseconds(side.started_at) for side in log.sides) + len(log.sides) - index


def _metrics(run: Run, side: SideLog, at: int) -> list[Metric]:
    """
    The metrics that MLflow does not have yet.

    They get the run's start time, so that logging them twice is harmless. A metric that has
    changed since gets the present time: MLflow shows the newest.
    """
    known = run.data.metrics
    rounded = {re.sub(r"[^\w\-.: /]", "_", name)[:250]: round(float(value), 4) for name, value in side.metrics.items() if math.isfinite(value)}
    now = int(time.time() * 1000)
    return [Metric(name, value, now if name in known else at, 0) for name, value in rounded.items() if known.get(name) != value]


def _params(run: Run, log: BacktestLog, side: SideLog, versions: Mapping[str, PromptVersion]) -> list[Param]:
    """The params that MLflow does not have yet; it refuses to change params."""
    record = side.record
    params = {
        "backtest": log.backtest_id,
        "run": record.run_id,
        "version": _version(record),
        "tasks": f"{record.tasks} of {record.source}" if record.source else str(record.tasks),
        "trials": str(record.trials),
    }
    for node in record.plan.order:
        if node in versions:
            params[f"prompt.{node}"] = f"v{versions[node].version}"
        asked = None if record.recorded else record.plan.model_of(node)
        for what, names in (("model", (asked,) if asked else ()), ("judge", record.plan.judges_of(node))):
            if names:
                models = {name: record.models.get(name, {}).get("model") for name in names}
                params[f"{what}.{node}"] = ", ".join(f"{name} ({model})" if model else name for name, model in models.items())
    return [Param(name, value) for name, value in params.items() if name not in run.data.params]


def _version(record: RunRecord) -> str:
    if record.recorded:
        return "recorded in production"
    return f"v{record.version}" if record.version is not None else f"draft {record.definition_digest[:8]}"


def _tags(log: BacktestLog, side: SideLog, versions: Mapping[str, PromptVersion]) -> list[RunTag]:
    linked = [{"name": version.name, "version": str(version.version)} for version in versions.values()]
    tags = {
        "beam_ray.address": side.record.run_id,
        "beam_ray.backtest": log.backtest_id,
        "beam_ray.definition": side.record.definition_digest,
        "beam_ray.verdict": log.verdict,
        "mlflow.linkedPrompts": json.dumps(linked),
        "mlflow.loggedArtifacts": json.dumps([{"path": "results.json", "type": "table"}]),
        _NOTE: fitting(f"{_headline(log)}\n\n{_spaced(log.note)}", MAX_TAG_VAL_LENGTH),
    }
    return [RunTag(name, value) for name, value in tags.items()]


def _files(client: MlflowClient, uri: str, run: Run, files: Mapping[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            file = Path(folder, name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        place = urlsplit(run.info.artifact_uri)
        if place.scheme == "mlflow-artifacts" and not is_server(uri):
            # The experiment was created by a server over this database, which keeps files in the same folder.
            shutil.copytree(folder, Path(artifacts(uri), place.path.lstrip("/")), dirs_exist_ok=True)
        else:
            client.log_artifacts(run.info.run_id, folder)


def _note(client: MlflowClient, experiment_id: str, log: BacktestLog, run_ids: Mapping[str, str]) -> None:
    """Describe the newest backtest in the experiment's note, whichever backtest is logged last."""
    tags = client.get_experiment(experiment_id).tags
    order = f"{max(_milliseconds(side.ended_at) for side in log.sides)} {log.backtest_id}"
    if tags.get(_NOTE_OF, "") > order:
        return
    # MLflow shows only the first line until the note is expanded, so the links are in it.
    line = " · ".join([_headline(log), *_links(experiment_id, log, run_ids)])
    client.set_experiment_tag(experiment_id, _NOTE, fitting(f"{line}\n\n{_spaced(log.note)}", MAX_EXPERIMENT_TAG_VAL_LENGTH))
    client.set_experiment_tag(experiment_id, _NOTE_OF, order)


def _headline(log: BacktestLog) -> str:
    return f"**{log.verdict}** · {log.sides[0].record.tasks} tasks · backtest {log.backtest_id}"


def _spaced(note: str) -> str:
    """*note* with spaces between table columns, because MLflow renders tables without padding."""
    return "\n".join(line.replace(" | ", "&emsp; | ") if line.startswith("|") and "--" not in line else line for line in note.splitlines())


def fitting(note: str, most: int) -> str:
    """*note* cut to whole lines where it is longer than MLflow takes, as that of many candidates is."""
    if len(note) <= most:
        return note
    end = "\n\n… truncated; the artifact report.md has the whole report"
    return note[: most - len(end)].rpartition("\n")[0] + end


def _links(experiment_id: str, log: BacktestLog, run_ids: Mapping[str, str]) -> Iterator[str]:
    base = f"#/experiments/{experiment_id}"
    baseline = next((side.name for side in log.sides if side.role == "baseline"), log.sides[0].name)
    for side in log.sides:
        if side.name != baseline:
            both = f"selectedRunUuid={run_ids[side.name]}&compareToRunUuid={run_ids[baseline]}"
            yield f"[{side.name} against {baseline}, task by task]({base}/evaluation-runs?{both})"
    yield f"[charts]({base}/evaluation-runs?viewMode=charts)"
    yield f"[outputs side by side]({base}/runs?compareRunsMode=ARTIFACT)"


def _traces(client: TracingClient, experiment_id: str, log: BacktestLog, logged: _LoggedSide, beat: Heartbeat) -> None:
    cases = list(_cases(log, logged))
    for start in range(0, len(cases), _BATCH):
        batch = cases[start : start + _BATCH]
        for case in batch:
            client.start_trace(trace(case, experiment_id))
            beat("trace")
        client.log_spans(experiment_id, [span for case in batch for span in spans(case)])
        beat("spans")
    for case in cases[:_LINKED]:
        client.store.link_prompts_to_trace(case.trace_id, list(case.prompts.values()))
        beat("prompts of a trace")


def _cases(log: BacktestLog, logged: _LoggedSide) -> Iterator[Case]:
    side, changed = logged.side, set(log.changed)
    tasks = {} if log.tasks is None else {row["task_id"]: row for row in log.tasks.to_pylist()}
    outcomes: dict[str, list[OutcomeRow]] = _by_task(side.outcome.to_pylist())
    steps: dict[str, list[StepRow]] = _by_task(side.steps.to_pylist())
    calls: dict[str, list[PlacedCallRow]] = _by_task(side.calls.to_pylist())
    place = {node: index for index, node in enumerate(side.record.plan.order)}
    for task in traced_tasks(log):
        row = tasks.get(task)
        for outcome in outcomes.get(task, ()):
            ran = [step for step in steps.get(task, ()) if step["trial"] == outcome["trial"] and step["outcome"] != "skipped"]
            yield Case(
                backtest_id=log.backtest_id,
                side=side.name,
                mlflow_run=logged.run_id,
                workflow=side.record.plan,
                models=side.record.models,
                prompts=logged.prompts,
                request=_request(task, outcome["trial"], row),
                expected=loads(row["expected"]) if row else None,
                changed=task in changed,
                recorded=bool(side.record.recorded),
                outcome={**outcome, "started_at": outcome["started_at"] or side.started_at, "ended_at": outcome["ended_at"] or side.ended_at},
                steps=sorted(ran, key=lambda step: place[step["node"]]),
                calls=[call for call in calls.get(task, ()) if call["trial"] == outcome["trial"]],
            )


def _request(task: str, trial: int, row: TaskRow | None) -> TaskRequest:
    request: TaskRequest = {"task": task if trial == 1 else f"{task}#{trial}"}
    if row is not None:
        request["task_query"] = loads(row["task_query"]) if row["query_is_json"] else row["task_query"]
        variables = loads(row["variables"])
        if variables:
            request["variables"] = variables
        if row["messages"]:
            request["messages"] = loads(row["messages"])
    return request


def _by_task(rows: Iterable[_Row]) -> dict[str, list[_Row]]:
    found: dict[str, list[_Row]] = {}
    for row in rows:
        found.setdefault(row["task_id"], []).append(row)
    return found


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
