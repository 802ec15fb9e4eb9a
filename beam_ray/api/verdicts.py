"""Verdicts of finished backtests: the gate's lines, candidates, pairs and reports."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa

from beam_ray.api.display import Display, Displayed
from beam_ray.api.location import Location
from beam_ray.api.runs import Run
from beam_ray.backtest.results import FILES, read_verdict
from beam_ray.backtest.results import report as read_report
from beam_ray.compare.verdict_json import BacktestDocument, CandidateDocument, LineDocument, OverviewDocument
from beam_ray.define.workflow import Workflow
from beam_ray.errors import Unusable, did_you_mean
from beam_ray.store.checksummed_json import read_document
from beam_ray.store.objects import NotThere

if TYPE_CHECKING:
    from beam_ray.api.flips import Pairs
    from beam_ray.compare.gate_intervals import GateInterval
    from beam_ray.review.corrected_rates import CorrectedRate

REPORTS = tuple(name for name in FILES if not name.endswith(".parquet"))
"""Files of a finished backtest that are text."""


@dataclass(frozen=True)
class GateLine:
    """One limit of a gate, and what was observed."""

    rule: str
    limit: str
    observed: str
    word: str
    """PASS, WARN, BLOCK or INCONCLUSIVE; of a target PASS where it is met, else WARN."""
    reason: str
    level: str
    """block; warn where the line can only warn; target where it is shown and does not decide."""
    tasks_needed: int | None
    """How many tasks would decide with 80% power; None when the line is decided, or when no number would."""

    @classmethod
    def of(cls, line: LineDocument) -> "GateLine":
        """The line of a verdict document."""
        return cls(line["rule"], line["allowed"], line["found"], line["word"], line["reason"], line["level"], line["tasks_needed"])


class Deciding(NamedTuple):
    """What it takes to decide the lines that a backtest left open."""

    tasks: int
    """Tasks that would decide with 80% power, if the truth is what was observed."""
    more: int
    """How many more than were compared."""
    usd: float | None
    """US dollars for these, both sides, at the cost per task that was observed; None when a model has no price."""


@dataclass(frozen=True, repr=False)
class Candidate(Displayed):
    """One candidate of a finished backtest, compared with the baseline."""

    name: str
    word: str
    """PASS, WARN, BLOCK or INCONCLUSIVE; NONE under the gate ``none`` and in an A/A test."""
    gate: tuple[GateLine, ...]
    """One line per limit of the gate."""
    run: Run
    baseline_run: Run
    newly_failing: tuple[str, ...]
    """Ids of tasks that passed on the baseline and fail on the candidate."""
    newly_passing: tuple[str, ...]
    workflow: Workflow = field(compare=False)
    """The candidate's definition."""
    document: CandidateDocument = field(compare=False)
    """The candidate's part of verdict.json, with every metric, slice and flip."""

    @property
    def own_word(self) -> str:
        """The verdict without the correction for the number of candidates; *word* where there is one candidate."""
        return self.document["verdict"].get("own_word", self.word)

    @property
    def deciding(self) -> Deciding | None:
        """What would decide the lines that are open; None where none is, or no number of tasks would."""
        needed = max((line.tasks_needed or 0 for line in self.gate if line.level != "target"), default=0)
        comparison = self.document["comparison"]
        if needed <= comparison["tasks"]:
            return None
        prices = next((each["before"], each["after"]) for each in comparison["metrics"] if each["name"] == "usd")
        more = needed - comparison["tasks"]
        known = [price for price in prices if price is not None]
        return Deciding(needed, more, sum(known) * more * comparison["trials"] if len(known) == len(prices) else None)

    def display(self) -> Display:
        facts = (("verdict", self.word), ("newly passing", len(self.newly_passing)), ("newly failing", len(self.newly_failing)))
        return Display(self.name, facts, ("gate", "limit", "observed", ""), [(line.rule, line.limit, line.observed, line.word) for line in self.gate])


@dataclass(frozen=True, repr=False)
class Verdict(Displayed):
    """A finished backtest: its verdict, the gate's lines, and everything they follow from."""

    store: Location = field(compare=False)
    id: str
    _document: BacktestDocument = field(compare=False)

    @property
    def word(self) -> str:
        """PASS, WARN, BLOCK or INCONCLUSIVE: the word of the best candidate, or of its rerun on fresh tasks; NONE under the gate ``none`` and in an A/A test."""
        return self._document["word"]

    @property
    def exit_code(self) -> int:
        """0 for PASS, WARN and NONE, 4 for BLOCK, 5 for INCONCLUSIVE."""
        return self._document["exit_code"]

    @property
    def workflow(self) -> str:
        """The workflow's name."""
        return self._document["workflow"]

    @cached_property
    def candidates(self) -> tuple[Candidate, ...]:
        """The candidates, in the order of the spec."""
        return tuple(_candidate(self.store, entry) for entry in self._document["candidates"])

    @cached_property
    def rerun(self) -> Candidate | None:
        """The best candidate as it was run again on fresh tasks, whose verdict is that of the backtest; None without a rerun."""
        return _candidate(self.store, self._document["rerun"]["candidate"]) if "rerun" in self._document else None

    @property
    def best(self) -> Candidate:
        """The candidate with the best word, and among equals the highest mean score; after a rerun the one that was run again."""
        return next(each for each in self.candidates if each.name == self._document["best"])

    @property
    def gate(self) -> tuple[GateLine, ...]:
        """The gate's lines for the best candidate, in the rerun if there was one."""
        return (self.rerun or self.best).gate

    @property
    def overview(self) -> OverviewDocument | None:
        """Gains as found and shrunk, and score against cost and time, of several candidates; None for one."""
        return self._document.get("overview")

    @property
    def baseline_run(self) -> Run:
        """The baseline's run."""
        return Run(self.store, self._document["baseline"]["run_id"])

    @property
    def runs(self) -> tuple[Run, ...]:
        """The runs of the baseline and of each candidate, and those of a rerun."""
        again = (self.rerun.baseline_run, self.rerun.run) if self.rerun else ()
        return (self.baseline_run, *(each.run for each in self.candidates), *again)

    @cached_property
    def flips(self) -> pa.Table:
        """
        Tasks that flipped, one row per candidate, task and trial.

        The columns are those of comparison.parquet: flip, scores, routes and outputs on both sides, and
        the first node whose output differs.
        """
        import pyarrow.compute as pc

        pairs = self.pairs
        return pairs.filter(pc.is_in(pairs["flip"], value_set=pa.array(["newly passing", "newly failing"])))

    @cached_property
    def pairs(self) -> pa.Table:
        """Every pair, one row per candidate, task and trial: the content of comparison.parquet."""
        import pyarrow.parquet as pq

        return pq.read_table(pa.BufferReader(self.store.objects.read(f"backtests/{self.id}/comparison.parquet")), use_threads=False)

    def pair_columns(self, names: Sequence[str]) -> pa.Table:
        """Those of the columns of ``pairs`` that comparison.parquet has, without reading the others; versions before 0.2 kept fewer."""
        import pyarrow.parquet as pq

        file = pq.ParquetFile(pa.BufferReader(self.store.objects.read(f"backtests/{self.id}/comparison.parquet")))
        return file.read(columns=[name for name in names if name in file.schema_arrow.names], use_threads=False)

    def pairs_of(self, candidate: str | None = None) -> "Pairs":
        """
        The pairs of a candidate: its flips in groups, its scores in bins, and rows to page through.

        Args:
            candidate: Its name; None for the best one.

        Raises:
            Unusable: there is no such candidate.
        """
        from beam_ray.api.flips import Pairs, candidate_of

        return Pairs(self, candidate_of(self, candidate))

    def gate_intervals(self, candidate: "Candidate") -> "dict[tuple[str, str], GateInterval]":
        """
        The gate's lines that hold an interval against a limit, by their rule and limit, in numbers.

        Nothing where the backtest was finished by a version that kept no manifest.
        """
        from beam_ray.backtest.manifest import read_manifest
        from beam_ray.compare.gate import Gate
        from beam_ray.compare.gate_intervals import gate_intervals

        try:
            gate = Gate.model_validate(read_manifest(self.store.objects, self._document)["gate"])
        except Unusable:
            return {}
        return {(each.rule, each.text): each for each in gate_intervals(gate, candidate.document["comparison"])}

    def why_no_evidence(self, candidate: "Candidate") -> str:
        """Why the candidate's definition cannot be published on the evidence of this backtest; empty where it can."""
        from beam_ray.publish import evidence_problem

        return evidence_problem(self.store.objects, self.id, candidate.workflow)

    def corrected_rates(self, candidate: str | None = None) -> "tuple[CorrectedRate, ...]":
        """
        Success rate and criteria of a candidate and the baseline, corrected for the judge's errors by all reviews so far. No model is called.

        Args:
            candidate: Its name; None for the best one.

        Raises:
            Unusable: there is no such candidate.
        """
        from beam_ray.review.corrected_rates import corrected_rates

        names = [each.name for each in self.candidates]
        if candidate is not None and candidate not in names:
            raise Unusable(
                "\n  ".join([f"the backtest {self.id} has no candidate {candidate!r}", f"it has: {', '.join(names)}", *did_you_mean(candidate, names)])
            )
        found = self.best if candidate is None else next(each for each in self.candidates if each.name == candidate)
        return tuple(corrected_rates(self.store.objects, found.baseline_run.stored, found.run.stored))

    def report(self, name: str = "report.txt") -> str:
        """
        A report as it was stored.

        Args:
            name: report.txt, report.md, report.html, junit.xml, manifest.json or verdict.json.

        Raises:
            Unusable: there is no report of that name.
            Damaged: the stored file is not what was written.
        """
        if name not in REPORTS:
            raise Unusable("\n  ".join([f"a backtest has no {name!r}", f"it has: {', '.join(REPORTS)}", *did_you_mean(name, REPORTS)]))
        return read_report(self.store.objects, self.id, name)

    def notify(self, to: str) -> None:
        """
        Send the verdict document to a webhook, unless it was sent there before.

        Args:
            to: ``URL``, or ``slack:URL`` for a message to a Slack incoming webhook; ``${env:NAME}`` stands for an environment variable.

        Raises:
            Unusable: it is not an address.
            NotificationFailed: it did not accept the verdict within 20 s.
        """
        from beam_ray.backtest.notification import notify, webhook

        notify(self.store.objects, self._document, webhook(to))

    def display(self) -> Display:
        facts = (
            ("verdict", self.word),
            ("workflow", self.workflow),
            ("tasks", self._document["tasks_source"]),
            ("candidates", ", ".join(each.name for each in self.candidates)),
        )
        return Display(self.id, facts, ("gate", "limit", "observed", ""), [(line.rule, line.limit, line.observed, line.word) for line in self.gate])

    def document(self) -> BacktestDocument:
        """The content of verdict.json."""
        return self._document.copy()


def _candidate(store: Location, entry: CandidateDocument) -> Candidate:
    comparison = entry["comparison"]
    return Candidate(
        entry["name"],
        entry["verdict"]["word"],
        tuple(GateLine.of(line) for line in entry["verdict"]["lines"]),
        Run(store, entry["run_id"]),
        Run(store, entry["baseline_run"]),
        tuple(comparison["newly_failing"]),
        tuple(comparison["newly_passing"]),
        Workflow.model_validate(entry["definition"]),
        entry,
    )


def verdict(store: Location, backtest_id: str) -> Verdict:
    """See ``Store.verdict``."""
    document = read_verdict(store.existing(), backtest_id)
    return Verdict(store, document["backtest_id"], document)


def backtests(store: Location, known: Iterable[Verdict] = ()) -> list[Verdict]:
    """See ``Store.backtests``."""
    objects, kept, found = store.existing(), {each.id: each for each in known}, list[Verdict]()
    for name in objects.folders("backtests"):
        if name not in kept:
            try:
                kept[name] = Verdict(store, name, read_document(objects, f"backtests/{name}/verdict.json", BacktestDocument))
            except NotThere:
                continue  # it has no verdict yet
        found.append(kept[name])
    return sorted(found, key=lambda each: each._document["finished_at"], reverse=True)


def unsettled_backtests(store: Location, verdicts: Sequence[Verdict] | None = None) -> list[Verdict]:
    """See ``Store.unsettled_backtests``."""
    from beam_ray.publish import current

    known = backtests(store) if verdicts is None else verdicts
    first: dict[tuple[str, str], Verdict] = {}
    for each in known:
        first.setdefault((each.workflow, each._document["name"]), each)
    open_ones = [each for each in first.values() if each.word in ("BLOCK", "INCONCLUSIVE")]
    newest = {name: current(store.existing(), name) for name in {each.workflow for each in open_ones}}
    published = {name: version.published_at if version else "" for name, version in newest.items()}
    return [each for each in open_ones if each._document["finished_at"] > published[each.workflow]]
