"""
Pinned views: which tasks somebody looked at, over which runs, and what the numbers were.

    pins/<digest>.json      a view, created if absent and never changed; its name is a digest of what it says
"""

from collections.abc import Iterator
from typing import TypedDict

from beam_ray.errors import Unusable
from beam_ray.store.checksummed_json import read_document, seal
from beam_ray.store.objects import NotThere, Objects


class PinNumbers(TypedDict):
    """What a view counts."""

    tasks: int
    passed: int
    below: int
    failed: int
    review: int
    score: float | None
    """Mean of the scored tasks."""
    usd: float | None
    """None where a model has no price."""


class PinDocument(TypedDict):
    """The content of pins/<digest>.json."""

    filters: str
    """As the query string of the console's Tasks page."""
    runs: dict[str, str]
    """Finished runs with matching tasks, to the digest of their manifests."""
    numbers: PinNumbers
    note: str
    pinned_at: str
    pinned_by: str


def add_pin(objects: Objects, digest: str, document: PinDocument) -> bool:
    """Keep the view; whether it was not there already."""
    return bool(objects.create(f"pins/{digest}.json", seal(document)))


def read_pin(objects: Objects, name: str) -> tuple[str, PinDocument]:
    """
    The digest of the view that *name* is the beginning of, and what it says.

    Raises:
        Unusable: no view, or more than one, begins so.
        Damaged: it is not what was written.
    """
    found = [digest for digest in pin_digests(objects) if digest == name] or [digest for digest in pin_digests(objects) if name and digest.startswith(name)]
    if len(found) != 1:
        raise Unusable(
            f"{name[:64]!r} is ambiguous; give more of the digest" if found else f"there is no pinned view {name[:64]!r}\n  beam-ray pin  lists them"
        )
    try:
        return found[0], read_document(objects, f"pins/{found[0]}.json", PinDocument)
    except NotThere:
        raise Unusable(f"there is no pinned view {name[:64]!r}\n  beam-ray pin  lists them") from None


def pin_digests(objects: Objects) -> Iterator[str]:
    """The digests of all pinned views."""
    for key, _ in objects.keys("pins/"):
        yield key.removeprefix("pins/").removesuffix(".json")
