"""Options that several commands share, gathered into one value per group."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

import shlex
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property, wraps
from typing import Any, TypeVar

import click

import beam_ray
from beam_ray.errors import Unusable

Command = TypeVar("Command", bound=Callable[..., Any])
Decorator = Callable[[Command], Command]

STATUSES = ("passed", "below", "failed", "failing", "review")
SOURCES = (
    "A file (.jsonl, .json, .csv, .tsv, .parquet, .xlsx, or text as .gz), a folder, a quoted pattern, s3://…, "
    "- for standard input, library:NAME[@VERSION] or run:RUN. Repeat it for several."
)


def grouped(group: type[Any], name: str, *options: Callable[[Any], Any]) -> Decorator[Any]:
    """A decorator that adds *options* to a command and passes them to it as one value, the dataclass *group*, under *name*."""

    def decorate(command: Any) -> Any:
        @wraps(command)
        def called(*args: Any, **kwargs: Any) -> Any:
            kwargs[name] = group(**{field.name: kwargs.pop(field.name) for field in fields(group) if field.name in kwargs})
            return command(*args, **kwargs)

        decorated: Any = called
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


@dataclass(frozen=True)
class Place:
    """Where a command reads and writes, what it may use, and how it prints."""

    store: str
    as_json: bool = False
    models: str = beam_ray.DEFAULT_MODELS
    address: str | None = None
    lane: str | None = None

    @cached_property
    def opened(self) -> beam_ray.Store:
        """The store."""
        from beam_ray.memory import spare_pandas

        spare_pandas()
        return beam_ray.open(self.store, models=self.models, address=self.address, lane=self.lane)

    @property
    def option(self) -> str:
        """What a printed command needs to find the store again; nothing for the default one."""
        return self.opened.option


@dataclass(frozen=True)
class TaskSource:
    """Which tasks, and how they are read."""

    sources: tuple[str, ...]
    mapping: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    limit: int | None = None

    @property
    def tasks(self) -> beam_ray.Tasks:
        """The tasks as the API takes them."""
        if not self.sources:
            raise click.UsageError("--tasks SOURCE is required")
        return beam_ray.Tasks(list(self.sources), pairs(self.mapping, "--map"), self.labels, self.limit)

    @property
    def words(self) -> str:
        """The options that name the sources, as they are typed."""
        return " ".join(f"--tasks {shlex.quote(source)}" for source in self.sources)


@dataclass(frozen=True)
class Selection:
    """Tasks of past runs by their results."""

    status: str | None = None
    labels: tuple[str, ...] = ()
    where: str | None = None


@dataclass(frozen=True)
class Search:
    """What else tasks of past runs have in common."""

    workflow: str | None = None
    route: str | None = None
    text: str = ""
    since: str = ""
    until: str = ""

    def query(self, selection: Selection, run: str | None = None) -> beam_ray.TaskQuery:
        """The query for these tasks."""
        return beam_ray.TaskQuery(
            status=selection.status,
            labels=selection.labels,
            where=selection.where or "",
            run=run,
            workflow=self.workflow,
            route=self.route,
            text=self.text,
            since=self.since,
            until=self.until,
        )


@dataclass(frozen=True)
class Execution:
    """How runs are executed."""

    budget: tuple[str, ...] = ()
    takeover: bool = False

    @property
    def limits(self) -> dict[str, float] | None:
        """The limits that --budget names; None without any."""
        return budget_of(self.budget) if self.budget else None


_STORE = click.option(
    "--store", envvar="BEAM_RAY_STORE", default=beam_ray.DEFAULT_STORE, show_default=True, metavar="URI", help="Store: a folder or s3://bucket/prefix."
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")
_MODELS = click.option("--models", envvar="BEAM_RAY_MODELS", default=beam_ray.DEFAULT_MODELS, show_default=True, metavar="FILE", help="Models file.")
_ADDRESS = click.option("--address", envvar="RAY_ADDRESS", default=None, metavar="ADDRESS", help="Ray cluster. Default: a local one is started.")
_LANE = click.option(
    "--lane",
    type=click.Choice(["interactive", "batch"]),
    help="batch asks models through their batch endpoints: half the price, answers within a day. Default: as the models file or spec says.",
)
TAKEOVER = click.option("--takeover", is_flag=True, help="Take over a run whose driver is known to be dead.")
_BUDGET = click.option("--budget", multiple=True, metavar="LIMIT=VALUE", help="Limit: max_usd, max_tokens, max_calls or max_minutes.")
MAP = click.option(
    "--map",
    "mapping",
    multiple=True,
    metavar="FIELD=COLUMN",
    help="Read a field of the task from a column with another name, or an object from several, e.g. expected=answer,level.",
)
MLFLOW = click.option(
    "--mlflow", "mlflow_uri", envvar="MLFLOW_TRACKING_URI", metavar="URI", help="MLflow server; 'none' for none. Default: a database in the store."
)
_LABEL = click.option("--label", "labels", multiple=True, metavar="LABEL", help="Only tasks with this label.")
_STATUS = click.option("--status", type=click.Choice(STATUSES), help="Only tasks with this status; failing means below or failed.")
_WHERE = click.option("--where", metavar="EXPR", help="Filter expression, e.g. \"score < 80 and 'scan' in labels\".")

reads_store = grouped(Place, "place", _STORE, _JSON)
"""--store, --json"""
uses_models = grouped(Place, "place", _MODELS, _STORE, _JSON)
"""--models, --store, --json"""
runs_on_ray = grouped(Place, "place", _ADDRESS, _MODELS, _STORE, _JSON)
"""--address, --models, --store, --json"""
plans_in_lane = grouped(Place, "place", _LANE, _MODELS, _STORE, _JSON)
"""--lane, --models, --store, --json"""
runs_in_lane = grouped(Place, "place", _LANE, _ADDRESS, _MODELS, _STORE, _JSON)
"""--lane, --address, --models, --store, --json"""
executes = grouped(Execution, "execution", _BUDGET, TAKEOVER)
"""--budget, --takeover"""
selects = grouped(Selection, "selection", _STATUS, _LABEL, _WHERE)
"""--status, --label, --where"""
searches = grouped(
    Search,
    "search",
    click.option("--workflow", metavar="NAME", help="Only tasks of this workflow."),
    click.option("--route", metavar="LABEL", help="Only tasks that took this route."),
    click.option("--search", "text", default="", metavar="TEXT", help="Only tasks with this text in id, query or output."),
    click.option("--since", default="", metavar="DAY", help="Only tasks that began on this day or later, e.g. 2026-11-23 (UTC)."),
    click.option("--until", default="", metavar="DAY", help="Only tasks that began on this day or earlier."),
)
"""--workflow, --route, --search, --since, --until"""
takes_tasks = grouped(
    TaskSource,
    "source",
    click.option("--tasks", "sources", multiple=True, metavar="SOURCE", help=SOURCES),
    MAP,
    _LABEL,
    click.option("--limit", type=click.IntRange(min=1), help="Only the first N tasks."),
)
"""--tasks, --map, --label, --limit"""


def pairs(values: tuple[str, ...], option: str) -> dict[str, str]:
    """
    ``NAME=VALUE`` words as a mapping.

    Raises:
        Unusable: a word has another form.
    """
    found = {}
    for word in values:
        name, equals, value = word.partition("=")
        if not equals or not name or not value:
            raise Unusable(f"{option} {word}: write it as NAME=VALUE")
        found[name] = value
    return found


def budget_of(words: tuple[str, ...]) -> dict[str, float]:
    """The limits that --budget names, as numbers."""
    found = {}
    for name, value in pairs(words, "--budget").items():
        try:
            found[name] = float(value)
        except ValueError:
            raise click.UsageError(f"--budget {name}={value}: {value!r} is not a number") from None
    return found
