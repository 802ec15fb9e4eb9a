"""``models check``: what an endpoint takes, refuses and ignores, asked of picky ones."""

import asyncio

import pytest

from beam_ray.llm.model_check import ModelCheck, check_model, most
from beam_ray.llm.settings import ModelSettings
from tests.endpoint import Picky, endpoint


def check(taste: Picky, **settings: object) -> tuple[ModelCheck, list[dict]]:
    """What is found about an endpoint with this taste, and the bodies that it was sent."""
    with endpoint(taste) as state:
        written = ModelSettings(base_url=state.url, model="x", **settings)
        return asyncio.run(check_model(written, "hosted/x")), [call.body for call in state.journal]


def results(found: ModelCheck) -> dict[str, str]:
    """Setting to what the endpoint does with it."""
    return {finding.setting: finding.result for finding in found.findings}


def test_an_endpoint_that_takes_everything_needs_no_line():
    """Nothing differs from what is assumed of an unknown endpoint."""
    found, _ = check(Picky())

    assert found.found == {"api": "chat", "max_tokens_as": "max_tokens", "temperature": True, "seeds": True, "structured": "full"}
    assert (found.lines, found.error, found.usage_reported) == ((), "", True)
    assert results(found)["seed"] == "works"


def test_a_picky_endpoint_gets_the_lines_to_write():
    """As OpenAI's reasoning models: another name of the limit, no temperature, no seed, no schema but a function."""
    taste = Picky(limit="max_completion_tokens", refuses=("temperature", "seed"), refuses_formats=("json_schema", "json_object"), binds=("tools",))

    found, _ = check(taste)

    assert found.lines == (
        "hosted/x:",
        "  max_tokens_as: max_completion_tokens",
        "  temperature: omit",
        "  seeds: false",
        "  structured: tool",
    )


def test_the_responses_api_is_found_where_chat_completions_is_not_there():
    """A 404 names no setting; the other address is tried."""
    found, _ = check(Picky(api="responses"))

    assert found.found["api"] == "responses"
    assert "  api: responses" in found.lines


@pytest.mark.parametrize(("seeds", "result"), [("works", "works"), ("random", "ignored"), ("fixed", "ignored")])
def test_a_seed_that_changes_nothing_is_ignored(seeds, result):
    """Different answers for one seed, or one answer for different seeds."""
    found, _ = check(Picky(seeds=seeds))

    assert results(found)["seed"] == result


def test_a_schema_that_does_not_bind_is_ignored_and_the_next_way_is_tried():
    """As at Anthropic: response_format is taken and nothing follows it."""
    found, _ = check(Picky(binds=("tools",)))

    assert results(found)["structured: full"] == "ignored"
    assert found.found["structured"] == "tool"


def test_usage_that_is_not_reported_and_thinking_are_told():
    """Both change what a run's numbers mean."""
    found, _ = check(Picky(usage=False, thinks=True))

    assert (found.usage_reported, results(found)["usage"], results(found)["reasoning"]) == (False, "ignored", "works")


def test_rate_limit_headers_are_told():
    """They teach the limiter before the first 429."""
    found, _ = check(Picky(headers={"x-ratelimit-remaining-requests": "99", "x-ratelimit-remaining-tokens": "1000"}))

    assert [finding.detail for finding in found.findings if finding.setting == "rate limit headers"] == ["99 requests and 1,000 tokens left in this period"]


def test_no_more_is_asked_and_paid_than_was_said_before():
    """The price at most holds for the pickiest endpoint too."""
    taste = Picky(limit="max_completion_tokens", refuses=("temperature",), binds=())
    price = {"input": 1, "output": 1}

    found, bodies = check(taste, usd_per_million=price)
    calls, usd = most(ModelSettings(base_url="http://x/v1", model="x", usd_per_million=price))

    assert found.calls == len(bodies) <= calls
    assert found.usd <= usd


def test_an_endpoint_that_refuses_the_key_is_told_in_one_sentence():
    """Nothing else is asked."""
    with endpoint(lambda body: (401, {}, {"error": {"message": "Incorrect API key"}})) as state:
        found = asyncio.run(check_model(ModelSettings(base_url=state.url, model="x"), "m"))

    assert (found.error, found.calls, found.found) == ("Error code: 401 - Incorrect API key", 1, {})


def test_what_the_file_says_is_not_asked_again():
    """The author's word stands; a refusal is an error then."""
    found, _ = check(Picky(limit="max_completion_tokens"), max_tokens_as="max_tokens")

    assert "max_tokens" in found.error


@pytest.mark.parametrize(
    ("taste", "result"),
    [(Picky(), "works"), (Picky(refuses_formats=("tools",)), "refused"), (Picky(api="responses"), "ignored")],
    ids=["calls", "refuses", "answers in words"],
)
def test_whether_a_model_calls_tools_is_found_out(taste: Picky, result: str):
    """Agents need one that does."""
    found, _ = check(taste)

    assert results(found)["tools"] == result
