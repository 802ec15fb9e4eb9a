"""
The traces of an MLflow experiment, written to a file page by page.
"""

from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Experiment, Trace, TraceState
from mlflow.exceptions import MlflowException

from beam_ray.errors import did_you_mean
from beam_ray.tracking.location import shown
from beam_ray.tracking.watchdog import Heartbeat
from beam_ray.tracking.worker_calls import Refused, TraceSearchRequest, TraceSearchResult

_PAGE = 100
"""Traces per request; they come with all of their spans."""

_USERS_FAULT = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "PERMISSION_DENIED", "UNAUTHENTICATED", "BAD_REQUEST")


def search_traces(uri: str, request: TraceSearchRequest, beat: Heartbeat) -> TraceSearchResult | Refused:
    """
    Write the traces to the request's file, one as JSON per line, the oldest first.
    """
    client = MlflowClient(tracking_uri=uri)
    try:
        experiment = _experiment(client, request["experiment"])
        beat("experiment")
        if isinstance(experiment, str):
            return {"refused": experiment.replace("{uri}", shown(uri))}
        return _write(client, experiment, request, beat)
    except MlflowException as error:
        if error.error_code not in _USERS_FAULT:
            raise
        return {"refused": f"MLflow refused the search{' with this --filter' if request['filter'] else ''}: {' '.join(str(error).split())[:300]}"}


def _experiment(client: MlflowClient, written: str) -> Experiment | str:
    """The experiment of that name or id, or why there is none."""
    found = client.get_experiment_by_name(written)
    if found is None and written.isdecimal():
        try:
            found = client.get_experiment(written)
        except MlflowException as error:
            if error.error_code not in _USERS_FAULT:
                raise
    if found is None:
        known = [each.name for each in client.search_experiments(max_results=1_000)]
        return "\n  ".join([f"there is no experiment {written!r} in the MLflow at {{uri}}", *(did_you_mean(written, known) or _listed(known))])
    return f"the experiment {written!r} is deleted in MLflow; restore it first" if found.lifecycle_stage == "deleted" else found


def _listed(known: list[str]) -> list[str]:
    return [f"there are: {', '.join(known[:8])}"] if known else []


def _write(client: MlflowClient, experiment: Experiment, request: TraceSearchRequest, beat: Heartbeat) -> TraceSearchResult:
    written = left_out = 0
    token: str | None = None
    with Path(request["file"]).open("w", encoding="utf-8") as file:
        while True:
            page = client.search_traces(
                locations=[experiment.experiment_id],
                filter_string=request["filter"] or None,
                max_results=_PAGE,
                order_by=["timestamp_ms ASC"],
                page_token=token,
            )
            beat("traces")
            for trace in page:
                if _is_whole(trace):
                    file.write(trace.to_json() + "\n")
                    written += 1
                else:
                    left_out += 1
            token = page.token
            if not token:
                return {"traces": written, "left_out": left_out}


def _is_whole(trace: Trace) -> bool:
    """Whether the trace has ended and its spans are stored: others would be read as broken."""
    return trace.info.state != TraceState.IN_PROGRESS and bool(trace.data.spans)
