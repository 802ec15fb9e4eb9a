"""Held-out tasks: who has seen them is counted by their content, and what the drafts tested on them may be accepted by chance."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from beam_ray.compare.intervals import change, p_of_change, sample
from beam_ray.compare.sequential import Confidence
from beam_ray.compare.statistics import Quantity
from beam_ray.define.workflow import Workflow
from beam_ray.errors import Unusable
from beam_ray.improve.exposure import MOST_DRAFTS, note_use
from beam_ray.improve.holdout import Split, drafts_before, require_fresh_holdout, split
from beam_ray.improve.search import gate
from beam_ray.publish import publish
from beam_ray.store.checksummed_json import seal, unseal
from beam_ray.store.libraries import library_at, write_library
from tests.conftest import Lab
from tests.shapes import undeclared

# -- by content ------------------------------------------------------------------------------------


@pytest.fixture
def split_library(lab: Lab) -> tuple[Lab, Split]:
    """A lab whose library 'l' of 24 tasks is split."""
    return lab, made(lab, "l", range(24))


def made(lab: Lab, name: str, numbers: Any, *, prefix: str = "t") -> Split:
    """A new library whose tasks ask these numbers under ids of their own, and its split."""
    write_library(lab.objects, name, lab.tasks([{"id": f"{prefix}{index:02}", "task_query": f"q{index}"} for index in numbers]), 0)
    return split(lab.objects, library_at(lab.objects, name))


def draft(number: int) -> Workflow:
    """A definition, another one for each number."""
    return Workflow.model_validate({"workflow": "w", "model": "m", "nodes": {"say": {"llm": {"prompt": f"{number} {{{{ task_query }}}}"}}}})


def queries(side: Any) -> set[str]:
    """What the tasks ask."""
    return set(side["task_query"].to_pylist())


def test_the_same_tasks_under_another_name_and_other_ids_are_the_same_holdout_set(split_library: tuple[Lab, Split]) -> None:
    """
    A copy of the library deals the same sides, and a draft tested on one counts for the other.
    """
    lab, first = split_library
    drafts_before(lab.objects, first.held, "b1", "one")

    copy = made(lab, "copy", range(24), prefix="other-")

    assert (queries(copy.held), queries(copy.search)) == (queries(first.held), queries(first.search))
    assert drafts_before(lab.objects, copy.held, "b2", "two") == 1
    assert undeclared(lab.folder / "store") == []


def test_other_tasks_are_a_fresh_holdout_set(split_library: tuple[Lab, Split]) -> None:
    """
    Drafts tested on other tasks do not count; on a library that has some of the same tasks they do.
    """
    lab, first = split_library
    drafts_before(lab.objects, first.held, "b1", "one")

    other, mixed = made(lab, "other", range(100, 124)), made(lab, "mixed", range(12, 60))

    assert drafts_before(lab.objects, other.held, "b2", "two") == 0
    assert drafts_before(lab.objects, mixed.held, "b3", "three") == 1
    assert not queries(mixed.held) & queries(first.search)


def test_a_split_of_an_earlier_version_is_read_by_content(split_library: tuple[Lab, Split]) -> None:
    """
    Its documents have ids alone and count tests by the library's name; both are still known.
    """
    lab, first = split_library
    key = "libraries/l/split/000001.json"
    document = unseal(lab.objects.read(key), key)
    lab.objects.put(key, seal({name: document[name] for name in ("at", "search", "held")}))
    lab.objects.create("libraries/l/held/old.json", seal({"at": "2026-01-01", "backtest_id": "old"}))

    copy = made(lab, "copy", range(24), prefix="other-")

    assert queries(copy.held) == queries(first.held)
    assert drafts_before(lab.objects, copy.held, "b2", "two") == 1


# -- by every command --------------------------------------------------------------------------------


def test_a_draft_tried_by_hand_counts_once_and_is_said(split_library: tuple[Lab, Split]) -> None:
    """
    The sentence names how many tasks are held out and how many drafts that makes; the same draft again makes no more.
    """
    lab, first = split_library
    tasks = library_at(lab.objects, "l").tasks

    said = [note_use(lab.objects, tasks, "run", [draft(number)]) for number in (1, 1, 2)]

    assert said[0] == "14 of 24 tasks are held out for searches over 'l'; this draft counts as tested on them (1 of at most 8)"
    assert [text.partition("(")[2][0] for text in said] == ["1", "1", "2"]
    assert gate(drafts_before(lab.objects, first.held, "b1", "three")).confidence == 98.75


def test_what_a_search_tests_and_a_person_tries_is_one_draft(split_library: tuple[Lab, Split]) -> None:
    """
    Trying the accepted draft again counts no second time, and what was tried later does not change what an earlier test was judged by.
    """
    lab, first = split_library
    tasks = library_at(lab.objects, "l").tasks
    drafts_before(lab.objects, first.held, "b1", draft(1).digest)
    note_use(lab.objects, tasks, "run", [draft(1)])
    note_use(lab.objects, tasks, "run", [draft(2)])

    assert drafts_before(lab.objects, first.held, "b1", draft(1).digest) == 0
    assert drafts_before(lab.objects, first.held, "b2", draft(3).digest) == 2


def test_what_does_not_count(split_library: tuple[Lab, Split]) -> None:
    """
    A published version is no draft, which is said without a count; of search tasks alone there is nothing to say.
    """
    lab, first = split_library
    publish(lab.objects, draft(1), reason="the first")

    assert note_use(lab.objects, first.held, "run", [draft(1)]) == "14 of 14 tasks are held out for searches over 'l'"
    assert note_use(lab.objects, first.search, "run", [draft(2)]) == ""
    assert drafts_before(lab.objects, first.held, "b1", "three") == 0


def test_a_holdout_set_is_used_up_by_any_name(split_library: tuple[Lab, Split]) -> None:
    """
    After eight drafts, tried by hand on the library or on its copy, no search is begun.
    """
    lab, first = split_library
    copy = made(lab, "copy", range(24), prefix="other-")
    for number in range(MOST_DRAFTS):
        require_fresh_holdout(lab.objects, first.held)
        note_use(lab.objects, (first, copy)[number % 2].held, "run", [draft(number)])

    with pytest.raises(Unusable, match="8 drafts were tried on tasks of this holdout set"):
        require_fresh_holdout(lab.objects, copy.held)


# -- the allowance -----------------------------------------------------------------------------------

Scores = Callable[[np.random.Generator, int], Any]

UNCHANGED: dict[str, Scores] = {
    "normal": lambda chance, tasks: np.clip(chance.normal(60, 12, (2, tasks)), 0, 100),
    "pass or fail": lambda chance, tasks: 100.0 * (chance.random((2, tasks)) < 0.5),
    "mostly 100": lambda chance, tasks: np.where(chance.random((2, tasks)) < 0.95, 100.0, 100 * chance.random((2, tasks))),
    "same tasks": lambda chance, tasks: np.clip(chance.normal(60, 20, tasks) + chance.normal(0, 5, (2, tasks)), 0, 100),
}


@pytest.mark.parametrize("tasks", [10, 24])
@pytest.mark.parametrize("kind", UNCHANGED)
def test_all_drafts_together_are_accepted_by_chance_in_at_most_5_percent(kind: str, tasks: int) -> None:
    """
    The chances that a draft without any effect is accepted, added up over all eight that a holdout set may have, by 10,000 draws of fixed seeds.
    """
    chance, places, draws = np.random.default_rng(tasks), np.arange(tasks), 10_000
    levels = [1 - gate(tests).confidence / 100 for tests in range(MOST_DRAFTS)]
    accepted = 0
    for _ in range(draws):
        before, after = UNCHANGED[kind](chance, tasks)
        if after.mean() > before.mean():
            p = p_of_change(sample(Quantity(before, after), places, largest=100.0), Confidence())
            accepted += sum(p < level for level in levels)

    assert accepted / draws <= 0.05


def test_a_draft_is_accepted_where_its_p_value_is_below_its_level() -> None:
    """
    What the test above counts is what the gate asks: the whole interval above 0, at the confidence of that draft.
    """
    chance, places = np.random.default_rng(0), np.arange(10)
    for tests in range(MOST_DRAFTS):
        confidence = Confidence(gate(tests).confidence)
        for effect in (5, 10, 15, 20, 30, 40):
            found = sample(Quantity(chance.normal(40, 8, 10), chance.normal(40 + effect, 8, 10)), places, largest=100.0)
            interval = change(found, confidence)

            assert interval is not None
            assert (interval.low > 0) == (p_of_change(found, confidence) < 1 - confidence.percent / 100)


# -- clusters --------------------------------------------------------------------------------------


def customers(lab: Lab, name: str, count: int, *, each: int = 3) -> None:
    """A library of so many tasks, *each* of one customer."""
    rows = [{"id": f"t{index:02}", "task_query": f"q{index}", "variables": {"customer": f"c{index // each}"}} for index in range(count)]
    write_library(lab.objects, name, lab.tasks(rows), 0 if count <= 60 else 1)


def of(side: Any) -> set[str]:
    """The customers of the tasks."""
    return {json.loads(written)["customer"] for written in side["variables"].to_pylist()}


def test_a_split_by_clusters_keeps_each_on_one_side(lab: Lab) -> None:
    """
    No customer is on both sides, about two fifths of the tasks are searched on, and new tasks of a later version join their customer.
    """
    customers(lab, "l", 60)
    first = split(lab.objects, library_at(lab.objects, "l"), "variables.customer")
    customers(lab, "l", 90)
    later = split(lab.objects, library_at(lab.objects, "l"), "variables.customer")

    assert not of(first.search) & of(first.held)
    assert 24 <= first.search.num_rows <= 26
    assert not of(later.search) & of(later.held)
    assert queries(first.held) <= queries(later.held)


def test_a_split_that_cuts_clusters_is_refused(lab: Lab) -> None:
    """
    What a search by tasks has seen cannot be held out by customers any more, and a holdout set of few customers decides nothing.
    """
    customers(lab, "l", 60)
    split(lab.objects, library_at(lab.objects, "l"))
    with pytest.raises(Unusable, match=r"made without --cluster variables.customer, or by another one, and cuts \d+ of its clusters"):
        split(lab.objects, library_at(lab.objects, "l"), "variables.customer")
    write_library(
        lab.objects, "few", lab.tasks([{"id": f"x{index}", "task_query": f"x{index}", "variables": {"customer": index % 4}} for index in range(40)]), 0
    )
    with pytest.raises(Unusable, match="at least 5 are needed"):
        split(lab.objects, library_at(lab.objects, "few"), "variables.customer")
