"""
Bytes under keys, on a disk or on S3, with one promise: ``create`` has one winner.

An object is written whole, if absent, and its presence is the commit. A doubtful answer is
settled by reading back: a network that loses the reply to a create that succeeded makes
any later try look like a loss, so the status alone proves nothing.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol


class NotThere(KeyError):
    """No object has this key."""


class Objects(Protocol):
    """A place where bytes are kept under keys such as ``runs/261123-a3f1/run.json``."""

    uri: str

    def __hash__(self) -> int:
        """What is known of a store is kept by these objects themselves."""

    def create(self, key: str, body: bytes) -> bool:
        """Keep *body* under *key* if nothing is there; whether it was ours that was kept."""

    def put(self, key: str, body: bytes) -> None:
        """Keep *body* under *key*, whatever was there."""

    def read(self, key: str) -> bytes:
        """The bytes under *key*; raises NotThere."""

    def read_range(self, key: str, start: int, size: int) -> bytes:
        """The *size* bytes from *start* on, which counts from the end where it is negative; fewer where the object ends; raises NotThere."""

    def keys(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Every key that begins with *prefix*, with its size in bytes, in order."""

    def folders(self, prefix: str) -> list[str]:
        """The names directly below *prefix* that have something below them, in order."""

    def delete(self, key: str) -> None:
        """Take away what is under *key*, if anything."""

    def delete_all(self, keys: Iterable[str]) -> None:
        """Take away what is under each of the keys, if anything, in any order."""

    def age(self, key: str) -> float:
        """Seconds since what is under *key* was written, by the store's own clock; raises NotThere."""

    def strays(self) -> Iterator[tuple[str, int]]:
        """What writers that died have left and no reader ever sees: keys, with their sizes."""


def at_once(objects: Objects, *calls: Callable[[], Any]) -> list[Any]:
    """
    What the calls give, none of which needs another one done.

    A store on S3 answers late, and many requests at a time, so they are made side by side; on a disk one after the other.
    """
    if not objects.uri.startswith("s3://"):
        return [call() for call in calls]
    with ThreadPoolExecutor(len(calls)) as pool:
        return [made.result() for made in [pool.submit(call) for call in calls]]
