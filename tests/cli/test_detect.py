"""plan --detect: how many tasks show a change, before anything is spent."""

import pytest

from tests.cli.conftest import Desk


@pytest.fixture
def planned(desk: Desk) -> Desk:
    """A spec over 36 tasks, and a published baseline."""
    desk.lab.write("sums.yaml", (desk.lab.folder / "sums.yaml").read_text().replace('{prompt: "read', '{temperature: 0.5, prompt: "read'))
    desk("publish", "sums.yaml", "--without-evidence", "the first")
    return desk


def detection(desk: Desk, change: str) -> dict:
    """What the plan says of detecting the change."""
    return desk("plan", "spec.yaml", "--detect", change, "--json").json["detection"]


def test_without_runs_the_share_of_flips_is_assumed(planned: Desk) -> None:
    """
    For 3 points of the success rate 429, 865 or 1,737 tasks are needed where 5, 10 or 20 % of them flip; time is unknown, the price is not.
    """
    found = detection(planned, "3")

    assert ([], None, None) == (found["runs"], found["flips"], found["detectable_rate"])
    assert [(5.0, 429), (10.0, 865), (20.0, 1737)] == [(each["flips"], each["success_rate_tasks"]) for each in found["options"]]
    assert all(each["seconds"] is None and each["calls"] == 4 * each["tasks"] and each["max_usd"] > 0 for each in found["options"])
    shown = planned("plan", "spec.yaml", "--detect", "3").out
    assert "how many tasks flip is assumed; --aa measures it" in shown
    assert "time unknown" in shown
    assert not planned.model.journal


def test_finished_runs_tell_how_many_tasks_flip(planned: Desk) -> None:
    """
    Six of 36 tasks got better and three worse, so about a quarter is expected to flip; an A/A test in which three flip shows that more trials help.
    """

    def answer(body: dict) -> object:
        word, number = body["messages"][-1]["content"].split(" ")[:2]
        if word == "say":
            return f"it is {number}"
        wrong = {"read": range(6 if body["seed"] <= 1_000 else 9), "better": range(30, 33)}[word]
        return {"n": -1 if int(number) in wrong else int(number)}

    planned.model.answer = answer
    planned("backtest", "spec.yaml", "--gate", "none")
    changes = detection(planned, "3")
    rate_only = detection(planned, "3%")
    plan = planned("plan", "spec.yaml", "--json").json
    planned("backtest", "spec.yaml", "--aa")
    known = detection(planned, "3")

    assert len(changes["runs"]) == 2
    assert (36, None) == (changes["compared"], changes["noise"])
    assert changes["flips"] == pytest.approx(100 * (9 + 2) / (36 + 2))
    assert changes["options"][0]["score_tasks"] == pytest.approx(changes["options"][0]["success_rate_tasks"], rel=0.01)
    assert [1] == [each["trials"] for each in changes["options"]]
    assert rate_only["options"][0]["score_tasks"] is None
    assert 0 < changes["options"][0]["seconds"]["low"] <= changes["options"][0]["seconds"]["high"]
    assert plan["seconds"] is not None
    assert known["noise"] == pytest.approx(100 * (3 + 2) / (36 + 2))
    assert [1, 2, 3, 5] == [each["trials"] for each in known["options"]]
    assert sorted((each["tasks"] for each in known["options"]), reverse=True) == [each["tasks"] for each in known["options"]]


@pytest.mark.parametrize("change", ["0", "-3", "101", "much", "3 points"])
def test_a_change_that_is_none(planned: Desk, change: str) -> None:
    """
    What is no number of points is refused with how to write it.
    """
    said = planned("plan", "spec.yaml", "--detect", change)

    assert 2 == said.code
    assert "must be a number of points such as 3" in said.err


def test_only_a_backtest_detects_a_change(planned: Desk) -> None:
    """
    The plan of a run has nothing to compare.
    """
    said = planned("plan", "sums.yaml", "--tasks", "tasks.jsonl", "--detect", "3")

    assert (2, True) == (said.code, "is for a backtest spec" in said.err)


def test_a_backtest_does_not_plan_what_to_detect(desk: Desk) -> None:
    """
    ``backtest --detect`` is one line with the command that is meant, and no such option in the help.
    """
    said = desk("backtest", "spec.yaml", "--detect", "3")

    assert (2, True) == (said.code, "--detect goes with plan, which runs nothing: beam-ray plan spec.yaml --detect 3" in said.err)
    assert not desk.model.journal


def test_the_plan_has_the_most_that_repeats_may_cost(desk: Desk) -> None:
    """
    With ``confirm`` every task may be newly failing and repeated three times, and twenty of them eleven times more, on both sides; without it there is nothing.
    """
    desk("publish", "sums.yaml", "--without-evidence", "the first")
    found = desk("backtest", "spec.yaml", "--plan", "--set", "confirm=3", "--json").json["repeats"]
    auto = desk("backtest", "spec.yaml", "--plan", "--set", "confirm=auto").out

    runs = 2 * (36 * 3 + 20 * 11)
    assert (3, None, None, runs, 2 * runs) == (found["times"], found["flakes"], found["expected_runs"], found["most_runs"], found["most_calls"])
    assert found["most_usd"] > 0
    assert "confirm: newly failing tasks are repeated 3 times on both sides, suspected ones again: how often tasks fail by chance is not known" in auto
    assert desk("backtest", "spec.yaml", "--plan", "--json").json["repeats"] is None
