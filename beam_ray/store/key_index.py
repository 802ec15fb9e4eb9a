"""Where the rows of given tasks are in a table, without keeping the ids of all tasks."""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    import numpy as np

Key = tuple[str, int]
"""A task's id and a trial."""

ID_COLUMNS = ["task_id", "trial"]


class KeyIndex:
    """
    The rows of each task and trial of a table that is read row group by row group.

    Rows are looked for where they are expected, since two runs over the same tasks have them in the same
    order. Only if some are not there, all ids are read once, and 16 bytes of each row are kept.
    """

    def __init__(self, groups: Callable[[int], Iterator[tuple[int, pa.Table]]]):
        """
        Args:
            groups: The ID_COLUMNS of each row group from the one on that holds a row, with the number of its first row.
        """
        self._groups = groups
        self._next = 0
        """The row after the last one that was found."""
        self._complete: tuple[np.ndarray, np.ndarray] | None = None
        """The hashes of all keys in order, and their rows."""

    def find(self, wanted: Iterable[Key], near: int | None = None) -> list[int]:
        """The row of each of these tasks and trials, in order; a row of another one may be among them, so the reader looks at its key."""
        missing, found = set(wanted), list[int]()
        if self._complete is None:
            for start, table in self._groups(self._next if near is None else near):
                here = {place: key for place, key in enumerate(keys_of(table), start) if key in missing}
                missing.difference_update(here.values())
                found += here
                if not here or not missing:
                    break
        if missing:
            found += self.find_all(missing)
        if found:
            self._next = max(found) + 1
        return sorted(found)

    def find_all(self, wanted: Iterable[Key]) -> list[int]:
        """All rows of these tasks and trials, wherever they are, in order; a row of another one may be among them."""
        import numpy as np

        if self._complete is None:
            parts = [(start, np.fromiter(map(hash, keys_of(table)), np.int64, table.num_rows)) for start, table in self._groups(0)]
            hashes = np.concatenate([np.empty(0, np.int64), *(hashed for _, hashed in parts)])
            places = np.concatenate([np.empty(0, np.int64), *(np.arange(start, start + len(hashed)) for start, hashed in parts)])
            order = np.argsort(hashes, kind="stable")
            self._complete = hashes[order], places[order]
        hashes, places = self._complete
        asked = np.unique(np.fromiter(map(hash, wanted), np.int64))
        first, last = np.searchsorted(hashes, asked, "left"), np.searchsorted(hashes, asked, "right")
        return sorted(int(place) for begin, end in zip(first, last, strict=True) for place in places[begin:end])


def keys_of(table: pa.Table) -> Iterator[Key]:
    """The keys of a table's rows."""
    return zip(table["task_id"].to_pylist(), table["trial"].to_pylist(), strict=True)
