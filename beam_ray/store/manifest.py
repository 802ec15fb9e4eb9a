"""manifest.json of a finished run: its files, what it did and cost, a copy of run.json, and what was repaired."""

from typing import NotRequired, TypedDict

from beam_ray.define.fingerprint import JsonObject
from beam_ray.store.tables import FileEntry


class RunSummary(TypedDict):
    """A run in numbers; a row is one task and trial. Keys that need not be there are missing in manifests of version 0.1."""

    rows: int
    passed: int
    failed: int
    below: int
    """Rows without a failed step of which some score is below its threshold."""
    score: float | None
    first_score: float | None
    calls: int
    input_tokens: int
    output_tokens: int
    usd: float | None
    cached_tokens: NotRequired[int | None]
    """Input tokens read from the provider's cache; None where no call reported them."""
    reasoning_tokens: NotRequired[int | None]
    """Output tokens that were reasoning; None where no call reported them."""
    estimated_calls: NotRequired[int]
    """Calls without reported usage, whose tokens and price are estimates."""
    model_seconds: float
    auto_reruns: int
    auto_rerun_tokens: int
    auto_rerun_usd: float | None
    review: int
    steps_done: int
    steps_borrowed: int
    steps_failed: int
    steps_skipped: int
    steps_unscored: int
    started_at: str | None
    """ISO 8601, UTC; None in a run without rows."""
    ended_at: str | None
    seconds: float
    """From the start of the first step to the end of the last one."""


class CutDocument(TypedDict):
    """The content of cut.json, of a run that ended early."""

    shards: int
    """After how many it ended."""


class RepairEntry(TypedDict):
    """One repair of a finished run."""

    at: str
    files: list[str]
    """Names of the files that were replaced."""
    rows: int
    """Rows that were executed again."""
    repair_run: str | None
    calls: int
    usd: float | None


class Manifest(TypedDict):
    """The content of manifest.json."""

    format: int
    run_id: str
    finished_at: str | None
    files: list[FileEntry]
    usage: RunSummary
    record: JsonObject
    """run.json as it was written: a ``RunRecord`` of the version that wrote it."""
    repairs: NotRequired[list[RepairEntry]]
