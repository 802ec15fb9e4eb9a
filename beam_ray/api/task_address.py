"""Lists of tasks as addresses: the query string by which the console, a pin and a chat name the same tasks."""

from collections.abc import Mapping, Sequence
from urllib.parse import parse_qsl, urlencode, urlsplit

from beam_ray.api.task_list import TaskQuery
from beam_ray.errors import Unusable, did_you_mean

TASK_FILTERS = ("status", "workflow", "version", "run", "route", "label", "since", "until", "min_score", "max_score", "q", "where", "node", "criterion")
"""Fields that say which tasks are listed, in the order of a canonical address."""
PAGING = ("sort", "after", "before", "limit")
LIMITS = (50, 100, 200)


def task_query(fields: Mapping[str, Sequence[str]]) -> TaskQuery:
    """
    The query that the fields of an address ask.

    Raises:
        Unusable: a field has no meaning.
    """
    unknown = next((name for name in fields if name not in (*TASK_FILTERS, *PAGING)), None)
    if unknown is not None:
        raise Unusable(
            "\n  ".join([f"a list of tasks knows no {unknown[:60]!r}", f"it knows: {', '.join(TASK_FILTERS)}", *did_you_mean(unknown, TASK_FILTERS)])
        )

    def last(name: str, default: str = "") -> str:
        return fields[name][-1].strip() if fields.get(name) else default

    version, limit = last("version"), last("limit")
    if version and version != "draft" and not (version.isdecimal() and len(version) < 10):
        raise Unusable(f"version: {version[:60]!r} is neither a number nor 'draft'")
    if limit and limit not in map(str, LIMITS):
        raise Unusable(f"limit: a page has {', '.join(map(str, LIMITS))} tasks, not {limit[:60]!r}")
    return TaskQuery(
        status=last("status") or None,
        workflow=last("workflow") or None,
        version=None if not version else 0 if version == "draft" else int(version),
        run=last("run") or None,
        route=last("route") or None,
        labels=tuple(fields.get("label", ())),
        since=last("since"),
        until=last("until"),
        min_score=_number("min_score", last("min_score")),
        max_score=_number("max_score", last("max_score")),
        text=last("q"),
        where=last("where"),
        node=last("node") or None,
        criterion=last("criterion") or None,
        sort=last("sort", "run"),
        after=last("after"),
        before=last("before"),
        limit=int(limit or LIMITS[0]),
    )


def _number(name: str, written: str) -> float | None:
    try:
        return float(written) if written else None
    except ValueError:
        raise Unusable(f"{name}: {written[:60]!r} is not a number") from None


def task_filters(address: str) -> dict[str, list[str]]:
    """
    The filters that an address has: a link of the console's Tasks page, or what stands behind its question mark.

    Raises:
        Unusable: it is the address of another page, or has a field that lists do not know.
    """
    url = urlsplit(address.strip())
    if url.path.rstrip("/").endswith("/tasks") or not url.path:
        query = url.query
    elif "=" in url.path and not url.query:
        query = url.path
    else:
        raise Unusable(
            f"{address[:120]!r} is no list of tasks\n  a list is written as the Tasks page's link, or as its filters: 'status=failing&label=scan'\n"
            "  the page of a backtest, a run or a task never changes: its own link can be kept"
        )
    fields: dict[str, list[str]] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if value.strip():
            fields.setdefault(name, []).append(value.strip())
    task_query(fields)
    return {name: fields[name] for name in TASK_FILTERS if name in fields}


def filters_text(filters: Mapping[str, Sequence[str]]) -> str:
    """The filters as the query string of an address, in canonical order."""
    return urlencode([(name, value) for name in TASK_FILTERS for value in filters.get(name, ())])
