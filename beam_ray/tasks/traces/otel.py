"""
OpenTelemetry traces as OTLP JSON: one export request, or one a line as the Collector's file exporter writes them.

Content stands in GenAI attributes (``gen_ai.input.messages``, ``gen_ai.output.messages``) or in
those of OpenInference (``input.value``, ``output.value``, ``llm.input_messages.N.message.content``).
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime

from beam_ray.tasks.traces.trace import (
    SHAPE_ERRORS,
    BadTrace,
    Json,
    Span,
    Trace,
    answer_of,
    assemble,
    bad_shape,
    conversation,
    is_messages,
    made,
    message,
    parsed,
)

_INDEXED = re.compile(r"^llm\.(input|output)_messages\.(\d+)\.message\.(role|content)$")
_ERROR = (2, "STATUS_CODE_ERROR")
_TAGS = ("session.id", "user.id", "gen_ai.conversation.id", "gen_ai.agent.name", "gen_ai.request.model", "llm.model_name")
"""Attributes of the root span that become tags; so do those that begin with ``tag.``."""


def traces(documents: Iterable[tuple[int, Json]]) -> Iterator[Trace | BadTrace]:
    """The traces, each whole although its spans may stand in several documents."""
    spans: dict[str, list[tuple[Span, dict[str, str]]]] = {}
    lines: dict[str, int] = {}
    for line, document in documents:
        try:
            found = [_span(span) for span in _spans(document)]
        except BadTrace as error:
            yield BadTrace(str(error), line)
            continue
        except SHAPE_ERRORS as error:
            yield bad_shape(error, line)
            continue
        for trace_id, span, tags in found:
            spans.setdefault(trace_id, []).append((span, tags))
            lines.setdefault(trace_id, line)
    for trace_id, members in spans.items():
        yield made(lines[trace_id], _trace, trace_id, members)


def _trace(trace_id: str, members: list[tuple[Span, dict[str, str]]]) -> Trace:
    inputs, output, steps, failed = assemble(trace_id, [span for span, _ in members])
    tags = {name: value for _, found in members for name, value in found.items()}
    start = min(span.start for span, _ in members)
    return Trace(trace_id, inputs, output, steps, tags=tags, failed=failed, started_at=_iso(start))


def _spans(document: Json) -> Iterator[Mapping[str, Json]]:
    if not isinstance(document, Mapping) or "resourceSpans" not in document:
        raise BadTrace("an OTLP document has 'resourceSpans'")
    for resource in document["resourceSpans"] or ():
        for scope in resource.get("scopeSpans", resource.get("instrumentationLibrarySpans", ())) or ():
            yield from scope.get("spans", ()) or ()


def _span(span: Mapping[str, Json]) -> tuple[str, Span, dict[str, str]]:
    missing = [name for name in ("traceId", "spanId", "name") if not span.get(name)]
    if missing:
        raise BadTrace(f"a span has no {missing[0]!r}")
    attributes = dict(_attributes(span))
    for event in span.get("events", ()) or ():
        # older instrumentations put the content into events
        attributes = {**dict(_attributes(event)), **attributes}
    kind = attributes.get("gen_ai.operation.name") or str(attributes.get("openinference.span.kind", "")).lower()
    inputs, output = _content(attributes, "input"), _content(attributes, "output")
    found = Span(
        id=str(span["spanId"]),
        parent=str(span.get("parentSpanId") or ""),
        name=_name(span, attributes),
        start=float(span.get("startTimeUnixNano") or 0) / 1e9,
        inputs=inputs,
        output=answer_of(output),
        failed=(span.get("status") or {}).get("code") in _ERROR,
        is_model=kind in ("chat", "text_completion", "generate_content", "llm"),
    )
    tags = {name: str(value) for name, value in attributes.items() if (name in _TAGS or name.startswith("tag.")) and not found.parent}
    return str(span["traceId"]), found, tags


def _name(span: Mapping[str, Json], attributes: Mapping[str, Json]) -> str:
    return str(attributes.get("gen_ai.tool.name") or attributes.get("tool.name") or span["name"])


def _content(attributes: Mapping[str, Json], side: str) -> Json:
    for name in (f"gen_ai.{side}.messages", f"{side}.value", f"gen_ai.tool.call.{'arguments' if side == 'input' else 'result'}"):
        if name in attributes:
            value = parsed(attributes[name])
            return conversation(value) if is_messages(value) else value
    found: dict[int, dict[str, str]] = {}
    for name, value in attributes.items():
        match = _INDEXED.match(name)
        if match and match[1] == side:
            found.setdefault(int(match[2]), {})[match[3]] = str(value)
    return [message(found[number]) for number in sorted(found)] or None


def _attributes(holder: Mapping[str, Json]) -> Iterator[tuple[str, Json]]:
    for entry in holder.get("attributes", ()) or ():
        yield str(entry["key"]), _value(entry.get("value") or {})


def _value(value: Mapping[str, Json]) -> Json:
    """An AnyValue of OTLP as the value it stands for."""
    if "arrayValue" in value:
        return [_value(entry) for entry in value["arrayValue"].get("values", ())]
    if "kvlistValue" in value:
        return {str(entry["key"]): _value(entry.get("value") or {}) for entry in value["kvlistValue"].get("values", ())}
    if "intValue" in value:
        return int(value["intValue"])
    return next(iter(value.values()), None)


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds") if seconds else ""
