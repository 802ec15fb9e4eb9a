"""Clusters and slices of tasks on the command line: a spec with both, what is refused, and the same runs compared by them later."""

import json

import pytest

from beam_ray.compare.verdict_json import BacktestDocument
from tests.cli.conftest import SPEC, Desk
from tests.shapes import misfits

GROUPS = "cluster: variables.customer\nslices: [variables.country]\n"


@pytest.fixture
def grouped(desk: Desk) -> Desk:
    """36 tasks of 12 customers and two countries; the workflow is published, and the spec is clustered and sliced."""
    rows = [
        {
            "id": f"n{index}",
            "task_query": str(index),
            "expected": {"n": index},
            "variables": {"customer": f"c{index % 12}", "country": "FR" if index % 3 else "DE"},
        }
        for index in range(36)
    ]
    desk.lab.write("tasks.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    desk.lab.write("spec.yaml", SPEC + GROUPS)
    desk("publish", "sums.yaml", "--without-evidence", "first")
    return desk


def test_a_backtest_by_clusters_and_slices(grouped: Desk):
    """
    The verdict says how many clusters it counts and compares each country; it is reproduced from its manifest, and the same runs are compared without a call.
    """
    done = grouped("backtest", "spec.yaml", "--json")
    [candidate] = done.json["candidates"]
    found = candidate["comparison"]

    assert misfits(done.json, BacktestDocument) == []
    assert {"field": "variables.customer", "clusters": 12, "smallest": 3, "largest": 3, "alone": 0} == found["clustering"]
    assert [("FR", 24), ("DE", 12)] == [(member["value"], member["tasks"]) for member in found["subgroups"][0]["members"]]
    assert grouped("reproduce", done.json["backtest_id"]).code == 0
    calls = len(grouped.model.journal)
    runs = candidate["baseline_run"], candidate["run_id"]
    later = grouped("compare", *runs, "--cluster", "variables.customer", "--slice", "variables.country", "--json")
    assert later.json["candidates"][0]["comparison"]["metrics"] == found["metrics"]
    assert calls == len(grouped.model.journal)
    again = grouped("backtest", "spec.yaml", "--set", "slices=variables.customer,labels")
    assert f"beam-ray compare {' '.join(runs)} --cluster variables.customer --slice variables.customer --slice labels" in again.err
    assert calls == len(grouped.model.journal)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (["--set", "cluster=variables.country"], "variables.country divides the 36 tasks into 2 clusters; at least 5 are needed"),
        (
            ["--set", "cluster=variables.custmer"],
            "no task has variables.custmer\n  there are: variables.country, variables.customer\n  did you mean 'customer'?",
        ),
        (["--set", "slices=country"], "'country' is no field of tasks; write variables.NAME, task_query.NAME, expected.NAME or labels"),
        (["--set", "cluster=labels"], "tasks cannot be clustered by labels"),
        (["--set", "stop=early"], "'cluster' and 'stop: early' exclude each other"),
        (["--gate", "gate.yaml"], "the gate 'g' has a rule for 'score[variables.team=x]', but the spec's 'slices' lack variables.team"),
    ],
)
def test_what_is_refused(grouped: Desk, changes: list[str], says: str):
    """
    Too few clusters, fields that there are not, and a slice that the spec has not are one line and exit code 2, before a model is called.
    """
    grouped.lab.write("gate.yaml", "gate: g\nrules: {'score[variables.team=x]': {at_least: 5}}\n")
    said = grouped("backtest", "spec.yaml", *changes)

    assert 2 == said.code
    assert says in said.err
    assert not grouped.model.journal


def test_a_limit_draws_whole_clusters(grouped: Desk):
    """
    Of twelve customers with three tasks each, ``limit: 20`` takes six whole ones.
    """
    plan = grouped("backtest", "spec.yaml", "--plan", "--set", "limit=20", "--json")

    assert (0, 18) == (plan.code, plan.json["tasks"])
