"""What commands that are not yet on the public API share."""

import contextlib
from collections.abc import Mapping
from typing import Any

from beam_ray.api.runs import probe_models
from beam_ray.api.workflows import check
from beam_ray.cli.options import budget_of as limits_of
from beam_ray.cli.screen import Meter, store_words
from beam_ray.define.workflow import Workflow
from beam_ray.errors import Problem, Stopped
from beam_ray.store.objects import Objects
from beam_ray.store.runs import RunRecord

__all__ = ["drive", "limits_of", "probe_models", "workflow_of"]


def workflow_of(objects: Objects, written: str) -> tuple[Workflow, int | None, list[Problem]]:
    """The workflow that is named, its version if it has one, and advice about it."""
    import beam_ray

    found = check(written, beam_ray.open(objects.uri))
    return found.workflow, found.version, list(found.warnings)


def drive(objects: Objects, record: RunRecord, models: Mapping[str, Any], *, address: str | None, takeover: bool, quiet: bool, store: str) -> Mapping[str, Any]:
    """Execute the run with progress."""
    from beam_ray.run.connection import Connection
    from beam_ray.run.execute import execute

    meter = Meter(f"run {record.run_id}", quiet=quiet)
    try:
        with contextlib.closing(Connection(address)) as connection:
            return execute(objects, record, models, connection=connection, takeover=takeover, progress=meter).summary
    except Stopped as error:
        error.resume = f"beam-ray resume {record.run_id}{store_words(store)}"
        raise
    finally:
        meter.done()
