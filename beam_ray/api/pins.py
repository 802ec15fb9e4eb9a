"""Pinned views: a filter over tasks with the runs that it found, so that whoever opens it sees the same numbers, or exactly what changed since."""

import datetime
import getpass
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypedDict

import pyarrow as pa
import pyarrow.compute as pc

from beam_ray.api.display import Display, Displayed
from beam_ray.api.location import Location
from beam_ray.api.task_address import filters_text, task_filters, task_query
from beam_ray.api.task_list import TaskQuery, matching_tasks
from beam_ray.define.fingerprint import digest
from beam_ray.errors import Damaged, Unusable
from beam_ray.store.pins import PinDocument, PinNumbers, add_pin, pin_digests, read_pin
from beam_ray.store.runs import Run

if TYPE_CHECKING:
    from beam_ray.define.fingerprint import Json


class PinnedViewDocument(TypedDict):
    """A pinned view as ``--json`` prints it."""

    pin: str
    filters: str
    note: str
    pinned_at: str
    pinned_by: str
    runs: list[str]
    numbers: PinNumbers
    numbers_now: PinNumbers
    same: bool
    changed_runs: list[str]
    missing_runs: list[str]
    newer: dict[str, int]


@dataclass(frozen=True, repr=False)
class Pin(Displayed):
    """A view of tasks that was pinned."""

    id: str
    """A digest of what it says; the console shows it as ``/e/ID``."""
    filters: str
    """As the query string of the console's Tasks page."""
    runs: Mapping[str, str] = field(compare=False)
    """The finished runs with tasks that matched, to the digest of their manifests."""
    numbers: PinNumbers = field(compare=False)
    """What the view counted."""
    note: str = field(compare=False)
    pinned_at: str = field(compare=False)
    """ISO 8601, UTC."""
    pinned_by: str = field(compare=False)

    @property
    def query(self) -> TaskQuery:
        """The tasks: those that match in the pinned runs, and no others."""
        found = task_query(task_filters(f"?{self.filters}"))
        runs = f"run_id in {json.dumps(sorted(self.runs))}"
        return replace(found, where=f"({found.where}) and {runs}" if found.where else runs, ended=True)

    def display(self) -> Display:
        facts = (("filters", self.filters or "none"), ("runs", len(self.runs)), ("pinned", self.pinned_at[:16]), ("by", self.pinned_by), ("note", self.note))
        return Display(self.id, facts, ("", ""), list(self.numbers.items()))


@dataclass(frozen=True, repr=False)
class PinnedView(Displayed):
    """A pinned view as it is now."""

    pin: Pin
    numbers: PinNumbers
    """What it counts now."""
    changed: tuple[str, ...]
    """Runs whose files are other ones now, as after a repair."""
    missing: tuple[str, ...]
    """Runs that are no longer there, or cannot be read."""
    newer: Mapping[str, int]
    """Finished runs that the view does not have, to how many of their tasks match its filters."""

    @property
    def same(self) -> bool:
        """Whether the pinned runs are as they were, and so are all numbers."""
        return self.numbers == self.pin.numbers and not self.changed and not self.missing

    def display(self) -> Display:
        rows = [(name, before, self.numbers[name]) for name, before in self.pin.numbers.items()]  # type: ignore[literal-required]
        return Display(self.pin.id, (("same", self.same), ("newer runs", len(self.newer))), ("", "pinned", "now"), rows)

    def document(self) -> PinnedViewDocument:
        """The view as a JSON document."""
        pin = self.pin
        return {
            "pin": pin.id,
            "filters": pin.filters,
            "note": pin.note,
            "pinned_at": pin.pinned_at,
            "pinned_by": pin.pinned_by,
            "runs": list(pin.runs),
            "numbers": pin.numbers,
            "numbers_now": self.numbers,
            "same": self.same,
            "changed_runs": list(self.changed),
            "missing_runs": list(self.missing),
            "newer": dict(self.newer),
        }


def pin(store: Location, view: str, *, note: str = "", by: str = "") -> Pin:
    """See ``Store.pin``."""
    objects, filters = store.existing(), task_filters(view)
    tasks = matching_tasks(store, replace(task_query(filters), ended=True))
    runs: dict[str, str] = {}
    for name in pc.unique(tasks["run_id"]).to_pylist():
        found = _manifest_digest(Run(objects, name))
        if found:
            runs[name] = found
    tasks = tasks.filter(pc.is_in(tasks["run_id"], value_set=pa.array(list(runs), pa.string())))
    if not tasks.num_rows:
        raise Unusable(f"no task of a finished run matches {filters_text(filters) or 'these filters'}; there is nothing to pin")
    numbers, text = _numbers(tasks), filters_text(filters)
    said: list[Json] = [text, dict(runs), dict(numbers)]
    name = digest("pin/1", said)[:16]
    moment = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    add_pin(objects, name, {"filters": text, "runs": runs, "numbers": numbers, "note": note, "pinned_at": moment, "pinned_by": by or getpass.getuser()})
    return get_pin(store, name)


def get_pin(store: Location, name: str) -> Pin:
    """See ``Store.get_pin``."""
    return _pin(*read_pin(store.existing(), name))


def _pin(name: str, document: PinDocument) -> Pin:
    return Pin(name, document["filters"], document["runs"], document["numbers"], document["note"], document["pinned_at"], document["pinned_by"])


def pins(store: Location) -> list[Pin]:
    """See ``Store.pins``."""
    objects = store.existing()
    return sorted((_pin(*read_pin(objects, name)) for name in pin_digests(objects)), key=lambda each: each.pinned_at, reverse=True)


def pinned_view(store: Location, name: str) -> PinnedView:
    """See ``Store.pinned_view``."""
    found, objects = get_pin(store, name), store.existing()
    tasks = matching_tasks(store, replace(task_query(task_filters(f"?{found.filters}")), ended=True))
    pinned = pc.is_in(tasks["run_id"], value_set=pa.array(list(found.runs), pa.string()))
    others = {row["values"]: row["counts"] for row in pc.value_counts(tasks.filter(pc.invert(pinned))["run_id"]).to_pylist()}
    changed, missing = [], []
    for run_id, before in found.runs.items():
        try:
            now = _manifest_digest(Run(objects, run_id))
        except Damaged:
            now = ""
        if not now:
            missing.append(run_id)
        elif now != before:
            changed.append(run_id)
    newer = {run_id: count for run_id, count in others.items() if Run(objects, run_id).finished}
    return PinnedView(found, _numbers(tasks.filter(pinned)), tuple(changed), tuple(missing), newer)


def _numbers(tasks: pa.Table) -> PinNumbers:
    status = {row["values"]: row["counts"] for row in pc.value_counts(tasks["status"]).to_pylist()}
    score, usd = pc.mean(tasks["score"]).as_py(), pc.sum(tasks["usd"]).as_py()
    return {
        "tasks": tasks.num_rows,
        "passed": status.get("passed", 0),
        "below": status.get("below", 0),
        "failed": status.get("failed", 0),
        "review": pc.sum(pc.cast(pc.fill_null(tasks["review"], False), pa.int64())).as_py() or 0,
        "score": None if score is None else round(score, 6),
        "usd": None if tasks["usd"].null_count or usd is None else round(usd, 9),
    }


def _manifest_digest(run: Run) -> str:
    """Identifies the files of a finished run; empty for any other."""
    manifest = run.manifest
    return hashlib.sha256(json.dumps(manifest, sort_keys=True, default=str).encode()).hexdigest()[:32] if manifest else ""
