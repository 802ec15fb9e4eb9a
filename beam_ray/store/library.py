"""Task libraries: named, versioned sets of saved tasks."""

import pyarrow as pa

from beam_ray.define.load import did_you_mean
from beam_ray.errors import Unusable
from beam_ray.store.objects import NotThere, Objects
from beam_ray.store.tables import TASKS, decode, encode


def library_versions(objects: Objects, name: str) -> list[int]:
    """The numbers of the library's versions, in order."""
    return sorted(int(key.rsplit("/", 1)[-1].removesuffix(".parquet")) for key, _ in objects.keys(f"libraries/{name}/") if key.endswith(".parquet"))


def read_library(objects: Objects, written: str) -> tuple[pa.Table, int]:
    """
    The tasks of ``NAME`` or ``NAME@VERSION``, and the version's number.

    Raises:
        Unusable: there is no such library or version.
    """
    name, _, number = written.partition("@")
    numbers = library_versions(objects, name)
    if not numbers:
        known = objects.folders("libraries")
        raise Unusable("\n  ".join([f"there is no task library {name!r}", f"there are: {', '.join(known) or 'none'}", *did_you_mean(name, known)]))
    if number and (not number.isdecimal() or int(number) not in numbers):
        raise Unusable(f"the library {name!r} has no version {number!r}; it has {numbers[0]} to {numbers[-1]}")
    version = int(number) if number else numbers[-1]
    key = f"libraries/{name}/{version:06d}.parquet"
    try:
        return decode(objects.read(key), TASKS, key), version
    except NotThere:
        raise Unusable(f"the library {name!r} has no version {version}") from None


def write_library(objects: Objects, name: str, tasks: pa.Table, after: int) -> int:
    """
    Keep *tasks* as the version after *after*; its number.

    Raises:
        Unusable: someone else wrote that version first.
    """
    version = after + 1
    if not objects.create(f"libraries/{name}/{version:06d}.parquet", encode(TASKS, tasks, row_group=1_000)):
        raise Unusable(f"the library {name!r} was changed by someone else in this moment; run the same command again")
    return version
