"""Lists of tasks over all runs, page by page, and the index that they are read from."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import beam_ray
from beam_ray import TaskQuery
from beam_ray.api.task_list import SORTS
from beam_ray.define.template import evaluate
from beam_ray.errors import Unusable
from beam_ray.run.plan import make_plan
from beam_ray.store.arrow_expression import arrow_mask
from beam_ray.store.beginning import begin
from beam_ray.store.opening import open_objects
from tests.conftest import Lab

WORKFLOW = """
workflow: {name}
model: m
nodes:
  read:
    llm: {{prompt: "read {{{{ task_query }}}}", returns: {{n: int}}}}
    evaluate: {{criteria: [{{equals: {{n: expected.n}}}}]}}
  even: {{after: read, when: read.n % 2 == 0, route: even number, llm: {{prompt: "even"}}}}
  odd: {{after: read, when: read.n % 2 == 1, route: odd number, llm: {{prompt: "odd"}}}}
"""


def answer(request: beam_ray.Request) -> Any:
    """Reads the number; that of a multiple of five wrongly, and of 7 not at all."""
    word, _, number = str(request.messages[-1]["content"]).partition(" ")
    if word != "read":
        return f"it is {word}"
    n = int(number.split()[1])
    if n == 7:
        raise ValueError("no answer")
    return {"n": n + 1 if n % 5 == 0 else n}


def rows(count: int) -> list[dict[str, Any]]:
    """Tasks, every third with a label."""
    return [{"id": f"t-{n}", "task_query": f"Number {n}", "expected": {"n": n}, "labels": ["third"] if n % 3 == 0 else []} for n in range(count)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> beam_ray.Store:
    """A store with two runs of one workflow and one of another; tests only read it."""
    folder = tmp_path_factory.mktemp("lists")
    lab = Lab(folder, open_objects(str(folder / "store")))
    for name, count in (("sums", 20), ("other", 6), ("sums", 9)):
        lab.run(WORKFLOW.format(name=name), rows(count), answer)
    return beam_ray.open(lab.objects.uri)


def pages(store: beam_ray.Store, query: TaskQuery) -> Iterator[beam_ray.TaskList]:
    """Every page of a list."""
    page = store.list_tasks(query)
    yield page
    while page.next:
        page = store.list_tasks(dataclasses.replace(query, after=page.next))
        yield page


@pytest.mark.parametrize("sort", [*SORTS, *(f"-{name}" for name in SORTS)])
def test_pages_have_every_task_once(sort: str, store: beam_ray.Store):
    """In the same order forwards, backwards and on one page, whatever the list is sorted by."""
    whole = [row["task"] for row in store.list_tasks(TaskQuery(sort=sort, limit=1_000)).tasks]
    forwards = list(pages(store, TaskQuery(sort=sort, limit=4)))
    back = store.list_tasks(TaskQuery(sort=sort, limit=4, before=forwards[-1].previous))

    assert len(set(whole)) == 35
    assert [row["task"] for page in forwards for row in page.tasks] == whole
    assert back.tasks == forwards[-2].tasks
    assert not forwards[0].previous


@pytest.mark.parametrize(
    ("query", "holds"),
    [
        (TaskQuery(status="passed"), lambda row: row["status"] == "passed"),
        (TaskQuery(status="failing"), lambda row: row["status"] in ("below", "failed")),
        (TaskQuery(workflow="other"), lambda row: row["workflow"] == "other"),
        (TaskQuery(version=0, labels=("third",)), lambda row: "third" in row["labels"]),
        (TaskQuery(route="odd number"), lambda row: row["routes"] == ["odd number"]),
        (TaskQuery(min_score=50, max_score=100), lambda row: row["score"] is not None and row["score"] >= 50),
        (TaskQuery(text="NUMBER 1"), lambda row: "Number 1" in row["task_query"]),
        (TaskQuery(text="it is odd"), lambda row: "odd number" in (row["routes"] or ())),
        (TaskQuery(where="score == 0 and 'third' in labels"), lambda row: row["score"] == 0 and "third" in row["labels"]),
        (TaskQuery(since="2100-01-01"), lambda row: False),
        (TaskQuery(since="2020-01-01", until="2100-01-01"), lambda row: True),
    ],
    ids=["passed", "failing", "workflow", "label", "route", "score", "query", "output", "where", "since", "dates"],
)
def test_filters(query: TaskQuery, holds: Any, store: beam_ray.Store):
    """Each filter leaves exactly the tasks for which it holds."""
    everything = store.list_tasks(TaskQuery(limit=1_000))
    found = store.list_tasks(dataclasses.replace(query, limit=1_000))

    assert [row["task"] for row in found.tasks] == [row["task"] for row in everything.tasks if holds(row)]
    assert (found.matching, found.total) == (len(found.tasks), 35)


EXPRESSIONS = [
    "score == 100",
    "score != 0",
    "trial >= 1 and not passed",
    "passed or outcome == 'failed'",
    "'third' in labels",
    "'third' not in labels and outcome == 'done'",
    "outcome in ['failed', 'open']",
    "score is none",
    "score is not none",
    "'Number 1' in task_query",
    "task_id > 't-4'",
    "version == 1",
    "passed == true",
    "auto_reruns == -1",
]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_over_columns_means_what_it_means_row_by_row(expression: str, store: beam_ray.Store):
    """Nulls included: a task that failed has no score."""
    table = store.index.table()
    mask = arrow_mask(expression, table)

    assert mask is not None
    assert mask.to_pylist() == [bool(evaluate(expression, row)) for row in table.to_pylist()]


@pytest.mark.parametrize(
    "expression", ["score < 80", "score == '100'", "labels | length > 0", "'x' in error", "nothing == 1", "trial", "score < trial", "1 ==", "true"]
)
def test_other_expressions_are_evaluated_row_by_row(expression: str, store: beam_ray.Store):
    """Among them those that a null makes fail, so that they fail as before."""
    assert arrow_mask(expression, store.index.table()) is None


def test_counts_by_status_say_what_the_other_filters_leave(store: beam_ray.Store):
    """So that a tab says how many it would show."""
    found = store.list_tasks(TaskQuery(workflow="sums", status="failed"))

    assert found.matching == 2
    assert dict(found.facets["status"]) | {"review": 0} == {"passed": 21, "below": 6, "failed": 2, "failing": 8, "review": 0, "running": 0, "stopped": 0}
    assert dict(found.facets["workflow"]) == {"sums": 2}


@pytest.mark.parametrize(
    ("query", "words"),
    [
        (TaskQuery(sort="colour"), "cannot be sorted by 'colour'"),
        (TaskQuery(status="good"), "no status 'good'"),
        (TaskQuery(since="yesterday"), "'yesterday' is not a day"),
        (TaskQuery(run="999999"), "there is no run '999999'"),
        (TaskQuery(where="score <"), "--where"),
    ],
    ids=["sort", "status", "day", "run", "where"],
)
def test_a_query_that_means_nothing_is_refused(query: TaskQuery, words: str, store: beam_ray.Store):
    """With what is there instead, and never by showing everything."""
    with pytest.raises(Unusable, match=words):
        store.list_tasks(query)


def test_an_unfinished_run_shows_what_it_has_not_done(lab: Lab):
    """Its tasks are listed, as stopped where no process drives it."""
    workflow, tasks = lab.workflow(WORKFLOW.format(name="sums")), lab.tasks(rows(3))

    plan = make_plan(workflow, tasks, {"m": beam_ray.ScriptedModel(answer)}, source="tasks.jsonl")
    begin(lab.objects, plan.record, plan.tasks)
    found = beam_ray.open(lab.objects.uri).list_tasks()

    assert [(row["task_id"], row["status"], row["score"], row["task_query"]) for row in found.tasks] == [
        (f"t-{n}", "stopped", None, f"Number {n}") for n in range(3)
    ]
    assert beam_ray.open(lab.objects.uri).list_tasks(TaskQuery(ended=True)).tasks == ()


def test_a_damaged_run_is_named_and_the_others_are_listed(lab: Lab):
    """A list is not lost for one file."""
    for count in (3, 2):
        lab.run(WORKFLOW.format(name="sums"), rows(count), answer)
    store = beam_ray.open(lab.objects.uri)
    broken = store.runs()[0]
    (Path(lab.objects.uri) / f"runs/{broken.id}/outcome.parquet").write_bytes(b"nothing")
    found = store.list_tasks()

    assert list(found.unreadable) == [broken.id]
    assert "is damaged" in found.unreadable[broken.id]
    assert found.total == 3
