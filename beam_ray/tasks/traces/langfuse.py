"""Langfuse's export: one trace a line, with ``input``, ``output``, ``observations`` and ``scores``."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

from beam_ray.tasks.traces.trace import BadTrace, Feedback, Json, Span, Trace, answer_of, assemble, each_document, parsed

_MODEL = ("GENERATION",)


def traces(documents: Iterable[tuple[int, Json]]) -> Iterator[Trace | BadTrace]:
    """The traces of the export."""
    return each_document(documents, _trace)


def _trace(document: Json) -> Trace:
    if not isinstance(document, Mapping) or not document.get("id"):
        raise BadTrace("a Langfuse trace is an object with an 'id'")
    trace_id = str(document["id"])
    observations = [entry for entry in document.get("observations") or () if isinstance(entry, Mapping)]
    root = Span(trace_id, "", str(document.get("name") or "trace"), -1.0, parsed(document.get("input")), answer_of(parsed(document.get("output"))))
    inputs, output, steps, _ = assemble(trace_id, [root, *(_span(entry, trace_id) for entry in observations)])
    scores = [entry for entry in document.get("scores") or () if isinstance(entry, Mapping)]
    return Trace(
        trace_id,
        inputs,
        output,
        steps,
        feedback=tuple(_feedback(entry) for entry in scores),
        tags=_tags(document),
        failed=any(entry.get("level") == "ERROR" and not entry.get("parentObservationId") for entry in observations),
        started_at=str(document.get("timestamp") or ""),
    )


def _span(entry: Mapping[str, Json], trace_id: str) -> Span:
    try:
        start = datetime.fromisoformat(str(entry.get("startTime", "")).replace("Z", "+00:00")).timestamp()
    except ValueError:
        start = 0.0
    return Span(
        id=str(entry.get("id") or id(entry)),
        parent=str(entry.get("parentObservationId") or trace_id),
        name=str(entry.get("name") or entry.get("type") or "observation"),
        start=start,
        inputs=parsed(entry.get("input")),
        output=answer_of(parsed(entry.get("output"))),
        failed=entry.get("level") == "ERROR",
        is_model=entry.get("type") in _MODEL,
    )


def _feedback(entry: Mapping[str, Json]) -> Feedback:
    value = entry.get("stringValue") if entry.get("value") is None else entry.get("value")
    return Feedback(str(entry.get("name") or "score"), value, str(entry.get("source") or ""), str(entry.get("comment") or ""))


def _tags(document: Mapping[str, Json]) -> dict[str, str]:
    tags = {str(tag): "true" for tag in document.get("tags") or ()}
    for name in ("userId", "sessionId", "release", "version"):
        if document.get(name):
            tags[name] = str(document[name])
    metadata = document.get("metadata")
    if isinstance(metadata, Mapping):
        tags |= {str(name): str(value) for name, value in metadata.items() if isinstance(value, (str, int, float, bool))}
    return tags
