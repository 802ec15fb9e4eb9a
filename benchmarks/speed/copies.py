"""Large stores from one run: copies of it under other ids and days, as if each had been made by itself."""

import datetime
from typing import Any

import pyarrow as pa

from beam_ray.store.checksummed_json import seal
from beam_ray.store.disk import Disk
from beam_ray.store.parquet import encode
from beam_ray.store.runs import Run
from beam_ray.store.tables import OUTCOME, STEPS, TASKS


class Unsynced(Disk):
    """A folder that is not worth waiting for a disk."""

    def _write(self, key: str, body: bytes, *, link: bool) -> bool:
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
        return True


class Copies:
    """Makes copies of a finished run, which is read once."""

    def __init__(self, origin: Run):
        self.origin, self.objects = origin, origin.objects
        assert origin.manifest
        self._written, self._manifest = origin.written, origin.manifest
        self._tasks = encode(TASKS, origin.tasks())
        self._tables = [("outcome.parquet", OUTCOME, origin.outcome())]
        self._tables += [(f"steps/{node}-000.parquet", STEPS, origin.steps([node])) for node in origin.record.plan.order]

    def make(self, number: int, days: int, **changes: Any) -> Run:
        """The copy of that number, begun so many days after the start of 2026; *changes* are of its run.json."""
        at = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(days=days, seconds=number)
        run = Run(self.objects, f"{at:%y%m%d}-{number:06x}")
        written = {**self._written, "run_id": run.run_id, "key": run.run_id, "created_at": at.isoformat(), **changes}
        self.objects.create(f"{run.prefix}/run.json", seal(written))
        self.objects.create(f"{run.prefix}/tasks.parquet", self._tasks)
        files = [Run.entry("tasks.parquet", self._tasks, self._manifest["usage"]["rows"])]
        for name, schema, table in self._tables:
            body = encode(schema, _moved(table, run.run_id, at), row_group=2_000)
            self.objects.create(f"{run.prefix}/{name}", body)
            files.append(Run.entry(name, body, table.num_rows))
        usage = {**self._manifest["usage"], "started_at": at.isoformat(), "ended_at": at.isoformat()}
        manifest = {**self._manifest, "run_id": run.run_id, "finished_at": at.isoformat(), "files": files, "usage": usage, "record": written}
        self.objects.create(f"{run.prefix}/manifest.json", seal(manifest))
        return run


def _moved(table: pa.Table, run_id: str, at: datetime.datetime) -> pa.Table:
    columns: dict[str, Any] = {name: table[name] for name in table.schema.names}
    columns["run_id"] = pa.array([run_id] * table.num_rows)
    for name in ("started_at", "ended_at"):
        columns[name] = pa.array([at] * table.num_rows, table.schema.field(name).type)
    return pa.table(columns, schema=table.schema)
