"""Bringing a run to its end: whoever executes it owns it, and is its only driver."""

import contextlib
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from beam_ray.errors import Stopped, Unusable
from beam_ray.run.connection import Connection
from beam_ray.run.driver import Driver, Result
from beam_ray.run.progress import ProgressCallback, ignore_progress
from beam_ray.run.signals import Signals
from beam_ray.run.tools import Tools
from beam_ray.store.lease import Lease
from beam_ray.store.objects import Objects
from beam_ray.store.runs import Run, RunRecord, close

RELEASE_S = 1.0
"""Seconds that a driver which leaves has to say so; who does not hear it sees by itself that the driver is gone."""


def execute(
    objects: Objects,
    record: RunRecord,
    models: Mapping[str, Any],
    *,
    connection: Connection | None = None,
    takeover: bool = False,
    progress: ProgressCallback = ignore_progress,
) -> Result:
    """
    Do what *record* says that is not yet done; on a local Ray of its own where no *connection* is given.

    Raises:
        Stopped: before the end; the same call goes on.
    """
    run = Run(objects, record.run_id)
    if run.finished:
        # a driver that died after the manifest left the parts, and the mark that the command goes on
        run.tidy()
        close(objects, record)
        return finished(run)
    with contextlib.ExitStack() as stack:
        connection = connection or stack.enter_context(contextlib.closing(Connection()))
        with drive(objects, record, models, connection, takeover=takeover, progress=progress) as driver:
            driver.advance()
            result = driver.finish()
    # the last act: whoever dies before it is given this result by the same command, and not a new run
    close(objects, record)
    return result


@contextlib.contextmanager
def drive(
    objects: Objects,
    record: RunRecord,
    models: Mapping[str, Any],
    connection: Connection,
    *,
    takeover: bool = False,
    progress: ProgressCallback = ignore_progress,
) -> Iterator[Driver]:
    """
    Own an unfinished run, to go on with it in one or several pieces; its runners stay up between them.

    Raises:
        Unusable: it was begun with other code.
        RunIsTaken: another driver is alive.
    """
    changed = changed_tools(record)
    if changed:
        raise Unusable(
            f"run {record.run_id} was begun with other code: {', '.join(changed)} changed since\n"
            "  put the old code back to go on; the command that began it begins a new run with the new code"
        )
    run = Run(objects, record.run_id)
    lease = Lease(run, takeover=takeover)
    driver = None
    try:
        with Signals() as signals:
            driver = Driver(run, record, models, lease, signals, progress, connection)
            try:
                yield driver
            except Stopped:
                # what fails once we were asked to stop is part of being stopped: Ray is told as well
                signals.raise_if_interrupted()
                raise
    finally:
        if driver is not None:
            driver.close()
        _release(lease)


def _release(lease: Lease) -> None:
    """Let the next driver begin at once; a store that stopped this one by its silence is not waited for again."""

    def tell() -> None:
        with contextlib.suppress(Stopped):
            lease.release()

    telling = threading.Thread(target=tell, daemon=True)
    telling.start()
    telling.join(RELEASE_S)


def finished(run: Run) -> Result:
    """The result of a run that is finished."""
    manifest = run.manifest
    assert manifest is not None
    return Result(run.run_id, manifest["usage"])


def changed_tools(record: RunRecord) -> list[str]:
    """The tools whose source is no longer what it was when the run was planned."""
    if not record.tools:
        return []
    tools = Tools(record.plan)
    return [name for name, version in record.tools.items() if tools.version(name) != version]
