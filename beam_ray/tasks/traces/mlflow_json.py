"""MLflow's traces, as ``Trace.to_dict`` writes them: ``info`` with tags and assessments, ``data`` with spans. Feedback of people counts, not that of judges."""

import json
from collections.abc import Iterable, Iterator, Mapping

from beam_ray.tasks.traces.trace import BadTrace, Feedback, Json, Span, Trace, answer_of, assemble, each_document, parsed

_MODEL = ("CHAT_MODEL", "LLM")
_WHO = {"mlflow.trace.user": "user", "mlflow.trace.session": "session"}
"""Metadata that becomes a tag."""


def traces(documents: Iterable[tuple[int, Json]]) -> Iterator[Trace | BadTrace]:
    """The traces, one a document."""
    return each_document(documents, _trace)


def _trace(document: Json) -> Trace:
    if not isinstance(document, Mapping) or not isinstance(document.get("info"), Mapping) or not isinstance(document.get("data"), Mapping):
        raise BadTrace("an MLflow trace is an object with 'info' and 'data'")
    info = document["info"]
    trace_id = str(info.get("trace_id") or info.get("request_id") or "")
    if not trace_id:
        raise BadTrace("an MLflow trace has a 'trace_id' in its 'info'")
    inputs, output, steps, failed = assemble(trace_id, [_span(span) for span in document["data"].get("spans") or ()])
    assessments = [entry for entry in info.get("assessments") or () if isinstance(entry, Mapping) and entry.get("valid", True)]
    return Trace(
        trace_id,
        inputs,
        output,
        steps,
        expected=_expected(assessments),
        feedback=tuple(_feedback(entry) for entry in assessments if "feedback" in entry and _is_human(entry)),
        tags=_tags(info),
        failed=failed or info.get("state", info.get("status")) == "ERROR",
        started_at=str(info.get("request_time") or ""),
    )


def _tags(info: Mapping[str, Json]) -> dict[str, str]:
    metadata = info.get("trace_metadata") or {}
    tags = {tag: str(metadata[name]) for name, tag in _WHO.items() if metadata.get(name)}
    return tags | {str(name): str(value) for name, value in (info.get("tags") or {}).items() if not str(name).startswith("mlflow.")}


def _is_human(entry: Mapping[str, Json]) -> bool:
    return str((entry.get("source") or {}).get("source_type") or "HUMAN") == "HUMAN"


def _span(span: Mapping[str, Json]) -> Span:
    attributes = {name: parsed(value) for name, value in (span.get("attributes") or {}).items()}
    kind = attributes.get("mlflow.spanType")
    return Span(
        id=str(span.get("span_id") or ""),
        parent=str(span.get("parent_span_id") or span.get("parent_id") or ""),
        name=str(span.get("name") or "span"),
        start=float(span.get("start_time_unix_nano") or 0) / 1e9,
        inputs=_text(attributes.get("mlflow.spanInputs")),
        output=answer_of(_text(attributes.get("mlflow.spanOutputs"))),
        failed="ERROR" in str((span.get("status") or {}).get("code", "")),
        is_model=str(kind).strip('"') in _MODEL,
    )


def _text(value: Json) -> Json:
    # attributes are JSON texts, so a text stands in quotes
    if isinstance(value, str) and value[:1] == '"' == value[-1:] and len(value) > 1:
        try:
            return parsed(json.loads(value))
        except ValueError:
            return value
    return value


def _expected(assessments: Iterable[Mapping[str, Json]]) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for entry in assessments:
        if "expectation" in entry:
            value = entry["expectation"]
            if isinstance(value, Mapping):
                value = value.get("value", (value.get("serialized_value") or {}).get("value"))
            found[str(entry.get("assessment_name") or entry.get("name"))] = parsed(value)
    return found


def _feedback(entry: Mapping[str, Json]) -> Feedback:
    value = entry["feedback"].get("value") if isinstance(entry["feedback"], Mapping) else entry["feedback"]
    source = entry.get("source") or {}
    return Feedback(str(entry.get("assessment_name") or entry.get("name")), value, str(source.get("source_id") or ""), str(entry.get("rationale") or ""))
