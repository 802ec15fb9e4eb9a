"""Some of a run's tasks, without reading the others."""

import pyarrow as pa

from beam_ray.store.objects import NotThere
from beam_ray.store.parquet import completed
from beam_ray.store.row_groups import RowGroups
from beam_ray.store.runs import Run
from beam_ray.store.tables import TASKS


class TaskRows:
    """The tasks of a run by their place. For one thread at a time."""

    def __init__(self, run: Run):
        self._run = run
        self._file: RowGroups | None = None

    def tasks(self, start: int, stop: int) -> pa.Table:
        """
        The tasks [start, stop), as the table TASKS; see ``Run.tasks``.

        Raises:
            Damaged: they are not what was written.
            Unusable: the run was never started.
        """
        if self._file is None:
            try:
                self._file = RowGroups(self._run.objects, f"{self._run.prefix}/tasks.parquet", TASKS)
            except NotThere:
                return self._run.tasks().slice(start, stop - start)
        found, first = [], 0
        for group, rows in enumerate(self._file.rows):
            if first < stop and first + rows > start:
                table = completed(self._file.read(group, TASKS.names), TASKS)
                found.append(table.slice(max(start - first, 0), stop - max(start, first)))
            first += rows
        return pa.concat_tables([TASKS.empty_table(), *found])
