"""
Turn traces into tasks of a library: sampling, near-duplicate detection and redaction.

Pure: nothing is read or written here. The sample is stratified, so that rare kinds of executions
and failures stay in it. It depends only on the traces and the seed.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from datasketch import MinHash, MinHashLSH

from beam_ray.define.fingerprint import digest
from beam_ray.store.parquet import to_json
from beam_ray.tasks.messages import TaskMessage, text_of_message
from beam_ray.tasks.traces.trace import Json, Trace, conversation, is_messages, text_of

NEAR = 0.9
"""Jaccard similarity of two texts' word triples from which they are near duplicates."""
_PERMUTATIONS = 128
MAX_LABEL = 60
"""Characters of a feedback's value up to which it becomes a label."""


@dataclass(frozen=True)
class Sampled:
    """The traces drawn, and what was left out."""

    traces: tuple[Trace, ...]
    near_duplicates: Mapping[str, str]
    """Trace to the earlier trace that asks nearly the same; both are kept."""
    strata: Mapping[str, tuple[int, int]]
    """Kind of execution to how many traces were drawn of how many."""

    @property
    def total(self) -> int:
        """How many traces there were."""
        return sum(count for _, count in self.strata.values())


def sample(traces: Iterable[Trace], size: int | None = None, *, stratify: str = "", seed: int = 0) -> Sampled:
    """
    *size* of the traces; all of them without a size. They are iterated over twice, and only those drawn are kept.

    Strata are the value of the tag *stratify*, or the route of the execution without one, and
    whether it failed. Each stratum keeps at least one trace while there is room, the rarest first,
    and the rest is drawn in proportion.
    """
    strata: dict[str, list[str]] = {}
    for trace in traces:
        strata.setdefault(stratum(trace, stratify), []).append(trace.id)
    counts = {name: len(members) for name, members in strata.items()}
    total = sum(counts.values())
    shares = _shares(counts, total if size is None else min(size, total))
    drawn = {found for name, members in strata.items() for found in sorted(members, key=lambda trace_id: digest("sample/1", seed, trace_id))[: shares[name]]}
    chosen = tuple(trace for trace in traces if trace.id in drawn)
    return Sampled(chosen, near_duplicates(chosen), {name: (shares[name], count) for name, count in counts.items()})


def stratum(trace: Trace, stratify: str = "") -> str:
    """The kind of execution that a trace is of."""
    kind = trace.tags.get(stratify, f"without {stratify}") if stratify else " > ".join(trace.route) or "no inner steps"
    return f"{kind}, failed" if trace.failed else kind


def _shares(counts: Mapping[str, int], wanted: int) -> dict[str, int]:
    """How many to draw of each stratum: one each, the rarest first, then in proportion by largest remainders."""
    shares = dict.fromkeys(counts, 0)
    for name in sorted(counts, key=lambda name: (counts[name], name))[:wanted]:
        shares[name] = 1
    left = wanted - sum(shares.values())
    open_counts = {name: counts[name] - shares[name] for name in counts}
    total = sum(open_counts.values())
    if not total:
        return shares
    exact = {name: left * count / total for name, count in open_counts.items()}
    for name, value in exact.items():
        shares[name] += math.floor(value)
    for name in sorted(exact, key=lambda name: (math.floor(exact[name]) - exact[name], name))[: wanted - sum(shares.values())]:
        shares[name] += 1
    return shares


def near_duplicates(traces: Sequence[Trace]) -> dict[str, str]:
    """Trace to the first earlier trace whose input is nearly the same text (MinHash over word triples)."""
    index = MinHashLSH(threshold=NEAR, num_perm=_PERMUTATIONS)
    places = {trace.id: place for place, trace in enumerate(traces)}
    found: dict[str, str] = {}
    for trace in traces:
        words = _query(trace.inputs)[0].lower().split()
        shingles = {" ".join(words[start : start + 3]) for start in range(max(len(words) - 2, 1))}
        signature = MinHash(num_perm=_PERMUTATIONS, seed=1)
        signature.update_batch([shingle.encode("utf-8", "surrogatepass") for shingle in shingles])
        near = index.query(signature)
        if near:
            found[trace.id] = min(near, key=places.__getitem__)
        else:
            index.insert(trace.id, signature)
    return found


def redacted(trace: Trace, function: Callable[[str], str]) -> Trace:
    """The trace with *function* applied to every text that people or models wrote, and to the values of its tags."""

    def change(value: Json) -> Json:
        if isinstance(value, str):
            return function(value)
        if isinstance(value, Mapping):
            return {name: change(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [change(inner) for inner in value]
        return value

    return replace(
        trace,
        inputs=change(trace.inputs),
        output=change(trace.output),
        steps={name: change(output) for name, output in trace.steps.items()},
        expected={name: change(value) for name, value in trace.expected.items()},
        feedback=tuple(replace(entry, value=change(entry.value), comment=function(entry.comment) if entry.comment else "") for entry in trace.feedback),
        tags={name: function(value) for name, value in trace.tags.items()},
    )


def task_of(trace: Trace, source: str) -> dict[str, Json]:
    """
    The task that a trace becomes, with the fields of a tasks file and ``recorded``.

    A single text field or the last user message becomes the task query, and earlier messages its
    conversation; tags become variables; feedback becomes labels and notes.
    """
    query, variables, messages = _query(trace.inputs)
    labels = ["failed in production"] if trace.failed else []
    for entry in trace.feedback:
        value = entry.value if isinstance(entry.value, str) else json.dumps(entry.value, ensure_ascii=False)
        if len(value) <= MAX_LABEL:
            labels.append(f"{entry.name}={value}")
    notes = "; ".join(f"{entry.name}: {entry.comment}" for entry in trace.feedback if entry.comment)
    recorded = {
        "source": source,
        "trace": trace.id,
        "started_at": trace.started_at or None,
        "failed": trace.failed,
        "output": trace.output,
        "steps": dict(trace.steps),
    }
    return {
        "id": trace.id,
        "task_query": query if query else dict(trace.inputs) if isinstance(trace.inputs, Mapping) else to_json(trace.inputs),
        "variables": {**trace.tags, **variables},
        "expected": dict(trace.expected) or None,
        "labels": labels,
        "notes": notes or None,
        "recorded": recorded,
        **({"messages": messages} if messages else {}),
    }


def _query(inputs: Json) -> tuple[str, dict[str, Json], list[TaskMessage]]:
    """The text that was asked, empty where it is an object of several fields; the variables that stand beside it; the messages before it."""
    if isinstance(inputs, str):
        return inputs, {}, []
    if isinstance(inputs, Mapping):
        turns = inputs.get("messages")
        if is_messages(turns):
            query, variables, messages = _query(turns)
            return query, {**variables, **{name: value for name, value in inputs.items() if name != "messages"}}, messages
        if len(inputs) == 1 and isinstance(next(iter(inputs.values())), str):
            return str(next(iter(inputs.values()))), {}, []
        return "", {}, []
    if is_messages(inputs):
        messages = conversation(inputs)
        if messages:
            last = max((place for place, turn in enumerate(messages) if turn["role"] == "user"), default=len(messages) - 1)
            return text_of_message(messages[last]), {}, messages[:last]
    return text_of(inputs), {}, []
