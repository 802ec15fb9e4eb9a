"""
The tables of the store: one explicit, versioned schema each, every column explained.

Nothing is inferred: a first shard of nulls must not decide a type. How a table becomes a
file is in ``parquet``; the tables of calls and of reviews are in ``call_table`` and ``review_table``.
"""

import datetime
from typing import NotRequired, TypedDict

import pyarrow as pa

from beam_ray.store.call_table import CALL, CallRow
from beam_ray.store.columns import UTC, column

JUDGEMENT = pa.struct(
    [
        column("judge", pa.string(), "the model that judged"),
        column("met", pa.bool_(), "what it said; null when it gave no usable answer"),
        column("reason", pa.string(), "why, in its words"),
    ]
)

CRITERION = pa.struct(
    [
        column("id", pa.string(), "names the criterion within its node"),
        column("text", pa.string(), "what must hold"),
        column("met", pa.bool_(), "whether it holds; null when that could not be decided"),
        column("reason", pa.string(), "why, in the judge's or the rule's words"),
        column("judge", pa.string(), "the model that judged, or all of a panel; null for a rule"),
        column("weight", pa.float64(), "its share in the score"),
        column("judges", pa.list_(JUDGEMENT), "what each judge of a panel said; null where one model or a rule decided"),
    ]
)

ATTEMPT = pa.struct(
    [
        column("number", pa.int32(), "1 is the first"),
        column("output", pa.string(), "JSON; null when there was none"),
        column("score", pa.float64(), "0 to 100; null when unscored"),
        column("error", pa.string(), "what went wrong"),
        column("seconds", pa.float64(), "from request to answer, waiting for permits left out"),
        column("input_tokens", pa.int64(), "of the model call"),
        column("output_tokens", pa.int64(), "of the model call"),
        column("usd", pa.float64(), "of the model call; null when the model has no price"),
        column("temperature", pa.float64(), "as sent; null for the model's own"),
        column("seed", pa.int64(), "as sent"),
        column("criteria", pa.list_(CRITERION), "how this attempt was judged"),
        column("cached_tokens", pa.int64(), "input tokens read from the provider's cache; null when not reported"),
        column("reasoning_tokens", pa.int64(), "output tokens that were reasoning; null when not reported"),
        column("estimated", pa.bool_(), "the endpoint reported no usage: tokens and usd are estimates"),
        column("reasoning", pa.string(), "what the model wrote while thinking, kept apart from the output; null when none was returned"),
    ]
)

STEPS = pa.schema(
    [
        column("run_id", pa.string(), "the run"),
        column("task_id", pa.string(), "the task, as named in its source"),
        column("node", pa.string(), "the node of the workflow"),
        column("trial", pa.int32(), "1 is the first"),
        column("outcome", pa.string(), "done, failed, skipped or borrowed"),
        column("score", pa.float64(), "0 to 100, the weighted share of criteria met; null when unscored"),
        column("passed", pa.bool_(), "the score reaches the threshold; null when unscored or without output"),
        column("shard", pa.int32(), "the shard of the run that the row belongs to"),
        column("fingerprint", pa.string(), "identifies everything that may change the output"),
        column("criteria_fingerprint", pa.string(), "identifies everything that may change the score of that output"),
        column("borrowed_from", pa.string(), "address of the step whose output this is"),
        column("inputs", pa.string(), "digest of what the node was given"),
        column("output", pa.string(), "JSON; null when there is none"),
        column("route", pa.string(), "label of the route taken"),
        column("reason", pa.string(), "why the step was skipped, executed or borrowed"),
        column("unscored", pa.string(), "why there is no score"),
        column("review", pa.bool_(), "flagged for a person"),
        column("threshold", pa.float64(), "the score from which it passes; null without criteria"),
        column("criteria", pa.list_(CRITERION), "how the output was judged"),
        column("attempts", pa.list_(ATTEMPT), "every try, in order"),
        column("first_score", pa.float64(), "the score of the first attempt"),
        column("started_at", UTC, "when the step began"),
        column("ended_at", UTC, "when it ended"),
        column("seconds", pa.float64(), "spent in model or tool, all attempts, waiting for permits left out"),
        column("waited", pa.float64(), "seconds spent waiting for permits"),
        column("calls", pa.int32(), "model calls made for the output, retries included"),
        column("input_tokens", pa.int64(), "of those calls"),
        column("output_tokens", pa.int64(), "of those calls"),
        column("usd", pa.float64(), "of those calls; null when the model has no price"),
        column("judge_calls", pa.int32(), "model calls made to judge"),
        column("judge_input_tokens", pa.int64(), "of those calls"),
        column("judge_output_tokens", pa.int64(), "of those calls"),
        column("judge_usd", pa.float64(), "of those calls; null when the judge has no price"),
        column("cached_tokens", pa.int64(), "input tokens read from the provider's cache, judges included; null when not reported"),
        column("reasoning_tokens", pa.int64(), "output tokens that were reasoning, judges included; null when not reported"),
        column("estimated_calls", pa.int32(), "calls without reported usage, judges included, whose tokens and usd are estimates"),
        column("work_seconds", pa.float64(), "what the output takes in model or tool, whoever paid for it; null when not recorded"),
        column("work_calls", pa.int32(), "model calls that the output and its score take, whoever paid; null when not recorded"),
        column("work_tokens", pa.int64(), "tokens of those calls"),
        column("work_usd", pa.float64(), "US dollars of those calls; null when a model has no price"),
        column("error_type", pa.string(), "kind of error"),
        column("error", pa.string(), "what went wrong"),
        column("turns", pa.int32(), "model calls of an agent's or a program's attempt that counts; null for other nodes, as are the next six"),
        column("tool_calls", pa.int32(), "tool calls of that attempt"),
        column("tool_errors", pa.int32(), "those of them that ended with an error, refused ones included"),
        column("calls_recorded", pa.int32(), "calls of all attempts that were answered from a recording in this run"),
        column("calls_refused", pa.int32(), "calls of all attempts that were refused in this run, since the tool is not available in a test"),
        column("diverged_at", pa.int32(), "number of the first call that left the recording; null where none did or nothing was recorded"),
        column("divergence", pa.string(), "JSON: that call, what the recording has in its place, and how they differ"),
    ],
    metadata={"beam_ray": "steps/1"},
)

PART = pa.schema(
    [*STEPS, column("call_rows", pa.list_(CALL), "the step's calls, which a merge moves to the table CALLS; null where it has none")],
    metadata={"beam_ray": "steps/1"},
)
"""The steps of an unfinished run, with their calls."""

OUTCOME = pa.schema(
    [
        column("run_id", pa.string(), "the run"),
        column("task_id", pa.string(), "the task"),
        column("trial", pa.int32(), "1 is the first"),
        column("outcome", pa.string(), "done, or failed when any step failed"),
        column("passed", pa.bool_(), "no step failed and every scored step passed"),
        column("score", pa.float64(), "mean of the scored steps' scores; null when none is scored"),
        column("first_score", pa.float64(), "the same over first attempts"),
        column("inputs", pa.string(), "digest of the task's query, variables and attachments"),
        column("labels", pa.list_(pa.string()), "the task's labels"),
        column("routes", pa.list_(pa.string()), "labels of the routes taken, in order"),
        column("path", pa.list_(pa.string()), "nodes that ran or were borrowed, in order"),
        column("output", pa.string(), "JSON: the outputs of the last nodes by name, tools that write left out"),
        column("steps_done", pa.int32(), "steps executed"),
        column("steps_borrowed", pa.int32(), "steps borrowed"),
        column("steps_failed", pa.int32(), "steps failed"),
        column("steps_skipped", pa.int32(), "steps skipped"),
        column("steps_unscored", pa.int32(), "steps with output and criteria but no score"),
        column("auto_reruns", pa.int32(), "attempts beyond the first, over all steps"),
        column("auto_rerun_tokens", pa.int64(), "tokens of those attempts, judges left out"),
        column("auto_rerun_usd", pa.float64(), "US dollars of those attempts, judges left out; null when a model has no price"),
        column("review", pa.bool_(), "some step is flagged for a person"),
        column("seconds", pa.float64(), "spent in models and tools, over all steps"),
        column("calls", pa.int32(), "model calls made, judges included"),
        column("input_tokens", pa.int64(), "of those calls"),
        column("output_tokens", pa.int64(), "of those calls"),
        column("usd", pa.float64(), "of those calls; null when a model has no price"),
        column("cached_tokens", pa.int64(), "input tokens read from the provider's cache; null when not reported"),
        column("reasoning_tokens", pa.int64(), "output tokens that were reasoning; null when not reported"),
        column("estimated_calls", pa.int32(), "calls without reported usage, whose tokens and usd are estimates"),
        column("work_seconds", pa.float64(), "what the task takes in model or tool, whoever paid for it"),
        column("work_calls", pa.int32(), "model calls that the task takes, whoever paid"),
        column("work_tokens", pa.int64(), "tokens of those calls"),
        column("work_usd", pa.float64(), "US dollars of those calls; null when a model has no price"),
        column("started_at", UTC, "when its first step began"),
        column("ended_at", UTC, "when its last step ended"),
        column("error", pa.string(), "the first failed step's error"),
        column(
            "turns", pa.int32(), "model calls of agents and programs, in the attempts that count; null where no step has any recorded, as are the next four"
        ),
        column("tool_calls", pa.int32(), "their tool calls"),
        column("tool_errors", pa.int32(), "those of them that ended with an error, refused ones included"),
        column("calls_recorded", pa.int32(), "calls answered from a recording in this run"),
        column("calls_refused", pa.int32(), "calls refused in this run"),
        column("diverged", pa.bool_(), "some step left its recording; null where nothing was recorded"),
    ],
    metadata={"beam_ray": "outcome/1"},
)

TASKS = pa.schema(
    [
        column("task_id", pa.string(), "names the task; pairs it with itself in other runs"),
        column("task_query", pa.string(), "the trigger input: the text, or JSON"),
        column("query_is_json", pa.bool_(), "the query is a JSON value and not a text"),
        column("variables", pa.string(), "JSON object"),
        column("expected", pa.string(), "JSON: the expected outcome; null when there is none"),
        column("labels", pa.list_(pa.string()), "free words"),
        column(
            "attachments",
            pa.list_(pa.struct([("name", pa.string()), ("sha256", pa.string()), ("media_type", pa.string()), ("bytes", pa.int64())])),
            "files, kept by content",
        ),
        column("inputs", pa.string(), "digest of query, variables, attachments and messages"),
        column("origin", pa.string(), "address of the task that this one redoes, or was saved from"),
        column("tests", pa.string(), "the node or route that it is there to test"),
        column("notes", pa.string(), "free text"),
        column("recorded", pa.string(), "JSON object: what production answered, of a task that was a trace; null for other tasks"),
        column(
            "changed_inputs", pa.string(), "JSON object: field to what it was and what it is, of a task that redoes another with changed input; null for others"
        ),
        column("messages", pa.string(), "JSON list: the turns of the conversation before the query; null when there is none"),
    ],
    metadata={"beam_ray": "tasks/1"},
)


class JudgementRow(TypedDict):
    """A JUDGEMENT struct as a dict."""

    judge: str
    met: bool | None
    reason: str


class CriterionRow(TypedDict):
    """A CRITERION struct as a dict."""

    id: str
    text: str
    met: bool | None
    reason: str
    judge: str | None
    weight: float
    judges: list[JudgementRow] | None


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
    """A row of PART as a dict, or of STEPS; the schema explains the columns."""

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
    turns: int | None
    tool_calls: int | None
    tool_errors: int | None
    calls_recorded: int | None
    calls_refused: int | None
    diverged_at: int | None
    divergence: str | None
    call_rows: NotRequired[list[CallRow] | None]
    """Only while the run goes on."""


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
    turns: int | None
    tool_calls: int | None
    tool_errors: int | None
    calls_recorded: int | None
    calls_refused: int | None
    diverged: bool | None


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
    messages: str | None


class FileEntry(TypedDict):
    """What a run's manifest says of one of its files."""

    name: str
    rows: int
    bytes: int
    sha256: str
    footer: NotRequired[str]
    """Digest of its footer, by which single row groups of it can be verified; not in stores of 0.1."""
    attachments: NotRequired[list[str]]
    """Of a node's first file of calls: the sha256 of the attachments that are requests and replies."""
