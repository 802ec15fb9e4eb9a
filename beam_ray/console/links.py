"""The addresses of pages: every state of a page is one, in a canonical form."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, unquote, urlencode

from beam_ray import Address
from beam_ray.errors import Unusable

FACES = ("html", "json", "md")
"""How a page is shown: for people, for programs, and as text for chats and agents."""


def with_query(path: str, query: Mapping[str, Any] | Iterable[tuple[str, Any]] = ()) -> str:
    """*path* with those fields of a query that have a value."""
    pairs = query.items() if isinstance(query, Mapping) else query
    flat: list[tuple[str, str]] = []
    for name, value in pairs:
        values = value if isinstance(value, list | tuple) else [value]
        flat += [(name, str(each)) for each in values if each not in (None, "", False)]
    return path + (f"?{urlencode(flat)}" if flat else "")


def task_path(run: str, task: str, trial: int = 1, **query: Any) -> str:
    """The page of a task. An id that a browser would resolve as a folder, or take for another face, is written so that it does not."""
    fields = {"trial": trial if trial > 1 else None, **query}
    if task in (".", ".."):
        return with_query(f"/tasks/{run}", {"task": task, **fields})
    written = quote(task, safe="-_.~ @:+=,".replace(" ", ""))
    for face in FACES[1:]:
        if written.endswith(f".{face}"):
            written = f"{written.removesuffix(f'.{face}')}%2E{face}"
    return with_query(f"/tasks/{run}/{written}", fields)


def address_path(address: str, **query: Any) -> str:
    """The page of what an address of the command line names: a task, or one of its steps."""
    # split here, since task ids may have what the parts of an address are made of
    run, _, rest = address.partition("/")
    task, _, node = rest.partition("/")
    name, _, trial = task.partition("#")
    return task_path(run, unquote(name), int(trial or 1), **({"step": node} if node else {}), **query)


def run_path(run: str) -> str:
    """The page of a run."""
    return f"/runs/{quote(run)}"


def rerun_path(run: str) -> str:
    """The page of a rerun: its tasks before and after."""
    return f"/reruns/{quote(run)}"


def backtest_path(backtest: str, **query: Any) -> str:
    """The page of a backtest."""
    return with_query(f"/backtests/{quote(backtest)}", query)


def prove_path(backtest: str, **query: Any) -> str:
    """The page that proves which node made tasks of a backtest flip."""
    return with_query(f"/backtests/{quote(backtest)}/prove", query)


def flow_path(workflow: str, **query: Any) -> str:
    """The page of a workflow."""
    return with_query(f"/flows/{quote(workflow)}", query)


def publish_path(workflow: str, draft: str, number: int | str) -> str:
    """The page on which a revision of a draft is published."""
    return with_query(f"{flow_path(workflow)}/publish", {"draft": draft, "number": number})


def health_path(workflow: str) -> str:
    """The page of a workflow's health."""
    return f"/health/{quote(workflow)}"


def history_path(workflow: str) -> str:
    """The page of a workflow's history."""
    return f"/history/{quote(workflow)}"


def library_path(name: str, **query: Any) -> str:
    """The page of a library."""
    return with_query(f"/libraries/{quote(name)}", query)


def versions_path(workflow: str, **query: Any) -> str:
    """The page of a workflow's versions, two of which may be compared."""
    return with_query(f"{flow_path(workflow)}/versions", query)


def draft_test_path(workflow: str, candidate: str, **query: Any) -> str:
    """The form of a backtest of a draft, named as ``NAME@DRAFT:N``."""
    return with_query("/backtests/new", {"workflow": workflow, "candidate": candidate, **query})


def what_if_path(task: str, step: str, **query: Any) -> str:
    """The page on which the prompt of a step is changed and tried."""
    return with_query("/what-if", {"task": task, "step": step, **query})


def optimise_path(task: str, step: str, **query: Any) -> str:
    """The page that proposes a better prompt for a step."""
    return with_query("/optimise", {"task": task, "step": step, **query})


def compare_path(before: str, after: str, **query: Any) -> str:
    """The page that shows two records of tasks side by side."""
    return with_query("/compare", {"a": before, "b": after, **query})


def face_of(raw_path: bytes) -> tuple[str, str]:
    """A path without the ending that names its face, still encoded, and the face."""
    path = raw_path.decode("latin-1").partition("?")[0]
    for face in FACES[1:]:
        if path.endswith(f".{face}"):
            return path.removesuffix(f".{face}"), face
    return path, "html"


def task_of(path: str, fields: Mapping[str, list[str]]) -> Address:
    """
    The task that the encoded path of its page names.

    Raises:
        Unusable: it names none.
    """
    _, _, run, *rest = path.split("/")
    task = unquote(rest[0]) if rest else (fields.get("task") or [""])[-1]
    trial = (fields.get("trial") or ["1"])[-1]
    if len(rest) > 1 or not task or not trial.isdecimal():
        raise Unusable(f"there is no task at {path}\n  an address is /tasks/RUN/TASK; a slash in a task's id is written %2F")
    return Address(unquote(run), task, int(trial))
