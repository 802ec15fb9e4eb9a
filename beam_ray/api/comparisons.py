"""Comparisons of two runs, pair by pair, and the lines of a gate."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from beam_ray.api.display import Display, Displayed
from beam_ray.api.location import Location
from beam_ray.api.runs import Run, get_run
from beam_ray.api.verdicts import GateLine
from beam_ray.compare.compare_runs import compare_runs
from beam_ray.compare.gate_file import default_gate, load_gate
from beam_ray.compare.grouping import By, Clusters, require_clusters, require_fields
from beam_ray.compare.html import html
from beam_ray.compare.markdown import markdown
from beam_ray.compare.report import Result, document, junit
from beam_ray.compare.terminal import terminal
from beam_ray.compare.verdict import judge
from beam_ray.compare.verdict_json import MetricDocument, ResultsDocument
from beam_ray.errors import Unusable
from beam_ray.tasks.fields import field_values


@dataclass(frozen=True)
class Metric:
    """One number of both sides, over the pairs that have it on both."""

    name: str
    unit: str
    before: float | None
    after: float | None
    change: float | None
    """In the metric's unit; for a percentage, points."""
    low: float | None
    """Lower end of the change's confidence interval; None without one."""
    high: float | None
    pairs: int
    note: str

    @classmethod
    def of(cls, metric: MetricDocument) -> "Metric":
        """The metric of a comparison's document."""
        numbers = (metric["before"], metric["after"], metric["change"], metric["low"], metric["high"])
        return cls(metric["name"], metric["unit"], *numbers, metric["pairs"], metric["note"])


class ComparisonDocument(ResultsDocument):
    """A comparison of two runs as ``--json`` prints it, in the form of verdict.json."""

    baseline_run: str
    candidate_run: str


@dataclass(frozen=True, repr=False)
class Comparison(Displayed):
    """Two runs over the same tasks, compared pair by pair, and the verdict of a gate."""

    before: Run
    after: Run
    word: str
    """PASS, WARN, BLOCK or INCONCLUSIVE, by the gate; NONE by the gate ``none``."""
    exit_code: int
    gate: tuple[GateLine, ...]
    metrics: Mapping[str, Metric]
    newly_failing: tuple[str, ...]
    """Ids of tasks that passed before and fail after."""
    newly_passing: tuple[str, ...]
    pairs: pa.Table = field(compare=False)
    """One row per task and trial, with the columns of comparison.parquet."""
    _result: Result = field(compare=False)

    def report(self, kind: str = "text") -> str:
        """
        The comparison as a report.

        Args:
            kind: text, markdown, html or junit.
        """
        faces: dict[str, Callable[[Sequence[Result], str], str]] = {"text": terminal, "markdown": markdown, "html": html, "junit": junit}
        if kind not in faces:
            raise Unusable(f"a comparison has no report of kind {kind!r}\n  kinds are {', '.join(faces)}")
        return faces[kind]([self._result], f"{self.before.id} -> {self.after.id}")

    def display(self) -> Display:
        facts = (("verdict", self.word), ("newly passing", len(self.newly_passing)), ("newly failing", len(self.newly_failing)))
        rows = [(each.name, each.before, each.after, each.change, each.low, each.high) for each in self.metrics.values() if each.change is not None]
        return Display(f"{self.before.id} -> {self.after.id}", facts, ("metric", "before", "after", "change", "low", "high"), rows)

    def document(self) -> ComparisonDocument:
        """The comparison as a JSON document, in the form of verdict.json."""
        found = document([self._result])
        return {
            "schema": found["schema"],
            "baseline_run": self.before.id,
            "candidate_run": self.after.id,
            "word": found["word"],
            "exit_code": found["exit_code"],
            "best": found["best"],
            "candidates": found["candidates"],
        }


def checked_fields(cluster: str | None, slices: Sequence[str] = ()) -> None:
    """Raise Unusable unless all of them name fields of tasks."""
    try:
        require_fields(cluster, slices)
    except ValueError as error:
        raise Unusable(str(error).replace("\n", "\n  ")) from None


def compare(
    store: Location,
    before: str,
    after: str,
    *,
    gate: str | Path | None = None,
    names: tuple[str, str] = ("baseline", "candidate"),
    cluster: str | None = None,
    slices: Sequence[str] = (),
) -> Comparison:
    """See ``Store.compare``."""
    runs = [get_run(store, name) for name in (before, after)]
    chosen = load_gate(gate) if gate else default_gate()
    checked_fields(cluster, slices)
    if cluster is not None:
        tasks = runs[1].stored.tasks()
        require_clusters(Clusters(cluster, field_values(tasks, cluster)), tasks["task_id"].to_pylist())
    found = compare_runs(runs[0].stored, runs[1].stored, chosen, names=names, by=By(cluster, tuple(slices)))
    result = Result(found, judge(found, chosen))
    written = document([result])["candidates"][0]
    return Comparison(
        runs[0],
        runs[1],
        result.verdict.word,
        result.verdict.exit_code,
        tuple(GateLine.of(line) for line in written["verdict"]["lines"]),
        {entry["name"]: Metric.of(entry) for entry in written["comparison"]["metrics"]},
        tuple(written["comparison"]["newly_failing"]),
        tuple(written["comparison"]["newly_passing"]),
        found.table,
        result,
    )
