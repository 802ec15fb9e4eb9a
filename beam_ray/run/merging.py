"""
Merging the parts of a run's nodes in a runner, when all of them are there.

The nodes of a small run are encoded as soon as all their parts are committed, while calls of later
nodes are in flight; they are written when all parts of all nodes are there. The driver says when.
"""

import asyncio
import contextlib

from beam_ray.memory import release_memory
from beam_ray.store.runs import Run
from beam_ray.store.tables import FileEntry

MERGED_AT_ONCE = 20_000
"""Rows of a run up to which its nodes are merged at the same time."""

MERGED_NODES = 8
"""Nodes of a small run that are merged at the same time: their files come late from a store on S3."""

ENCODED_AHEAD = 1_000
"""Rows of a run up to which merged files are in memory before the run ends."""


class Merging:
    """The merged files of one run, as far as this runner makes them."""

    def __init__(self, run: Run):
        self.run, self.record = run, run.record
        rows = self.record.rows
        self._at_once = asyncio.Semaphore(1 if rows > MERGED_AT_ONCE else min(2 * MERGED_AT_ONCE // max(rows, 1), MERGED_NODES))
        self._encoding: dict[str, asyncio.Task[list[tuple[bytes, int]] | None]] = {}

    def encode(self, node: str) -> None:
        """Encode the merged files of *node*, whose parts are all committed."""
        self._encoding[node] = asyncio.create_task(self._encode(node))

    async def _encode(self, node: str) -> list[tuple[bytes, int]] | None:
        with contextlib.suppress(Exception):  # what is wrong shows when the node is merged
            return await asyncio.to_thread(self.run.encode_merged, node, len(self.record.shards))
        return None

    async def merge(self, node: str) -> list[FileEntry]:
        """Merge the committed parts of *node* into its finished files."""
        # each holds all rows of its node
        async with self._at_once:
            encoding = self._encoding.pop(node, None)
            files = await asyncio.to_thread(self.run.merge, node, len(self.record.shards), await encoding if encoding else None)
            if self.record.rows > MERGED_AT_ONCE:
                await asyncio.to_thread(release_memory)
            return files

    def close(self) -> None:
        """Encode no more."""
        for encoding in self._encoding.values():
            encoding.cancel()
