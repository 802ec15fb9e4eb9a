"""A sample of tasks says something about all of them, and is the same each time."""

from pathlib import Path

import pyarrow as pa
import pytest

from beam_ray.backtest.spec import First, load_spec
from beam_ray.errors import BadDefinition
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


@pytest.mark.parametrize("written", ["0", "many", "{first: 0}", "{last: 5}", "true", "[5]"])
def test_a_limit_is_a_number_or_the_first_tasks(tmp_path: Path, written: str) -> None:
    """
    Anything else is refused in one line that says what to write.
    """
    spec = tmp_path / "s.yaml"
    spec.write_text(f"backtest: s\nworkflow: w\ntasks: t\ncandidates: {{v: f.yaml}}\nlimit: {written}\n")

    with pytest.raises(BadDefinition) as refused:
        load_spec(spec)

    [problem] = refused.value.problems
    assert problem.line == 5
    assert "or {first: N}" in problem.text


def test_a_limit_of_the_first_tasks(tmp_path: Path) -> None:
    """
    ``{first: 5}`` asks for the beginning of the file, a number for a sample.
    """
    spec = tmp_path / "s.yaml"
    found = []
    for written in ("5", "{first: 5}"):
        spec.write_text(f"backtest: s\nworkflow: w\ntasks: t\ncandidates: {{v: f.yaml}}\nlimit: {written}\n")
        found.append(load_spec(spec)[0].limit)

    assert found == [5, First(first=5)]


def test_clusters_are_drawn_whole() -> None:
    """
    Clusters of 1 to 10 tasks are in the sample as a whole or not at all, as many as fit, the same each time; one that is too large alone is taken.
    """
    tasks = sorted_tasks(55, labelled=True)
    names = [f"c{size}" for size in range(1, 11) for _ in range(size)]
    clusters = dict(zip(tasks["task_id"].to_pylist(), names, strict=True))

    found = sampled(tasks, 30, clusters)
    kept = [clusters[task] for task in found["task_id"].to_pylist()]

    assert all(kept.count(name) == names.count(name) for name in set(kept))
    assert 20 < len(kept) <= 30
    assert found.equals(sampled(tasks, 30, clusters))
    assert 55 == sampled(tasks, 10, dict.fromkeys(clusters, "one")).num_rows
