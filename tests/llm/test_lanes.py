"""Lanes: which models are asked in batches, and what that costs."""

from pathlib import Path

import pytest

import beam_ray
from beam_ray.errors import Unusable
from beam_ray.llm.lanes import in_lane, lane_of, require_lane
from beam_ray.llm.prices import Tokens, price_of
from beam_ray.llm.scripted import ScriptedModel
from beam_ray.llm.settings import ModelSettings

WORKFLOW = "workflow: w\nmodel: m\njudge: judge\nnodes:\n  say: {llm: {prompt: '{{ task_query }}'}, evaluate: {criteria: [It is polite.]}}\n"
SCRIPT = ScriptedModel(lambda request: "yes")


def settings(**written: object) -> ModelSettings:
    """A model with these settings."""
    return ModelSettings.model_validate({"base_url": "http://127.0.0.1:1/v1", "model": "x", "usd_per_million": {"input": 1, "output": 2}, **written})


@pytest.mark.parametrize(
    ("written", "chosen", "lane"),
    [
        ("auto", "", "interactive"),
        ("auto", "batch", "batch"),
        ("auto", "interactive", "interactive"),
        ("batch", "", "batch"),
        ("batch", "interactive", "interactive"),
        ("interactive", "batch", "interactive"),
    ],
)
def test_the_lane_of_a_model(written: str, chosen: str, lane: str):
    """The models file decides where it says so, but interactive can always be asked for; settling it changes nothing else."""
    model = settings(lane=written)
    settled = in_lane({"m": model}, chosen)["m"]

    assert lane_of(model, chosen) == lane_of(settled) == lane
    assert settled.identity == model.identity


def test_a_lane_that_no_model_has_is_refused():
    """It says which models cannot, and why."""
    models = {"m": SCRIPT, "judge": settings(lane="interactive")}

    with pytest.raises(Unusable, match="no model can be asked in batches\n  'm' is scripted and has no batch endpoint\n  'judge' has  lane: interactive"):
        require_lane("batch", models, ["m", "judge"])
    with pytest.raises(Unusable, match="unknown lane 'slow'"):
        require_lane("slow", models, ["m"])
    require_lane("batch", {"m": settings()}, ["m"])


def test_a_batch_costs_half_unless_the_file_says_otherwise():
    """Also where the list of prices has no price of batches."""
    tokens = Tokens(1_000_000, 0)
    listed = price_of(settings(base_url="https://api.openai.com/v1", model="gpt-5-mini", usd_per_million=None))
    written = price_of(settings(usd_per_million={"input": 1, "output": 2, "batch": {"input": 0.3, "output": 1}}))
    plain = price_of(settings())

    assert listed and written and plain
    assert listed.cost(tokens, "batch") == pytest.approx((listed.cost(tokens) or 0) / 2)
    assert (plain.cost(tokens), plain.cost(tokens, "batch"), written.cost(tokens, "batch")) == (1.0, 0.5, 0.3)


def test_a_plan_has_the_price_of_both_lanes(tmp_path: Path):
    """A model that is never asked in batches costs the same in both."""
    (tmp_path / "w.yaml").write_text(WORKFLOW)
    models = {"m": settings(), "judge": settings(lane="interactive")}
    plans = {lane: beam_ray.open(tmp_path / "store", models=models, lane=lane).plan(str(tmp_path / "w.yaml"), [{"task_query": "x"}]) for lane in ("", "batch")}
    asked = (2 * 1024 + 4) / 1e6
    interactive, batch = plans[""].max_usd_by_lane["interactive"], plans[""].max_usd_by_lane["batch"]

    assert interactive and batch
    assert interactive - batch == pytest.approx(asked / 2, rel=0.01)
    assert (plans[""].max_usd, plans["batch"].max_usd) == (interactive, batch)


def test_a_python_object_is_refused_before_anything_is_written(tmp_path: Path):
    """A scripted model alone cannot be asked in batches."""
    (tmp_path / "w.yaml").write_text(WORKFLOW)
    store = beam_ray.open(tmp_path / "store", models={"m": SCRIPT, "judge": SCRIPT}, lane="batch")

    with pytest.raises(Unusable, match="no model can be asked in batches"):
        store.run(str(tmp_path / "w.yaml"), [{"task_query": "x"}])
    assert store.runs() == []
