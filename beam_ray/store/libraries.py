"""
Task libraries: named, versioned sets of saved tasks.

    libraries/<name>/<version>.parquet      the tasks; in its metadata when, by whom and by what change
    libraries/<name>/used/<backtest>.json   that a backtest was run over it

A version is created if absent and never changed. That it was used is kept beside it.
"""

import getpass
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypedDict

import pyarrow as pa

from beam_ray.address import NAME
from beam_ray.errors import Unusable, did_you_mean
from beam_ray.store.checksummed_json import read_document, seal
from beam_ray.store.objects import NotThere, Objects
from beam_ray.store.parquet import decode, encode
from beam_ray.store.run_record import now
from beam_ray.store.tables import TASKS

_ABOUT = b"beam_ray.library"


class LibraryMetadata(TypedDict):
    """What the metadata of a version's file says, as JSON."""

    saved_at: str
    saved_by: str
    change: str
    since: dict[str, str]
    """Task to the time when its inputs came into the library."""


@dataclass(frozen=True)
class Library:
    """One version of a library."""

    name: str
    version: int
    tasks: pa.Table
    saved_at: str = ""
    saved_by: str = ""
    change: str = ""
    """What this version changed, in words."""
    since: Mapping[str, str] = field(default_factory=dict)
    """For each task, when its inputs came into the library."""

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


class UseDocument(TypedDict):
    """The content of used/<backtest>.json."""

    at: str
    backtest_id: str
    version: int


@dataclass(frozen=True, order=True)
class Use:
    """A backtest that was run over a library."""

    at: str
    backtest_id: str
    version: int


def library_names(objects: Objects) -> list[str]:
    """The names of all libraries, in order."""
    return objects.folders("libraries")


def library_versions(objects: Objects, name: str) -> list[int]:
    """The numbers of the library's versions, in order."""
    if not NAME.fullmatch(name):
        return []
    names = (key.rsplit("/", 1)[-1].partition(".") for key, _ in objects.keys(f"libraries/{name}/"))
    return sorted(int(number) for number, _, kind in names if kind == "parquet" and number.isdecimal())


def library_at(objects: Objects, written: str) -> Library:
    """
    The version that ``NAME@VERSION`` names, or the newest of ``NAME``.

    Raises:
        Unusable: there is no such library or version.
    """
    name, _, number = written.partition("@")
    numbers = library_versions(objects, name)
    if not numbers:
        known = library_names(objects)
        raise Unusable("\n  ".join([f"there is no task library {name!r}", f"libraries: {', '.join(known) or 'none'}", *did_you_mean(name, known)]))
    if number and (not number.isdecimal() or int(number) not in numbers):
        raise Unusable(f"the library {name!r} has no version {number!r}; it has {numbers[0]} to {numbers[-1]}")
    version = int(number) if number else numbers[-1]
    key = _key(name, version)
    try:
        table = decode(objects.read(key), TASKS, key)
    except NotThere:
        raise Unusable(f"the library {name!r} has no version {version}") from None
    about: LibraryMetadata = json.loads((table.schema.metadata or {}).get(_ABOUT, b"{}"))
    return Library(name, version, table.replace_schema_metadata(TASKS.metadata), **about)


def newest_library(objects: Objects, name: str) -> Library:
    """The newest version; of a library that is not there yet, version 0 without tasks."""
    return library_at(objects, name) if library_versions(objects, name) else Library(name, 0, TASKS.empty_table())


def read_library(objects: Objects, written: str) -> tuple[pa.Table, int]:
    """
    The tasks of ``NAME`` or ``NAME@VERSION``, and the version's number.

    Raises:
        Unusable: there is no such library or version.
    """
    found = library_at(objects, written)
    return found.tasks, found.version


def require_library_name(name: str) -> None:
    """
    Check that a new library may have this name.

    Raises:
        Unusable: it may not.
    """
    if not NAME.fullmatch(name):
        raise Unusable(
            f"{name[:80]!r} cannot name a library\n  a name has 1 to 64 lower-case letters, digits, '-' and '_', and begins with a letter or a digit"
        )


def write_library(objects: Objects, name: str, tasks: pa.Table, after: int, *, change: str = "", since: Mapping[str, str] | None = None) -> int:
    """
    Keep *tasks* as the version after *after*; its number.

    Raises:
        Unusable: this cannot be a name, or someone else wrote that version first.
    """
    require_library_name(name)
    version, moment = after + 1, now()
    times = {task: (since or {}).get(task, moment) for task in tasks["task_id"].to_pylist()}
    about: LibraryMetadata = {"saved_at": moment, "saved_by": getpass.getuser(), "change": change, "since": times}
    schema = TASKS.with_metadata({**TASKS.metadata, _ABOUT: json.dumps(about).encode()})
    if not objects.create(_key(name, version), encode(schema, tasks, row_group=1_000)):
        raise Unusable(f"the library {name!r} was changed by another process at the same time; run the same command again")
    return version


def used(objects: Objects, source: str, backtest_id: str) -> None:
    """Remember that the backtest was run over *source*, if that is ``library:NAME@VERSION``. The first word counts."""
    kind, _, written = source.partition(":")
    name, _, number = written.partition("@")
    if kind == "library" and NAME.fullmatch(name) and number.isdecimal():
        body: UseDocument = {"at": now(), "backtest_id": backtest_id, "version": int(number)}
        objects.create(f"libraries/{name}/used/{backtest_id}.json", seal(body))


def uses(objects: Objects, name: str) -> list[Use]:
    """The backtests that were run over the library, the newest last."""
    return sorted(Use(**read_document(objects, key, UseDocument)) for key, _ in objects.keys(f"libraries/{name}/used/"))


def _key(name: str, version: int) -> str:
    return f"libraries/{name}/{version:06d}.parquet"
