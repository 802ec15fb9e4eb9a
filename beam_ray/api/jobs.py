"""Ray jobs: a command submitted to a cluster, and how it ended according to the store."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from shlex import join
from typing import TypedDict

from beam_ray.api.location import Location
from beam_ray.errors import Interrupted, Stopped, Unusable
from beam_ray.run.job_client import JobClient, RayJobClient, follow_job
from beam_ray.run.job_record import job_result, record_exit, require_shared_store, submission_id
from beam_ray.store.opening import open_objects
from beam_ray.store.run_record import new_run_id

JOB_KINDS = ("run", "resume", "backtest", "prove", "rerun", "optimise")
"""Commands that can be submitted."""
MAX_GIVEN = 100_000
"""Bytes of standard input that a job can have: they are part of its command, for which Linux has a limit."""


class JobDocument(TypedDict):
    """How a job ended, as ``--json`` prints it."""

    submission: str
    command: str
    exit_code: int
    runs: tuple[str, ...]
    backtest_id: str | None
    ray_state: str | None


@dataclass(frozen=True)
class JobResult:
    """How a job ended. The store decides; what Ray reports is a hint."""

    id: str
    command: str
    exit_code: int
    """The exit code of the command: for a backtest 0, 4 or 5 by its verdict."""
    runs: tuple[str, ...]
    """Ids of the runs that it drove; empty when everything was finished before."""
    backtest: str
    """Id of the backtest; empty without one."""
    ray_state: str
    """The last state that Ray reported; empty when it never answered."""

    @property
    def disagrees(self) -> bool:
        """Whether Ray reports another end than the store."""
        return (self.exit_code == 0) != (self.ray_state == "SUCCEEDED")

    def document(self) -> JobDocument:
        """The result as a JSON document."""
        return {
            "submission": self.id,
            "command": self.command,
            "exit_code": self.exit_code,
            "runs": self.runs,
            "backtest_id": self.backtest or None,
            "ray_state": self.ray_state or None,
        }


@dataclass(frozen=True)
class Job:
    """A command that was submitted as a Ray job."""

    store: Location
    id: str
    command: str
    client: JobClient = field(repr=False)

    def wait(self, on_log: Callable[[str], None] = lambda text: None, *, resume: str = "", **timing: float) -> JobResult:
        """
        Follow the job to its end and pass its log to *on_log*.

        Args:
            resume: The command that resumes, for the error of a job that left no result.
            timing: ``poll_s``, ``settle_s`` and ``unreachable_s``, in seconds.

        Raises:
            Stopped: the job left no result in the store.
            Interrupted: by Ctrl-C; the job keeps running.
        """
        objects = self.store.objects
        try:
            state = follow_job(self.client, objects, self.id, on_log, **timing)
        except KeyboardInterrupt:
            raise Interrupted(f"the job keeps running; ray job stop {self.id}  stops it, ray job logs --follow {self.id}  shows its log") from None
        found = job_result(objects, self.id, self.command)
        if found is None:
            missing = Stopped(f"the job {self.id} left no result in {objects.uri}; Ray says {state or 'nothing'}")
            missing.resume = resume
            raise missing
        return JobResult(self.id, self.command, found.exit_code, tuple(found.runs), found.backtest, state)


def models_for_jobs(store: Location, folder: str | Path = ".") -> str:
    """See ``Store.models_for_jobs``."""
    require_shared_store(store.uri)
    file, place = Path(str(store.models)).resolve(), Path(folder).resolve()
    if not file.is_relative_to(place):
        raise Unusable(f"the models file {store.models} lies outside the folder {place}, which is what a job gets\n  start the command in the project's folder")
    return str(file.relative_to(place))


def _here_document(given: str) -> str:
    """What gives a command of the shell that text on standard input: it needs no file that could be left behind."""
    if not given:
        return ""
    if len(given.encode()) > MAX_GIVEN:
        raise Unusable(f"standard input of a job has at most {MAX_GIVEN:,} bytes; name a file of the working folder instead")
    end = next(word for number in count() if (word := f"END_{number}") not in given)
    return f" <<'{end}'\n{given}{'' if given.endswith(chr(10)) else chr(10)}{end}"


def submit(
    store: Location,
    command: Sequence[str],
    *,
    address: str,
    folder: str | Path = ".",
    allow_open: bool = False,
    metadata: Mapping[str, str] | None = None,
    given: str = "",
) -> Job:
    """See ``Store.submit``."""
    require_shared_store(store.uri)
    _ = store.objects  # a store that cannot be opened is refused before anything is uploaded
    kind = command[0]
    client = RayJobClient(address, allow_open=allow_open)
    name = f"{kind}-{new_run_id()}"
    words = ["python", "-m", "beam_ray.cli.submit", *command]
    environment = {"BEAM_RAY_OPEN_CLUSTER": "1"} if allow_open else {}
    client.submit(name, join(words) + _here_document(given), folder=str(folder), metadata=dict(metadata or {}), environment=environment)
    return Job(store, name, kind, client)


@dataclass(frozen=True)
class CurrentJob:
    """The Ray job that this process runs as."""

    id: str

    def require_shared_store(self, store: str) -> None:
        """
        Check that the store outlives the job's working folder.

        Raises:
            Unusable: its path is relative.
        """
        require_shared_store(store)

    def record_exit(self, store: str, command: str, exit_code: int) -> None:
        """Record the exit code of the job's command in the store, where the waiting process reads it."""
        record_exit(open_objects(store, proven=True), self.id, command, exit_code)


def current_job() -> CurrentJob | None:
    """The Ray job that this process runs as; None outside a job."""
    name = submission_id()
    return CurrentJob(name) if name else None
