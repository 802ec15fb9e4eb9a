"""What is known of endpoints: the table behind ``auto``, and what overrules it."""

import pytest

from beam_ray.llm.families import FAMILIES
from beam_ray.llm.request import Request
from beam_ray.llm.settings import ModelSettings

OPENAI = "https://api.openai.com/v1"


def call(base_url: str, model: str, **settings: object):
    """The settings that a call is made with."""
    return ModelSettings(base_url=base_url, model=model, **settings).call


@pytest.mark.parametrize(
    ("base_url", "model", "expected"),
    [
        (OPENAI, "gpt-4o", ("max_completion_tokens", True, True, "strict")),
        (OPENAI, "gpt-5-mini", ("max_completion_tokens", False, True, "strict")),
        (OPENAI, "gpt-5-chat-latest", ("max_completion_tokens", True, True, "strict")),
        (OPENAI, "o4-mini", ("max_completion_tokens", False, True, "strict")),
        ("https://mine.openai.azure.com/openai/v1", "gpt-5.2", ("max_completion_tokens", False, True, "strict")),
        ("https://api.anthropic.com/v1/", "claude-sonnet-4-5", ("max_tokens", True, False, "tool")),
        ("https://generativelanguage.googleapis.com/v1beta/openai/", "gemini-2.5-flash", ("max_tokens", True, False, "full")),
        ("https://api.x.ai/v1", "grok-4", ("max_completion_tokens", True, True, "full")),
        ("https://api.deepseek.com", "deepseek-chat", ("max_tokens", True, False, "object")),
        ("https://api.deepseek.com", "deepseek-reasoner", ("max_tokens", False, False, "object")),
        ("https://api.groq.com/openai/v1", "llama-3.3-70b-versatile", ("max_completion_tokens", True, True, "object")),
        ("https://api.groq.com/openai/v1", "openai/gpt-oss-20b", ("max_completion_tokens", True, True, "strict")),
        ("https://api.mistral.ai/v1", "mistral-small-latest", ("max_tokens", True, False, "strict")),
        ("https://openrouter.ai/api/v1", "openai/gpt-5-mini", ("max_tokens", False, True, "full")),
        ("https://openrouter.ai/api/v1", "qwen/qwen3-32b", ("max_tokens", True, True, "full")),
        ("https://bedrock-runtime.eu-west-1.amazonaws.com/openai/v1", "openai.gpt-oss-20b-1:0", ("max_completion_tokens", True, True, "full")),
        ("http://127.0.0.1:8000/v1", "gpt-5-mini", ("max_tokens", True, True, "full")),
        ("https://api.openai.com.example.com/v1", "gpt-5-mini", ("max_tokens", True, True, "full")),
    ],
)
def test_a_family_decides_what_is_auto(base_url, model, expected):
    """Address and name say what is known; an unknown address is treated as in version 0.1, whatever its model is called."""
    found = call(base_url, model)

    assert (found.max_tokens_as, found.send_temperature, found.seeds, found.structured) == expected


def test_every_row_of_the_table_is_used():
    """A row that no address and name can match would be a mistake."""
    used = {source for base_url, model in SAMPLES for source in call(base_url, model).sources.values()}

    assert {family.name for family in FAMILIES} <= used


SAMPLES = [
    (OPENAI, "gpt-4o"),
    (OPENAI, "o3"),
    ("https://api.anthropic.com/v1", "claude-haiku-4-5"),
    ("https://generativelanguage.googleapis.com/v1beta/openai/", "gemini-2.5-pro"),
    ("https://api.x.ai/v1", "grok-4"),
    ("https://api.deepseek.com/v1", "deepseek-chat"),
    ("https://api.deepseek.com/v1", "deepseek-reasoner"),
    ("https://api.groq.com/openai/v1", "qwen/qwen3-32b"),
    ("https://api.groq.com/openai/v1", "openai/gpt-oss-120b"),
    ("https://api.mistral.ai/v1", "mistral-large-latest"),
    ("https://openrouter.ai/api/v1", "openai/o3"),
    ("https://bedrock-runtime.us-east-1.amazonaws.com/openai/v1", "openai.gpt-oss-120b-1:0"),
]


def test_the_file_overrules_what_was_found_and_that_overrules_the_family():
    """The nearest knowledge wins, and each value says where it comes from."""
    settings = ModelSettings(base_url=OPENAI, model="gpt-5-mini", seeds=False).with_found({"seeds": True, "structured": "object"})

    found = settings.call

    assert (found.seeds, found.structured, found.max_tokens_as) == (False, "object", "max_completion_tokens")
    assert found.sources["seeds"] == "models file"
    assert found.sources["structured"] == "models check"
    assert found.sources["max_tokens_as"] == "OpenAI"
    assert found.sources["api"] == "default"


def test_a_temperature_in_the_file_is_sent_to_a_family_that_refuses_it():
    """The author may know better than the table."""
    found = call(OPENAI, "gpt-5-mini", temperature=1)

    assert (found.send_temperature, found.temperature) == (True, 1.0)


def test_omit_never_sends_a_temperature():
    """Not even the one that a node sets."""
    found = call("http://127.0.0.1:8000/v1", "x", temperature="omit")

    assert (found.send_temperature, found.temperature) == (False, None)


def test_a_model_as_version_0_1_called_it_keeps_its_identity():
    """Steps of an older store can still be borrowed."""
    assert ModelSettings(base_url="http://127.0.0.1:8000/v1", model="x").identity == "a2352d28ea59a87ff98fa5f41f7ab144"


@pytest.mark.parametrize("change", [{"structured": "object"}, {"temperature": "omit"}, {"reasoning_effort": "low"}, {"api": "responses"}, {"extra": {"a": 1}}])
def test_what_changes_the_request_changes_the_identity(change):
    """A step is not borrowed from one that was asked in another way."""
    assert ModelSettings(base_url="http://x/v1", model="x", **change).identity != ModelSettings(base_url="http://x/v1", model="x").identity


@pytest.mark.parametrize(
    "change", [{"max_tokens_as": "max_completion_tokens"}, {"seeds": False}, {"headers": {"X-Team": "a"}}, {"query": {"v": "1"}}, {"concurrency": 2}]
)
def test_what_only_changes_the_wire_does_not(change):
    """The model would have answered the same."""
    assert ModelSettings(base_url="http://x/v1", model="x", **change).identity == ModelSettings(base_url="http://x/v1", model="x").identity


def test_what_was_found_is_part_of_the_identity_where_it_changes_what_is_sent():
    """Knowing more about an endpoint outdates nothing by itself."""
    settings = ModelSettings(base_url="http://x/v1", model="x")

    assert settings.with_found({"structured": "full", "seeds": False}).identity == settings.identity
    assert settings.with_found({"structured": "tool"}).identity != settings.identity


SCHEMA = {"type": "object", "properties": {"a": {"type": "string", "maxLength": 5}}, "required": ["a"]}
ASKED = Request(({"role": "system", "content": "s"}, {"role": "user", "content": "hello"}), schema=SCHEMA, temperature=0.2, seed=7, node="n", max_tokens=99)


def body(**settings: object) -> dict:
    """The body of a request to an unknown endpoint."""
    from beam_ray.llm import chat_api, responses_api

    written = ModelSettings(base_url="http://x/v1", model="x", **settings)
    return (responses_api if written.call.api == "responses" else chat_api).body_of(ASKED, written)


def test_the_limit_has_the_name_that_the_endpoint_wants():
    """One name, never both."""
    sent = body(max_tokens_as="max_completion_tokens")

    assert sent["max_completion_tokens"] == 99
    assert "max_tokens" not in sent


def test_what_an_endpoint_refuses_is_left_out():
    """Temperature, seed and schema."""
    sent = body(temperature="omit", seeds=False, structured="none")

    assert not {"temperature", "top_p", "seed", "response_format"} & set(sent)


def test_an_object_is_asked_for_in_words_beside_the_mode():
    """OpenAI and DeepSeek refuse json_object where the messages do not mention JSON."""
    sent = body(structured="object")

    assert sent["response_format"] == {"type": "json_object"}
    assert sent["messages"][1]["content"].startswith("hello\n\nAnswer with one JSON object")


def test_a_function_call_carries_the_schema():
    """The endpoint is told to call it."""
    sent = body(structured="tool")

    assert sent["tools"][0]["function"]["parameters"] == SCHEMA
    assert sent["tool_choice"]["function"]["name"] == "n"
    assert "response_format" not in sent


def test_the_responses_api_has_other_words():
    """No seed, another limit, the schema under ``text``; and the provider is told to store nothing."""
    sent = body(api="responses", structured="strict", reasoning_effort="low")

    assert (sent["max_output_tokens"], sent["store"], sent["reasoning"]) == (99, False, {"effort": "low"})
    assert sent["text"]["format"]["schema"]["properties"]["a"] == {"type": "string"}
    assert sent["input"] == [{"role": "system", "content": "s"}, {"role": "user", "content": "hello"}]
    assert not {"seed", "messages", "max_tokens", "response_format"} & set(sent)


def test_extra_has_the_last_word():
    """Whatever an endpoint needs that we do not know."""
    assert body(extra={"service_tier": "flex", "seed": None})["seed"] is None
