"""Lists of tasks over all runs: filtered, sorted and page by page."""

import contextlib
import datetime
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_ray.address import Address, parse
from beam_ray.api.location import Location
from beam_ray.api.unmet_steps import step_keys, unmet_steps
from beam_ray.define.fingerprint import JsonObject
from beam_ray.errors import BadTemplate, BeamRayError, Unusable
from beam_ray.store.lookup import resolve
from beam_ray.store.outcome_index import INDEX
from beam_ray.store.runs import Run as StoredRun

SORTS = ("run", "started", "score", "seconds", "usd", "auto_reruns", "task")
"""What a list can be sorted by; ``run`` is the newest run first, each in its own order."""
TASK_STATUSES = ("passed", "below", "failed", "failing", "review", "running", "stopped")
"""failing: below or failed. running and stopped: without a result, in a run that goes on or was stopped."""
FACET_VALUES = 30
_SORT_COLUMNS = {"started": "started_at", "task": "task_id"}
SLICE = 2_000
"""Rows for which an expression is evaluated at a time."""


Rows = np.ndarray[Any, Any]
"""Places of rows in the index."""


@dataclass(frozen=True)
class TaskQuery:
    """Which tasks are listed, and how."""

    status: str | None = None
    """passed, below, failed, failing, review, running or stopped."""
    workflow: str | None = None
    version: int | None = None
    """Number of a published version; 0 for drafts."""
    run: str | None = None
    """Named as for ``Store.get_run``."""
    route: str | None = None
    labels: tuple[str, ...] = ()
    """Only tasks with all of these labels."""
    since: str = ""
    """Only tasks that began on this day or later, ``2026-11-23``, UTC."""
    until: str = ""
    """Only tasks that began on this day or earlier."""
    min_score: float | None = None
    max_score: float | None = None
    text: str = ""
    """Only tasks whose id, query or output has this text, whatever the case."""
    where: str = ""
    """Filter expression over the columns, such as ``score < 80 and 'scan' in labels``."""
    node: str | None = None
    """Only tasks whose step at this node failed or did not pass; it needs a run."""
    criterion: str | None = None
    """Only tasks whose step at *node* does not meet this criterion."""
    ended: bool = False
    """Only tasks that have a result."""
    sort: str = "run"
    """One of SORTS; with a minus sign in front of it, the other way round."""
    after: str = ""
    """Address of a task: the page begins after it."""
    before: str = ""
    """Address of a task: the page ends before it."""
    limit: int = 50


class ListedTask(TypedDict):
    """A task as a list shows it: a row of the index, with its address."""

    task: str
    run_id: str
    task_id: str
    trial: int
    status: str
    outcome: str | None
    """done, or failed when any step failed; None where there is none yet."""
    passed: bool | None
    score: float | None
    first_score: float | None
    labels: list[str]
    routes: list[str]
    auto_reruns: int | None
    review: bool | None
    seconds: float | None
    calls: int | None
    usd: float | None
    started_at: datetime.datetime | None
    error: str | None
    task_query: str
    output: str | None
    origin: str | None
    workflow: str
    version: int | None
    mode: str


@dataclass(frozen=True)
class ListedRun:
    """What a list of tasks says of a run."""

    id: str
    finished: bool
    origin: str | None
    """The run that it redoes or borrows from."""
    changed_inputs: JsonObject
    """Of a what-if: field of the task to its new value."""


@dataclass(frozen=True)
class TaskList:
    """One page of a list of tasks."""

    tasks: tuple[ListedTask, ...]
    matching: int
    """Tasks that match, over all pages."""
    total: int
    """Tasks of the store."""
    next: str
    """Address after which the next page begins; empty on the last one."""
    previous: str
    """Address before which the page before ends; empty on the first one."""
    facets: Mapping[str, tuple[tuple[str, int], ...]] = field(default_factory=dict)
    """For status, workflow, version, run, route and label: each value with how many matching tasks have it. That of status counts all statuses."""
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """Runs that could not be read, with why."""
    unread: int = 0
    """Runs that are not read yet, where the caller does not wait for them: their tasks are neither listed nor counted."""
    listed_runs: tuple[StoredRun, ...] = field(default=(), repr=False, compare=False)
    """All runs that were looked at (internal)."""

    @cached_property
    def runs(self) -> "tuple[ListedRun, ...]":
        """The runs of these tasks, and all unfinished ones that can be read, the newest first."""
        named = {task["run_id"] for task in self.tasks}
        found = []
        for run in self.listed_runs:
            with contextlib.suppress(BeamRayError):  # one that cannot be read has no tasks here
                if run.run_id in named or not run.finished:
                    found.append((run.created_at, ListedRun(run.run_id, run.finished, run.origin, run.changed_inputs)))
        return tuple(run for _, run in sorted(found, key=lambda entry: (entry[0], entry[1].id), reverse=True))


def list_tasks(store: Location, query: TaskQuery | None = None, *, patience: float | None = None) -> TaskList:
    """See ``Store.list_tasks``."""
    query = query or TaskQuery()
    run = resolve(store.existing(), query.run) if query.run else None
    # a command that asks for one run reads no other
    found = store.index.find(run, patience)
    everything = found.table
    unfiltered = _chosen(store, everything, replace(query, status=None), run)
    rows = unfiltered[_mask(_of_status(everything, query.status))[unfiltered]] if query.status else unfiltered
    order = rows[_order(everything, rows, query.sort)]
    start, stop = _page(everything, order, query)
    tasks = _listed(everything, order[start:stop].tolist())
    return TaskList(
        tuple(tasks),
        len(rows),
        everything.num_rows,
        tasks[-1]["task"] if tasks and stop < len(order) else "",
        tasks[0]["task"] if tasks and start > 0 else "",
        _facets(everything, rows, unfiltered),
        {run_id: str(error) for run_id, error in found.unreadable.items()},
        found.unread,
        found.runs,
    )


def newest_addresses(store: Location, query: TaskQuery) -> list[Address]:
    """Addresses of the finished tasks that match, in the list's order; of several with one id the newest, of its trials the first."""
    run = resolve(store.existing(), query.run) if query.run else None
    everything = store.index.table()
    rows = _chosen(store, everything, replace(query, ended=True), run)
    table = _taken(everything.select(["run_id", "task_id", "trial"]), rows)
    first: dict[str, Address] = {}
    for name, run_id, trial in zip(*(table[column].to_pylist() for column in ("task_id", "run_id", "trial")), strict=True):
        first.setdefault(name, Address(run_id, name, trial))
    return list(first.values())


def matching_tasks(store: Location, query: TaskQuery) -> pa.Table:
    """All tasks that match, as rows of the index in its order; sort and page are not looked at."""
    run = resolve(store.existing(), query.run) if query.run else None
    everything = store.index.find(run, None).table
    return _taken(everything, _chosen(store, everything, query, run))


def task_family(store: Location, address: str) -> tuple[ListedTask, ...]:
    """See ``Store.task_family``."""
    table = store.index.recent()
    if _place(table, np.arange(table.num_rows), address) is None:
        table = store.index.table()
    places = np.flatnonzero(_mask(pc.equal(table["task_id"], parse(address).task)))
    named = table.select(["run_id", "task_id", "trial", "origin"]).take(pa.array(places)).to_pylist()
    rows = [(str(Address(row["run_id"], row["task_id"], row["trial"])), row["origin"]) for row in named]
    members = {address}
    while True:
        # an origin is named by its first trial, as it was given
        origins = {origin for task, origin in rows if task in members and origin}
        more = {task for task, origin in rows if task not in members and (task in origins or origin in members)}
        if not more:
            break
        members |= more
    return tuple(reversed(_listed(table, [place for place, (task, _) in zip(places.tolist(), rows, strict=True) if task in members])))


def _listed(table: pa.Table, rows: Iterable[int]) -> list[ListedTask]:
    shown = table.select(_SHOWN)
    # slices, since taking rows out of a table in pieces copies all of it first
    found = pa.concat_tables([shown.slice(0, 0), *(shown.slice(row, 1) for row in rows)])
    tasks: list[ListedTask] = []
    for row in found.to_pylist():
        row["task"] = str(Address(row["run_id"], row["task_id"], row["trial"]))
        tasks.append(row)
    return tasks


_SHOWN = [name for name in ListedTask.__annotations__ if name != "task"]


def _matching(table: pa.Table, query: TaskQuery, run: str | None) -> Rows:
    """The rows of the index for which every filter of the query holds, in its order."""
    masks: list[Any] = [pc.is_valid(table["outcome"])] if query.ended else []
    if run:
        masks.append(pc.equal(table["run_id"], run))
    if query.workflow:
        masks.append(pc.equal(table["workflow"], query.workflow))
    if query.version is not None:
        # no version has a number that its column cannot hold
        masks.append(pc.equal(pc.fill_null(table["version"], 0), min(query.version, 2**31 - 1)))
    if query.since:
        masks.append(pc.greater_equal(table["started_at"], pa.scalar(_day(query.since), table["started_at"].type)))
    if query.until:
        masks.append(pc.less(table["started_at"], pa.scalar(_day(query.until) + datetime.timedelta(days=1), table["started_at"].type)))
    if query.min_score is not None:
        masks.append(pc.greater_equal(table["score"], query.min_score))
    if query.max_score is not None:
        masks.append(pc.less_equal(table["score"], query.max_score))
    if query.text:
        found = (pc.match_substring(table[name], query.text, ignore_case=True) for name in ("task_id", "task_query", "output"))
        masks.append(_any(pc.fill_null(mask, False) for mask in found))
    if query.labels or query.route:
        from beam_ray.store.arrow_expression import holds

        masks += [holds(table["labels"], label) for label in query.labels]
        masks += [holds(table["routes"], query.route)] if query.route else []
    if query.status:
        masks.append(_of_status(table, query.status))
    whole = np.ones(table.num_rows, bool)
    for mask in masks:
        whole &= _mask(mask)
    rows = np.flatnonzero(whole)
    return _where(table, rows, query.where) if query.where else rows


def _chosen(store: Location, table: pa.Table, query: TaskQuery, run: str | None) -> Rows:
    """The rows that match, and whose step at the query's node went wrong where it names one."""
    rows = _matching(table, query, run)
    if query.node is None:
        if query.criterion is not None:
            raise Unusable("criterion: name the node, too, such as node=extract")
        return rows
    if run is None:
        raise Unusable("node: tasks are chosen by a node within one run; name the run, too")
    wanted = unmet_steps(StoredRun(store.existing(), run), query.node, query.criterion)
    found: Rows = rows[_mask(pc.is_in(step_keys(_taken(table.select(["task_id", "trial"]), rows)), value_set=wanted))]
    return found


def _where(table: pa.Table, rows: Rows, expression: str) -> Rows:
    from beam_ray.define.template import TemplateFault, evaluate_rows, uses
    from beam_ray.store.arrow_expression import arrow_mask

    try:
        used = [name for name in dict.fromkeys(use.root for use in uses(expression, expression=True)) if name in INDEX.names]
        looked_at = _taken(table.select(used), rows)
        mask = arrow_mask(expression, looked_at) if used else None
        if mask is None:
            values = _rows(looked_at) if used else ({} for _ in range(len(rows)))
            mask = pa.array([bool(value) for value in evaluate_rows(expression, values)], pa.bool_())
    except (BadTemplate, TemplateFault) as error:
        raise Unusable(f"--where: {error}\n  it may use {', '.join(INDEX.names)}") from None
    found: Rows = rows[_mask(mask)]
    return found


def _mask(found: Any) -> "np.ndarray[Any, Any]":
    """For each row whether it is so; what is not known is not."""
    return np.asarray(pc.fill_null(found, False))


def _taken(table: pa.Table, rows: Rows) -> pa.Table:
    """Those rows of a table; all of them without copying any."""
    return table if len(rows) == table.num_rows else table.take(pa.array(rows))


def _any(masks: Iterator[Any]) -> Any:
    whole = next(masks)
    for mask in masks:
        whole = pc.or_(whole, mask)
    return whole


def _of_status(table: pa.Table, status: str) -> Any:
    if status not in TASK_STATUSES:
        raise Unusable(f"there is no status {status!r}\n  statuses are {', '.join(TASK_STATUSES)}")
    if status == "review":
        return pc.fill_null(table["review"], False)
    wanted = ["below", "failed"] if status == "failing" else [status]
    return pc.is_in(table["status"], value_set=pa.array(wanted))


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(max_chunksize=SLICE):
        yield from batch.to_pylist()


def _day(written: str) -> datetime.datetime:
    try:
        return datetime.datetime.combine(datetime.date.fromisoformat(written), datetime.time(), datetime.UTC)
    except ValueError:
        raise Unusable(f"{written!r} is not a day; write it as 2026-11-23") from None


def _order(table: pa.Table, rows: Rows, sort: str) -> Rows:
    """The order of those rows, as places among them; equal ones stay as they are."""
    name, downwards = sort.removeprefix("-"), sort.startswith("-")
    if name not in SORTS:
        raise Unusable(f"a list cannot be sorted by {name!r}\n  it can be sorted by {', '.join(SORTS)}")
    places = np.arange(len(rows))
    if name == "run":
        return places[::-1] if downwards else places
    # the place is a key of its own: Arrow does not promise that equal rows keep their order
    keyed = _taken(table.select([_SORT_COLUMNS.get(name, name)]), rows).rename_columns(["value"]).append_column("place", pa.array(places))
    order = pc.sort_indices(keyed, sort_keys=[("value", "descending" if downwards else "ascending"), ("place", "ascending")])
    return np.asarray(order)


def _page(table: pa.Table, order: Rows, query: TaskQuery) -> tuple[int, int]:
    limit = max(query.limit, 1)
    if query.before:
        stop = _place(table, order, query.before)
        return (0, min(limit, len(order))) if stop is None else (max(stop - limit, 0), stop)
    start = _place(table, order, query.after) if query.after else None
    start = 0 if start is None else start + 1
    return start, min(start + limit, len(order))


def _place(table: pa.Table, order: Rows, address: str) -> int | None:
    """Where in the order the task is; None where it is not listed."""
    named = parse(address)
    mask = pc.and_(pc.equal(table["run_id"], named.run), pc.and_(pc.equal(table["task_id"], named.task), pc.equal(table["trial"], named.trial)))
    found = np.flatnonzero(np.isin(order, np.flatnonzero(_mask(mask))))
    return int(found[0]) if len(found) else None


def _facets(table: pa.Table, rows: Rows, every_status: Rows) -> dict[str, tuple[tuple[str, int], ...]]:
    chosen = _taken(table.select(["workflow", "version", "run_id", "routes", "labels"]), rows)
    found = {
        "workflow": _counts(chosen["workflow"]),
        "version": _counts(chosen["version"], "draft"),
        "run": _counts(chosen["run_id"]),
        "route": _counts(pc.list_flatten(chosen["routes"])),
        "label": _counts(pc.list_flatten(chosen["labels"])),
    }
    of_status = _taken(table.select(["status", "review"]), every_status)
    statuses = dict(_counts(of_status["status"]))
    statuses["failing"] = statuses.get("below", 0) + statuses.get("failed", 0)
    statuses["review"] = pc.sum(pc.cast(pc.fill_null(of_status["review"], False), pa.int64())).as_py() or 0
    found["status"] = tuple((name, statuses.get(name, 0)) for name in TASK_STATUSES)
    return found


def _counts(column: Any, missing: str = "") -> tuple[tuple[str, int], ...]:
    """Each value with how often it is there; nulls under *missing*, or not counted."""
    counted = [
        (missing if each["values"] is None else str(each["values"]), each["counts"])
        for each in pc.value_counts(column).to_pylist()
        if each["values"] is not None or missing
    ]
    return tuple(sorted(counted, key=lambda entry: (-entry[1], entry[0]))[:FACET_VALUES])
