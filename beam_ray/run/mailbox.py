"""The mailbox of a runner: what batches brought for its open shards, and the requests that it puts aside."""

import asyncio
from collections.abc import Iterable
from itertools import accumulate
from typing import Any

from beam_ray.llm.batched import PutAside, Reply
from beam_ray.llm.request import Request
from beam_ray.store.batches import Batches, custom_id
from beam_ray.store.key_index import Key
from beam_ray.store.parquet import to_json

MAX_BYTES = 64_000_000
"""Bytes of requests in one file of the outbox."""


class RunnerMailbox:
    """One runner's share of the requests and answers of a run."""

    def __init__(self, batches: Batches, wave: int, runner: str):
        """
        Args:
            wave: The wave that requests are put aside for.
        """
        self._batches, self._wave, self._runner = batches, wave, runner
        self._answers: dict[int, dict[str, list[tuple[int, Any]]]] = {}
        """By shard: what batches brought, by custom id."""
        self._shard_of: dict[Key, int] = {}
        self._waiting: list[dict[str, Any]] = []
        self._files = 0

    def open(self, shard: int, keys: Iterable[Key]) -> None:
        """Read what batches brought for the rows *keys* of a shard."""
        self._answers[shard] = self._batches.answers(shard)
        self._shard_of.update(dict.fromkeys(keys, shard))

    def forget(self, shard: int) -> None:
        """Drop what was read for a shard."""
        self._answers.pop(shard, None)

    def replies(self, request: Request, call: str) -> list[Reply]:
        """What batches brought for the call, the oldest first."""
        shard = self._shard_of[request.task_id, request.trial]
        return [Reply(*found) for found in self._answers.get(shard, {}).get(custom_id(shard, call), ())]

    def put(self, waiting: PutAside) -> None:
        """Put a request aside until the next ``flush``."""
        request = waiting.request
        self._waiting.append(
            {
                "custom_id": custom_id(self._shard_of[request.task_id, request.trial], waiting.call),
                "model": waiting.model,
                "node": request.node,
                "judges": request.judges,
                "input_tokens": waiting.input_tokens,
                "max_tokens": request.max_tokens,
                "body": to_json(waiting.body),
            }
        )

    async def flush(self) -> None:
        """Write the requests put aside to the outbox."""
        while rows := self._waiting:
            sizes = accumulate(len(row["body"]) for row in rows)
            count = max(sum(size <= MAX_BYTES for size in sizes), 1)
            await asyncio.to_thread(self._batches.put_aside, self._wave, self._runner, self._files, rows[:count])
            self._files += 1
            # others may have been put aside meanwhile
            self._waiting = self._waiting[count:]
