"""The driver's connection to a Ray cluster: start runners, call them, and notice when the cluster is gone."""

import atexit
import contextlib
import logging
import os
import random
import socket
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any, NoReturn

import ray
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError, RuntimeEnvSetupError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from beam_ray.command_process import ENDS_WITH_COMMAND
from beam_ray.errors import BeamRayError, Stopped, Unusable
from beam_ray.run.assignment import Assignment
from beam_ray.run.cluster.limiter_actor import NAMESPACE, exit_limiter_if_unused, limiter_actor
from beam_ray.run.cluster.local import cannot_start, exit_now, first_line, kill_local_processes, local_options, minimal_ray
from beam_ray.run.cluster.runner_actor import RUNNER_OPTIONS, RunnerActor
from beam_ray.run.cluster_auth import ensure_token, require_cluster_token
from beam_ray.run.job_record import record_run
from beam_ray.run.kept_ray import KeptRay, find_or_start

HEAD_LOST_S = 40.0
"""Seconds without an answer from the head after which the cluster is given up; at 60 Ray would end our process itself, without a message."""

CONNECT_S = 10.0
"""Seconds within which a cluster's address must accept a connection."""

GIVE_BACK_S = 2.0
"""Seconds in which a runner must take note that it belongs to nobody; afterwards it ends with this process."""

SPARE_S = 10.0
"""Seconds in which a runner that was started ahead must answer."""

INSTALL_S = 1_800
"""Seconds in which a node must have installed a workflow's requirements."""

_IDLE_RUNNERS: dict[str, list["RunnerHandle"]] = {}
"""Stopped runners whose processes can be used again, by Ray job: one for each time that a process connects."""


class RunnerDied(BeamRayError):
    """The process of a runner is gone."""


@dataclass(eq=False)
class RunnerHandle:
    """A runner as the driver sees it."""

    name: str
    actor: ActorHandle
    node: str
    """Id of the Ray node that it was placed on; another one if that node was lost meanwhile."""
    requirements: tuple[str, ...] = ()
    """Packages that were installed for its process."""


class Cluster:
    """A connection to a Ray cluster, or to a local one that ends with it."""

    def __init__(self, address: str | None = None):
        address = address or os.environ.get("RAY_ADDRESS") or "local"
        self.local = address == "local"
        already = ray.is_initialized()
        self._ours = not already
        self._kept: KeptRay | None = None
        """The local Ray that stays up between commands, where this one uses it."""
        self._spares: dict[str, ActorHandle] = {}
        """Its runners that were started ahead and belong to this process, by name."""
        if not already:
            self._connect(address)
        context = ray.get_runtime_context()
        self._head, self._node = context.gcs_address, context.get_node_id()
        self._head_seen_at, self._lost = time.monotonic(), False
        self.cpus = max(int(ray.cluster_resources().get("CPU", 1)), 1)
        self._limiter: ActorHandle | None = None
        self._recorded_runs: set[str] = set()
        # a process that connects again to a Ray that stayed up finds the runners of the last time
        self._idle = _IDLE_RUNNERS.setdefault(context.get_job_id(), []) if already else []
        self._placed = Counter(handle.node for handle in self._idle)
        """Runners per node. A runner that died counts twice: its death may be the first sign of a lost node."""

    def _connect(self, address: str) -> None:
        os.environ.setdefault("RAY_DEDUP_LOGS", "0")
        has_port = ":" in address and "//" not in address
        if self.local and self._connect_to_kept():
            return
        if self.local:
            ensure_token()
        elif has_port:
            _require_listening(address)
            require_cluster_token(address)
        options = local_options() if self.local else {}
        try:
            with minimal_ray() if self.local else contextlib.nullcontext():
                ray.init(address=address, namespace=NAMESPACE, logging_level=logging.ERROR, log_to_driver=False, configure_logging=True, **options)
        except Exception as error:
            ray.shutdown()
            raise Unusable(cannot_start(error) if self.local else cannot_connect(address, error)) from None
        except BaseException:
            # a signal came while it was starting
            ray.shutdown()
            raise
        if not (self.local or has_port):
            try:
                require_cluster_token(ray.get_runtime_context().gcs_address)
            except Unusable:
                ray.shutdown()
                raise

    def _connect_to_kept(self) -> bool:
        """Connect to the local Ray that stays up between commands; False where there is none that can be used."""
        kept = find_or_start()
        if kept is None:
            return False
        before = {name: os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_MODE")}
        if kept.document["token"]:
            os.environ.update(RAY_AUTH_TOKEN=kept.document["token"], RAY_AUTH_MODE="token")
            ray._raylet.Config.initialize("")  # Ray reads the mode when it is imported
        try:
            ray.init(address=kept.address, namespace=NAMESPACE, logging_level=logging.ERROR, log_to_driver=False, configure_logging=True)
        except Exception:
            ray.shutdown()
            kept.release()
            for name, value in before.items():
                os.environ.pop(name, None) if value is None else os.environ.update({name: value})
            return False
        self._kept = kept
        return True

    def require_alive(self) -> None:
        """
        Check that the cluster is still there: calls to one that is gone would wait forever.

        Raises:
            Stopped: our node is gone, or the head has not answered for HEAD_LOST_S.
        """
        host, _, port = self._head.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), 2.0).close()
            self._head_seen_at = time.monotonic()
        except OSError as error:
            if time.monotonic() - self._head_seen_at < HEAD_LOST_S:
                return  # a head that restarts keeps its cluster
            self._stop(f"the Ray head at {self._head} is gone ({error.strerror or error})")
        if not any(node["Alive"] for node in ray.nodes() if node["NodeID"] == self._node):
            self._stop("the Ray node of this process is gone")

    def _stop(self, reason: str) -> NoReturn:
        self._lost = True
        atexit.register(exit_now)
        raise Stopped(f"{reason}; run the same command again on a running cluster to resume")

    def start_runner(self, assignment: Assignment, *, alone: bool) -> RunnerHandle:
        """Start a runner; one that is *alone* on a local Ray enforces the limits itself and needs no limiter."""
        if assignment.run_id not in self._recorded_runs:
            record_run(assignment.store, assignment.run_id)
            self._recorded_runs.add(assignment.run_id)
        # on this machine, the packages are those of this Python
        requirements = () if self.local else assignment.requirements
        actor, node = self._process(requirements)
        limited = bool(assignment.models) and not (alone and self.local)
        if limited and self._limiter is None:
            self._limiter = limiter_actor()
        actor.assign.remote(assignment, limited, os.getpid() if self.local and not self._kept else None)
        return RunnerHandle(assignment.runner, actor, node, requirements)

    def _process(self, requirements: tuple[str, ...]) -> tuple[ActorHandle, str]:
        """A process for a runner, and its node: an idle one with the same packages, or a new one where most CPUs have none."""
        # the one that was used last has connections that are still open
        for idle in reversed(self._idle):
            if idle.requirements == requirements:
                self._idle.remove(idle)
                return idle.actor, idle.node
        spare = self._spare() if self._kept and not requirements else None
        if spare is not None:
            return spare, self._node
        cpus = {node["NodeID"]: node["Resources"]["CPU"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")}
        # at random among equals, because drivers do not know of each other
        node = min(cpus or {self._node: 1}, key=lambda node: (self._placed[node] + random.random()) / cpus.get(node, 1))
        self._placed[node] += 1
        options = dict(RUNNER_OPTIONS)
        if requirements:
            options["runtime_env"] = {"pip": list(requirements), "config": {"setup_timeout_seconds": INSTALL_S}}
        strategy = NodeAffinitySchedulingStrategy(node, soft=True)
        # the processes of a Ray that another command started have that command's environment
        environment = dict(os.environ) if self._kept else None
        return ray.remote(RunnerActor).options(**options, scheduling_strategy=strategy).remote(environment), node

    def _spare(self) -> ActorHandle | None:
        """A runner of the kept Ray that was started ahead and belongs to nobody."""
        assert self._kept is not None
        for name in self._kept.document["runners"]:
            with contextlib.suppress(ValueError, RayError):
                actor = ray.get_actor(name, NAMESPACE)
                if ray.get(actor.take.remote(os.getpid(), dict(os.environ)), timeout=SPARE_S):
                    self._spares[name] = actor
                    return actor
        return None

    def _give_back_spares(self) -> None:
        """Give the idle runners of the kept Ray back; the others end."""
        idle = [handle.actor for handle in self._idle]
        for actor in self._spares.values():
            if actor not in idle:
                ray.kill(actor)
        ray.get([actor.give_back.remote() for actor in self._spares.values() if actor in idle], timeout=GIVE_BACK_S)
        self._spares.clear()

    def keep_idle(self, runner: RunnerHandle) -> None:
        """Keep the process of a stopped runner for the next run, which then need not wait for one to start."""
        if len(self._idle) < self.cpus:
            self._idle.append(runner)

    def release_idle(self) -> None:
        """End the processes that were kept."""
        while self._idle:
            self._placed[self._idle.pop().node] -= 1

    def call(self, runner: RunnerHandle, title: str, method: str, *arguments: Any) -> Any:
        """Begin a call, shown as *title* on the dashboard; a reference to its result."""
        return getattr(runner.actor, method).options(name=title).remote(*arguments)

    def wait(self, references: list[Any], timeout_s: float) -> list[Any]:
        """Those of the references whose result is there, after at most *timeout_s* seconds."""
        done, _ = ray.wait(references, num_returns=len(references), timeout=0)
        if not done:
            done, _ = ray.wait(references, num_returns=1, timeout=timeout_s)
        return list(done)

    def result(self, reference: Any, timeout_s: float | None = None) -> Any:
        """
        What a call returned.

        Raises:
            RunnerDied: the runner's process is gone.
            BeamRayError: whatever the call raised, as itself.
        """
        try:
            return ray.get(reference, timeout=timeout_s)
        except RayTaskError as error:
            cause = error.cause
            while isinstance(cause, RayTaskError):
                cause = cause.cause
            if isinstance(cause, BeamRayError):
                raise cause from None
            raise
        except RayActorError as error:
            raise RunnerDied(str(error).strip().splitlines()[0]) from None
        except GetTimeoutError:
            raise TimeoutError from None
        except RuntimeEnvSetupError as error:
            raise Unusable(f"the cluster cannot install the workflow's requirements: {_reason(str(error))}") from None
        except RayError as error:
            raise Stopped(f"Ray: {str(error).strip().splitlines()[0]}; run the same command again to resume") from None

    def discard(self, runner: RunnerHandle) -> None:
        """Release the permits of a runner that died."""
        self._placed[runner.node] += 1
        self._release(runner)

    def kill(self, runner: RunnerHandle) -> None:
        """Kill the runner's process and release its permits."""
        ray.kill(runner.actor, no_restart=True)
        self._placed[runner.node] -= 1
        self._release(runner)

    def _release(self, runner: RunnerHandle) -> None:
        if self._limiter is not None:
            self._limiter.release.remote(runner.name)

    def close(self) -> None:
        """Give back what other commands may use, before ``disconnect``."""
        if self._limiter is not None and not self._lost:
            exit_limiter_if_unused()
        if self._kept and not self._lost and ray.is_initialized():
            with contextlib.suppress(RayError):
                self._give_back_spares()
        if self._ours and ENDS_WITH_COMMAND.is_set():
            # Ray would disconnect once more at the end of the process, after half a second
            atexit.unregister(ray._private.worker.shutdown)

    def disconnect(self) -> None:
        """Disconnect from the cluster; a local one ends."""
        if self._lost:
            if self._ours:
                kill_local_processes()
        elif self._ours and ray.is_initialized():
            ray.shutdown()
        if self._kept:
            self._kept.release()


def _require_listening(address: str) -> None:
    """
    Check that something listens at HOST:PORT: Ray itself would try for minutes.

    Raises:
        Unusable: nothing does.
    """
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
    except (OSError, ValueError, OverflowError) as error:
        raise Unusable(cannot_connect(address, error)) from None


def cannot_connect(address: str, error: Exception) -> str:
    """Why there is no connection to the cluster at *address*, and what to do."""
    return (
        f"cannot connect to a Ray cluster at {address}: {first_line(error)}\n"
        "  start one with  ray start --head , or leave out --address to use a local Ray that ends with the command"
    )


def _reason(output: str) -> str:
    """The line of pip's output that says why it failed."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return next((line.removeprefix("ERROR: ") for line in reversed(lines) if line.startswith("ERROR:")), lines[-1] if lines else "no reason given")
