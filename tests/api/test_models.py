"""Models through the public API and the command line: listed, checked, and what was found is used."""

import json
import re
from pathlib import Path

import pytest

import beam_ray
from beam_ray.errors import Unusable
from tests.corpus.command import give
from tests.endpoint import Picky, endpoint
from tests.golden import check_golden
from tests.shapes import undeclared

GOLDEN = Path(__file__).parents[1] / "cli" / "golden"

PICKY = Picky(limit="max_completion_tokens", refuses=("temperature", "seed"), refuses_formats=("json_schema",), binds=("json_object",))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A folder with a models file: a picky endpoint with a price, and a hosted model that is not called."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BEAM_RAY_MODELS", "models.yaml")
    monkeypatch.setenv("BEAM_RAY_STORE", "store")
    with endpoint(PICKY) as state:
        Path("models.yaml").write_text(
            f"picky: {{base_url: '{state.url}', model: x, usd_per_million: {{input: 1, output: 2}}}}\n"
            "hosted: {base_url: 'https://api.openai.com/v1', model: gpt-5-mini, api_key: '${env:NO_KEY}', requests_per_minute: 500}\n"
            "own: {base_url: 'http://127.0.0.1:8000/v1', model: gpt-5-mini}\n"
        )
        yield state


def test_models_are_listed_with_price_and_where_it_comes_from(place):
    """The file's price, else the published one of that address, else none."""
    found = {each.name: each for each in beam_ray.open().list_models()}

    assert (found["picky"].usd_per_million_output, found["picky"].price_source) == (2.0, "models file")
    assert found["hosted"].price_source.startswith("genai-prices ")
    assert found["hosted"].usd_per_million_input > 0
    assert (found["own"].usd_per_million_input, found["own"].price_source) == (None, "")


def test_nothing_is_asked_and_no_store_is_created_to_list_models(place):
    """Looking costs nothing."""
    beam_ray.open().list_models()

    assert place.journal == []
    assert not Path("store").exists()


def test_what_was_found_is_kept_and_used(place):
    """Another process with the same store and models file calls the model as it wants to be called."""
    beam_ray.open().check_model("picky")

    [found, *_] = beam_ray.open().list_models()

    assert (found.settings["temperature"], found.settings["seeds"], found.settings["structured"]) == ("omit", False, "object")
    assert found.sources["seeds"] == "models check"
    assert undeclared(Path("store")) == []
    assert found.checked_at


def test_a_model_that_is_not_in_the_file_is_named(place):
    """With the nearest name."""
    with pytest.raises(Unusable, match="did you mean 'picky'"):
        beam_ray.open().check_model("pickey")


def test_a_model_object_is_listed_and_has_nothing_to_check(tmp_path):
    """Scripted models have no endpoint."""
    store = beam_ray.open(tmp_path / "store", models={"m": beam_ray.ScriptedModel(lambda request: "yes")})

    assert [each.model for each in store.list_models()] == ["scripted"]
    with pytest.raises(Unusable, match="no endpoint to check"):
        store.check_model("m")


WORKFLOW = """
workflow: w
model: hosted
nodes:
  a: {llm: {prompt: "{{ task_query }}", temperature: 0}}
  b: {after: a, llm: {prompt: "x", model: hostd}}
"""


def test_check_warns_of_an_unknown_model_and_of_a_setting_that_is_left_out(place):
    """Before anything is spent."""
    Path("w.yaml").write_text(WORKFLOW)

    warnings = [str(warning) for warning in beam_ray.open().check("w.yaml").warnings]

    assert warnings == [
        "w: warning: the models file has no model 'hostd'\n  it has: picky, hosted, own\n  did you mean 'hosted'?",
        "w: nodes.a.llm.temperature: warning: node 'a' sets 'temperature', which the model 'hosted' does not accept (OpenAI reasoning models); it is left out",
    ]


def test_models_prints_what_is_known(place, capsys):
    """One line per model, and how it is called."""
    said = give(capsys, "models")

    assert said.code == 0
    check_golden(GOLDEN, "models.txt", re.sub(r"\S+, \S+ +genai-prices \S+", "PRICE  genai-prices VERSION", said.out))


def test_models_as_json(place, capsys):
    """The same for machines."""
    said = give(capsys, "models", "--json")

    assert [each["name"] for each in json.loads(said.out)] == ["picky", "hosted", "own"]


def test_models_check_says_the_price_first_and_then_the_lines(place, capsys):
    """What it costs at most goes before what was found."""
    said = give(capsys, "models", "check", "picky")

    assert said.code == 0
    assert said.err.startswith("picky: at most 13 short calls, ≤ $0.0")
    check_golden(GOLDEN, "models-check.txt", re.sub(r"latency [0-9.]+ s", "latency TIME", said.out))


def test_an_endpoint_that_does_not_answer_is_said_in_one_line(place, capsys):
    """And nothing is kept."""
    said = give(capsys, "models", "check", "own", "--json")

    assert json.loads(said.out)[0]["error"]
    assert not Path("store").exists()


def test_a_run_says_what_was_cached_and_what_is_estimated(place, capsys, monkeypatch):
    """Estimates are marked where the price is printed."""
    Path("w2.yaml").write_text("workflow: w2\nmodel: silent\nnodes:\n  a: {llm: {prompt: x}}\n")
    Path("tasks.jsonl").write_text('{"id": "t", "task_query": "x"}\n')
    with endpoint(Picky(usage=False)) as silent:
        Path("silent.yaml").write_text(f"silent: {{base_url: '{silent.url}', model: x, usd_per_million: {{input: 1, output: 1}}}}\n")

        said = give(capsys, "run", "w2.yaml", "--tasks", "tasks.jsonl", "--models", "silent.yaml")

    assert said.code == 0
    assert "  1 call without reported usage: their tokens and price are estimates" in said.out
