"""Execute a run: its driver owns it, and is its only driver."""

import contextlib
from collections.abc import Iterator, Sequence

from beam_ray.errors import BudgetReached, Interrupted, Stopped, Unusable, WrongSetting
from beam_ray.llm.scripted import Models
from beam_ray.run.connection import Connection
from beam_ray.run.driver import Driver, Result
from beam_ray.run.progress import ProgressCallback, ignore_progress
from beam_ray.run.signals import Signals
from beam_ray.run.tools import Tools
from beam_ray.store.beginning import close, mark_refused
from beam_ray.store.lease import Lease
from beam_ray.store.objects import Objects
from beam_ray.store.run_record import RunRecord
from beam_ray.store.runs import Run


def execute(
    objects: Objects,
    record: RunRecord,
    models: Models,
    *,
    connection: Connection | None = None,
    takeover: bool = False,
    progress: ProgressCallback = ignore_progress,
    names: Sequence[str] | None = None,
    keep_open: bool = False,
) -> Result:
    """
    Execute the remaining steps of a run; calling it again after a stop resumes the run.

    Args:
        connection: The cluster; None starts a local Ray that ends with the call.
        takeover: Take over a run whose driver is known to be dead.
        names: What drivers have written of the run, where that is known; None lists it.
        keep_open: Let the same command find this run until the caller closes it, because it has others to execute.

    Raises:
        Unusable: the code of its tools changed since the run was planned.
        RunIsTaken: another driver is running.
        Stopped: it stopped before the end; the same call resumes it.
    """
    run = Run(objects, record.run_id)
    names = run.names() if names is None else names
    if "manifest.json" in names and run.finished:
        # a driver that died after writing the manifest left the parts, and the mark that the run is open
        run.tidy()
        result = finished_result(run)
        if not keep_open:
            close(objects, record)
        return result
    with contextlib.ExitStack() as stack:
        connection = connection or stack.enter_context(contextlib.closing(Connection()))
        with drive(objects, record, models, connection, takeover=takeover, progress=progress, names=names) as driver:
            driver.advance()
            result = driver.finish()
    # last: if the driver dies before this, the same command finds this result and starts no new run; the result needs nothing more of the store
    if not keep_open:
        close(objects, record)
    return result


@contextlib.contextmanager
def drive(
    objects: Objects,
    record: RunRecord,
    models: Models,
    connection: Connection,
    *,
    takeover: bool = False,
    progress: ProgressCallback = ignore_progress,
    names: Sequence[str] | None = None,
) -> Iterator[Driver]:
    """
    Own an unfinished run and execute it in one or several pieces; its runners stay up between them.

    Args:
        names: What drivers had written of it a moment ago, where that is known; None lists it.

    Raises:
        Unusable: the code of its tools changed since the run was planned.
        RunIsTaken: another driver is running.
    """
    changed = changed_tools(record)
    if changed:
        raise Unusable(
            f"run {record.run_id} was started with other code: {', '.join(changed)} changed since\n"
            "  restore the old code to resume the run, or run the command that started it to start a new run with the new code"
        )
    run = Run(objects, record.run_id)
    names = run.names() if names is None else names
    lease = Lease(run, takeover=takeover, names=names)
    driver = None
    try:
        # nobody drove a run before its first lease, so that it has what it had; an earlier driver may have gone on since
        parts = run.parts(names if lease.epoch == 1 else None)
        with Signals() as signals:
            driver = Driver(run, record, models, lease, signals, progress, connection, parts)
            try:
                yield driver
            except Stopped as error:
                if isinstance(error, WrongSetting):
                    mark_refused(objects, record)
                if isinstance(error, BudgetReached):
                    driver.report_budget(error.limit)
                if not isinstance(error, Interrupted):
                    # a signal reaches Ray too, so what fails after one is part of being interrupted
                    signals.raise_if_interrupted()
                raise
    finally:
        if driver is not None:
            driver.close()
        if not lease.released:
            lease.release()


def finished_result(run: Run) -> Result:
    """The result of a finished run, whose record and manifest are read."""
    manifest, _ = run.manifest, run.record
    assert manifest is not None
    return Result(run, manifest["usage"])


def changed_tools(record: RunRecord) -> list[str]:
    """Tools whose source changed since the run was planned."""
    if not record.tools:
        return []
    tools = Tools(record.plan)
    return [name for name, version in record.tools.items() if tools.version(name) != version]
