"""Start Ray nodes with token authentication on this machine, for tests and benchmarks."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

PORT_OPTIONS = (
    "port",
    "dashboard-port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "metrics-export-port",
    "node-manager-port",
    "object-manager-port",
    "runtime-env-agent-port",
)
"""Options of ``ray start --head`` that take a port."""


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all different."""
    held = [socket.socket() for _ in range(count)]
    try:
        for each in held:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in held]
    finally:
        for each in held:
            each.close()


def head_ports() -> dict[str, int]:
    """A free port for each option of a head node."""
    return dict(zip(PORT_OPTIONS, free_ports(len(PORT_OPTIONS)), strict=True))


def cluster_environment(folder: Path) -> dict[str, str]:
    """The environment of a cluster that requires a token; the token is written into *folder*."""
    token = folder / "token"
    token.write_text(secrets.token_hex(32))
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "BEAM_RAY_", "MLFLOW_"))}
    return {**clean, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0"}


def head_command(folder: Path, ports: Mapping[str, int], cpus: int) -> list[str]:
    """The command that runs a head node in the foreground."""
    return [*_start(cpus), "--head", f"--temp-dir={folder / 'ray'}", *(f"--{name}={port}" for name, port in ports.items())]


def node_command(head: str, cpus: int = 1) -> list[str]:
    """The command that runs another node in the foreground; *head* is the head's HOST:PORT."""
    return [*_start(cpus), f"--address={head}"]


def _start(cpus: int) -> list[str]:
    # --block ends all processes of the node when it is terminated
    ray = str(Path(sys.executable).parent / "ray")
    return [ray, "start", "--block", f"--num-cpus={cpus}", "--object-store-memory=100000000", "--node-ip-address=127.0.0.1"]


def dashboard_answers(port: int) -> bool:
    """Whether the head's dashboard answers on this port."""
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/api/jobs/", timeout=5)
    except urllib.error.HTTPError:
        return True  # it requires the token
    except OSError:
        return False
    return True


def end_node(ray: "subprocess.Popen[bytes]") -> None:
    """Terminate a node; kill its processes after 3 s, in which it has nothing to save."""
    if ray.poll() is not None:
        return
    ray.terminate()
    try:
        ray.wait(3)
    except subprocess.TimeoutExpired:
        os.killpg(ray.pid, signal.SIGKILL)
        ray.wait()
