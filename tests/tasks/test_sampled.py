"""A sample of tasks says something about all of them, and is the same each time."""

import pyarrow as pa
import pytest

from beam_ray.store.parquet import to_table
from beam_ray.store.tables import TASKS
from beam_ray.tasks.sources import sampled, shuffled


def sorted_tasks(count: int, *, labelled: bool) -> pa.Table:
    """A file that is sorted: the first half easy, then the hard ones, a tenth of them rare."""
    rows = []
    for index in range(count):
        label = "easy" if index < count / 2 else "hard" if index < 0.9 * count else "rare"
        rows.append({"task_id": f"t{index:04d}", "inputs": f'{{"text": "{label} {index}"}}', "labels": [label] if labelled else []})
    return to_table(TASKS, rows)


@pytest.mark.parametrize("labelled", [True, False])
def test_a_sample_of_a_sorted_file_has_easy_and_hard_tasks(labelled: bool) -> None:
    """
    100 of 300 tasks whose first half is easy: exactly half of them and a tenth rare ones where labels tell, about half without.
    """
    found = sampled(sorted_tasks(300, labelled=labelled), 100)
    texts = found["inputs"].to_pylist()
    easy, rare = (sum(word in text for text in texts) for word in ("easy", "rare"))

    assert found.num_rows == 100
    assert found["task_id"].to_pylist() == sorted(found["task_id"].to_pylist())
    assert abs(easy - 50) <= (1 if labelled else 12)
    assert abs(rare - 10) <= (1 if labelled else 8)


def test_a_sample_is_the_same_for_the_same_tasks() -> None:
    """
    Drawing again gives the same tasks; more than there are is all of them.
    """
    tasks = sorted_tasks(60, labelled=True)

    assert sampled(tasks, 20).equals(sampled(tasks, 20))
    assert sampled(tasks, 60).equals(tasks)


def test_each_backtest_has_its_own_order() -> None:
    """
    The order is that of the tasks and the backtest: candidates that are tried in turn do not begin with the same tasks.
    """
    tasks = sorted_tasks(300, labelled=False)
    first, second = (set(shuffled(tasks, name)["task_id"].to_pylist()[:20]) for name in ("sort-v2-1", "sort-v2-2"))

    assert len(first & second) < 10
    assert shuffled(tasks, "sort-v2-1").equals(shuffled(tasks, "sort-v2-1"))
