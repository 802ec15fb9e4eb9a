"""Traces of other tools as tasks: each format read as its tool writes it, and broken files refused by line."""

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from beam_ray.errors import BadDefinition, Unusable
from beam_ray.library.recorded import redacted, sample, task_of
from beam_ray.tasks.traces import FORMATS, Feedback, Trace, read_traces

ASK = "I was charged twice."


def lines(path: Path, documents: Iterable[Any]) -> Path:
    path.write_text("".join(json.dumps(document) + "\n" for document in documents), encoding="utf-8")
    return path


def attribute(name: str, value: Any) -> dict[str, Any]:
    return {"key": name, "value": {"stringValue": value if isinstance(value, str) else json.dumps(value)}}


def span(name: str, attributes: dict[str, Any], *, span_id: str = "a1", parent: str = "", status: int = 1) -> dict[str, Any]:
    found = {
        "traceId": "t1",
        "spanId": span_id,
        "name": name,
        "startTimeUnixNano": "1764000000000000000" if not parent else "1764000001000000000",
        "attributes": [attribute(key, value) for key, value in attributes.items()],
        "status": {"code": status},
    }
    return {**found, "parentSpanId": parent} if parent else found


def request(*spans: dict[str, Any]) -> dict[str, Any]:
    return {"resourceSpans": [{"resource": {"attributes": []}, "scopeSpans": [{"scope": {"name": "app"}, "spans": list(spans)}]}]}


def test_otel_genai_messages(tmp_path: Path) -> None:
    """
    The messages of a GenAI span are what was asked and what came out.
    """
    chat = span(
        "chat large-2",
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": "large-2",
            "gen_ai.input.messages": [
                {"role": "system", "parts": [{"type": "text", "content": "Sort."}]},
                {"role": "user", "parts": [{"type": "text", "content": ASK}]},
            ],
            "gen_ai.output.messages": [{"role": "assistant", "parts": [{"type": "text", "content": '{"team": "billing"}'}], "finish_reason": "stop"}],
        },
    )

    (trace,) = read_traces("otel", lines(tmp_path / "spans.jsonl", [request(chat)]))

    assert trace.inputs == [{"role": "system", "content": "Sort."}, {"role": "user", "content": ASK}]
    assert trace.output == {"team": "billing"}
    assert trace.tags["gen_ai.request.model"] == "large-2"


def test_otel_spans_of_one_trace_in_two_requests(tmp_path: Path) -> None:
    """
    A trace whose spans were exported in two requests is one trace, with its inner steps by name.
    """
    root = span("app", {"input.value": ASK, "output.value": "done", "openinference.span.kind": "CHAIN"})
    tool = span("execute_tool", {"gen_ai.tool.name": "find_order", "gen_ai.tool.call.result": '{"found": true}'}, span_id="b2", parent="a1")

    (trace,) = read_traces("otel", lines(tmp_path / "spans.jsonl", [request(tool), request(root)]))

    assert (trace.inputs, trace.output, trace.steps) == (ASK, "done", {"find_order": {"found": True}})


def test_openinference_indexed_messages(tmp_path: Path) -> None:
    """
    OpenInference's numbered attributes become a list of messages in their order.
    """
    chat = span(
        "ChatCompletion",
        {
            "openinference.span.kind": "LLM",
            "llm.input_messages.1.message.role": "user",
            "llm.input_messages.1.message.content": ASK,
            "llm.input_messages.0.message.role": "system",
            "llm.input_messages.0.message.content": "Sort.",
            "llm.output_messages.0.message.role": "assistant",
            "llm.output_messages.0.message.content": "billing",
        },
    )

    (trace,) = read_traces("otel", lines(tmp_path / "spans.json", [request(chat)]))

    assert [turn["role"] for turn in trace.inputs] == ["system", "user"]
    assert trace.output == "billing"


def test_otel_one_document_over_many_lines(tmp_path: Path) -> None:
    """
    An export that is one indented document is read like one that has a line per request.
    """
    path = tmp_path / "spans.json"
    path.write_text(json.dumps(request(span("app", {"input.value": ASK, "output.value": "x"})), indent=2))

    (trace,) = read_traces("otel", path)

    assert trace.inputs == ASK


def test_otel_error_status(tmp_path: Path) -> None:
    """
    A root span with status ERROR is a failed execution.
    """
    (trace,) = read_traces("otel", lines(tmp_path / "spans.jsonl", [request(span("app", {"input.value": ASK}, status=2))]))

    assert trace.failed
    assert trace.output is None


def test_langfuse(tmp_path: Path) -> None:
    """
    A Langfuse trace has its input, output, observations as steps, scores as feedback and metadata as tags.
    """
    document = {
        "id": "lf-1",
        "timestamp": "2026-11-01T10:00:00.000Z",
        "name": "sort",
        "input": {"question": ASK},
        "output": {"team": "billing"},
        "tags": ["beta"],
        "metadata": {"customer": "acme"},
        "observations": [
            {
                "id": "o1",
                "type": "GENERATION",
                "name": "classify",
                "startTime": "2026-11-01T10:00:00.100Z",
                "output": {"role": "assistant", "content": "billing"},
            }
        ],
        "scores": [{"name": "helpful", "value": 1, "source": "ANNOTATION", "comment": "right team"}],
    }

    (trace,) = read_traces("langfuse", lines(tmp_path / "traces.jsonl", [document]))

    assert (trace.inputs, trace.output, trace.steps) == ({"question": ASK}, {"team": "billing"}, {"classify": "billing"})
    assert trace.feedback == (Feedback("helpful", 1, "ANNOTATION", "right team"),)
    assert trace.tags == {"beta": "true", "customer": "acme"}


def test_langsmith_runs_of_one_trace(tmp_path: Path) -> None:
    """
    LangSmith's runs with one trace id are one trace; the root run says what was asked.
    """
    root = {
        "id": "r1",
        "trace_id": "r1",
        "dotted_order": "20261101T100000000000Zr1",
        "name": "agent",
        "run_type": "chain",
        "inputs": {"input": ASK},
        "outputs": {"output": "billing"},
        "start_time": "2026-11-01T10:00:00",
        "feedback_stats": {"correct": {"n": 1, "avg": 1.0, "comments": ["yes"]}},
        "reference_outputs": {"team": "billing"},
    }
    child = {
        "id": "r2",
        "trace_id": "r1",
        "parent_run_id": "r1",
        "dotted_order": "20261101T100000000000Zr1.20261101T100001000000Zr2",
        "name": "find_order",
        "run_type": "tool",
        "inputs": {"po": 1},
        "outputs": {"found": True, "total": 3},
    }

    (trace,) = read_traces("langsmith", lines(tmp_path / "runs.jsonl", [child, root]))

    assert (trace.inputs, trace.output, trace.steps) == (ASK, "billing", {"find_order": {"found": True, "total": 3}})
    assert trace.expected == {"team": "billing"}
    assert trace.feedback == (Feedback("correct", 1.0, comment="yes"),)


def test_openai_messages(tmp_path: Path) -> None:
    """
    The last assistant turn of a chat log is the expected answer, and what comes before the last user turn the conversation, with its tool calls.
    """
    turns = [
        {"role": "system", "content": "Sort."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": {"name": "find", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "none"}]},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": [{"type": "text", "text": ASK}]},
        {"role": "assistant", "content": '{"team": "billing"}'},
    ]

    (trace,) = read_traces("openai", lines(tmp_path / "chats.jsonl", [{"messages": turns}]))
    task = task_of(trace, "openai:chats.jsonl")

    assert task["task_query"] == ASK
    assert task["expected"] == {"team": "billing"}
    assert task["messages"] == [
        *turns[:2],
        {"role": "assistant", "content": "", "tool_calls": [{"id": "c", "name": "find", "arguments": "{}"}]},
        {"role": "tool", "content": "none", "tool_call_id": "c", "name": "find"},
        {"role": "assistant", "content": "Hi"},
    ]


@pytest.mark.parametrize(
    ("kind", "body", "place", "says"),
    [
        ("otel", b'{"spans": []}\n', ":1:1", "'resourceSpans'"),
        ("otel", json.dumps(request({"traceId": "t", "name": "x"})).encode(), ":1:1", "no 'spanId'"),
        ("otel", json.dumps(request(span("app", {}))).encode(), ":1:1", "has no input"),
        ("langfuse", b'{"id": "a", "input": "x"}\n{"input": "y"}\n', ":2:1", "'id'"),
        ("langfuse", b'{"id": "a", "input": "x"}\n{"id": "a", "input": "y"}\n', ":2:1", "here and in line 1"),
        ("langsmith", b'{"id": "a"}\n', ":1:1", "'inputs'"),
        ("openai", b'{"messages": [{"role": "assistant", "content": "x"}]}\n', ":1:1", "no user turn"),
        ("openai", b'{"messages": [{"role": "user", "content": "x"}]}\n{"messages": [{"ro', ":2:16", "cut off"),
        ("openai", '{"messages": "ä"}\n'.encode("latin-1"), ":1:1", "not UTF-8"),
        ("openai", b"[" * 100_000, ":1:1", "nested too deep"),
        ("mlflow-file", b'{"info": {}}\n', ":1:1", "'data'"),
    ],
)
def test_broken_files(tmp_path: Path, kind: str, body: bytes, place: str, says: str) -> None:
    """
    A file that is not of its format is refused with file, line and what is missing.
    """
    path = tmp_path / "traces.jsonl"
    path.write_bytes(body)

    with pytest.raises(BadDefinition) as caught:
        list(read_traces(kind, path))

    assert f"{path}{place}" in str(caught.value)
    assert says in str(caught.value)


WHOLE = {
    "otel": request(span("app", {"input.value": ASK, "output.value": "x"})),
    "langfuse": {"id": "a", "input": ASK, "output": "x", "observations": []},
    "langsmith": {"id": "a", "inputs": {"input": ASK}, "outputs": {"output": "x"}},
    "openai": {"id": "a", "messages": [{"role": "user", "content": ASK}]},
    "mlflow-file": {
        "info": {"trace_id": "a"},
        "data": {"spans": [{"span_id": "s", "name": "app", "attributes": {"mlflow.spanInputs": json.dumps(ASK)}}]},
    },
}
"""A document of each format that is read."""

MISSHAPEN = {
    "otel": {"resourceSpans": [{"scopeSpans": "none"}]},
    "langfuse": {"id": "b", "input": ASK, "observations": 3},
    "langsmith": {"id": "b", "inputs": {"input": ASK}, "extra": "none"},
    "openai": {"id": "b", "messages": [{"role": "assistant", "content": ASK}]},
    "mlflow-file": {"info": {"trace_id": "b"}, "data": {"spans": ["none"]}},
}
"""A document of each format in which a field is missing or of another type."""


@pytest.fixture(scope="module")
def huge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file whose second line is longer than a document may be."""
    path = tmp_path_factory.mktemp("huge") / "traces.jsonl"
    path.write_bytes(b"\n" + b"x" * 65_000_000)
    return path


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_refuses_broken_lines(tmp_path: Path, kind: str, huge: Path) -> None:
    """
    Of any format, a second line that is cut off, of another encoding, misshapen or huge is named, and a whole file is read.
    """
    whole = json.dumps(WHOLE[kind]).encode() + b"\n"
    broken = {
        "cut off": json.dumps(WHOLE[kind]).encode()[:-5],
        "not UTF-8": '{"id": "ä"}'.encode("latin-1"),
        "": json.dumps(MISSHAPEN[kind]).encode(),
    }
    path = tmp_path / "traces.jsonl"
    path.write_bytes(whole)

    assert [trace.line for trace in read_traces(kind, path)] == [1]
    for says, line in broken.items():
        path.write_bytes(whole + line)
        with pytest.raises(BadDefinition) as caught:
            list(read_traces(kind, path))
        assert f"{path}:2:" in str(caught.value)
        assert says in str(caught.value)
    with pytest.raises(BadDefinition, match="more than 64 MB in one document"):
        list(read_traces(kind, huge))


def test_truncated_gzip(tmp_path: Path) -> None:
    """
    A gzip file that was cut off is refused, and not read as far as it goes.
    """
    path = tmp_path / "traces.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"messages": [{"role": "user", "content": "x"}]}\n' * 1000)[:-20])

    with pytest.raises(BadDefinition, match="truncated"):
        list(read_traces("openai", path))


def test_empty_file(tmp_path: Path) -> None:
    """
    A file without traces is refused.
    """
    path = tmp_path / "traces.jsonl"
    path.write_bytes(b"\n")

    with pytest.raises(Unusable, match="no traces"):
        list(read_traces("openai", path))


def traces(count: int, **common: Any) -> list[Trace]:
    return [Trace(f"t{number}", f"message number {number} about order {number * 7}", "x", **common) for number in range(count)]


def test_sample_keeps_rare_kinds() -> None:
    """
    A sample of ten has the one failure and the one rare route of a thousand traces.
    """
    usual = traces(998, steps={"sort": "x"})
    rare = [Trace("rare", "odd", "x", {"escalate": "x"}), Trace("bad", "broken", None, {"sort": "x"}, failed=True)]

    found = sample([*usual, *rare], 10)

    assert len(found.traces) == 10
    assert {"rare", "bad"} <= {trace.id for trace in found.traces}


def test_sample_is_the_same_for_the_same_seed() -> None:
    """
    A sample depends on the traces and the seed, not on their order.
    """
    many = traces(200)

    first, again, other = sample(many, 20), sample(many[::-1], 20), sample(many, 20, seed=1)

    assert {trace.id for trace in first.traces} == {trace.id for trace in again.traces}
    assert {trace.id for trace in first.traces} != {trace.id for trace in other.traces}


def test_stratified_by_tag() -> None:
    """
    With a tag, each of its values is a stratum drawn in proportion.
    """
    many = [Trace(f"t{number}", f"q {number}", tags={"country": "de" if number % 4 else "fr"}) for number in range(100)]

    found = sample(many, 20, stratify="country")

    assert found.strata == {"fr": (5, 25), "de": (15, 75)}


def test_near_duplicates_are_named() -> None:
    """
    A trace that asks nearly the same as an earlier one is named with it, and kept.
    """
    text = " ".join(f"word{number}" for number in range(60))

    found = sample([Trace("a", text), Trace("b", text + " please"), Trace("c", "another thing altogether")])

    assert found.near_duplicates == {"b": "a"}
    assert len(found.traces) == 3


def test_redaction_reaches_every_text() -> None:
    """
    A redaction function sees what was asked, answered, expected, said and tagged.
    """
    secret = Trace(
        "a", {"q": "SECRET"}, ["SECRET"], {"s": {"x": "SECRET"}}, {"e": "SECRET"}, (Feedback("f", "SECRET", "eva", "SECRET"),), {"customer": "SECRET"}
    )

    task = task_of(redacted(secret, lambda text: text.replace("SECRET", "***")), "otel:file")

    assert "SECRET" not in json.dumps(task)
    assert "***" in task["recorded"]["steps"]["s"]["x"]


def test_task_of_a_trace() -> None:
    """
    Tags become variables, feedback labels and notes, and what came out is kept as recorded.
    """
    trace = Trace("a", {"question": ASK}, "billing", {}, {"team": "billing"}, (Feedback("helpful", True, "eva", "right"),), {"customer": "acme"})

    assert task_of(trace, "mlflow:app") == {
        "id": "a",
        "task_query": ASK,
        "variables": {"customer": "acme"},
        "expected": {"team": "billing"},
        "labels": ["helpful=true"],
        "notes": "helpful: right",
        "recorded": {"source": "mlflow:app", "trace": "a", "started_at": None, "failed": False, "output": "billing", "steps": {}},
    }
