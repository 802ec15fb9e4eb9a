"""
The tables of the store: one explicit, versioned schema each, every column explained.

Nothing is inferred: a first shard of nulls must not decide a type. How a table becomes a
file is in ``parquet``.
"""

import datetime
from typing import TypedDict

import pyarrow as pa

_UTC = pa.timestamp("us", tz="UTC")


def _column(name: str, kind: pa.DataType, meaning: str) -> pa.Field:
    return pa.field(name, kind, metadata={"meaning": meaning})


CRITERION = pa.struct(
    [
        _column("id", pa.string(), "names the criterion within its node"),
        _column("text", pa.string(), "what must hold"),
        _column("met", pa.bool_(), "whether it holds; null when that could not be decided"),
        _column("reason", pa.string(), "why, in the judge's or the rule's words"),
        _column("judge", pa.string(), "the model that judged; null for a rule"),
        _column("weight", pa.float64(), "its share in the score"),
    ]
)

ATTEMPT = pa.struct(
    [
        _column("number", pa.int32(), "1 is the first"),
        _column("output", pa.string(), "JSON; null when there was none"),
        _column("score", pa.float64(), "0 to 100; null when unscored"),
        _column("error", pa.string(), "what went wrong"),
        _column("seconds", pa.float64(), "from request to answer, waiting for permits left out"),
        _column("input_tokens", pa.int64(), "of the model call"),
        _column("output_tokens", pa.int64(), "of the model call"),
        _column("usd", pa.float64(), "of the model call; null when the model has no price"),
        _column("temperature", pa.float64(), "as sent; null for the model's own"),
        _column("seed", pa.int64(), "as sent"),
        _column("criteria", pa.list_(CRITERION), "how this attempt was judged"),
        _column("cached_tokens", pa.int64(), "input tokens read from the provider's cache; null when not reported"),
        _column("reasoning_tokens", pa.int64(), "output tokens that were reasoning; null when not reported"),
        _column("estimated", pa.bool_(), "the endpoint reported no usage: tokens and usd are estimates"),
        _column("reasoning", pa.string(), "what the model wrote while thinking, kept apart from the output; null when none was returned"),
    ]
)

STEPS = pa.schema(
    [
        _column("run_id", pa.string(), "the run"),
        _column("task_id", pa.string(), "the task, as named in its source"),
        _column("node", pa.string(), "the node of the workflow"),
        _column("trial", pa.int32(), "1 is the first"),
        _column("outcome", pa.string(), "done, failed, skipped or borrowed"),
        _column("score", pa.float64(), "0 to 100, the weighted share of criteria met; null when unscored"),
        _column("passed", pa.bool_(), "the score reaches the threshold; null when unscored or without output"),
        _column("shard", pa.int32(), "the shard of the run that the row belongs to"),
        _column("fingerprint", pa.string(), "identifies everything that may change the output"),
        _column("criteria_fingerprint", pa.string(), "identifies everything that may change the score of that output"),
        _column("borrowed_from", pa.string(), "address of the step whose output this is"),
        _column("inputs", pa.string(), "digest of what the node was given"),
        _column("output", pa.string(), "JSON; null when there is none"),
        _column("route", pa.string(), "label of the route taken"),
        _column("reason", pa.string(), "why the step was skipped, executed or borrowed"),
        _column("unscored", pa.string(), "why there is no score"),
        _column("review", pa.bool_(), "flagged for a person"),
        _column("threshold", pa.float64(), "the score from which it passes; null without criteria"),
        _column("criteria", pa.list_(CRITERION), "how the output was judged"),
        _column("attempts", pa.list_(ATTEMPT), "every try, in order"),
        _column("first_score", pa.float64(), "the score of the first attempt"),
        _column("started_at", _UTC, "when the step began"),
        _column("ended_at", _UTC, "when it ended"),
        _column("seconds", pa.float64(), "spent in model or tool, all attempts, waiting for permits left out"),
        _column("waited", pa.float64(), "seconds spent waiting for permits"),
        _column("calls", pa.int32(), "model calls made for the output, retries included"),
        _column("input_tokens", pa.int64(), "of those calls"),
        _column("output_tokens", pa.int64(), "of those calls"),
        _column("usd", pa.float64(), "of those calls; null when the model has no price"),
        _column("judge_calls", pa.int32(), "model calls made to judge"),
        _column("judge_input_tokens", pa.int64(), "of those calls"),
        _column("judge_output_tokens", pa.int64(), "of those calls"),
        _column("judge_usd", pa.float64(), "of those calls; null when the judge has no price"),
        _column("cached_tokens", pa.int64(), "input tokens read from the provider's cache, judges included; null when not reported"),
        _column("reasoning_tokens", pa.int64(), "output tokens that were reasoning, judges included; null when not reported"),
        _column("estimated_calls", pa.int32(), "calls without reported usage, judges included, whose tokens and usd are estimates"),
        _column("work_seconds", pa.float64(), "what the output takes in model or tool, whoever paid for it; null when not recorded"),
        _column("work_calls", pa.int32(), "model calls that the output and its score take, whoever paid; null when not recorded"),
        _column("work_tokens", pa.int64(), "tokens of those calls"),
        _column("work_usd", pa.float64(), "US dollars of those calls; null when a model has no price"),
        _column("error_type", pa.string(), "kind of error"),
        _column("error", pa.string(), "what went wrong"),
    ],
    metadata={"beam_ray": "steps/1"},
)

OUTCOME = pa.schema(
    [
        _column("run_id", pa.string(), "the run"),
        _column("task_id", pa.string(), "the task"),
        _column("trial", pa.int32(), "1 is the first"),
        _column("outcome", pa.string(), "done, or failed when any step failed"),
        _column("passed", pa.bool_(), "no step failed and every scored step passed"),
        _column("score", pa.float64(), "mean of the scored steps' scores; null when none is scored"),
        _column("first_score", pa.float64(), "the same over first attempts"),
        _column("inputs", pa.string(), "digest of the task's query, variables and attachments"),
        _column("labels", pa.list_(pa.string()), "the task's labels"),
        _column("routes", pa.list_(pa.string()), "labels of the routes taken, in order"),
        _column("path", pa.list_(pa.string()), "nodes that ran or were borrowed, in order"),
        _column("output", pa.string(), "JSON: the outputs of the last nodes by name, tools that write left out"),
        _column("steps_done", pa.int32(), "steps executed"),
        _column("steps_borrowed", pa.int32(), "steps borrowed"),
        _column("steps_failed", pa.int32(), "steps failed"),
        _column("steps_skipped", pa.int32(), "steps skipped"),
        _column("steps_unscored", pa.int32(), "steps with output and criteria but no score"),
        _column("auto_reruns", pa.int32(), "attempts beyond the first, over all steps"),
        _column("auto_rerun_tokens", pa.int64(), "tokens of those attempts, judges left out"),
        _column("auto_rerun_usd", pa.float64(), "US dollars of those attempts, judges left out; null when a model has no price"),
        _column("review", pa.bool_(), "some step is flagged for a person"),
        _column("seconds", pa.float64(), "spent in models and tools, over all steps"),
        _column("calls", pa.int32(), "model calls made, judges included"),
        _column("input_tokens", pa.int64(), "of those calls"),
        _column("output_tokens", pa.int64(), "of those calls"),
        _column("usd", pa.float64(), "of those calls; null when a model has no price"),
        _column("cached_tokens", pa.int64(), "input tokens read from the provider's cache; null when not reported"),
        _column("reasoning_tokens", pa.int64(), "output tokens that were reasoning; null when not reported"),
        _column("estimated_calls", pa.int32(), "calls without reported usage, whose tokens and usd are estimates"),
        _column("work_seconds", pa.float64(), "what the task takes in model or tool, whoever paid for it"),
        _column("work_calls", pa.int32(), "model calls that the task takes, whoever paid"),
        _column("work_tokens", pa.int64(), "tokens of those calls"),
        _column("work_usd", pa.float64(), "US dollars of those calls; null when a model has no price"),
        _column("started_at", _UTC, "when its first step began"),
        _column("ended_at", _UTC, "when its last step ended"),
        _column("error", pa.string(), "the first failed step's error"),
    ],
    metadata={"beam_ray": "outcome/1"},
)

TASKS = pa.schema(
    [
        _column("task_id", pa.string(), "names the task; pairs it with itself in other runs"),
        _column("task_query", pa.string(), "the trigger input: the text, or JSON"),
        _column("query_is_json", pa.bool_(), "the query is a JSON value and not a text"),
        _column("variables", pa.string(), "JSON object"),
        _column("expected", pa.string(), "JSON: the expected outcome; null when there is none"),
        _column("labels", pa.list_(pa.string()), "free words"),
        _column(
            "attachments",
            pa.list_(pa.struct([("name", pa.string()), ("sha256", pa.string()), ("media_type", pa.string()), ("bytes", pa.int64())])),
            "files, kept by content",
        ),
        _column("inputs", pa.string(), "digest of query, variables and attachments"),
        _column("origin", pa.string(), "address of the task that this one redoes, or was saved from"),
        _column("tests", pa.string(), "the node or route that it is there to test"),
        _column("notes", pa.string(), "free text"),
        _column("recorded", pa.string(), "JSON object: what production answered, of a task that was a trace; null for other tasks"),
        _column(
            "changed_inputs", pa.string(), "JSON object: field to what it was and what it is, of a task that redoes another with changed input; null for others"
        ),
    ],
    metadata={"beam_ray": "tasks/1"},
)

REVIEWS = pa.schema(
    [
        _column("review_id", pa.string(), "names the review"),
        _column("workflow", pa.string(), "the workflow's name"),
        _column("node", pa.string(), "the node whose output was reviewed"),
        _column("criterion", pa.string(), "id of the criterion within its node"),
        _column("criterion_version", pa.string(), "digest of what must hold: its text or its rule"),
        _column("text", pa.string(), "what must hold, as the reviewer read it"),
        _column("address", pa.string(), "the step whose output was reviewed: RUN/TASK/NODE"),
        _column("output_digest", pa.string(), "digest of that output"),
        _column("met", pa.bool_(), "what the reviewer said; null when they could not tell"),
        _column("comment", pa.string(), "the reviewer's comment; null without one"),
        _column("reviewer", pa.string(), "who said so"),
        _column("reviewed_at", _UTC, "when"),
        _column("drawn", pa.string(), "how the output came to be reviewed: random, balanced, flagged, disagreed or chosen"),
        _column("seed", pa.int64(), "seed of the sample; null where nothing was drawn at random"),
        _column("sample", pa.int64(), "outputs in the sample; null where nothing was drawn at random"),
        _column("population", pa.int64(), "outputs that the sample was drawn from; null where nothing was drawn at random"),
        _column("probability", pa.float64(), "chance of this output to be in the sample; null where nothing was drawn at random"),
        _column("hidden", pa.bool_(), "the judge's word was hidden from the reviewer"),
        _column("judge", pa.string(), "the model or models that judged; null for a rule"),
        _column("judge_version", pa.string(), "digest of the judging models with their settings, and of all that they were asked together"),
        _column("judge_met", pa.bool_(), "what the judge or the rule had said of the output; null when it could not decide"),
    ],
    metadata={"beam_ray": "reviews/1"},
)


class CriterionRow(TypedDict):
    """A CRITERION struct as a dict."""

    id: str
    text: str
    met: bool | None
    reason: str
    judge: str | None
    weight: float


class AttemptRow(TypedDict):
    """An ATTEMPT struct as a dict."""

    number: int
    output: str | None
    score: float | None
    error: str | None
    seconds: float
    input_tokens: int
    output_tokens: int
    usd: float | None
    temperature: float | None
    seed: int | None
    criteria: list[CriterionRow]
    cached_tokens: int | None
    reasoning_tokens: int | None
    estimated: bool | None
    reasoning: str | None


class StepRow(TypedDict):
    """A row of STEPS as a dict; the schema explains the columns."""

    run_id: str
    task_id: str
    node: str
    trial: int
    outcome: str
    score: float | None
    passed: bool | None
    shard: int
    fingerprint: str | None
    criteria_fingerprint: str | None
    borrowed_from: str | None
    inputs: str | None
    output: str | None
    route: str | None
    reason: str | None
    unscored: str | None
    review: bool
    threshold: float | None
    criteria: list[CriterionRow]
    attempts: list[AttemptRow]
    first_score: float | None
    started_at: datetime.datetime
    ended_at: datetime.datetime
    seconds: float
    waited: float
    calls: int
    input_tokens: int
    output_tokens: int
    usd: float | None
    judge_calls: int
    judge_input_tokens: int
    judge_output_tokens: int
    judge_usd: float | None
    cached_tokens: int | None
    reasoning_tokens: int | None
    estimated_calls: int | None
    work_seconds: float | None
    work_calls: int | None
    work_tokens: int | None
    work_usd: float | None
    error_type: str | None
    error: str | None


class OutcomeRow(TypedDict):
    """A row of OUTCOME as a dict; the schema explains the columns."""

    run_id: str
    task_id: str
    trial: int
    outcome: str
    passed: bool
    score: float | None
    first_score: float | None
    inputs: str
    labels: list[str]
    routes: list[str]
    path: list[str]
    output: str
    steps_done: int
    steps_borrowed: int
    steps_failed: int
    steps_skipped: int
    steps_unscored: int
    auto_reruns: int | None
    auto_rerun_tokens: int | None
    auto_rerun_usd: float | None
    review: bool
    seconds: float
    calls: int
    input_tokens: int
    output_tokens: int
    usd: float | None
    cached_tokens: int | None
    reasoning_tokens: int | None
    estimated_calls: int | None
    work_seconds: float | None
    work_calls: int | None
    work_tokens: int | None
    work_usd: float | None
    started_at: datetime.datetime
    ended_at: datetime.datetime
    error: str | None


class AttachmentRow(TypedDict):
    """An attachment of a task; its content is stored under its digest."""

    name: str
    sha256: str
    media_type: str
    bytes: int


class TaskRow(TypedDict):
    """A row of TASKS as a dict; the schema explains the columns."""

    task_id: str
    task_query: str
    query_is_json: bool
    variables: str
    expected: str | None
    labels: list[str]
    attachments: list[AttachmentRow]
    inputs: str
    origin: str | None
    tests: str | None
    notes: str | None
    recorded: str | None
    changed_inputs: str | None


class ReviewRow(TypedDict):
    """A row of REVIEWS as a dict; the schema explains the columns."""

    review_id: str
    workflow: str
    node: str
    criterion: str
    criterion_version: str
    text: str
    address: str
    output_digest: str
    met: bool | None
    comment: str | None
    reviewer: str
    reviewed_at: datetime.datetime
    drawn: str
    seed: int | None
    sample: int | None
    population: int | None
    probability: float | None
    hidden: bool
    judge: str | None
    judge_version: str | None
    judge_met: bool | None


class FileEntry(TypedDict):
    """What a run's manifest says of one of its files."""

    name: str
    rows: int
    bytes: int
    sha256: str
