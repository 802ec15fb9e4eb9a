"""A changed prompt of one step: what it would send and cost, what so many tasks can show, and its pairs."""

import asyncio
from typing import Any

import pytest

import beam_ray
from beam_ray.errors import Unusable
from beam_ray.rerun import RerunOptions, make_rerun
from beam_ray.store.beginning import begin
from beam_ray.store.runs import Run
from tests.conftest import Lab, drive_here

TEXT = """\
# ours
workflow: w
model: m
nodes:
  first:
    llm: {prompt: "begin {{ task_query }}"}
  read:
    after: first
    llm: {prompt: "read {{ first.text }}"}
    evaluate: {criteria: [check: read.text == 'good']}
"""
BETTER = [{"role": "user", "content": "read {{ first.text }} plainly"}]


def answer(request: beam_ray.Request) -> Any:
    """Every third task is read well anyway, and what is asked plainly nearly always."""
    said = str(request.messages[-1]["content"])
    if said.startswith("begin"):
        return said.removeprefix("begin ")
    number = int("".join(letter for letter in said if letter.isdigit()) or 0)
    return "good" if number % 3 == 0 or ("plainly" in said and number != 7) else "bad"


@pytest.fixture
def tried(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> tuple[beam_ray.Store, str]:
    """A store with a run of 12 tasks, and the id of the run."""
    monkeypatch.chdir(lab.folder)
    run = lab.run(lab.workflow(TEXT, "w.yaml"), [f"t{n}" for n in range(12)], answer)
    return beam_ray.open(lab.folder / "store", models={"m": beam_ray.ScriptedModel(answer)}), run.run_id


def rerun(store: beam_ray.Store, run_id: str, found: beam_ray.PromptTry) -> beam_ray.Rerun:
    """The rerun of a try's tasks, done in this process."""
    assert found.workflow
    ids = [each.partition("/")[2] for each in found.tasks]
    plan = make_rerun(store.objects, Run(store.objects, run_id), ids, found.workflow, store.known_models, options=RerunOptions("read"))
    record = begin(store.objects, plan.record, plan.tasks)
    asyncio.run(drive_here(store.objects, record, store.known_models))
    return store.get_rerun(record.run_id)


def test_a_try_says_what_would_be_sent_and_executed(tried: tuple[beam_ray.Store, str]):
    """The prompt as the task's model would get it; earlier steps are borrowed; nothing is saved."""
    store, run = tried
    found = store.try_prompt(f"{run}/t1", "read", BETTER, count=4)

    assert found.faults == () and found.changed
    assert found.sent and [turn.text for turn in found.sent.turns] == ["read t1 plainly"]
    assert found.plan and [(node.node, node.run, node.borrow) for node in found.plan.nodes] == [("first", 0, 5), ("read", 5, 0)]
    assert (found.tasks[0], len(set(found.tasks)), found.available) == (f"{run}/t1", 5, 11)
    assert store.drafts() == []


def test_what_is_wrong_with_a_prompt_is_said(tried: tuple[beam_ray.Store, str]):
    """A name that nothing gives, and a template that cannot be parsed: no plan, and nothing is sent."""
    store, run = tried
    faults = [store.try_prompt(f"{run}/t1", "read", [{"role": "user", "content": text}]) for text in ("read {{ frist.text }}", "read {{ first.text")]

    assert [(each.workflow, each.plan, each.sent) for each in faults] == [(None, None, None)] * 2
    assert "frist" in faults[0].faults[0]


def test_pairs_leave_out_the_task_that_was_looked_at(tried: tuple[beam_ray.Store, str]):
    """It was chosen because it failed; the others are counted against their originals, with an interval."""
    store, run = tried
    found = rerun(store, run, store.try_prompt(f"{run}/t1", "read", BETTER, count=11))
    every, others = found.paired(), found.paired(["t1"])

    assert (every.tasks, others.tasks) == (12, 11)
    assert set(every.newly_passing) - set(others.newly_passing) == {"t1"}
    assert others.newly_failing == ()
    rate = others.metrics["success_rate"]
    assert (round(rate.before or 0), round(rate.after or 0)) == (36, 91)
    assert rate.low is not None and rate.low > 0


def test_more_tasks_show_smaller_changes(tried: tuple[beam_ray.Store, str]):
    """Fewer than two show nothing; without runs to tell from, one of ten tasks is assumed to differ."""
    store, _ = tried
    found = [store.detectable("w", count) for count in (1, 12, 100)]

    assert found[0].success_rate is None
    assert found[1].success_rate and found[2].success_rate and found[1].success_rate > found[2].success_rate
    assert (found[2].runs, found[2].score) == ((), None)


def test_a_try_is_kept_as_a_revision(tried: tuple[beam_ray.Store, str]):
    """The next one of its draft; one that began from an older revision becomes a draft of its own, so that nothing is mixed."""
    store, run = tried
    first = store.save_try(f"{run}/t1", "read", BETTER)
    second = store.save_try(f"{run}/t1", "read", [{"role": "user", "content": "{{ first.text }} again"}], base=first.reference)
    aside = store.save_try(f"{run}/t1", "read", [{"role": "user", "content": "{{ first.text }} aside"}], base=first.reference)

    assert [each.reference for each in (first, second, aside)] == ["w@try-read:2", "w@try-read:3", "w@try-read-2:2"]
    assert "# ours" in second.text
    assert store.prompt_of(f"{run}/t1", "read", aside.reference) == ({"role": "user", "content": "{{ first.text }} aside"},)
    assert store.prompt_of(f"{run}/t1", "read") == ({"role": "user", "content": "read {{ first.text }}"},)


def test_a_try_on_a_candidate_begins_with_what_the_candidate_sent(tried: tuple[beam_ray.Store, str], lab: Lab):
    """Of a run of a draft, its own definition is changed, in the published text; where it has what only an author may bring, the published one."""
    store, _ = tried
    store.publish(lab.folder / "w.yaml", without_evidence="the first")
    closer = TEXT.replace("read {{ first.text }}", "read {{ first.text }} closely").replace("read.text == 'good'", "read.text != 'bad'")
    run = lab.run(lab.workflow(closer, "closer.yaml"), ["t0"], answer).run_id
    lab.write("rules.py", "def plausible(output, expected, values):\n    return True\n")
    other = lab.run(lab.workflow(closer.replace("check: read.text != 'bad'", "python: rules:plausible"), "other.yaml"), ["t0"], answer).run_id
    draft = store.save_try(f"{run}/t0", "read", [{"role": "user", "content": "{{ first.text }} again"}])

    assert store.prompt_of(f"{run}/t0", "read") == ({"role": "user", "content": "read {{ first.text }} closely"},)
    assert store.try_prompt(f"{run}/t0", "read", store.prompt_of(f"{run}/t0", "read")).changed is False
    assert sorted(str(change) for change in store.draft_changes(draft)) == ["read.evaluate.criteria", "read.llm.prompt"]
    assert "# ours" in draft.text
    assert store.prompt_of(f"{other}/t0", "read") == ({"role": "user", "content": "read {{ first.text }}"},)


def test_a_run_that_reruns_nothing_has_no_pairs(tried: tuple[beam_ray.Store, str]):
    """It is refused with what it is."""
    store, run = tried

    with pytest.raises(Unusable, match="reruns no other"):
        store.get_rerun(run)
