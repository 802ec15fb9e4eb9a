"""The law of borrowing: what is borrowed changes nothing but the bill."""

import hashlib
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beam_ray.define.workflow import Workflow
from beam_ray.store.opening import open_objects
from beam_ray.store.runs import Run
from tests.conftest import Lab


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, Any]:
    """A random workflow of 1 to 6 nodes, some with conditions and criteria."""
    nodes: dict[str, Any] = {}
    for index in range(draw(st.integers(1, 6))):
        names = list(nodes)
        after = draw(st.lists(st.sampled_from(names), unique=True, max_size=2)) if names else []
        uses = "".join(f" {{{{ {name}.text if {name} else 'nothing' }}}}" for name in after)
        node: dict[str, Any] = {"llm": {"prompt": f"{draw(st.sampled_from('xyz'))} {{{{ task_query }}}}{uses}"}}
        if after:
            node["after"] = after
            if draw(st.booleans()):
                node["when"] = f"{after[0]} is none or {after[0]}.text < 'm'"
        if draw(st.booleans()):
            node["evaluate"] = {"criteria": [{"check": f"output.text > '{draw(st.sampled_from('0a8'))}'"}]}
            if draw(st.booleans()):
                node["auto_rerun"] = {"max": 1}
        nodes[f"n{index}"] = node
    return {"workflow": "random", "model": "m", "nodes": nodes}


@st.composite
def edits(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """A workflow and the same one after some edits of prompts, criteria and conditions."""
    before = draw(graphs())
    after = {**before, "nodes": {name: {**node, "llm": dict(node["llm"])} for name, node in before["nodes"].items()}}
    for name in draw(st.lists(st.sampled_from(list(after["nodes"])), max_size=3)):
        node = after["nodes"][name]
        what = draw(st.sampled_from(["prompt", "criteria", "when", "title", "temperature"]))
        if what == "prompt":
            node["llm"]["prompt"] = "w " + node["llm"]["prompt"]
        elif what == "criteria":
            node["evaluate"] = {"criteria": [{"check": "output.text > '4'"}], "threshold": 50}
        elif what == "when" and "after" in node:
            node["when"] = f"{node['after'][0]} is none or {node['after'][0]}.text < 'f'"
        elif what == "temperature":
            node["llm"]["temperature"] = 0.5
        else:
            node["title"] = "Another title"
    return before, after


def digest(request) -> str:
    """An answer that depends on all of the question and on nothing else."""
    said = repr((request.messages, request.temperature, request.attempt))
    return hashlib.sha256(said.encode()).hexdigest()[:12]


def essence(run: Run) -> list[tuple[Any, ...]]:
    """What came of a run, without what it cost."""
    rows = run.steps().to_pylist()
    ran = ("done", "borrowed")
    return sorted(
        (row["task_id"], row["node"], row["outcome"] in ran, row["output"], row["score"], row["passed"], row["first_score"], len(row["attempts"]))
        for row in rows
    )


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(edits())
def test_an_incremental_run_equals_a_full_one(pair):
    """For random graphs and random edits, under a model that always answers the same."""
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder), open_objects(f"{folder}/store"))
        before, after = (Workflow.model_validate(document) for document in pair)
        origin = lab.run(before, ["a", "b", "c"], digest)
        full = lab.run(after, origin.tasks(), digest)
        incremental = lab.run(after, origin.tasks(), digest, origin=origin.run_id, borrow=True)

        assert essence(incremental) == essence(full)
        assert incremental.manifest["usage"]["calls"] <= full.manifest["usage"]["calls"]
