"""The content of verdict.json: what a backtest found, as plain JSON. Its tables are in comparison.parquet."""

from typing import Literal, NotRequired, TypedDict

from beam_ray.compare.metric_definitions import Better
from beam_ray.define.fingerprint import JsonObject

Word = Literal["PASS", "WARN", "BLOCK", "INCONCLUSIVE", "NONE"]
"""NONE: the gate asks for nothing."""
SliceKind = Literal["node", "criterion", "label", "route", "recording"]

ClassMeasureKind = Literal["precision", "recall", "f1", "micro_precision", "micro_recall", "micro_f1", "no_answer"]


class IntervalDocument(TypedDict):
    """An interval as JSON."""

    low: float
    high: float


class MetricDocument(TypedDict):
    """A metric as JSON."""

    name: str
    title: str
    unit: str
    better: Better
    before: float | None
    after: float | None
    change: float | None
    relative: float | None
    low: float | None
    high: float | None
    relative_interval: IntervalDocument | None
    after_interval: IntervalDocument | None
    pairs: int
    note: str


class SliceDocument(TypedDict):
    """A slice as JSON."""

    kind: SliceKind
    name: str
    text: str
    unit: str
    pairs: int
    before_count: int
    after_count: int
    unscored_before: int
    unscored_after: int
    before: float | None
    after: float | None
    change: float | None
    low: float | None
    high: float | None
    better_tasks: int
    worse_tasks: int
    p: float
    p_adjusted: float
    field: bool
    errors_removed: float | None
    relative_interval: NotRequired[IntervalDocument | None]
    """Not in documents of 0.1, like ``after_interval``."""
    after_interval: NotRequired[IntervalDocument | None]


class ClassMeasureDocument(TypedDict):
    """Precision, recall or F1 of a class, or an average, as JSON."""

    kind: ClassMeasureKind
    label: str | None
    metric: MetricDocument
    before_count: int
    after_count: int
    p: float
    p_adjusted: float


class CellDocument(TypedDict):
    """A cell of a confusion matrix as JSON; ``answered`` is null for an answer that is missing or none of the classes."""

    expected: str
    answered: str | None
    before: int | None
    after: int | None


class ClassificationDocument(TypedDict):
    """A classification as JSON. Cells that are 0 on both sides are left out."""

    name: str
    node: str
    field: str
    classes: list[str]
    counts: list[int]
    pairs: int
    tasks: int
    without_expected: int
    not_reached: int
    changed_expected: int
    cells: list[CellDocument]
    measures: list[ClassMeasureDocument]


class SubgroupMetricDocument(TypedDict):
    """One number of a slice as JSON."""

    name: str
    metric: MetricDocument
    pooled: float | None
    p: float
    p_adjusted: float


class SubgroupDocument(TypedDict):
    """The tasks that have one value of a field, as JSON."""

    field: str
    value: str
    tasks: int
    metrics: list[SubgroupMetricDocument]


class SubgroupsDocument(TypedDict):
    """The slices by one field as JSON."""

    field: str
    members: list[SubgroupDocument]
    left_out: int


class ClusteringDocument(TypedDict):
    """The clusters that the compared tasks come in, as JSON."""

    field: str
    clusters: int
    smallest: int
    largest: int
    alone: int


class RouteFlipDocument(TypedDict):
    """A route flip as JSON."""

    before: list[str]
    after: list[str]
    pairs: int


class RegressionsDocument(TypedDict):
    """The newly failing tasks as JSON."""

    confirmed: list[str]
    noise: list[str]
    unrepeated: list[str]


class ChangeDocument(TypedDict):
    """A task that flipped, as JSON."""

    task_id: str
    trial: int
    flip: str
    before_score: float | None
    after_score: float | None
    before_routes: list[str]
    after_routes: list[str]
    diverges_at: str | None
    before_there: str | None
    after_there: str | None
    before_error: str | None
    after_error: str | None
    first_call: NotRequired[str | None]
    """The first call at which an agent or a program did something else; not in version 0.1."""


class NamedDocument(TypedDict):
    """A side as JSON."""

    name: str
    run_id: str


class UnpairedDocument(TypedDict):
    """The tasks that could not be compared, as JSON."""

    baseline_only: list[str]
    candidate_only: list[str]
    inputs_differ: list[str]
    not_judged: list[str]


class PlaceDocument(TypedDict):
    """Where tasks left the recording, as JSON."""

    node: str
    what: str
    tasks: int


class ReplayDocument(TypedDict):
    """How much of a candidate was answered from the recording, as JSON: tasks, calls, and where tasks left it."""

    all_recorded: int
    models_live: int
    tools_live: int
    nothing_recorded: int
    recorded_calls: int
    live_calls: int
    static_calls: int
    refused_calls: int
    mixed: int
    places: list[PlaceDocument]
    tools: list[PlaceDocument]


class ComparisonDocument(TypedDict):
    """A comparison as JSON, without the table of pairs."""

    baseline: NamedDocument
    candidate: NamedDocument
    same: bool
    confidence: float
    planned: int
    seed: NotRequired[int]
    """Of the resamples of 0.1; nothing is drawn at random since."""
    pairs: int
    tasks: int
    trials: int
    unpaired: UnpairedDocument
    metrics: list[MetricDocument]
    p: float
    detectable_score: float | None
    detectable_rate: float | None
    advice: str
    slices: list[SliceDocument]
    newly_passing: list[str]
    newly_failing: list[str]
    both_failing: list[str]
    regressions: RegressionsDocument
    route_flips: list[RouteFlipDocument]
    changes: list[ChangeDocument]
    changes_left_out: int
    classifications: NotRequired[list[ClassificationDocument]]
    """Of fields that are compared with an expected class; not in version 0.1."""
    subgroups: NotRequired[list[SubgroupsDocument]]
    """The slices that the spec asks for; not in version 0.1, like ``clustering``."""
    clustering: NotRequired[ClusteringDocument | None]
    cost_notes: NotRequired[list[str]]
    """Where prices come from, what was read from a cache, and what is an estimate; not in version 0.1."""
    judge_notes: NotRequired[list[str]]
    """How often the judges of panels disagreed; not in version 0.1."""
    replay: NotRequired[ReplayDocument | None]
    """Of agents and programs; null where the candidate has none, and not in version 0.1."""


class LineDocument(TypedDict):
    """A line as JSON."""

    rule: str
    allowed: str
    found: str
    word: Word
    reason: str
    level: Literal["block", "warn", "target"]
    tasks_needed: int | None


class VerdictDocument(TypedDict):
    """A verdict as JSON."""

    gate: str
    word: Word
    exit_code: int
    lines: list[LineDocument]
    own_word: NotRequired[Word]
    """Of one of several candidates, the word without a correction for their number."""


class ResultDocument(TypedDict):
    """One candidate's comparison and verdict as JSON."""

    name: str
    verdict: VerdictDocument
    comparison: ComparisonDocument


class ResultsDocument(TypedDict):
    """Results as JSON; word and exit code are those of the best candidate: one that may be published is enough."""

    schema: str
    word: Word
    exit_code: int
    best: str
    candidates: list[ResultDocument]


class GainDocument(TypedDict):
    """One candidate's change of one metric, among several candidates."""

    name: str
    metric: str
    found: float
    interval: IntervalDocument
    shrunk: float
    """With chance, and the choice of the best among the candidates, allowed for."""
    shrunk_interval: IntervalDocument


class PointDocument(TypedDict):
    """One side by what it reaches and what that takes."""

    name: str
    score: float
    cost: float
    dominated_by: str | None
    """A side that reaches at least as much for no more; null on the Pareto front."""


class FrontDocument(TypedDict):
    """All sides by one metric that they reach, and another that it takes."""

    score: str
    cost: str
    points: list[PointDocument]


class OverviewDocument(TypedDict):
    """Several candidates side by side."""

    correction: str
    """How PASS is corrected for the number of candidates."""
    gains: list[GainDocument]
    fronts: list[FrontDocument]


class PaidDocument(TypedDict):
    """What the run of a side cost."""

    calls: int
    input_tokens: int
    output_tokens: int
    usd: float | None
    steps_done: int
    steps_borrowed: int
    seconds: float


class SideDocument(TypedDict):
    """A side of a backtest: its definition and its run."""

    name: str
    run_id: str
    version: int | None
    definition_digest: str
    definition: JsonObject
    paid: PaidDocument


class FigureDocument(TypedDict):
    """An estimate with its 95% interval."""

    value: float
    low: float
    high: float


CorrectedBy = Literal["own reviews", "reviews elsewhere"]


class CorrectedRateDocument(TypedDict):
    """A corrected rate as JSON."""

    name: str
    tasks: int
    judged_before: FigureDocument
    judged_after: FigureDocument
    before: FigureDocument
    after: FigureDocument
    change: FigureDocument
    by: CorrectedBy
    reviews: list[int]


class CandidateDocument(ResultDocument, SideDocument):
    """A candidate of a backtest."""

    baseline_run: str
    """The run it was compared with: the baseline's, or one in which the baseline was judged by this candidate's criteria."""
    corrected: NotRequired[list[CorrectedRateDocument]]
    """Rates corrected for the judge's errors, by the reviews that there were; shares, not percent. Not in documents of 0.1."""


class RerunDocument(TypedDict):
    """The best candidate and the baseline over tasks that the comparison did not use."""

    tasks: int
    baseline: SideDocument
    candidate: CandidateDocument


class BacktestDocument(TypedDict):
    """The content of verdict.json. Its keys are those of ``ResultsDocument``, and what names the backtest."""

    schema: str
    backtest_id: str
    name: str
    workflow: str
    finished_at: str
    tasks_source: str
    trials: int
    aa: bool
    baseline: SideDocument
    word: Word
    exit_code: int
    best: str
    candidates: list[CandidateDocument]
    rerun: NotRequired[RerunDocument]
    """Where the best candidate was run again on fresh tasks; then word and exit code are those of the rerun."""
    overview: NotRequired[OverviewDocument]
    """Of several candidates."""
    files: dict[str, str]
    """Name to sha256 of the other files that the backtest keeps."""
