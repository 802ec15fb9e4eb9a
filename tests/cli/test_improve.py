"""optimise and criteria, by the commands that people type."""

import json
from typing import Any

import pytest

from beam_ray.improve.holdout import split
from beam_ray.store.libraries import library_at
from tests.cli.conftest import SPEC, Desk, answer
from tests.improve.scripted import proposal
from tests.sums import WORKFLOW


def with_proposals(body: dict[str, Any]) -> Any:
    """The model of the desk, which also proposes."""
    names = set(body["response_format"]["json_schema"]["schema"]["properties"]) if "response_format" in body else set()
    if "weaknesses" in names:
        return proposal("ask better", user_1="better", user_3="")
    if "criteria" in names:
        entries = [("The number is small.", "read.n < 12"), ("It is a number.", "read.n is number"), ("It is below -5.", "read.n < -5")]
        return {"criteria": [{"criterion": text, "expression": check, "reason": "so that it is"} for text, check in entries]}
    return answer(body)


@pytest.fixture
def ran(desk: Desk) -> str:
    """The id of a run in which two of three tasks failed."""
    desk.model.answer = with_proposals
    return str(desk("run", "sums.yaml", "--tasks", "tasks.jsonl", "--json").json["run_id"])


def test_a_failed_step_gets_a_better_prompt_a_draft_and_two_scores(desk: Desk, ran: str):
    """The proposal is shown first and paid once; --apply writes the draft, reruns, and shows what it brought; a second time asks nobody."""
    calls = len(desk.model.journal)

    shown = desk("optimise", f"{ran}/n4", "--step", "read")
    applied = desk("optimise", f"{ran}/n4", "--step", "read", "--apply")
    again = desk("optimise", f"{ran}/n4", "--step", "read", "--apply", "--json")

    assert (shown.code, applied.code, again.code) == (0, 0, 0), applied.err
    assert "  - ask better\n    because: it was not said" in shown.out
    assert "+better {{ task_query }}" in shown.out
    assert "$0.0000" in shown.out and "(paid now)" in shown.out
    assert "from the store, not paid again" in applied.out
    rows = [line.split() for line in applied.out.splitlines()]
    assert ["step", "read", "0.0", "100.0", "better"] in rows
    assert ["n", "NOT", "MET", "met"] in rows
    assert len(desk.model.journal) == calls + 3  # a proposal, the step, the one after it
    assert again.json["rerun"]["step_before"] == 0.0
    assert again.json["rerun"]["step_after"] == 100.0
    assert (desk.lab.folder / "sums.yaml").read_text().strip() == WORKFLOW.strip()
    assert "better {{ task_query }}" in (desk.lab.folder / "sums-draft.yaml").read_text()
    assert desk("versions", "sums").code == 2  # nothing is published


def test_what_was_proposed_is_kept_with_the_step(desk: Desk, ran: str):
    """The plan says what asking costs before and that it costs nothing after; --again adds a second proposal; each is shown again by its number, without a call."""
    step = ("optimise", f"{ran}/n4", "--step", "read")
    before = desk(*step, "--plan")
    desk(*step)
    after = desk(*step, "--plan", "--json").json
    desk.model.answer = lambda body: proposal("ask twice", user_1="twice", user_3="")
    desk(*step, "--again")
    calls = len(desk.model.journal)
    first, second = (desk(*step, "--proposal", str(number), "--json").json for number in (1, 2))
    third = desk(*step, "--proposal", "3")

    assert "once, at most 2 times" in before.out and "2,048 output tokens" in before.out
    assert (after["kept"], after["max_calls"], after["max_usd"]) == (True, 0, 0.0)
    assert [each["changes"][0]["change"] for each in (first, second)] == ["ask better", "ask twice"]
    assert [each["number"] for each in (first, second)] == [1, 2]
    assert "it has 2" in third.err
    assert len(desk.model.journal) == calls


def test_a_proposal_becomes_a_draft_of_the_store(desk: Desk, ran: str):
    """--draft keeps it there, with --apply the step is rerun with it; a second time makes no second revision, and no file is written."""
    step = ("optimise", f"{ran}/n4", "--step", "read", "--draft", "asks-better")
    kept = desk(*step)
    applied = desk(*step, "--apply", "--json").json
    again = desk(*step, "--apply", "--json").json
    draft = desk("draft", "show", "sums@asks-better", "--text").out

    assert "sums@asks-better:2" in kept.out
    assert applied["draft"] == again["draft"] == "sums@asks-better:2"
    assert (applied["rerun"]["step_before"], applied["rerun"]["step_after"]) == (0.0, 100.0)
    assert "better {{ task_query }}" in draft
    assert not (desk.lab.folder / "sums-draft.yaml").exists()
    assert "leave out --using and --to" in desk(*step, "--to", "x.yaml").err


def test_a_draft_with_another_prompt_is_not_overwritten(desk: Desk, ran: str):
    """Whose prompt is neither the one that failed nor the proposed one keeps it."""
    desk("draft", "create", "sums@mine")
    desk("draft", "set", "sums@mine", "nodes.read.llm.prompt=mine {{ task_query }}")
    refused = desk("optimise", f"{ran}/n4", "--step", "read", "--draft", "mine")

    assert (refused.code, "has another prompt of 'read'" in refused.err) == (2, True)
    assert "mine {{ task_query }}" in desk("draft", "show", "sums@mine", "--text").out


def test_a_search_ends_in_a_draft_with_its_evidence(desk: Desk):
    """What held-out tasks speak for is written down, and publish takes it."""
    desk.model.answer = with_proposals
    assert desk("library", "import", "numbers", "tasks.jsonl").code == 0, desk("library", "--help").out
    assert desk("publish", "sums.yaml", "--without-evidence", "first").code == 0

    found = desk("optimise", "sums.yaml", "--library", "numbers", "--budget", "max_calls=500", "--rounds", "4")

    assert found.code == 0, found.out + found.err
    assert "search set 14 tasks, holdout set 22 tasks" in found.out
    assert "accepted: the whole interval is above 0. Draft: sums-draft.yaml" in found.out
    evidence = next(line for line in found.out.splitlines() if line.startswith("publish it:")).partition("beam-ray ")[2].split()
    calls = len(desk.model.journal)
    again = desk("optimise", "sums.yaml", "--library", "numbers", "--budget", "max_calls=500", "--rounds", "4", "--json")
    assert again.json["accepted"] is True
    assert len(desk.model.journal) == calls
    assert desk(*evidence).code == 0


def test_commands_that_use_held_out_tasks_say_so_and_count(desk: Desk):
    """A run and a backtest of drafts over a library that was searched, and a proposal for one of its held-out tasks, are tests of a draft each."""
    desk.model.answer = with_proposals
    desk("library", "import", "numbers", "tasks.jsonl")
    held = split(desk.lab.objects, library_at(desk.lab.objects, "numbers")).held["task_id"].to_pylist()
    desk("publish", "sums.yaml", "--without-evidence", "first")
    desk.lab.write("spec.yaml", SPEC.replace("tasks.jsonl", "library:numbers"))
    desk.lab.write("other.yaml", WORKFLOW.replace("say {{", "say  {{"))

    published, tried = (desk("run", name, "--tasks", "library:numbers", "--json") for name in ("sums", "other.yaml"))
    failing = next(row["task_id"] for row in desk("tasks", "--run", tried.json["run_id"], "--status", "below", "--json").json if row["task_id"] in held)
    compared = desk("backtest", "spec.yaml", "--json")
    proposed = desk("optimise", f"{tried.json['run_id']}/{failing}", "--step", "read", "--json")

    said = [line for each in (published, tried, compared, proposed) for line in each.err.splitlines() if "held out" in line]
    every = "22 of 36 tasks are held out for searches over 'numbers'"
    assert said == [
        every,
        f"{every}; this draft counts as tested on them (1 of at most 8)",
        f"{every}; this draft counts as tested on them (2 of at most 8)",
        "1 of 1 task is held out for searches over 'numbers'; this draft counts as tested on them (3 of at most 8)",
    ]


def test_a_search_against_what_is_not_published_is_refused(desk: Desk):
    """Its evidence would be of no use; nothing is asked."""
    desk("library", "import", "numbers", "tasks.jsonl")
    desk("publish", "sums.yaml", "--without-evidence", "first")
    desk.lab.write("sums.yaml", WORKFLOW.replace("say {{", "tell {{"))

    refused = desk("optimise", "sums.yaml", "--library", "numbers", "--budget", "max_calls=500")

    assert refused.code == 2
    assert "is not the published version 1 of 'sums'" in refused.err
    assert not desk.model.journal


def test_criteria_are_generated_tried_and_written_to_a_draft(desk: Desk, ran: str):
    """Each comes with how often it holds; the useless are left out and named; the original stays."""
    said = desk("criteria", "sums.yaml", "--node", "read", "--generate", "--add", "--outputs", "36")

    assert said.code == 0, said.err
    assert "  - The number is small.\n    computed: read.n < 12\n    because: so that it is\n" in said.out
    lines = {line.split("  ")[1]: line for line in said.out.splitlines() if line.startswith("  ")}
    assert "useless: always holds" in lines["It is a number."]
    assert "useless: never holds" in lines["It is below -5."]
    assert "useless" not in lines["The number is small."]
    assert "4/12" in lines["The number is small."]  # 0, 3, 6 and 9, of the twelve that were read rightly
    draft = (desk.lab.folder / "sums-criteria.yaml").read_text()
    assert "read.n < 12" in draft and "equals" in draft
    assert "# left out, never holds (0 of 36): It is below -5." in draft
    assert (desk.lab.folder / "sums.yaml").read_text().strip() == WORKFLOW.strip()


def test_criteria_are_checked_without_a_step(desk: Desk, ran: str):
    """A rule is not repeated, and what is expected is what it says."""
    calls = len(desk.model.journal)

    desk("publish", "sums.yaml", "--without-evidence", "first")
    found = desk("criteria", "sums", "--check", "--outputs", "36", "--json")

    assert found.code == 0, found.err
    [one] = found.json[0]["criteria"]
    assert (found.json[0]["node"], one["met"], one["unmet"], one["expected"]) == ("read", 12, 24, 1.0)
    assert one["itself_word"] == "a rule"
    assert len(desk.model.journal) == calls


REFUSED = {
    ("optimise", "sums.yaml"): "name the failed step",
    ("optimise", "n0", "--step", "read"): "did not fail: it passed",
    ("optimise", "n4", "--step", "raed"): "it has: read, say",
    ("optimise", "sums.yaml", "--library", "nothing", "--budget", "max_calls=9"): "there is no task library",
    ("run", "sums.yaml", "--tasks", "tasks.jsonl", "--budget", "max_calls=nan"): "must be a number of at least 0",
    ("optimise", "n4", "--step", "read", "--budget", "max_usd=1"): "--budget goes with --library",
    ("optimise", "sums.yaml", "--library", "numbers", "--apply"): "--apply goes with --step",
    ("optimise", "sums.yaml", "--library", "numbers", "--plan"): "--plan goes with --step",
    ("optimise", "n4", "--step", "read", "--proposal", "1", "--again"): "leave out --again",
    ("criteria", "sums.yaml", "--node", "read", "--generate", "--repeats", "5"): "--repeats goes with --check",
    ("criteria", "sums.yaml"): "--generate --node NODE, or --check",
    ("criteria", "sums.yaml", "--node", "raed", "--check"): "it has: read, say",
    ("criteria", "sums.yaml", "--node", "say", "--check"): "has no criteria",
}


def test_what_cannot_be_done_is_refused_before_anything_is_spent(desk: Desk, ran: str):
    """One line says what, the next what to do, and the exit code is 2."""
    calls = len(desk.model.journal)

    refused = {words: desk(*words) for words in REFUSED}

    assert {words: (said.code, REFUSED[words] if REFUSED[words] in said.err else said.err) for words, said in refused.items()} == {
        words: (2, why) for words, why in REFUSED.items()
    }
    assert len(desk.model.journal) == calls


def test_a_proposal_that_cannot_be_used_leaves_with_5(desk: Desk, ran: str):
    """Both tries are shown with their reasons."""
    desk.model.answer = lambda body: json.dumps({"no": "idea"})

    said = desk("optimise", f"{ran}/n4", "--step", "read", "--apply")

    assert said.code == 5
    assert said.out.count("refused: ") == 2
    assert not (desk.lab.folder / "sums-draft.yaml").exists()
