"""LangSmith's export: one run a line, with ``inputs``, ``outputs``, ``dotted_order`` and ``feedback_stats``; a trace is a root run and those below it."""

from collections.abc import Iterable, Iterator, Mapping

from beam_ray.tasks.traces.trace import BadTrace, Feedback, Json, Span, Trace, answer_of, assemble, made, parsed


def traces(documents: Iterable[tuple[int, Json]]) -> Iterator[Trace | BadTrace]:
    """The traces of the export, each from all of its runs."""
    runs: dict[str, list[Mapping[str, Json]]] = {}
    lines: dict[str, int] = {}
    for line, document in documents:
        if not isinstance(document, Mapping) or not document.get("id") or "inputs" not in document:
            yield BadTrace("a LangSmith run is an object with 'id' and 'inputs'", line)
            continue
        trace_id = str(document.get("trace_id") or _first(document) or document["id"])
        runs.setdefault(trace_id, []).append(document)
        lines.setdefault(trace_id, line)
    for trace_id, members in runs.items():
        yield made(lines[trace_id], _trace, trace_id, members)


def _trace(trace_id: str, runs: list[Mapping[str, Json]]) -> Trace:
    ordered = sorted(runs, key=lambda run: str(run.get("dotted_order") or run.get("start_time") or ""))
    root = next((run for run in ordered if not run.get("parent_run_id")), ordered[0])
    inputs, output, steps, failed = assemble(trace_id, [_span(run, place) for place, run in enumerate(ordered)])
    stats = root.get("feedback_stats") or {}
    reference = root.get("reference_outputs") or root.get("reference_example_outputs") or {}
    extra = (root.get("extra") or {}).get("metadata") or {}
    tags = {str(name): str(value) for name, value in extra.items() if isinstance(value, (str, int, float, bool))}
    tags |= {str(tag): "true" for tag in root.get("tags") or ()}
    return Trace(
        trace_id,
        inputs,
        output,
        steps,
        expected=reference if isinstance(reference, Mapping) else {},
        feedback=tuple(
            Feedback(str(name), entry.get("avg"), comment="; ".join(map(str, entry.get("comments") or ())))
            for name, entry in stats.items()
            if isinstance(entry, Mapping)
        ),
        tags=tags,
        failed=failed,
        started_at=str(root.get("start_time") or ""),
    )


def _span(run: Mapping[str, Json], place: int) -> Span:
    return Span(
        id=str(run["id"]),
        parent=str(run.get("parent_run_id") or ""),
        name=str(run.get("name") or run.get("run_type") or "run"),
        start=float(place),
        inputs=_inputs(parsed(run.get("inputs"))),
        output=_output(parsed(run.get("outputs"))),
        failed=bool(run.get("error")) or run.get("status") == "error",
        is_model=run.get("run_type") == "llm",
    )


def _inputs(value: Json) -> Json:
    # LangChain wraps what a chain was given once more
    return value["input"] if isinstance(value, Mapping) and set(value) == {"input"} else value


def _output(value: Json) -> Json:
    if isinstance(value, Mapping) and len(value) == 1 and next(iter(value)) in ("output", "answer", "result", "text"):
        return parsed(next(iter(value.values())))
    return answer_of(value)


def _first(run: Mapping[str, Json]) -> str:
    """The id of the root run, which stands first in the dotted order: ``<time>Z<id>.<time>Z<id>…``."""
    return str(run.get("dotted_order") or "").split(".")[0].partition("Z")[2]
