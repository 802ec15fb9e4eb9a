"""
Which drafts have seen held-out tasks, by the content of the tasks.

    holdout/<id>.json   that drafts were tried on held-out tasks, by a search's final test or by another command

A task is its inputs (query, variables and attachments), whatever its id and the name of its
library. A draft that was tried on some of the tasks of a holdout set counts for the whole set: a
person who saw it do well there has chosen it by these tasks, and any share of them biases the test.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NotRequired, TypedDict

import pyarrow as pa

from beam_ray.define.fingerprint import digest
from beam_ray.define.workflow import Workflow
from beam_ray.publish import read_version, versions
from beam_ray.store.checksummed_json import read_document, seal
from beam_ray.store.libraries import library_at
from beam_ray.store.objects import Objects
from beam_ray.store.run_record import now

MOST_DRAFTS = 8
"""Maximum number of drafts tested on one holdout set: the confidence level that a ninth would need is not available."""


class SplitDocument(TypedDict):
    """The content of split/<version>.json: ids of the tasks of both sides, and digests of their inputs in the same order."""

    at: str
    search: list[str]
    held: list[str]
    search_inputs: NotRequired[list[str]]
    held_inputs: NotRequired[list[str]]


class HoldoutTest(TypedDict):
    """The content of libraries/<name>/held/<backtest>.json, where earlier versions recorded final tests by the library's name."""

    at: str
    backtest_id: str


class Exposure(TypedDict):
    """The content of holdout/<id>.json."""

    at: str
    use: str
    """The command, in words."""
    backtest_id: str
    """Of a search's final test; empty for other uses."""
    drafts: list[str]
    """Digests of the drafts' definitions."""
    inputs: list[str]
    """Digests of the inputs of the held-out tasks that they were tried on."""


@dataclass(frozen=True)
class StoredSplit:
    """A split of a library's version, by content."""

    library: str
    search: frozenset[str]
    """Digests of inputs."""
    held: frozenset[str]


def stored_splits(objects: Objects) -> list[StoredSplit]:
    """The splits of all libraries."""
    found = []
    for key, _ in objects.keys("libraries/"):
        name, _, file = key.removeprefix("libraries/").partition("/split/")
        if not file:
            continue
        document = read_document(objects, key, SplitDocument)
        if "held_inputs" in document and "search_inputs" in document:
            sides = [document["search_inputs"], document["held_inputs"]]
        else:
            tasks = library_at(objects, f"{name}@{int(file.removesuffix('.json'))}").tasks
            inputs = dict(zip(tasks["task_id"].to_pylist(), tasks["inputs"].to_pylist(), strict=True))
            sides = [[inputs[task] for task in side if task in inputs] for side in (document["search"], document["held"])]
        found.append(StoredSplit(name, frozenset(sides[0]), frozenset(sides[1])))
    return found


def count_drafts(objects: Objects, held: Iterable[str], before: Exposure | None = None) -> int:
    """
    How many drafts were tried on any of the *held* tasks, named by the digests of their inputs.

    Each final test of a search counts, and each other draft once, however often it was tried. With *before*, only
    what came before that test counts, and its own draft does not.
    """
    wanted, splits = frozenset(held), stored_splits(objects)
    found = [entry for entry in _exposures(objects, splits) if wanted & frozenset(entry["inputs"])]
    if before is not None:
        found = [entry for entry in found if (entry["at"], entry["backtest_id"]) < (before["at"], before["backtest_id"])]
    tests = {entry["backtest_id"]: entry["drafts"] for entry in found if entry["backtest_id"]}
    tested = {draft for drafts in tests.values() for draft in drafts} | set(before["drafts"] if before else ())
    return len(tests) + len({draft for entry in found if not entry["backtest_id"] for draft in entry["drafts"]} - tested)


def record_test(objects: Objects, held: pa.Table, backtest_id: str, draft: str) -> Exposure:
    """Record a search's final test of *draft* on the holdout set; of several records of one test the first counts."""
    return _record(objects, digest("holdout-test/1", backtest_id), f"final test {backtest_id}", backtest_id, [draft], held["inputs"].to_pylist())


def note_use(objects: Objects, tasks: pa.Table, use: str, drafts: Sequence[Workflow] = ()) -> str:
    """
    Record that *drafts* are tried on *tasks*, where some of these are held out; the sentence that says so, empty where none is.

    A definition that is published is no draft.
    """
    splits = stored_splits(objects)
    inputs = tasks["inputs"].to_pylist()
    held = sorted({entry for entry in inputs if any(entry in split.held for split in splits)})
    if not held:
        return ""
    names = sorted({split.library for split in splits if split.held & set(held)})
    known = {digest_ for name in {draft.name for draft in drafts} for digest_ in _published(objects, name)}
    tried = sorted({draft.digest for draft in drafts} - known)
    if tried:
        _record(objects, digest("holdout-use/1", tried, held), use, "", tried, held)
    count = sum(entry in set(held) for entry in inputs)
    said = f"{count:,} of {len(inputs):,} task{'' if len(inputs) == 1 else 's'} {'is' if count == 1 else 'are'} held out for searches over {', '.join(map(repr, names))}"
    if not tried:
        return said
    which = "this draft counts" if len(tried) == 1 else f"these {len(tried)} drafts count"
    return f"{said}; {which} as tested on them ({count_drafts(objects, held):,} of at most {MOST_DRAFTS})"


def _published(objects: Objects, workflow: str) -> set[str]:
    return {read_version(objects, workflow, number).digest for number in versions(objects, workflow)}


def _record(objects: Objects, id_: str, use: str, backtest_id: str, drafts: list[str], inputs: list[str]) -> Exposure:
    entry: Exposure = {"at": now(), "use": use, "backtest_id": backtest_id, "drafts": drafts, "inputs": sorted(set(inputs))}
    key = f"holdout/{id_.rpartition(':')[2]}.json"
    objects.create(key, seal(entry))
    return read_document(objects, key, Exposure)


def _exposures(objects: Objects, splits: Sequence[StoredSplit]) -> list[Exposure]:
    found = [read_document(objects, key, Exposure) for key, _ in objects.keys("holdout/")]
    known = {entry["backtest_id"] for entry in found}
    for key, _ in objects.keys("libraries/"):
        name, _, file = key.removeprefix("libraries/").partition("/held/")
        if file:
            test = read_document(objects, key, HoldoutTest)
            if test["backtest_id"] not in known:
                inputs = sorted({entry for split in splits if split.library == name for entry in split.held})
                found.append({"at": test["at"], "use": "final test", "backtest_id": test["backtest_id"], "drafts": [], "inputs": inputs})
    return found
