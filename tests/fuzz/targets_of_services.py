"""What is fuzzed of what other programs send: replies of endpoints, traces, bundles, and forms of browsers."""

import asyncio
import json
import tempfile
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from starlette.requests import Request

from beam_ray.backtest.bundle import INDEX, unpack
from beam_ray.console.forms import form_of, names_draft, number, query_of, raised
from beam_ray.errors import BeamRayError
from beam_ray.library.recorded import sample, task_of
from beam_ray.llm.batch_format import read_line
from beam_ray.llm.client import UNANSWERED, OpenAIModel, Refused
from beam_ray.llm.refusals import kind_of, read_refusal, status_within
from beam_ray.llm.request import Request as Question
from beam_ray.llm.settings import ModelSettings
from beam_ray.store.checksummed_json import seal
from beam_ray.store.disk import Disk
from beam_ray.tasks.traces import FORMATS, read_traces

_HELD = tempfile.TemporaryDirectory(prefix="beam-ray-fuzz-")  # taken away when the process ends
FOLDER = Path(_HELD.name)
OBJECTS = Disk(FOLDER / "store")
FIELDS = ("task", "max_usd", "prompt", "draft", "where")


def reply(text: str) -> None:
    """An endpoint's reply: to a call of each API, as a refusal, and as a line of a batch's answers."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        body = text
    model, sent = _model(), {"model": "x", "messages": [], "tools": []}
    for api in ("chat", "responses", "embeddings"):
        with suppress(Refused, *UNANSWERED):
            model.cost(model.read(body, sent, Question(({"role": "user", "content": "x"},)), api=api))
    kind_of(read_refusal(400, body), sent)
    if isinstance(body, Mapping):
        status_within(body)
        status, said = read_line(body, "completed")
        kind_of(read_refusal(status, said), sent)


@cache
def _model() -> OpenAIModel:
    async def made() -> OpenAIModel:
        return OpenAIModel(ModelSettings(base_url="http://model/v1", model="x"))

    return asyncio.run(made())


def traces(text: str) -> None:
    """An export of another tool, in each format: read, sampled, and made tasks."""
    path = FOLDER / "export.jsonl"
    path.write_text(text, encoding="utf-8", errors="replace")
    for kind in FORMATS:
        try:
            found = list(read_traces(kind, path))
        except BeamRayError:
            continue
        for trace in sample(found, 2).traces:
            json.dumps(task_of(trace, kind))


def bundle(text: str) -> None:
    """A bundle with this index, sealed where it can be, and with every file that it names."""
    path = FOLDER / "b.zip"
    try:
        index: Any = json.loads(text)
        body = seal(index)
    except (ValueError, TypeError, RecursionError):
        index, body = None, text.encode("utf-8", "replace")
    named = index.get("files") if isinstance(index, dict) else None
    with zipfile.ZipFile(path, "w") as made:
        made.writestr(INDEX, body)
        for name in [*(named if isinstance(named, dict) else ())][:20]:
            with suppress(ValueError, IndexError):
                made.writestr(name, b"x")
    unpack(OBJECTS, path)


def form(text: str) -> None:
    """What a browser sends: as a form, as the query of an address, and in the fields that are numbers and drafts."""

    async def received() -> dict[str, Any]:
        return {"type": "http.request", "body": text.encode("utf-8", "replace"), "more_body": False}

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [], "form_token": "t", "query_string": text.encode("utf-8", "replace")}
    for read in (lambda asked: asyncio.run(form_of(asked)), lambda asked: query_of(asked, FIELDS)):
        try:
            fields = read(Request(scope, received))
        except BeamRayError:
            continue
        for name in fields:
            with suppress(BeamRayError):
                number(fields, name)
            with suppress(BeamRayError):
                raised("the run", [(name, 1.0)], {}, fields)
            names_draft(fields[name][-1], "work")


TARGETS = {each.__name__: each for each in (reply, traces, bundle, form)}
SEEDS: dict[str, list[str]] = {
    "reply": [
        json.dumps(body)
        for body in (
            {"status": "completed", "output": [{"type": "message", "content": [{"type": "output_text", "text": "yes"}]}], "usage": {"input_tokens": 1, "output_tokens": 2}},
            {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}, "output": [{"type": "reasoning", "summary": [{"text": "hm"}], "content": None}]},
            {"output": [{"type": "function_call", "name": "find", "arguments": "{}", "call_id": "c"}], "usage": {"input_tokens_details": {"cached_tokens": 1}}},
            {"choices": [{"finish_reason": "tool_calls", "message": {"tool_calls": [{"id": "c", "type": "function", "function": {"name": "find", "arguments": "{}"}}]}}]},
            {"data": [{"index": 0, "embedding": [0.5, -1]}], "usage": {"prompt_tokens": 1}},
            {"custom_id": "r", "response": {"status_code": 200, "body": {"choices": []}}, "error": None},
            {"custom_id": "r", "response": None, "error": {"code": "batch_expired", "message": "expired"}},
            {"error": {"code": "unsupported_parameter", "param": "temperature", "message": "Unsupported parameter: 'temperature' is not supported"}},
            {"detail": [{"loc": None, "msg": "not so"}]},
            {"detail": [{"loc": ["body", "seed"], "msg": "extra fields not permitted", "type": "value_error.extra"}]},
            [{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "quota", "details": [{"retryDelay": "1s"}]}}],
        )
    ],
    "traces": [
        json.dumps(document)
        for document in (
            {"resourceSpans": [{"resource": {"attributes": []}, "scopeSpans": [{"scope": {"name": "app"}, "spans": [
                {"traceId": "t1", "spanId": "a1", "name": "chat", "startTimeUnixNano": "1764000000000000000", "status": {"code": 1}, "attributes": [
                    {"key": "gen_ai.input.messages", "value": {"stringValue": '[{"role": "user", "parts": [{"type": "text", "content": "x"}]}]'}},
                    {"key": "gen_ai.output.messages", "value": {"stringValue": '[{"role": "assistant", "parts": [{"type": "text", "content": "y"}]}]'}}]}]}]}]},
            {"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "t", "spanId": "b", "parentSpanId": "a", "attributes": [
                {"key": "gen_ai.tool.name", "value": {"stringValue": "find"}}, {"key": "llm.input_messages.0.message.content", "value": {"stringValue": "x"}}]}]}]}]},
            {"id": "t", "name": "chat", "timestamp": "2026-11-01T10:00:00Z", "input": "x", "output": {"team": "a"}, "tags": ["b"], "userId": "u", "metadata": {"k": 1},
             "observations": [{"id": "o", "type": "GENERATION", "startTime": "2026-11-01T10:00:00Z", "input": [{"role": "user", "content": "x"}], "output": "y", "level": "ERROR"}],
             "scores": [{"name": "good", "value": 1, "source": "API", "comment": "c"}, {"name": "kind", "value": None, "stringValue": "s"}]},
            {"id": "r", "run_type": "chain", "inputs": {"question": "x"}, "outputs": {"answer": "y"}, "tags": ["a"], "extra": {"metadata": {"k": "v"}}, "feedback_stats": {"good": {"avg": 1}},
             "child_runs": [{"id": "c", "name": "find", "run_type": "tool", "inputs": {"input": "x"}, "outputs": {"output": "y"}, "error": None}]},
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}, {"role": "assistant", "content": "y"}], "id": "m"},
            {"id": "chatcmpl-1", "request": {"model": "m", "messages": [{"role": "user", "content": "x"}]}, "choices": [{"message": {"role": "assistant", "content": "y"}}], "metadata": {"a": "b"}},
            {"custom_id": "r", "body": {"messages": [{"role": "system", "content": "s"}]}, "response": {"body": {"choices": [{"message": {"content": "y", "tool_calls": []}}]}}},
            {"info": {"trace_id": "t", "request_time": "2026-11-01T10:00:00Z", "state": "OK", "tags": {"a": "b"}, "assessments": [{"assessment_name": "good", "feedback": {"value": True}}]},
             "data": {"spans": [{"span_id": "s", "parent_span_id": None, "name": "chat", "attributes": {"mlflow.spanInputs": '{"q": "x"}', "mlflow.spanOutputs": '"y"'}}]}},
            {"trace_id": "t", "request": '{"q": 1}', "response": '"y"', "status": "ERROR", "execution_time_ms": 3, "tags": {}},
            [{"id": "t1", "input": "x", "output": "y"}, {"id": "t1", "input": None, "output": None}],
            {"id": 5, "input": {"messages": [{"role": "tool", "content": None, "tool_call_id": "c"}]}, "output": [1.5, None]},
        )
    ],
    "bundle": [
        json.dumps({"format": 1, "backtest_id": "b-1", "runs": {}, **change})
        for change in (
            {"files": {}},
            {"files": {"backtests/b-1/manifest.json": {"bytes": 1, "sha256": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"}}},
            {"files": {f"backtests/b-1/{name}.json": {"bytes": 1, "sha256": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"} for name in ("manifest", "verdict")}},
            {"files": {"runs/261101-aaaaaa/run.json": {"bytes": 1, "sha256": "x"}}},
            {"files": {"../../x": {"bytes": 1, "sha256": "x"}}},
            {"files": {"backtests/b-2/verdict.json": {"bytes": 1, "sha256": "x"}}},
            {"files": {f"attachments/{64 * 'a'}": {"bytes": 1, "sha256": 64 * "a"}}},
            {"files": {"backtests/b-1/verdict.json": {"bytes": -1, "sha256": "x"}}},
            {"files": {"backtests/b-1/verdict.json": {"bytes": True, "sha256": None}}},
            {"files": [], "backtest_id": 1},
            {"format": 2},
        )
    ],
    "form": [
        "form_token=t&task=t1&max_usd=5",
        "form_token=t&max_usd=1e400&max_usd=nan",
        "form_token=t&prompt=%7B%7B+task_query+%7D%7D&draft=work%40shorter%3A2",
        "form_token=x",
        "task=t1&where=score+%3C+80",
        "task=&task=%00",
        "draft=work@a:000000001",
        "max_usd=" + 5_000 * "9",
        "form_token=t&a=%ff%fe",
        "form_token=t&" + "&".join(f"a{number}=1" for number in range(600)),
        "=&==&%=%",
    ],
}  # fmt: skip
