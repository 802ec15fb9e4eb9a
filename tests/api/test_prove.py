"""Proofs: flipped tasks run again with the baseline's output pinned at the node where the sides part."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import beam_ray
from beam_ray.errors import Unusable
from beam_ray.run.connection import Connection
from tests.faults.here import Brief

WORKFLOW = """
workflow: mails
model: m
nodes:
  first:
    llm: {prompt: "open {{ task_query }}"}
  urgent:
    after: first
    when: "'urgent' in task_query"
    llm: {prompt: "hurry {{ task_query }}"}
  read:
    llm: {prompt: "read {{ task_query }}"}
  say:
    after: read
    llm: {prompt: "say {{ read.text }}"}
    evaluate: {criteria: [{check: "say.text == expected.answer", id: right}]}
  file:
    after: say
    tool: tools.files:keep
    with: {text: "{{ say.text }}"}
    effects: write
"""
CHANGES = {
    "nodes.urgent.when": "'never' in task_query",
    "nodes.read.llm.prompt": "gist {{ task_query }}",
    "nodes.say.llm.prompt": "tell {{ read.text }}",
}
TASKS = [
    *({"id": name, "task_query": name, "expected": {"answer": name}} for name in ("guilty", "guilty2", "innocent", "last", "right")),
    {"id": "late", "task_query": "urgent late", "expected": {"answer": "urgent late"}},
    {"id": "better", "task_query": "better", "expected": {"answer": "better!"}},
]


def answer(request: beam_ray.Request) -> str:
    """
    The candidate's "gist" loses what is guilty and adds to what is innocent or better; its "tell" gets innocent, last and late wrong by itself.
    """
    word, _, given = str(request.messages[-1]["content"]).partition(" ")
    if word == "gist":
        return "lost" if given.startswith("guilty") else f"{given}!" if given in ("innocent", "better") else given
    if word == "tell" and given.rstrip("!") in ("innocent", "last", "urgent late"):
        return "wrong"
    return given


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[beam_ray.Store]:
    """A store with a backtest in which five tasks are newly failing and one is newly passing, and the working folder in it."""
    folder = tmp_path_factory.mktemp("proofs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("mails.yaml").write_text(WORKFLOW)
        Path("tools").mkdir()
        Path("tools/files.py").write_text("def keep(text):\n    open('kept.txt', 'a').write(text)\n    return {'kept': True}\n")
        opened = beam_ray.open(folder / "store", models={"m": beam_ray.ScriptedModel(answer)})
        yield dataclasses.replace(opened, connection=Connection(cluster=Brief()))


@pytest.fixture(scope="module")
def backtest(store: beam_ray.Store) -> str:
    """Its id."""
    tasks = beam_ray.Backtest(
        name="gist", workflow="mails.yaml", baseline=Path("mails.yaml"), tasks=TASKS, candidates={"gist": CHANGES}, gate="none", confirm=1
    )
    return store.backtest(tasks).id


@pytest.fixture(scope="module")
def proof(store: beam_ray.Store, backtest: str) -> beam_ray.Proof:
    """The proof of all newly failing tasks, one task of which was tried before on its own."""
    store.prove(backtest, beam_ray.FlippedTasks(tasks=("guilty",)))
    return store.prove(backtest, control=True)


def results(proof: beam_ray.Proof) -> dict[str, str]:
    """What became of each task."""
    return {each.task: each.result for each in proof.tasks}


def test_a_task_recovers_where_the_output_of_the_node_made_it_fail(proof: beam_ray.Proof) -> None:
    """
    Of tasks that part at the same node, those recover whose output there was wrong, and not those that a later node breaks.
    """
    found = results(proof)

    assert (found["guilty"], found["guilty2"], found["innocent"]) == ("recovers", "recovers", "does not recover")
    assert proof.nodes[0]["node"] == "read"
    assert (proof.nodes[0]["tried"], proof.nodes[0]["recovered"], proof.nodes[0]["by_records"]) == (3, 2, 0)
    assert "2 of 3 recover with the baseline's output at 'read'." in proof.sentences


def test_nothing_is_claimed_where_no_step_follows(proof: beam_ray.Proof) -> None:
    """
    A task that parts at its last step recovers by recorded results alone, and it is said that nothing was executed.
    """
    last = next(each for each in proof.tasks if each.task == "last")

    assert (last.node, last.result, last.executed) == ("say", "recovers", 0)
    assert any("no step was executed" in sentence for sentence in proof.sentences)


def test_a_task_that_cannot_be_pinned_says_why(store: beam_ray.Store, backtest: str, proof: beam_ray.Proof) -> None:
    """
    Where only one side ran the node there is nothing to pin; the plan says so before anything is spent.
    """
    plan = store.plan_prove(backtest)

    assert results(proof)["late"] == "cannot be pinned"
    assert plan.barred == (("late", "the candidate did not run 'urgent': the routes differ"),)
    assert "1 of 5 tasks cannot be pinned." in proof.sentences


def test_what_a_step_returns_must_fit_the_candidate(store: beam_ray.Store) -> None:
    """
    A baseline's output without the fields that the candidate's next steps use is not pinned.
    """
    changed = {"nodes.read.llm": {"prompt": "gist {{ task_query }}", "returns": {"gist": "str"}}, "nodes.say.llm.prompt": "tell {{ read.gist }}"}
    models = {"m": beam_ray.ScriptedModel(lambda request: {"gist": "lost"} if "gist" in str(request.messages[-1]["content"]) else answer(request))}
    other = dataclasses.replace(store, models=models)
    verdict = other.backtest(
        beam_ray.Backtest(name="fields", workflow="mails.yaml", baseline=Path("mails.yaml"), tasks=TASKS[:1], candidates={"gist": changed}, gate="none")
    )

    assert "does not have the fields that the candidate returns" in other.plan_prove(verdict.id).barred[0][1]


def test_the_control_and_the_repeats_say_what_chance_does(proof: beam_ray.Proof) -> None:
    """
    With the candidate's own output pinned none passes, and none of the repeats that confirmed the tasks does.
    """
    read = proof.nodes[0]
    controls = {each.task: each.control for each in proof.tasks if each.tried}

    assert controls == {"guilty": False, "guilty2": False, "innocent": False, "last": False}
    assert (read["controls"], read["controls_passed"], read["p"]) == (3, 0, 0.5)
    assert proof.repeats > 0
    assert proof.repeats_passed == 0
    assert any(sentence.startswith("Chance: without a pin, 0 of") for sentence in proof.sentences)


def test_a_newly_passing_task_fails_again_where_the_node_made_it_pass(store: beam_ray.Store, backtest: str) -> None:
    """
    The gain of a candidate is proven in the same way.
    """
    proof = store.prove(backtest, beam_ray.FlippedTasks(group="newly-passing"))

    assert results(proof) == {"better": "fails again"}
    assert proof.recovered == 1


def test_nothing_is_paid_twice(store: beam_ray.Store, backtest: str, proof: beam_ray.Proof) -> None:
    """
    The task that was tried alone is not in the run of the group, and another call makes no run.
    """
    before = [run.id for run in store.runs()]
    again = store.prove(backtest, control=True)
    runs = {each.task: each.address.run for each in proof.tasks if each.address}

    assert again == proof
    assert [run.id for run in store.runs()] == before
    assert runs["guilty"] != runs["guilty2"] == runs["innocent"]
    assert store.plan_prove(backtest, control=True).experiments == ()
    assert store.proof(backtest) == proof


def test_pairs_that_are_kept_show_what_was_proven_since(store: beam_ray.Store, backtest: str) -> None:
    """
    Pairs that were asked before a proof, as the console keeps them, have its results and no experiment left after it.
    """
    of, kept = beam_ray.FlippedTasks(group="newly-passing"), store.verdict(backtest).pairs_of()
    kept.plan_prove(of)
    store.prove(backtest, of)

    assert kept.proof(of).document() == store.proof(backtest, of).document()
    assert kept.proof(of).tasks[0].address is not None
    assert kept.plan_prove(of).experiments == ()


def test_a_proof_is_a_run_that_says_where_its_rows_are_from(store: beam_ray.Store, proof: beam_ray.Proof) -> None:
    """
    The pinned step names the baseline's step, what comes before is the candidate's, and only what comes after is executed; tools that write are not called.
    """
    pinned = next(each for each in proof.tasks if each.task == "guilty")
    task = store.task(str(pinned.address))
    record = task.run.record
    steps = {step.node: step for step in task.steps}

    assert (record.mode, record.pinned_node, record.allow_writes) == ("proof", "read", False)
    assert record.pinned_from is not None
    assert steps["read"].borrowed_from is not None
    assert steps["read"].borrowed_from.startswith(record.pinned_from)
    assert (steps["read"].outcome, steps["say"].outcome, steps["file"].outcome) == ("borrowed", "done", "skipped")
    assert not Path("kept.txt").exists()


def test_a_proof_that_was_stopped_goes_on(store: beam_ray.Store) -> None:
    """
    After an interruption the same call finishes the run that was begun, and pays for nothing twice.
    """
    made: Any = {"name": "stopped", "workflow": "mails.yaml", "baseline": Path("mails.yaml"), "tasks": TASKS[:3], "gate": "none"}
    verdict = store.backtest(beam_ray.Backtest(candidates={"other": CHANGES}, trials=2, **made))

    def interrupt(progress: beam_ray.Progress) -> None:
        if progress.title.startswith("run"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.prove(verdict.id, progress=interrupt)
    begun = {run.id for run in store.runs() if run.record.mode == "proof" and run.record.backtest == verdict.id}
    proof = store.prove(verdict.id)

    assert {each.address.run for each in proof.tasks if each.address} == begun
    assert sum(run.calls for run in store.runs() if run.id in begun) == 6
    assert proof.tried == 3


def test_another_model_proves_nothing(store: beam_ray.Store, backtest: str, proof: beam_ray.Proof) -> None:
    """
    A model that is another one than the candidate was run with is refused before anything is spent.
    """
    other = dataclasses.replace(store, models={"m": beam_ray.ScriptedModel(answer, identity="another")})

    with pytest.raises(Unusable, match="is not the one that run"):
        other.plan_prove(backtest, beam_ray.FlippedTasks(group="newly-passing"), control=True)


@pytest.mark.parametrize(
    ("of", "said"),
    [
        (beam_ray.FlippedTasks(group="both-failing"), "did not flip"),
        (beam_ray.FlippedTasks(group="nonsense"), "no flip group"),
        (beam_ray.FlippedTasks(node="nonsense"), "they part at"),
        (beam_ray.FlippedTasks(tasks=("nonsense",)), "has no task"),
        (beam_ray.FlippedTasks(tasks=("right",)), "is not newly failing"),
        (beam_ray.FlippedTasks(candidate="nonsense"), "has no candidate"),
    ],
    ids=["group", "unknown-group", "node", "task", "not-flipped", "candidate"],
)
def test_what_cannot_be_asked_is_refused(of: beam_ray.FlippedTasks, said: str, store: beam_ray.Store, backtest: str) -> None:
    """
    In one line that says what there is instead.
    """
    with pytest.raises(Unusable, match=said):
        store.plan_prove(backtest, of)


def test_flips_are_grouped_by_where_and_why_they_part(store: beam_ray.Store, backtest: str) -> None:
    """
    Each flipped pair is in one group of its node, criteria and change of route, and a group's pairs can be selected by its id.
    """
    pairs = store.verdict(backtest).pairs_of()
    groups = {(group.flip, group.node): group.tasks for group in pairs.groups}

    assert groups == {
        ("newly failing", "read"): ("guilty", "guilty2", "innocent"),
        ("newly failing", "say"): ("last",),
        ("newly failing", "urgent"): ("late",),
        ("newly passing", "read"): ("better",),
    }
    assert all(group.criteria == ("say/right",) for group in pairs.groups)
    assert all(pairs.select(group.id)["task_id"].to_pylist() == list(group.tasks) for group in pairs.groups)


def test_scores_are_binned_into_twenty_by_twenty(store: beam_ray.Store, backtest: str) -> None:
    """
    Every scored pair is in one bin, 100 in the last one, and a bin's pairs can be selected.
    """
    pairs = store.verdict(backtest).pairs_of()
    bins = {(each.before, each.after): (each.pairs, each.newly_failing, each.newly_passing) for each in pairs.scores}

    assert bins == {(0, 19): (1, 0, 1), (19, 0): (5, 5, 0), (19, 19): (1, 0, 0)}
    assert pairs.select(scores=(19, 19))["task_id"].to_pylist() == ["right"]


def test_marks_say_what_people_think_and_change_no_verdict(store: beam_ray.Store, backtest: str) -> None:
    """
    Of each person the newest mark counts, pairs are selected and groups counted by it, and the backtest's own files stay what they were.
    """
    folder = Path(store.uri) / "backtests" / backtest
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    store.mark_pair(backtest, "guilty", "real", by="ann")
    store.mark_pair(backtest, "guilty", "noise", by="ann", note="the same twice")
    store.mark_pair(backtest, "guilty", "noise", by="ann", note="the same twice")
    store.mark_pair(backtest, "guilty", "judge", by="ben")
    store.mark_pair(backtest, "better", "expected", by="ann")
    store.mark_pair(backtest, "better", "none", by="ann")
    pairs = beam_ray.open(store.uri).verdict(backtest).pairs_of()
    kept = [path for path in folder.glob("marks/*.json")]

    assert {(each.task, each.marked_by, each.mark) for each in store.pair_marks(backtest)} == {("guilty", "ann", "noise"), ("guilty", "ben", "judge")}
    assert (pairs.select(mark="noise")["task_id"].to_pylist(), pairs.select(mark="real").num_rows) == (["guilty"], 0)
    assert [each["marks"] for each in pairs.group_documents() if "guilty" in each["tasks"]] == [{"noise": 1, "judge": 1}]
    assert pairs.marks_counted == {"noise": 1, "judge": 1}
    assert len(kept) == 5
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize(
    ("task", "mark", "options", "said"),
    [
        ("guilty", "rael", {}, "no mark 'rael'"),
        ("nobody", "real", {}, "no pair 'nobody'"),
        ("guilty", "real", {"trial": 9}, "in trial 9"),
        ("guilty", "real", {"candidate": "x"}, "no candidate 'x'"),
        ("guilty", "real", {"note": "x" * 1_001}, "at most 1,000"),
    ],
    ids=["mark", "task", "trial", "candidate", "note"],
)
def test_a_mark_on_nothing_is_refused(task: str, mark: str, options: dict[str, Any], said: str, store: beam_ray.Store, backtest: str) -> None:
    """
    In one line that names what is wrong.
    """
    with pytest.raises(Unusable, match=said):
        store.mark_pair(backtest, task, mark, **options)
