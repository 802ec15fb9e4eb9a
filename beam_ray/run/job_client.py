"""
Submit a command as a Ray job and follow it to its end.

What Ray reports of a job is a hint: its state can be wrong and its log can end early. How
the job ended is read from the store, see ``job_record``.
"""

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from beam_ray.errors import Unusable
from beam_ray.run.cluster_auth import auth_environment, require_dashboard_token
from beam_ray.run.job_record import exit_recorded
from beam_ray.store.objects import Objects

POLL_S = 2.0
"""Seconds between two requests for a job's state and log."""
SETTLE_S = 15.0
"""Seconds for which the store and Ray may disagree on whether a job has ended."""
UNREACHABLE_S = 600.0
"""Seconds without an answer from the cluster after which following gives up."""
FINAL_STATES = ("SUCCEEDED", "FAILED", "STOPPED", "GONE")
NOT_UPLOADED = [".venv", "venv", ".git", ".beam-ray", "mlruns", "mlartifacts", "mlflow.db*", ".env", ".env.*", "*.pem", "*.gguf", "__pycache__", ".*_cache"]
"""Never uploaded with a working folder, whatever its ignore files say."""


class JobClient(Protocol):
    """The jobs of a cluster. A request that fails raises OSError."""

    def state(self, submission: str) -> str:
        """State of the job as Ray reports it: PENDING, RUNNING, or one of FINAL_STATES."""

    def log(self, submission: str) -> str:
        """Everything that the job has printed so far."""


def follow_job(
    client: JobClient,
    objects: Objects,
    submission: str,
    on_log: Callable[[str], None],
    *,
    poll_s: float = POLL_S,
    settle_s: float = SETTLE_S,
    unreachable_s: float = UNREACHABLE_S,
) -> str:
    """
    Wait until the job has ended and pass its log to *on_log*; returns the last state that Ray reported, which is a hint.

    Every poll is a request of its own, so a lost connection or a restarted dashboard costs one poll.
    """
    shown, state, answered_at, ended_at = 0, "", time.monotonic(), 0.0
    while True:
        # in this order: what is logged before the exit code is recorded is passed on before we return
        recorded = exit_recorded(objects, submission)
        with contextlib.suppress(OSError):
            state = client.state(submission)
            answered_at = time.monotonic()
        with contextlib.suppress(OSError):
            text = client.log(submission)
            on_log(text[shown:])
            shown = len(text)
        moment = time.monotonic()
        if (recorded and state in FINAL_STATES) or moment - answered_at > unreachable_s:
            return state
        if recorded or state in FINAL_STATES:
            ended_at = ended_at or moment
            if moment - ended_at > settle_s:
                return state
        time.sleep(poll_s)


class RayJobClient:
    """The jobs of the cluster whose dashboard is at an http address."""

    def __init__(self, address: str, *, allow_open: bool = False):
        address = address.rstrip("/")
        if not address.startswith(("http://", "https://")):
            raise Unusable(f"{address!r} is not the address of a Ray dashboard\n  jobs are submitted to the dashboard, e.g. http://127.0.0.1:8265")
        require_dashboard_token(address, allow_open=allow_open)
        # the variable beats the argument in Ray's client, so it must not name another cluster
        os.environ["RAY_API_SERVER_ADDRESS"] = address
        os.environ.update(auth_environment())
        from ray.job_submission import JobSubmissionClient

        class Client(JobSubmissionClient):  # type: ignore[misc]  # Ray ships no types for its client
            """Ray's client with a timeout: by itself it waits forever on a connection that went silent."""

            def _do_request(self, method: str, endpoint: str, **rest: Any) -> Any:
                return super()._do_request(method, endpoint, **{"timeout": 60, **rest})

        try:
            self._client = Client(address)
        except Exception as error:
            raise Unusable(f"cannot connect to the Ray cluster at {address}: {_first_line(error)}") from None

    def submit(self, submission: str, command: str, *, folder: str, metadata: Mapping[str, str], environment: Mapping[str, str]) -> None:
        """
        Upload the folder and start the command in it.

        Raises:
            Unusable: Ray rejected the job.
        """
        runtime_env = {"working_dir": folder, "excludes": NOT_UPLOADED, "env_vars": dict(environment)}
        try:
            self._client.submit_job(entrypoint=command, submission_id=submission, runtime_env=runtime_env, metadata=dict(metadata))
        except Exception as error:
            raise Unusable(
                f"Ray rejected the job: {_first_line(error)}\n  a working folder over 100 MB is rejected; exclude large files with .rayignore"
            ) from None

    def state(self, submission: str) -> str:
        try:
            return str(_request(lambda: self._client.get_job_info(submission).status.value))
        except OSError as error:
            if "status code 404" in str(error):
                return "GONE"  # a job that Ray does not know will not come back
            raise

    def log(self, submission: str) -> str:
        return str(_request(lambda: self._client.get_job_logs(submission)))


def _request(request: Callable[[], Any]) -> Any:
    try:
        return request()
    except Exception as error:
        # whatever went wrong, only this poll is lost
        raise OSError(str(error)) from None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
