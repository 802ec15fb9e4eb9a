"""The table of reviews: what people said of outputs."""

import datetime
from typing import TypedDict

import pyarrow as pa

from beam_ray.store.columns import UTC, column

REVIEWS = pa.schema(
    [
        column("review_id", pa.string(), "names the review"),
        column("workflow", pa.string(), "the workflow's name"),
        column("node", pa.string(), "the node whose output was reviewed"),
        column("criterion", pa.string(), "id of the criterion within its node"),
        column("criterion_version", pa.string(), "digest of what must hold: its text or its rule"),
        column("text", pa.string(), "what must hold, as the reviewer read it"),
        column("address", pa.string(), "the step whose output was reviewed: RUN/TASK/NODE"),
        column("output_digest", pa.string(), "digest of that output"),
        column("met", pa.bool_(), "what the reviewer said; null when they could not tell"),
        column("comment", pa.string(), "the reviewer's comment; null without one"),
        column("reviewer", pa.string(), "who said so"),
        column("reviewed_at", UTC, "when"),
        column("drawn", pa.string(), "how the output came to be reviewed: random, balanced, flagged, disagreed or chosen"),
        column("seed", pa.int64(), "seed of the sample; null where nothing was drawn at random"),
        column("sample", pa.int64(), "outputs in the sample; null where nothing was drawn at random"),
        column("population", pa.int64(), "outputs that the sample was drawn from; null where nothing was drawn at random"),
        column("probability", pa.float64(), "chance of this output to be in the sample; null where nothing was drawn at random"),
        column("hidden", pa.bool_(), "the judge's word was hidden from the reviewer"),
        column("judge", pa.string(), "the model or models that judged; null for a rule"),
        column("judge_version", pa.string(), "digest of the judging models with their settings, and of all that they were asked together"),
        column("judge_met", pa.bool_(), "what the judge or the rule had said of the output; null when it could not decide"),
    ],
    metadata={"beam_ray": "reviews/1"},
)


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
