"""
Ray jobs: what a job tells the store, how one is submitted and followed, and which clusters are refused.

The store is the only channel between a job and whoever waits for it: the state that Ray
reports can be wrong, and a log can end early.

    jobs/<submission>/<run_id>.json   the job drives this run; written before anything is spent
    jobs/<submission>.json            the job is at its end: its command and its exit code

Both are written once, if absent. How a job ended is read in this order: the verdict of the
backtest whose sides it drove, or that decided on its draft; the manifest of the run that it
drove; its own last word. So a job that dies after its verdict, and before its last word,
still has its verdict.
"""

import contextlib
import json
import os
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from beam_ray.errors import Unusable
from beam_ray.store.checksummed_json import unseal
from beam_ray.store.objects import NotThere, Objects, open_objects
from beam_ray.store.runs import Run, now

POLL_S = 2.0
"""Seconds between two looks at a job."""
SETTLE_S = 15.0
"""Seconds for which the store and Ray may disagree on whether a job has ended."""
PATIENCE_S = 600.0
"""Seconds for which a cluster that does not answer is asked again."""
ENDED = ("SUCCEEDED", "FAILED", "STOPPED", "GONE")
NOT_ACCEPTED = 5
"""How optimise leaves when the held-out tasks do not speak for its draft."""
NOT_SHIPPED = [".venv", "venv", ".git", ".beam-ray", "mlruns", "mlartifacts", "mlflow.db*", ".env", ".env.*", "*.pem", "*.gguf", "__pycache__", ".*_cache"]
"""What never leaves with a working folder, whatever its ignore files say."""

# -- inside a job -------------------------------------------------------------------------


def submission() -> str | None:
    """The id under which this process was submitted as a Ray job; none outside of one."""
    try:
        return str(json.loads(os.environ["RAY_JOB_CONFIG_JSON_ENV_VAR"])["metadata"]["job_submission_id"])
    except (KeyError, ValueError, TypeError):
        return None


def require_lasting(store: str) -> None:
    """
    See that the store outlives a job's working folder.

    Raises:
        Unusable: its path is relative.
    """
    if "://" not in store and not Path(store).is_absolute():
        raise Unusable(
            f"the store {store!r} would be lost with the Ray job's temporary folder; give --store s3://BUCKET/PREFIX, or an absolute path that every node sees"
        )


def began(store: str, run_id: str) -> None:
    """Let the store know that this job, if it is one, drives the run."""
    name = submission()
    if name:
        open_objects(store, proven=True).create(f"jobs/{name}/{run_id}.json", json.dumps({"began_at": now()}).encode())


def ended(objects: Objects, submitted: str, command: str, exit_code: int) -> None:
    """Keep the job's last word."""
    objects.create(f"jobs/{submitted}.json", json.dumps({"command": command, "exit_code": exit_code, "ended_at": now()}).encode())


# -- outside ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ending:
    """How a job ended, by the store."""

    exit_code: int
    runs: tuple[str, ...]
    """The runs that it drove; none when all was there already."""
    backtest: str = ""


def ending(objects: Objects, submitted: str, command: str) -> Ending | None:
    """How the job ended; None where the store does not know."""
    runs = tuple(key.rpartition("/")[2].removesuffix(".json") for key, _ in objects.keys(f"jobs/{submitted}/"))
    found = [Run(objects, run_id) for run_id in runs]
    names = dict.fromkeys(run.record.backtest for run in found if run.record.backtest)
    verdicts = {name: verdict for name in names if (verdict := _verdict(objects, f"backtests/{name}/verdict.json"))}
    # the runs of a search name what is searched, and no backtest
    backtest = next(iter(verdicts or (names if command != "optimise" else ())), "")
    if command == "backtest" and verdicts:
        return Ending(int(verdicts[backtest]["exit_code"]), runs, backtest)
    if command == "optimise" and verdicts:
        return Ending(0 if verdicts[backtest]["exit_code"] == 0 else NOT_ACCEPTED, runs, backtest)
    if command == "run" and found and all(run.finished for run in found):
        return Ending(0, runs)
    word = _read(objects, f"jobs/{submitted}.json")
    return Ending(int(word["exit_code"]), runs, backtest) if word else None


def _verdict(objects: Objects, key: str) -> dict[str, Any] | None:
    try:
        return unseal(objects.read(key), key)
    except NotThere:
        return None


def _read(objects: Objects, key: str) -> dict[str, Any] | None:
    try:
        return dict(json.loads(objects.read(key)))
    except NotThere:
        return None


class Jobs(Protocol):
    """The jobs of a cluster. A look that cannot be had raises OSError."""

    def state(self, submitted: str) -> str:
        """What Ray says of the job: PENDING, RUNNING, or one of ENDED."""

    def log(self, submitted: str) -> str:
        """All that the job has printed so far."""


def follow(
    jobs: Jobs,
    objects: Objects,
    submitted: str,
    tell: Callable[[str], None],
    *,
    poll_s: float = POLL_S,
    settle_s: float = SETTLE_S,
    patience_s: float = PATIENCE_S,
) -> str:
    """
    Wait until the job has ended, telling its log; what Ray last said of it, which is a hint.

    Every look is a request of its own, so a lost connection or a restarted dashboard costs one look.
    """
    shown, state, seen, over_at = 0, "", time.monotonic(), 0.0
    while True:
        # in this order: what is logged before the last word is told before we leave
        over = _read(objects, f"jobs/{submitted}.json") is not None
        with contextlib.suppress(OSError):
            state = jobs.state(submitted)
            seen = time.monotonic()
        with contextlib.suppress(OSError):
            text = jobs.log(submitted)
            tell(text[shown:])
            shown = len(text)
        moment = time.monotonic()
        if (over and state in ENDED) or moment - seen > patience_s:
            return state
        if over or state in ENDED:
            over_at = over_at or moment
            if moment - over_at > settle_s:
                return state
        time.sleep(poll_s)


class RayJobs:
    """The jobs of the cluster whose dashboard is at an http address."""

    def __init__(self, address: str, *, open_too: bool = False):
        address = address.rstrip("/")
        if not address.startswith(("http://", "https://")):
            raise Unusable(f"{address!r} is not a dashboard's address; jobs are submitted to one such as http://127.0.0.1:8265")
        _require_token(_dashboard_is_open(address), address, open_too)
        # the variable beats the argument in Ray's client, so it must not name another cluster
        os.environ["RAY_API_SERVER_ADDRESS"] = address
        os.environ.update(auth_mode())
        from ray.job_submission import JobSubmissionClient

        class Client(JobSubmissionClient):  # type: ignore[misc]
            """Ray's client, which by itself would wait for ever on a connection that went silent."""

            def _do_request(self, method: str, endpoint: str, **rest: Any) -> Any:
                return super()._do_request(method, endpoint, **{"timeout": 60, **rest})

        try:
            self._client = Client(address)
        except Exception as error:
            raise Unusable(f"the Ray cluster at {address}: {_first_line(error)}") from None

    def submit(self, submitted: str, command: str, *, folder: str, metadata: Mapping[str, str], environment: Mapping[str, str]) -> None:
        """
        Upload the folder and start the command in it.

        Raises:
            Unusable: Ray refuses it.
        """
        runtime_env = {"working_dir": folder, "excludes": NOT_SHIPPED, "env_vars": dict(environment)}
        try:
            self._client.submit_job(entrypoint=command, submission_id=submitted, runtime_env=runtime_env, metadata=dict(metadata))
        except Exception as error:
            raise Unusable(f"Ray does not take the job: {_first_line(error)}; a folder over 100 MB is refused, .rayignore leaves things out") from None

    def state(self, submitted: str) -> str:
        try:
            return str(self._look(lambda: self._client.get_job_info(submitted).status.value))
        except OSError as error:
            if "status code 404" in str(error):
                return "GONE"  # a job that Ray does not know will not come back
            raise

    def log(self, submitted: str) -> str:
        return str(self._look(lambda: self._client.get_job_logs(submitted)))

    @staticmethod
    def _look(request: Callable[[], Any]) -> Any:
        try:
            return request()
        except Exception as error:
            # whatever went wrong, it is only a look that was not had
            raise OSError(str(error)) from None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]


# -- the door -----------------------------------------------------------------------------


def auth_mode() -> dict[str, str]:
    """The environment in which Ray sends the token, if there is one; it counts only before Ray is imported."""
    return {"RAY_AUTH_MODE": "token"} if _token() and "RAY_AUTH_MODE" not in os.environ else {}


def keep_token() -> None:
    """Make the token of new local Rays, if there is none, for its owner's eyes only: Ray's own is readable by all."""
    path = Path.home() / ".ray" / "auth_token"
    if _token():
        return
    with contextlib.suppress(OSError):  # then Ray says what is wrong
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = path.with_name(f".token-{secrets.token_hex(8)}")
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(secrets.token_hex(32))
        try:
            os.link(temporary, path)
        finally:
            temporary.unlink()


def require_closed(address: str) -> None:
    """
    See that the cluster whose head is at HOST:PORT asks for a token, and that we have one.

    Raises:
        Unusable: whoever reaches it can run code there, or it will not let us in.
    """
    is_open = _lets_in(address, "")
    if is_open is None:
        return  # nobody is there, or TLS: Ray's own words are better
    _require_token(is_open, address, False)
    if not is_open and not _lets_in(address, _token()):
        raise Unusable(f"the Ray cluster at {address} does not know our token; RAY_AUTH_TOKEN_PATH names the file that has the right one")


def _lets_in(address: str, token: str) -> bool | None:
    """Whether the head answers whoever has this token; None if it does not answer at all."""
    import grpc  # type: ignore[import-untyped]
    from ray.core.generated.gcs_service_pb2 import CheckAliveRequest
    from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub

    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            NodeInfoGcsServiceStub(channel).CheckAlive(CheckAliveRequest(), timeout=5, metadata=[("authorization", f"Bearer {token}")] if token else None)
            return True
        except grpc.RpcError as error:
            return False if error.code() == grpc.StatusCode.UNAUTHENTICATED else None


def _require_token(is_open: bool, address: str, open_too: bool) -> None:
    if is_open and not open_too and os.environ.get("BEAM_RAY_OPEN_CLUSTER") != "1":
        raise Unusable(
            f"the Ray cluster at {address} asks for no token, so whoever reaches it can run code there; start it with RAY_AUTH_MODE=token (BEAM_RAY_OPEN_CLUSTER=1 uses it all the same)"
        )
    if not is_open and not _token():
        raise Unusable(f"the Ray cluster at {address} asks for a token; RAY_AUTH_TOKEN_PATH names the file that has it")


def _dashboard_is_open(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/api/jobs/", timeout=10) as answer:
            return int(answer.status) == 200
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            return False
        raise Unusable(f"{address} is not a Ray dashboard: it answers {error.code}") from None
    except (OSError, ValueError) as error:
        raise Unusable(f"no Ray dashboard answers at {address}: {getattr(error, 'reason', error)}") from None


def _token() -> str:
    """The token, found where Ray finds it; empty if there is none."""
    written = os.environ.get("RAY_AUTH_TOKEN")
    if not written:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            written = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token").read_text(encoding="utf-8")
    return (written or "").strip()
