"""
What MLflow holds after it was told about a backtest, read back through MLflow's own client.
"""

import json
import math
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from beam_ray.errors import TrackingUnavailable, Unusable
from beam_ray.tracking import BacktestLog, default_uri, log_backtest, production_alias, serve

CLIENTS = 'import beam_ray.tracking, sys; print([name for name in ("mlflow", "ray", "openai", "pandas") if name in sys.modules])'


@pytest.fixture
def client(told: Any) -> Any:
    """MLflow's client of the database."""
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=told.uri, registry_uri=told.uri)


def _traces(client: Any, told: Any, side: str) -> dict[str, Any]:
    traces = client.search_traces(locations=[told.logged.experiment_id], run_id=told.logged.run_ids[side], max_results=500)
    return {trace.info.tags["beam_ray.task"]: trace for trace in traces}


def _everything(client: Any, told: Any) -> dict[str, Any]:
    runs = client.search_runs([told.logged.experiment_id])
    traces = [trace for side in told.logged.run_ids for trace in _traces(client, told, side).values()]
    return {
        "runs": sorted((run.info.run_id, run.info.start_time, run.info.end_time, run.info.status) for run in runs),
        "points": sorted(
            (run.info.run_id, point.key, point.value, point.timestamp)
            for run in runs
            for key in run.data.metrics
            for point in client.get_metric_history(run.info.run_id, key)
        ),
        "params": {run.info.run_id: run.data.params for run in runs},
        "tags": {run.info.run_id: run.data.tags for run in runs},
        "datasets": [len(run.inputs.dataset_inputs) for run in runs],
        "files": sorted(file.path for run in runs for file in client.list_artifacts(run.info.run_id)),
        "spans": sorted((span.trace_id, span.span_id, span.name, json.dumps(span.outputs)) for trace in traces for span in trace.data.spans),
        "assessments": sorted((found.assessment_id, found.name, str(found.value)) for trace in traces for found in trace.info.assessments),
        "tokens": sorted((trace.info.trace_id, str(trace.info.token_usage)) for trace in traces),
        "note": client.get_experiment(told.logged.experiment_id).tags["mlflow.note.content"],
        "prompts": [len(client.search_prompt_versions(f"purchase-orders.{node}")) for node in ("extract", "confirm", "escalate")],
    }


@pytest.mark.usefixtures("mlflow_forks")
def test_search_tracking_again_changes_nothing(client: Any, told: Any) -> None:
    """
    After the same backtest was told twice, runs, metric points, prompts, spans and assessments are those of the first time.
    """
    before = _everything(client, told)
    logged = log_backtest(told.uri, told.log)

    assert told.logged == logged
    assert before == _everything(client, told)


def test_metrics_read_back(client: Any, told: Any) -> None:
    """
    Each side's run holds the metrics that were given, rounded to four digits, except what is no number.
    """
    for side in told.log.sides:
        found = client.get_run(told.logged.run_ids[side.name]).data.metrics

        assert "Overall/seconds saved" in side.metrics
        assert {name: round(value, 4) for name, value in side.metrics.items() if math.isfinite(value)} == found


def test_params_tell_what_was_compared(client: Any, told: Any) -> None:
    """
    The params of a run name the versions of its prompts, its models, its definition and its tasks.
    """
    params = client.get_run(told.logged.run_ids["v8"]).data.params

    assert params == {
        "backtest": "261120-b7d2e1",
        "run": "261120-3f9c21",
        "version": f"draft {told.log.sides[1].record.definition_digest[:8]}",
        "tasks": "8 of library:orders@3",
        "trials": "1",
        "prompt.extract": "v2",
        "prompt.confirm": "v1",
        "prompt.escalate": "v1",
        "model.extract": "local/small (smollm2-135m-instruct)",
        "model.confirm": "local/small (smollm2-135m-instruct)",
        "model.escalate": "local/small (smollm2-135m-instruct)",
        "judge.extract": "local/small (smollm2-135m-instruct)",
        "judge.confirm": "local/small (smollm2-135m-instruct)",
        "judge.escalate": "local/small (smollm2-135m-instruct)",
    }


def test_each_prompt_text_is_registered_once(client: Any, told: Any) -> None:
    """
    A text that two sides share is one version; one that differs is a second.
    """
    extract = {version.version: version.template for version in client.search_prompt_versions("purchase-orders.extract")}
    [confirm] = client.search_prompt_versions("purchase-orders.confirm")

    assert extract == {version: side.record.plan.nodes["extract"].llm.prompt[0].content for version, side in enumerate(told.log.sides, 1)}
    assert [turn["role"] for turn in confirm.template] == ["system", "user"]


def test_a_trace_tells_steps_attempts_and_findings(client: Any, told: Any) -> None:
    """
    A task's trace has a span per step and per attempt, and every criterion's finding on the attempt that it judges.
    """
    traces = _traces(client, told, "baseline")
    task = next(name for name in told.log.changed if name in traces)
    trace = traces[task]
    names = {span.span_id: span.name for span in trace.data.spans}
    findings = {found.name: found for found in trace.info.assessments}

    spans = ["purchase-orders", "extract", "extract #1", "local/small", "find", "extract #2", "extract #3", "lookup", "lookup #1"]
    assert spans == list(names.values())[:9]
    assert ["1 score", "2 passed", "3 attempts"] == sorted(findings)[:3]
    assert (findings["2 passed"].value, findings["3 attempts"].value) == ("no", 5)
    assert findings["extract/amount above 0"].value == "yes"
    assert findings["extract/the_vendor_is_a_company_not_a_person"].value == "no"
    assert names[findings["extract/the_vendor_is_a_company_not_a_person"].span_id] == "extract #3"
    assert findings["extract/the_vendor_is_a_company_not_a_person"].source.source_id == "local/small"
    assert trace.info.token_usage["total_tokens"] > 0
    assert trace.info.client_request_id == f"261120-0aa1c4/{task}"


def test_a_trace_has_a_span_for_every_call(client: Any, told: Any) -> None:
    """
    What an agent asked of its model and its tools is below its attempt, with the answers and where they came from.
    """
    trace = next(iter(_traces(client, told, "baseline").values()))
    names = {span.span_id: span.name for span in trace.data.spans}
    found = {span.name: span for span in trace.data.spans if names.get(span.parent_id) == "extract #1"}

    assert {name: span.span_type for name, span in found.items()} == {"local/small": "LLM", "find": "TOOL"}
    assert (found["find"].inputs, found["find"].outputs, found["find"].attributes["source"]) == ({"po_number": "PO-1"}, {"found": True}, "recorded")


def test_what_could_not_be_judged_is_no_verdict(client: Any, told: Any) -> None:
    """
    A criterion without a grade is an assessment that failed, with the reason, and neither a yes nor a no.
    """
    [task] = [row["task_id"] for row in told.log.sides[0].steps.to_pylist() if row["unscored"]]
    findings = {found.name: found for found in _traces(client, told, "baseline")[task].info.assessments}
    finding = findings["extract/the_vendor_is_a_company_not_a_person"]

    assert finding.value is None
    assert finding.error.error_code == "UNSCORED"
    assert finding.error.error_message.endswith("the judge gave no grade")


def test_all_sides_trace_the_same_requests(client: Any, told: Any) -> None:
    """
    MLflow pairs traces by their request, so a task's request is the same on every side.
    """
    baseline, candidate = (_traces(client, told, side) for side in ("baseline", "v8"))

    assert baseline.keys() == candidate.keys()
    assert len(baseline) == 8
    for task, trace in baseline.items():
        assert trace.data.spans[0].inputs == candidate[task].data.spans[0].inputs


def test_candidates_carry_the_reports(client: Any, told: Any) -> None:
    """
    The reports lie with the candidate's run; the table of results with every run.
    """
    files = {side: {file.path for file in client.list_artifacts(run_id)} for side, run_id in told.logged.run_ids.items()}

    assert files == {"baseline": {"results.json"}, "v8": {"results.json", "report.md", "verdict.json"}}


def test_the_note_leads_to_the_comparison(client: Any, told: Any) -> None:
    """
    The experiment's note begins with the verdict and a link to the two runs, task by task.
    """
    first, *_, last = client.get_experiment(told.logged.experiment_id).tags["mlflow.note.content"].splitlines()

    assert first.startswith("**PASS** · 8 tasks · backtest 261120-b7d2e1")
    assert f"selectedRunUuid={told.logged.run_ids['v8']}&compareToRunUuid={told.logged.run_ids['baseline']}" in first
    assert last.startswith("| usd")


def test_a_long_note_is_cut() -> None:
    """
    A note longer than MLflow takes is cut to whole lines and says where all of it is; a shorter one stays as it is.
    """
    from beam_ray.tracking.experiments import fitting

    long = "\n".join(f"| candidate {number} |" for number in range(2_000))
    cut = fitting(long, 20_000)

    assert fitting(long, 100_000) == long
    assert len(cut) <= 20_000 and cut.endswith("|\n\n… truncated; the artifact report.md has the whole report")


@pytest.mark.usefixtures("mlflow_forks")
def test_published_prompts_get_the_alias(client: Any, told: Any) -> None:
    """
    The alias 'production' follows what was published, back to an older text too.
    """
    for version in (2, 1):
        found = production_alias(told.uri, told.log.sides[version - 1].record.plan)

        assert found["purchase-orders.extract"] == version
        assert client.get_prompt_version_by_alias("purchase-orders.extract", "production").version == version


def test_the_database_can_be_read_while_it_is_written(told: Any) -> None:
    """
    The database keeps a write-ahead log, so that a server may show it while a backtest is told.
    """
    import sqlite3

    with closing(sqlite3.connect(told.uri.removeprefix("sqlite:///"))) as connection:
        assert connection.execute("pragma journal_mode").fetchone() == ("wal",)


def test_nothing_is_left_in_the_working_folder(told: Any) -> None:
    """
    Everything lies beside the database; MLflow's usual litter in the working folder is absent.
    """
    folder = Path(told.uri.removeprefix("sqlite:///")).parent

    assert {"mlflow.db", "mlartifacts"} <= {path.name for path in folder.iterdir()}
    assert not Path("mlruns").exists()


def test_changed_verdicts_are_traced_first(make_backtest: Callable[..., BacktestLog]) -> None:
    """
    Where not every task gets a trace, those whose verdict changed do.
    """
    from beam_ray.tracking.backtest_log import traced_tasks

    log = make_backtest(tasks=60)

    assert traced_tasks(log, most=len(log.changed)) == list(log.changed)
    assert len(traced_tasks(log, most=20)) == 20


@pytest.fixture
def closed_port() -> int:
    """A port at which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_dead_server_is_given_up_at_once(closed_port: int, make_backtest: Callable[..., BacktestLog]) -> None:
    """
    A server that is not there costs seconds and not MLflow's minutes, and the message ends in the command that tells it later.
    """
    start = time.monotonic()
    with pytest.raises(TrackingUnavailable) as caught:
        log_backtest(f"http://127.0.0.1:{closed_port}", make_backtest(tasks=2))

    assert time.monotonic() - start < 60
    assert "Connection refused" in str(caught.value)
    assert str(caught.value).endswith("beam-ray mlflow-sync 261120-b7d2e1")
    assert "\n" not in str(caught.value)


@contextmanager
def _server(answer: bytes) -> Iterator[str]:
    """A server that answers /health with *answer*, if with anything, and then never again."""
    program = (
        "import socket, sys\n"
        "server = socket.create_server(('127.0.0.1', 0)); print(server.getsockname()[1], flush=True)\n"
        "held, answer = [], sys.argv[1].encode()\n"
        "while True:\n"
        "    held.append(server.accept()[0])\n"
        "    if answer and b'/health' in held[-1].recv(4096): held.pop().sendall(answer)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, answer.decode()], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()


def test_a_server_that_hangs_is_given_up(make_backtest: Callable[..., BacktestLog]) -> None:
    """
    A server that accepts and never answers costs two probes of three seconds.
    """
    start = time.monotonic()
    with _server(b"") as url, pytest.raises(TrackingUnavailable, match="timed out"):
        log_backtest(url, make_backtest(tasks=2))

    assert time.monotonic() - start < 60


def test_a_server_that_falls_silent_is_given_up(make_backtest: Callable[..., BacktestLog]) -> None:
    """
    A server that was healthy and answers no more is given up when the patience is over.
    """
    start = time.monotonic()
    with _server(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK") as url, pytest.raises(TrackingUnavailable, match="did not answer for 3 s"):
        log_backtest(url, make_backtest(tasks=2), patience_s=3)

    assert time.monotonic() - start < 60


def test_a_store_on_s3_wants_a_server(make_backtest: Callable[..., BacktestLog]) -> None:
    """
    A store on S3 has no disk for a database, so telling asks for a server's address.
    """
    assert default_uri("s3://bucket/store") == ""
    with pytest.raises(TrackingUnavailable, match="set MLFLOW_TRACKING_URI"):
        log_backtest(default_uri("s3://bucket/store"), make_backtest(tasks=2))


def test_the_environment_names_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    MLFLOW_TRACKING_URI decides, whatever the store.
    """
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example:5000")

    assert default_uri("s3://bucket/store") == default_uri(".beam-ray") == "http://mlflow.example:5000"


def test_a_password_is_not_shown() -> None:
    """
    The message about a server that is away leaves out the password in its address.
    """
    from beam_ray.tracking.location import shown

    assert shown("http://ada:secret@mlflow.example:5000/x") == "http://…@mlflow.example:5000/x"


def test_serving_a_server_is_refused() -> None:
    """
    What is served already is not served again.
    """
    with pytest.raises(Unusable, match="is a server already"):
        serve("http://127.0.0.1:5000")


def test_a_taken_port_is_refused(tmp_path: Path) -> None:
    """
    A port that somebody listens at is refused before MLflow is started.
    """
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(Unusable, match="cannot be used"):
        serve(default_uri(str(tmp_path)), port=taken.getsockname()[1])


def test_a_served_database_is_told_in_both_ways(tmp_path: Path, closed_port: int, make_backtest: Callable[..., BacktestLog]) -> None:
    """
    A backtest told to the server is found again by telling the database; strange hosts are refused; SIGTERM leaves no process.
    """
    uri, url, log = default_uri(str(tmp_path)), f"http://127.0.0.1:{closed_port}", make_backtest(tasks=2)
    program = f"import beam_ray.tracking as t, sys; sys.exit(t.serve({uri!r}, port={closed_port}, ready=lambda at: print(at, flush=True)))"
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == url
        over_http = log_backtest(url, log)
        directly = log_backtest(uri, log)
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(urllib.request.Request(f"{url}/api/2.0/mlflow/experiments/search", headers={"Host": "10.evil.example"}))
    finally:
        process.terminate()
        code = process.wait(timeout=30)

    assert (over_http.experiment_id, over_http.run_ids) == (directly.experiment_id, directly.run_ids)
    assert over_http.url == f"{url}/#/experiments/{over_http.experiment_id}/evaluation-runs"
    assert [path.name for path in (tmp_path / "mlartifacts").rglob("report.md")] == ["report.md"]
    assert code == 143
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", closed_port), timeout=3)


def test_importing_is_cheap() -> None:
    """
    Neither mlflow nor anything else that is heavy comes with the import of beam_ray.tracking.
    """
    assert subprocess.check_output([sys.executable, "-c", CLIENTS], text=True).strip() == "[]"
