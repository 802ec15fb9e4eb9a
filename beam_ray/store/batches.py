"""
The batches of an unfinished run, and what they brought; a finished run has its answers in its steps.

    runs/<run_id>/batches/outbox/<wave>/<runner>-<n>.parquet     requests that wait for the wave to close
    runs/<run_id>/batches/waves/<wave>/<input>.jsonl             an input file, as it is uploaded
    runs/<run_id>/batches/waves/<wave>/wave.json                 the wave is closed: its input files, and what they may cost
    runs/<run_id>/batches/waves/<wave>/<input>.batch-<n>.json    the batch that was created for it; the highest n counts
    runs/<run_id>/batches/answers/<shard>/<wave>-<input>.parquet what it brought for the rows of a shard
    runs/<run_id>/batches/waves/<wave>/<input>.ended.json        all that it brought is in the store

Each is created if absent, in this order, so that any driver can go on where another died.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NotRequired, TypedDict

import pyarrow as pa

from beam_ray.store.checksummed_json import read_document, seal
from beam_ray.store.objects import NotThere
from beam_ray.store.parquet import decode, encode
from beam_ray.store.run_record import now
from beam_ray.store.runs import Run

OUTBOX = pa.schema(
    [
        pa.field("custom_id", pa.string(), metadata={"meaning": "shard and call; the line's name in the batch"}),
        pa.field("model", pa.string(), metadata={"meaning": "name in the models file"}),
        pa.field("node", pa.string(), metadata={"meaning": "the node that asks"}),
        pa.field("judges", pa.bool_(), metadata={"meaning": "whether its judge asks"}),
        pa.field("input_tokens", pa.int64(), metadata={"meaning": "estimated"}),
        pa.field("max_tokens", pa.int64(), metadata={"meaning": "the most tokens of the answer"}),
        pa.field("body", pa.string(), metadata={"meaning": "JSON: the body of the request"}),
    ]
)

ANSWERS = pa.schema(
    [
        pa.field("custom_id", pa.string(), metadata={"meaning": "shard and call"}),
        pa.field("status", pa.int32(), metadata={"meaning": "HTTP status of the reply; 0 where the batch ended without one"}),
        pa.field("body", pa.string(), metadata={"meaning": "JSON: the reply, or a word that says why there is none"}),
    ]
)


class InputEntry(TypedDict):
    """One input file of a wave."""

    name: str
    """A digest of what is in it."""
    model: str
    rows: int
    bytes: int
    input_tokens: int
    """Estimated."""
    max_output_tokens: int
    max_usd: float | None
    """At the price of batches; None where the model has no price."""
    nodes: dict[str, int]
    """Node, or ``judge of NODE``, to rows."""


class Wave(TypedDict):
    """The content of wave.json: a wave is closed when it is there."""

    wave: int
    closed_at: str
    inputs: list[InputEntry]


class Submitted(TypedDict):
    """The content of <input>.batch-<n>.json: the batch that was created for an input file."""

    batch_id: str
    at: str


class Ended(TypedDict):
    """The content of <input>.ended.json."""

    status: str
    """The state in which the batch ended."""
    answered: int
    refused: int
    unanswered: int
    at: str
    reason: NotRequired[str]
    """What the endpoint found wrong with the input file."""


class Batches:
    """The batches of one run."""

    def __init__(self, run: Run):
        self.run, self.objects = run, run.objects
        self.prefix = f"{run.prefix}/batches"

    # -- the outbox -------------------------------------------------------------------------

    def put_aside(self, wave: int, runner: str, number: int, rows: Iterable[Mapping[str, Any]]) -> None:
        """Keep requests that wait for the *wave* to close."""
        self.objects.create(f"{self.prefix}/outbox/{wave:04d}/{runner}-{number:06d}.parquet", encode(OUTBOX, rows))

    def outbox(self, wave: int, epoch: int) -> Iterator[pa.Table]:
        """What the runners of the driver *epoch* put aside for the *wave*; what those of earlier drivers did is put aside again."""
        for key, _ in self.objects.keys(f"{self.prefix}/outbox/{wave:04d}/{epoch:04d}-"):
            yield decode(self.objects.read(key), OUTBOX, key)

    def empty_outbox(self) -> None:
        """Delete what closed waves have, or what nobody put into one."""
        for key, _ in list(self.objects.keys(f"{self.prefix}/outbox/")):
            self.objects.delete(key)

    # -- waves ------------------------------------------------------------------------------

    def waves(self) -> list[Wave]:
        """The closed waves, in order."""
        found = []
        for name in self.objects.folders(f"{self.prefix}/waves/"):
            try:
                found.append(read_document(self.objects, f"{self.prefix}/waves/{name}/wave.json", Wave))
            except NotThere:
                continue  # a driver died before it closed the wave
        return found

    def close_wave(self, wave: int, inputs: Sequence[InputEntry]) -> bool:
        """Close the wave: from now on its input files are to be submitted. Whether ours was the first word."""
        return self.objects.create(f"{self._wave(wave)}/wave.json", seal({"wave": wave, "closed_at": now(), "inputs": list(inputs)}))

    def write_input(self, wave: int, name: str, body: bytes) -> None:
        """Keep an input file."""
        self.objects.create(f"{self._wave(wave)}/{name}.jsonl", body)

    def read_input(self, wave: int, name: str) -> bytes:
        """An input file."""
        return self.objects.read(f"{self._wave(wave)}/{name}.jsonl")

    def submitted(self, wave: int, name: str) -> tuple[int, str]:
        """How often a batch was created for the input file, and the id of the last one; an empty id before the first."""
        numbers = [int(key.rsplit("-", 1)[1].removesuffix(".json")) for key, _ in self.objects.keys(f"{self._wave(wave)}/{name}.batch-")]
        if not numbers:
            return 0, ""
        number = max(numbers)
        return number, read_document(self.objects, self._batch(wave, name, number), Submitted)["batch_id"]

    def submit(self, wave: int, name: str, number: int, batch_id: str) -> str:
        """Keep which batch was created for the input file as the *number*-th; the one that counts."""
        self.objects.create(self._batch(wave, name, number), seal({"batch_id": batch_id, "at": now()}))
        return read_document(self.objects, self._batch(wave, name, number), Submitted)["batch_id"]

    def ended(self, wave: int, name: str) -> Ended | None:
        """How the batch of the input file ended, once all that it brought is in the store."""
        try:
            return read_document(self.objects, f"{self._wave(wave)}/{name}.ended.json", Ended)
        except NotThere:
            return None

    def end(self, wave: int, name: str, ended: Ended) -> None:
        """All that the batch brought is in the store."""
        self.objects.create(f"{self._wave(wave)}/{name}.ended.json", seal(ended))

    def forget_end(self, answers: str) -> None:
        """Forget that the batch has ended which brought a file of *answers*: the next driver fetches them again, which costs nothing."""
        wave, _, name = answers.rsplit("/", 1)[-1].removesuffix(".parquet").partition("-")
        self.objects.delete(f"{self._wave(int(wave))}/{name}.ended.json")

    def _wave(self, wave: int) -> str:
        return f"{self.prefix}/waves/{wave:04d}"

    def _batch(self, wave: int, name: str, number: int) -> str:
        return f"{self._wave(wave)}/{name}.batch-{number:02d}.json"

    # -- answers ----------------------------------------------------------------------------

    def keep_answers(self, shard: int, wave: int, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep what a batch brought for the rows of a shard."""
        self.objects.create(f"{self.prefix}/answers/{shard:06d}/{wave:04d}-{name}.parquet", encode(ANSWERS, rows))

    def answers(self, shard: int) -> dict[str, list[tuple[int, Any]]]:
        """What batches brought for the rows of a shard: custom id to statuses and bodies, the oldest first."""
        found: dict[str, list[tuple[int, Any]]] = {}
        for key, _ in self.objects.keys(f"{self.prefix}/answers/{shard:06d}/"):
            for row in decode(self.objects.read(key), ANSWERS, key).to_pylist():
                found.setdefault(row["custom_id"], []).append((row["status"], json.loads(row["body"])))
        return found

    @property
    def begun(self) -> bool:
        """Whether the run has any batch, or had one."""
        return next(self.objects.keys(f"{self.prefix}/waves/"), None) is not None


def shard_of(custom_id: str) -> int:
    """The shard of the row that asks."""
    return int(custom_id[:6])


def custom_id(shard: int, call: str) -> str:
    """The line's name in a batch: at most 64 characters."""
    return f"{shard:06d}-{call}"
