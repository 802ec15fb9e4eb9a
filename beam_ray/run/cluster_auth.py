"""
Authentication of Ray clusters: which are refused because anyone could run code there, and the token.

Imports Ray only when a cluster is asked: the environment that turns token authentication on
counts only before Ray is imported.
"""

import contextlib
import os
import secrets
import urllib.error
import urllib.request
from pathlib import Path

from beam_ray.errors import Unusable


def auth_environment() -> dict[str, str]:
    """Environment in which Ray sends the token, if there is one; must be set before Ray is imported."""
    return {"RAY_AUTH_MODE": "token"} if _token() and "RAY_AUTH_MODE" not in os.environ else {}


def ensure_token() -> None:
    """Give a local cluster that is about to start a token of its own, unless there is one. It is known to this process and its children only."""
    if not _token():
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def require_cluster_token(address: str) -> None:
    """
    Check that the cluster whose head is at HOST:PORT requires a token, and accepts ours.

    Raises:
        Unusable: it requires none, so anyone who reaches it can run code there; or it rejects ours.
    """
    is_open = _accepts(address, "")
    if is_open is None:
        return  # no answer, or TLS: Ray's own error is better
    _require_token(is_open, address, allow_open=False)
    if not is_open and _accepts(address, _token()) is False:  # None: it gave no answer in time
        raise Unusable(f"the Ray cluster at {address} rejected our token; set RAY_AUTH_TOKEN_PATH to the file that contains the cluster's token")


def require_dashboard_token(address: str, *, allow_open: bool = False) -> None:
    """
    Check that the dashboard at an http address requires a token, and that we have one.

    Raises:
        Unusable: it requires none and *allow_open* is not given, we have none, or no dashboard answers.
    """
    _require_token(_dashboard_is_open(address), address, allow_open=allow_open)


def _accepts(address: str, token: str) -> bool | None:
    """Whether the head answers a request with this token; None if it does not answer at all."""
    import grpc  # type: ignore[import-untyped]  # grpc ships no types
    from ray.core.generated.gcs_service_pb2 import CheckAliveRequest
    from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub

    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            NodeInfoGcsServiceStub(channel).CheckAlive(CheckAliveRequest(), timeout=5, metadata=[("authorization", f"Bearer {token}")] if token else None)
            return True
        except grpc.RpcError as error:
            return False if error.code() == grpc.StatusCode.UNAUTHENTICATED else None


def _require_token(is_open: bool, address: str, *, allow_open: bool) -> None:
    if is_open and not allow_open and os.environ.get("BEAM_RAY_OPEN_CLUSTER") != "1":
        raise Unusable(
            f"the Ray cluster at {address} requires no token, so anyone who reaches it can run code there; "
            "start it with RAY_AUTH_MODE=token, or set BEAM_RAY_OPEN_CLUSTER=1 to use it anyway"
        )
    if not is_open and not _token():
        raise Unusable(f"the Ray cluster at {address} requires a token; set RAY_AUTH_TOKEN_PATH to the file that contains it")


def _dashboard_is_open(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/api/jobs/", timeout=10) as answer:
            return int(answer.status) == 200
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            return False
        raise Unusable(f"{address} is not a Ray dashboard: it answered with status {error.code}") from None
    except (OSError, ValueError) as error:
        raise Unusable(f"no Ray dashboard answers at {address}: {getattr(error, 'reason', error)}") from None


def _token() -> str:
    """The token, found where Ray finds it; empty if there is none."""
    written = os.environ.get("RAY_AUTH_TOKEN")
    if not written:
        # a user without an entry in the system's list has no home
        with contextlib.suppress(OSError, UnicodeDecodeError, RuntimeError):
            written = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token").read_text(encoding="utf-8")
    return (written or "").strip()
