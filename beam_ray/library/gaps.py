"""Gaps in a library's coverage, and past tasks that would fill them. Pure: nothing is read or written here."""

import datetime
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc

from beam_ray.address import parse
from beam_ray.library.coverage import MINIMUM, STALE, Coverage, Facts, routes_of
from beam_ray.library.run_history import Execution, History, Key, Pair

SHOWN = 3
"""Past tasks suggested per gap, unless the gap needs more."""

Born = Callable[[str], datetime.datetime | None]
"""When the task at an address was first run, where known."""


@dataclass(frozen=True)
class Gap:
    """One thing that the library lacks."""

    kind: str
    """size, route, node, criterion, failures, edge cases, successes, recent or runs."""
    name: str
    """The route, the node, or node/criterion; empty for other kinds."""
    text: str
    remedy: str
    """What to do when no past task fills the gap."""
    needed: int = 1
    fill: tuple[str, ...] = ()
    """Addresses of past tasks, each of which fills the gap; for the size all of them are needed."""


def gaps(facts: Facts, coverage: Coverage) -> list[Gap]:
    """All gaps of the library, its size first."""
    return [*_size(facts), *_variety(facts, coverage), *_kinds(facts, coverage)]


def _size(facts: Facts) -> Iterator[Gap]:
    count = facts.library.tasks.num_rows
    if count < MINIMUM:
        yield Gap("size", "", f"only {_tasks(count)}; at least {MINIMUM} are needed", f"run more tasks, then add {MINIMUM - count} of them", MINIMUM - count)


def _variety(facts: Facts, coverage: Coverage) -> Iterator[Gap]:
    run = "no past task did either: run a task that does, then add it"
    for label, tasks in coverage.routes.items():
        if not tasks:
            yield Gap("route", label, f"no task takes the route {label!r}", run)
    for node, tasks in coverage.nodes.items():
        if not tasks:
            yield Gap("node", node, f"no task reaches the node {node!r}", run)
    for (node, criterion), tasks in coverage.criteria.items():
        if not tasks:
            text = f"the criterion {node}/{criterion} was decided for no task"
            yield Gap("criterion", f"{node}/{criterion}", text, _expected(facts, node, criterion) or run)


def _expected(facts: Facts, node: str, criterion: str) -> str:
    evaluate = facts.workflow.nodes[node].evaluate
    wants = next((each.want for each in evaluate.criteria if each.id == criterion), None) if evaluate else None
    if "expected" not in str(wants):
        return ""
    tasks = facts.library.tasks.select(["task_id", "expected"]).filter(pa.array(facts.reach.nodes[node]))
    here = tasks["task_id"].filter(pc.fill_null(pc.equal(tasks["expected"], ""), True)).slice(0, SHOWN).to_pylist()
    return f"it compares with the expected outcome, which {', '.join(here)} do not have: add them again with --expect JSON --replace" if here else ""


def _kinds(facts: Facts, coverage: Coverage) -> Iterator[Gap]:
    labels = " or ".join(facts.edge_labels)
    if not coverage.failures:
        yield Gap("failures", "", "no task ever failed or fell below a threshold", "no task in the store ever did")
    if not coverage.edge_cases:
        yield Gap(
            "edge cases",
            "",
            f"no task has the label {labels}",
            f"no past task has it either: choose a task and add it with --with-label {facts.edge_labels[0]}",
        )
    if not coverage.successes:
        yield Gap("successes", "", "no task passed in its newest run", "no task in the store passed")
    if coverage.newest and coverage.newest[1] >= STALE:
        since = f", and no task was added for {coverage.refreshed.days} days" if coverage.refreshed and coverage.refreshed >= STALE else ""
        yield Gap("recent", "", f"the newest task is {coverage.newest[1].days} days old{since}", "no past task is newer: run recent tasks, then add them")
    if coverage.never_run:
        names = ", ".join(coverage.never_run[:SHOWN]) + (" …" if len(coverage.never_run) > SHOWN else "")
        yield Gap("runs", "", f"{_tasks(len(coverage.never_run))} of {facts.library.tasks.num_rows} were never run, so their coverage is unknown: {names}", "")


def _tasks(count: int) -> str:
    return "1 task" if count == 1 else f"{count} tasks"


def with_fill(found: Sequence[Gap], facts: Facts, others: Mapping[Key, History], decided: Mapping[Pair, Sequence[Key]], born: Born) -> list[Gap]:
    """
    The gaps with past tasks that would fill them; tasks that fill many gaps first, then the newest.

    Args:
        others: Tasks that are not in the library.
        decided: For each criterion, the tasks among *others* for which it was decided.
    """
    past = _by_id(others)
    options = [list(_options(gap, facts, past, decided, born)) for gap in found]
    worth = Counter(parse(address).task for addresses in options for address in addresses)
    result = []
    for gap, addresses in zip(found, options, strict=True):
        ranked = addresses if gap.kind == "size" else sorted(addresses, key=lambda address: -worth[parse(address).task])
        result.append(replace(gap, fill=tuple(ranked[: gap.needed if gap.kind == "size" else SHOWN])))
    return result


def smallest_fill(found: Sequence[Gap]) -> tuple[str, ...]:
    """A small set of the suggested tasks that fills every gap that can be filled (greedy set cover)."""
    fills: dict[str, set[int]] = {}
    address_of: dict[str, str] = {}
    # a task that is suggested for its failure is taken from the run in which it failed
    for number, gap in sorted(enumerate(found), key=lambda each: each[1].kind != "failures"):
        for address in gap.fill:
            name = parse(address).task
            address_of.setdefault(name, address)
            if gap.kind != "size":
                fills.setdefault(name, set()).add(number)
    chosen: list[str] = []
    left = {number for numbers in fills.values() for number in numbers}
    while left:
        best = max(fills, key=lambda name: len(fills[name] & left))
        chosen.append(best)
        left -= fills[best]
    for gap in found:
        if gap.kind == "size":
            chosen += [name for address in gap.fill if (name := parse(address).task) not in chosen][: max(gap.needed - len(chosen), 0)]
    return tuple(address_of[name] for name in chosen)


def _by_id(others: Mapping[Key, History]) -> dict[Key, History]:
    """The newest task per id: a library can hold only one."""
    first: dict[str, Key] = {}
    for key in others:
        first.setdefault(key[0], key)
    return {key: others[key] for key in first.values()}


def _options(gap: Gap, facts: Facts, past: Mapping[Key, History], decided: Mapping[Pair, Sequence[Key]], born: Born) -> Iterable[str]:
    newest = [history.newest for history in past.values()]
    match gap.kind:
        case "size":
            return _varied(newest, gap.needed)
        case "route":
            nodes = set(routes_of(facts.workflow)[gap.name])
            return (str(each.address) for each in newest if nodes & each.path)
        case "node":
            return (str(each.address) for each in newest if gap.name in each.path)
        case "criterion":
            node, _, criterion = gap.name.partition("/")
            return (str(past[key].newest.address) for key in decided.get((node, criterion), ()) if key in past)
        case "failures":
            return (str(history.failed.address) for history in past.values() if history.failed)
        case "edge cases":
            return (str(each.address) for each in newest if set(each.labels) & set(facts.edge_labels))
        case "successes":
            return (str(each.address) for each in newest if each.passed)
        case "recent":
            return islice(_recent(newest, facts.now, born), SHOWN)
    return ()


def _recent(newest: Iterable[Execution], now: datetime.datetime, born: Born) -> Iterator[str]:
    for each in newest:
        moment = born(str(each.address))
        if moment and now - moment < STALE:
            yield str(each.address)


def _varied(newest: Iterable[Execution], count: int) -> list[str]:
    """*count* executions, taken in turn from groups with different paths and results."""
    ways: dict[tuple[frozenset[str], bool], list[str]] = {}
    for each in newest:
        ways.setdefault((each.path, each.passed), []).append(str(each.address))
    found: list[str] = []
    for turn in range(max(map(len, ways.values()), default=0)):
        found += [addresses[turn] for addresses in ways.values() if turn < len(addresses)]
        if len(found) >= count:
            break
    return found[:count]
