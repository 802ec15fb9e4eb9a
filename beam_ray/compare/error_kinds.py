"""What kind of error a failed step is: a timeout, a refusal, a bad answer, a tool's error, or another."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_ray.compare.pairs import Pairs, numbers

KINDS = ("timeouts", "refusals", "bad_answers", "other_errors")
"""Names of the metrics; ``tool_errors`` are all errors of tools, their timeouts among them."""
_BY_TYPE: Mapping[str, str] = {"ModelRefused": "refusals", "BadAnswer": "bad_answers", "ToolFailed": "tool_errors"}
_TIMED_OUT = {
    "ModelUnavailable": re.compile(r"^no answer within |\btimed? ?out\b|\b(408|504)\b", re.IGNORECASE),
    # our own limit, or an exception of the tool such as httpx.ReadTimeout
    "ToolFailed": re.compile(r"^\S+ took longer than |^\S+: [\w.]*(Timeout|TimedOut)\w*\b"),
    "FailedInProduction": re.compile(r"timed? ?out", re.IGNORECASE),
}


def error_kind(error_type: str | None, message: str | None) -> str:
    """The metric that counts a failed step with this error."""
    timed_out = _TIMED_OUT.get(error_type or "")
    if timed_out and timed_out.search(message or ""):
        return "timeouts"
    return _BY_TYPE.get(error_type or "", "other_errors")


def failed_by_kind(pairs: Pairs, failed: pa.Table) -> Mapping[str, np.ndarray[Any, Any]]:
    """For each kind which pairs have one of the *failed* steps, as placed, that failed so."""
    flags = {kind: np.zeros(len(pairs), dtype=bool) for kind in KINDS}
    failed = failed.filter(pc.greater_equal(failed["pair"], 0))
    for row, error_type, message in zip(numbers(failed["pair"]).tolist(), failed["error_type"].to_pylist(), failed["error"].to_pylist(), strict=True):
        kind = error_kind(error_type, message)
        if kind in flags:
            flags[kind][row] = True
    return flags
