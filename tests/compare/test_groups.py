"""Clusters and slices of tasks: what intervals count, what parts show, and where they disagree with the total."""

import json

import numpy as np
import pytest
from sides import scored, side, task

from beam_ray.compare.compare_runs import compare_runs
from beam_ray.compare.comparison import compare
from beam_ray.compare.gate import Gate, Limit
from beam_ray.compare.gate_file import load_gate
from beam_ray.compare.grouping import By, Clusters, Dimension, Grouping
from beam_ray.compare.html import html
from beam_ray.compare.markdown import markdown
from beam_ray.compare.report import Result
from beam_ray.compare.subgroup_tables import direction_notes
from beam_ray.compare.subgroups import WITHOUT, partially_pooled
from beam_ray.compare.terminal import terminal
from beam_ray.compare.verdict import judge
from beam_ray.errors import BadDefinition
from tests.conftest import Lab


def clustered(sizes):
    """Tasks t00000, t00001, … in clusters of these sizes."""
    names = [f"c{place}" for place, size in enumerate(sizes) for _ in range(size)]
    return Clusters("variables.customer", {f"t{index:05d}": name for index, name in enumerate(names)})


def sliced(values, field="variables.country"):
    """Tasks t00000, t00001, … with these values of a field."""
    return Dimension(field, {f"t{index:05d}": value if isinstance(value, tuple) else (value,) for index, value in enumerate(values) if value})


def test_equal_clusters_count_as_one_task_each():
    """
    Twelve clusters of five equal tasks say what twelve tasks say: the same intervals and p-values, for the numbers and levels of all tasks.
    """
    before, after = [0.0, 50.0, 100.0] * 4, [100.0, 50.0, 40.0, 0.0] * 3
    many = [[score for score in scores for _ in range(5)] for scores in (before, after)]

    one = compare(scored("a", before), scored("b", after))
    five = compare(scored("a", many[0]), scored("b", many[1]), grouping=Grouping(clusters=clustered([5] * 12)))

    for name in ("score", "success_rate", "first_score", "seconds"):
        alone, together = one.metric(name), five.metric(name)
        assert (alone.low, alone.high, *alone.after_interval) == pytest.approx((together.low, together.high, *together.after_interval))
    assert (60, 12, 12) == (five.tasks, five.units, five.clustering.clusters)
    assert five.metric("failing").before == 5 * one.metric("failing").before
    assert [part.p for part in one.slices] == pytest.approx([part.p for part in five.slices])
    assert one.of_kind("node")[0].better_tasks * 5 == five.of_kind("node")[0].better_tasks


def test_every_task_its_own_cluster_changes_nothing():
    """
    Where no two tasks share a value, numbers, intervals and tests of slices are those of independent tasks.
    """
    chance = np.random.default_rng(3)
    sides = [scored(name, [float(score) for score in chance.choice([0, 50, 100], 40)]) for name in "ab"]

    plain, alone = compare(*sides), compare(*sides, grouping=Grouping(clusters=clustered([1] * 40)))

    assert plain.metrics == alone.metrics
    assert plain.slices == alone.slices


def test_clusters_that_change_together_widen_the_interval():
    """
    Half of the clusters gain everything and half lose it: sixty tasks are no evidence, and the p-value agrees with the interval.
    """
    after = [100.0] * 40 + [0.0] * 20
    before = [0.0] * 30 + [100.0] * 30

    tasks = compare(scored("a", before), scored("b", after))
    clusters = compare(scored("a", before), scored("b", after), grouping=Grouping(clusters=clustered([10] * 6)))

    assert tasks.metric("success_rate").low > -10
    assert clusters.metric("success_rate").low < -25
    assert (clusters.metric("success_rate").low < 0) == (clusters.p > 0.05)


def test_few_clusters_do_not_pass():
    """
    Eight clusters of ten perfect tasks are too few to judge, like eight tasks; ten of them may pass.
    """
    gate = Gate(name="g", limits=(Limit(rule="score", kind="down_by_at_most", amount=5),))

    words = []
    for count in (8, 10):
        found = compare(scored("a", [50.0] * 10 * count), scored("b", [100.0] * 10 * count), grouping=Grouping(clusters=clustered([10] * count)))
        words.append(judge(found, gate).lines[0])

    assert ["INCONCLUSIVE", "PASS"] == [line.word for line in words]
    assert "8 clusters are too few to judge" in words[0].reason
    assert 100 == words[0].tasks_needed


def test_slices_have_their_own_numbers():
    """
    Each value of a field is compared by its own tasks, tasks without one too; a task with two labels is in both, and a small slice has no interval.
    """
    values = ["DE"] * 10 + ["FR"] * 10 + [("a", "b")] * 3 + [None] * 7
    found = compare(scored("a", [0.0] * 30), scored("b", [100.0] * 10 + [0.0] * 20), grouping=Grouping(dimensions=(sliced(values, "labels"),)))

    members = {member.value: member for member in found.subgroups[0].members}
    assert {"DE": 10, "FR": 10, "a": 3, "b": 3, WITHOUT: 7} == {value: member.tasks for value, member in members.items()}
    assert 100.0 == members["DE"].metric("success_rate").metric.change
    assert 0.0 == members["FR"].metric("score").metric.change
    assert (None, 1.0) == (members["a"].metric("score").metric.low, members["a"].metric("score").p_adjusted)
    assert members["DE"].metric("score").p < members["DE"].metric("score").p_adjusted
    assert members["DE"].metric("score").pooled < 100


def test_pooling_draws_noise_together_and_leaves_differences():
    """
    Slices that differ by no more than their noise get one change; precise ones that differ keep theirs, and two are never pooled.
    """
    noise = partially_pooled(np.array([1.0, 2.0, 3.0]), np.array([5.0, 5.0, 5.0]))
    real = partially_pooled(np.array([0.0, 50.0, 100.0]), np.array([1.0, 1.0, 1.0]))

    assert [2.0, 2.0, 2.0] == pytest.approx(noise.tolist())
    assert [0.0, 50.0, 100.0] == pytest.approx(real.tolist(), abs=0.1)
    assert [1.0, 9.0] == partially_pooled(np.array([1.0, 9.0]), np.array([5.0, 5.0])).tolist()


def test_pooling_knows_how_few_clusters_a_slice_has():
    """
    Six equal tasks in the place of each one: slices of equal clusters are pooled as slices of single tasks are.
    """
    chance = np.random.default_rng(5)
    before, after = (chance.choice([0.0, 100.0], 36, p=[share, 1 - share]) for share in (0.7, 0.4))
    after[:12], values = 0.0, ["DE"] * 12 + ["FR"] * 12 + ["IT"] * 12

    one = compare(scored("a", before), scored("b", after), grouping=Grouping(dimensions=(sliced(values),)))
    six = (scored(name, np.repeat(scores, 6)) for name, scores in (("a", before), ("b", after)))
    many = compare(*six, grouping=Grouping(clusters=clustered([6] * 36), dimensions=(sliced(np.repeat(values, 6).tolist()),)))

    pooled = [[member.metric("score").pooled for member in found.subgroups[0].members] for found in (one, many)]
    assert pooled[0] == pytest.approx(pooled[1])
    assert one.subgroups[0].members[0].metric("score").metric.change != pytest.approx(pooled[0][0])


def test_a_value_that_reads_like_none_is_not_mixed_with_tasks_without_one():
    """
    Tasks whose value is the text "(none)" are a slice of their own beside the tasks that have no value.
    """
    values = [WITHOUT] * 10 + ["DE"] * 10 + [None] * 10
    found = compare(scored("a", [0.0] * 30), scored("b", [100.0] * 10 + [0.0] * 20), grouping=Grouping(dimensions=(sliced(values),)))

    changes = {member.value: member.metric("score").metric.change for member in found.subgroups[0].members}
    assert {WITHOUT: 100.0, "DE": 0.0, "(no value)": 0.0} == changes


def test_a_note_where_a_slice_goes_against_the_total():
    """
    All tasks together are better, those of one country are worse: a note names it.
    """
    values = ["DE"] * 60 + ["FR"] * 20
    found = compare(scored("a", [0.0] * 60 + [100.0] * 20), scored("b", [100.0] * 60 + [0.0] * 20), grouping=Grouping(dimensions=(sliced(values),)))

    notes = direction_notes(found)
    assert ["The success rate rises (+50.0), but not everywhere. variables.country: FR (-100.0)."] == notes[:1]


def test_a_note_where_every_route_goes_against_the_total():
    """
    Both routes are worse for the tasks that took them, and the total is better because tasks moved to the easy one: Simpson's paradox, by its name.
    """

    def made(name, easy, hard, moved):
        rows = [task(f"e{index}", easy, routes=["easy"]) for index in range(20)] + [task(f"h{index}", hard, routes=["hard"]) for index in range(20)]
        return side(name, rows + [task(f"m{index}", easy if moved else hard, routes=["easy" if moved else "hard"]) for index in range(20)])

    found = compare(made("a", 95.0, 50.0, moved=False), made("b", 92.0, 48.0, moved=True))

    assert found.metric("score").change > 0
    [note] = direction_notes(found)
    assert "The mean score rises" in note
    assert "yet falls in every route" in note
    assert "20 pairs took another route" in note
    assert "Simpson's paradox" in note


def test_a_gate_may_name_a_slice(tmp_path):
    """
    One country must not get worse; a value that no compared task has is left open; a metric or field that there is not is refused.
    """
    path = tmp_path / "gate.yaml"
    path.write_text("gate: g\nrules:\n  success_rate[variables.country=DE]: {at_least: 80 %}\n  score[variables.country=XX]: {not_worse_than: 5}\n")
    values = ["DE"] * 30 + ["FR"] * 30
    found = compare(scored("a", [0.0] * 60), scored("b", [100.0] * 30 + [0.0] * 30), grouping=Grouping(dimensions=(sliced(values),)))

    lines = judge(found, load_gate(path)).lines
    assert ["PASS", "INCONCLUSIVE"] == [line.word for line in lines]
    assert "at least 80 %" == lines[0].allowed
    assert "no compared task has variables.country=XX" in lines[1].reason
    path.write_text("gate: g\nrules:\n  tokens[variables.country=DE]: {at_most: 8}\n  score[varables.country=DE]: {at_least: 80}\n")
    with pytest.raises(BadDefinition) as caught:
        load_gate(path)
    assert ["a slice has no metric 'tokens'", "'varables.country' is no field of tasks; write variables.NAME, task_query.NAME, expected.NAME or labels"] == [
        problem.text for problem in caught.value.problems
    ]


def test_two_runs_of_a_store(lab: Lab):
    """
    Fields are read from the tasks: variables for clusters and slices, numbers among them, and documents are plain JSON.
    """
    text = "workflow: w\nmodel: m\nnodes: {a: {llm: {prompt: '{{ task_query }}'}, evaluate: {criteria: [check: a.text == 'x']}}}"
    rows = [{"id": f"t{index}", "task_query": "q", "variables": {"customer": index // 4, "country": "DE" if index % 2 else "FR"}} for index in range(40)]
    before = lab.run(text, rows, lambda request: "y")
    after = lab.run(text, rows, lambda request: "x" if int(request.task_id[1:]) % 2 else "y")

    found = compare_runs(before, after, by=By("variables.customer", ("variables.country", "labels")))

    assert (10, 4, 4, 0) == (found.clustering.clusters, found.clustering.smallest, found.clustering.largest, found.clustering.alone)
    assert [("DE", 20, 100.0), ("FR", 20, 0.0)] == [(each.value, each.tasks, each.metric("score").metric.change) for each in found.subgroups[0].members]
    assert () == found.subgroups[1].members
    assert json.loads(json.dumps(found.document(), allow_nan=False)) == found.document()


def test_faces(golden):
    """
    Reports say how many clusters there are, show slices with pooled changes, and say what many slices are worth.
    """
    chance = np.random.default_rng(8)
    values = [["DE", "FR", "US<b>"][place] for place in chance.integers(0, 3, 60)]
    sides = [scored(name, [100.0 if chance.random() < right else 0.0 for _ in range(60)]) for name, right in (("a", 0.5), ("b", 0.8))]
    found = compare(*sides, grouping=Grouping(clusters=clustered([4] * 14), dimensions=(sliced(values),)))
    result = Result(found, judge(found, Gate(name="none", limits=())))

    golden("groups_terminal.txt", terminal([result]))
    golden("groups.md", markdown([result]))
    page = html([result])
    assert "By variables.country" in page
    assert "US&lt;b&gt;" in page
