"""A workflow's graph with how each node, criterion and branch did."""

from pathlib import Path

import pytest

import beam_ray
from beam_ray.errors import Damaged, Unusable
from beam_ray.llm import Request
from beam_ray.store.runs import Run
from benchmarks.speed.copies import Copies
from tests.conftest import Lab

WORKFLOW = """
workflow: mail
model: m
nodes:
  sort:
    title: Sort the mail
    llm: {prompt: "sort {{ task_query }}", returns: {n: int}}
    evaluate: {threshold: 50, criteria: [{check: sort.n < 3, id: small}, {check: sort.n != 5, id: not_five, weight: 3}]}
    auto_rerun: {max: 1}
  high: {after: sort, when: sort.n > 3, route: High, llm: {prompt: "high {{ sort.n }}"}}
  low: {after: sort, when: sort.n <= 3, route: Low, llm: {prompt: "low {{ sort.n }}"}}
"""


def answer(request: Request) -> object:
    """The number in the query; nobody can sort a 9."""
    word, number = str(request.messages[-1]["content"]).split()[:2]
    if word != "sort":
        return "done"
    return "no number" if number == "9" else {"n": int(number)}


@pytest.fixture
def run(lab: Lab) -> Run:
    """Ten tasks, 0 to 9."""
    return lab.run(WORKFLOW, [str(n) for n in range(10)], answer)


def store_of(lab: Lab) -> beam_ray.Store:
    """The lab's store."""
    return beam_ray.open(lab.objects.uri, models={"m": beam_ray.ScriptedModel(answer)})


def test_a_run_counts_the_steps_of_each_node(lab: Lab, run: Run) -> None:
    """
    Executed, skipped and failed steps, those that passed, those that needed an auto-rerun, and the mean score.
    """
    sort, high, low = store_of(lab).get_run(run.run_id).nodes

    assert (sort.title, sort.asks, sort.done, sort.failed, sort.scored, sort.passed) == ("Sort the mail", "m", 9, 1, 9, 8)
    assert (sort.auto_reruns, sort.score) == (2, 75.0)
    assert (high.route, high.done, high.skipped) == ("High", 5, 5)
    assert (low.route, low.done, low.skipped, low.score) == ("Low", 4, 6, None)


def test_a_node_has_its_accuracy_with_counts_and_interval(lab: Lab, run: Run) -> None:
    """
    The mean score over scored steps; failed steps are counted apart.
    """
    sort = store_of(lab).flow("mail").node("sort")

    assert sort.numbers
    # 0, 1 and 2 meet both criteria, 5 meets none, 9 gives no answer, the other five meet the heavier one
    assert sort.numbers.score == pytest.approx((3 * 100 + 0 + 5 * 75) / 9)
    assert (sort.numbers.scored, sort.numbers.passed, sort.numbers.failed, sort.numbers.steps) == (9, 8, 1, 10)
    assert sort.numbers.low and sort.numbers.high
    assert 0 < sort.numbers.low < sort.numbers.score < sort.numbers.high < 100
    assert (sort.numbers.auto_reruns, sort.numbers.exhausted) == (1, 1)


def test_criteria_are_counted_and_numbered_over_the_workflow(lab: Lab, run: Run) -> None:
    """
    Each with how many steps met it, of how many decided.
    """
    found = store_of(lab).flow("mail").node("sort").criteria

    assert [(each.number, each.id, each.weight, each.met, each.decided) for each in found] == [(1, "small", 1, 3, 9), (2, "not_five", 3, 8, 9)]


def test_branches_have_the_share_of_tasks_that_took_them(lab: Lab, run: Run) -> None:
    """
    Of the tasks in which the node before has an output.
    """
    edges = store_of(lab).flow("mail").edges

    assert [(each.target, each.route, each.taken, each.reached, each.percent) for each in edges] == [
        ("high", "High", 5, 9, pytest.approx(500 / 9)),
        ("low", "Low", 4, 9, pytest.approx(400 / 9)),
    ]


def test_all_runs_count_together_and_a_task_that_is_run_twice_is_one_task(lab: Lab, run: Run) -> None:
    """
    The interval of two runs of the same tasks is not narrower than that of one.
    """
    lab.run(WORKFLOW, [str(n) for n in range(10)], answer, trials=2)
    store = store_of(lab)
    one, both = store.flow("mail", run=run.run_id).node("sort").numbers, store.flow("mail", all_runs=True)

    assert one and one.low
    together = both.node("sort").numbers
    assert together and together.low
    assert (both.numbers.tasks, both.numbers.distinct_tasks, len(both.numbers.runs)) == (30, 10, 2)
    assert (together.steps, together.score) == (30, pytest.approx(one.score))
    assert together.low <= one.low + 0.5


def test_numbers_of_another_definition_are_said_to_be_so(lab: Lab, run: Run) -> None:
    """
    A node that was changed since the run, and a criterion that was reworded, are marked; the others keep their numbers.
    """
    changed = WORKFLOW.replace("sort.n < 3, id: small", "sort.n < 2, id: small")
    found = store_of(lab).flow(str(lab.write("changed.yaml", changed)), run=run.run_id)

    assert not found.numbers.same_definition
    assert {each.name: each.as_run for each in found.nodes} == {"sort": False, "high": True, "low": True}
    assert [each.met for each in found.node("sort").criteria] == [None, 8]


def test_without_a_run_a_flow_has_no_numbers(lab: Lab) -> None:
    """
    Its graph, criteria and what prompts may use are there all the same.
    """
    lab.workflow(WORKFLOW)
    found = store_of(lab).flow(str(lab.folder / "workflow.yaml"))

    assert found.numbers.kind == "none"
    assert {each.numbers for each in found.nodes} == {None}
    assert found.node("high").variables == ("task_query", "variables", "attachments", "sort.n")


def test_a_run_of_another_workflow_is_refused(lab: Lab, run: Run) -> None:
    """
    As are nodes, candidates and names that do not exist.
    """
    lab.run(WORKFLOW.replace("workflow: mail", "workflow: post"), ["1"], answer)
    store = store_of(lab)

    with pytest.raises(Unusable, match="is of the workflow 'mail', not of 'post'"):
        store.flow("post", run=run.run_id)
    with pytest.raises(Unusable, match="mail has no node 'sorted'\n  it has: sort, high, low\n  did you mean 'sort'"):
        store.flow("mail").node("sorted")
    with pytest.raises(Unusable, match="no version of 'nothing'"):
        store.flow("nothing")


def test_a_damaged_file_of_steps_is_no_number(lab: Lab, run: Run) -> None:
    """
    Damage is said and not averaged over.
    """
    file = Path(lab.objects.uri) / run.prefix / "steps/sort-000.parquet"
    body = bytearray(file.read_bytes())
    body[len(body) // 2] ^= 1
    file.write_bytes(body)

    with pytest.raises(Damaged, match="sort-000"):
        store_of(lab).flow("mail")


def test_workflows_are_listed_with_their_newest_run(lab: Lab, run: Run) -> None:
    """
    Success rates of the runs, the oldest first; reruns do not count.
    """
    lab.run(WORKFLOW, ["1", "2"], answer)
    store = store_of(lab)
    store.publish(str(lab.folder / "workflow.yaml"), without_evidence="the first")
    store.create_draft("mail", "shorter")
    [found] = store.flows()

    assert (found.workflow, found.published, found.drafts, found.runs, found.passed, found.tasks) == ("mail", 1, ("shorter",), 2, 2, 2)
    assert found.history == (80.0, 100.0)


def test_the_newest_run_is_the_same_one_everywhere(lab: Lab, run: Run) -> None:
    """
    The list, the flow and review take the newest ordinary run: neither a rerun nor a backtest's side, which count where nothing else was run.
    """
    store, copies = store_of(lab), Copies(run)
    earlier = [copies.make(number, 1, mode="candidate").run_id for number in range(2)]
    for number, mode in enumerate(("baseline", "candidate", "rerun", "what-if", "proof", "repeats"), 10):
        copies.make(number, 500, mode=mode)
    copies.make(20, 600, mode="run", recorded="a digest")

    def newest() -> list[str | None]:
        [listed] = store.flows()
        queue = store.review_queue("mail", "sort", criteria=["small"])
        return [listed.newest.id if listed.newest else None, *store.flow("mail").numbers.runs, queue.run_id]

    assert newest() == [run.run_id] * 3

    for folder in lab.objects.folders("runs"):
        if folder not in earlier:
            lab.objects.delete_all([key for key, _ in lab.objects.keys(f"runs/{folder}/")])

    assert newest() == [earlier[1]] * 3
