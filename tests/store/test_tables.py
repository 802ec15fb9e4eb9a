"""Tables: explicit schemas, and bytes that tell when they were changed."""

import random
from datetime import datetime
from typing import Any, get_args, get_type_hints

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_ray.errors import Damaged
from beam_ray.store.call_table import CALL, CALLS, CallRow, PlacedCallRow
from beam_ray.store.parquet import ROW_GROUP, decode, encode, encode_batches, salvage, to_table
from beam_ray.store.review_table import REVIEWS, ReviewRow
from beam_ray.store.tables import (
    ATTEMPT,
    CRITERION,
    JUDGEMENT,
    OUTCOME,
    PART,
    STEPS,
    TASKS,
    AttachmentRow,
    AttemptRow,
    CriterionRow,
    JudgementRow,
    OutcomeRow,
    StepRow,
    TaskRow,
)


def body(rows: int = 200) -> bytes:
    """A part with some rows."""
    return encode(
        STEPS,
        [
            {"run_id": "r", "task_id": f"t{index}", "node": "n", "output": f'{{"text": "{random.Random(index).random()}"}}', "score": index / 2}
            for index in range(rows)
        ],
    )


def python_type(kind: pa.DataType) -> Any:
    """What rows of this column hold in Python, where they are not null."""
    if pa.types.is_list(kind):
        return list[python_type(kind.value_type)]
    if pa.types.is_struct(kind):
        return next(
            (row for struct, row in ((ATTEMPT, AttemptRow), (CRITERION, CriterionRow), (JUDGEMENT, JudgementRow), (CALL, CallRow)) if kind.equals(struct)),
            AttachmentRow,
        )
    types = [
        (pa.types.is_string, str),
        (pa.types.is_boolean, bool),
        (pa.types.is_integer, int),
        (pa.types.is_floating, float),
        (pa.types.is_timestamp, datetime),
    ]
    return next(found for is_kind, found in types if is_kind(kind))


@pytest.mark.parametrize(
    ("schema", "row"),
    [
        (JUDGEMENT, JudgementRow),
        (CRITERION, CriterionRow),
        (ATTEMPT, AttemptRow),
        (PART, StepRow),
        (CALLS, PlacedCallRow),
        (OUTCOME, OutcomeRow),
        (TASKS, TaskRow),
        (REVIEWS, ReviewRow),
    ],
)
def test_the_typed_rows_have_the_columns_of_their_schema(schema: Any, row: type):
    """Names, order and types: a column that is added to one must be added to the other."""
    hints = get_type_hints(row)
    written = {
        name: next((each for each in get_args(hint) if each is not type(None)), hint) if type(None) in get_args(hint) else hint for name, hint in hints.items()
    }

    assert list(written.items()) == [(field.name, python_type(field.type)) for field in schema]


def test_every_column_says_what_it_means():
    """The schema is its own documentation."""
    assert [field.name for schema in (PART, CALLS, TASKS, REVIEWS) for field in schema if field.metadata is None and field.name != "attachments"] == []


def test_equal_rows_give_equal_bytes():
    """Two drivers that finish the same run agree to the byte."""
    assert body() == body()


def test_a_flipped_bit_is_always_noticed():
    """Each of 1,000 single-bit flips, wherever it is."""
    whole, chance = body(), random.Random(7)
    for _ in range(1_000):
        flipped = bytearray(whole)
        flipped[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        with pytest.raises(Damaged):
            decode(bytes(flipped), STEPS, "part")


def test_the_sound_pieces_of_a_damaged_file_can_still_be_read():
    """One flipped bit costs the piece that it is in; in the footer it costs the file."""
    pieces = [to_table(STEPS, [{"run_id": "r", "task_id": f"t{piece}-{row}"} for row in range(ROW_GROUP)]) for piece in range(3)]
    [(whole, rows)] = encode_batches(STEPS, pieces, 10**9)
    flipped = bytearray(whole)
    flipped[len(whole) * 2 // 5] ^= 1
    found = list(salvage(bytes(flipped), STEPS, "steps"))
    flipped = bytearray(whole)
    flipped[-200] ^= 1

    assert rows == 3 * ROW_GROUP and [count for count, _ in found] == [ROW_GROUP] * 3
    lost = [number for number, (_, table) in enumerate(found) if table is None]
    assert len(lost) == 1
    assert all(table.equals(pieces[number]) for number, (_, table) in enumerate(found) if number not in lost)
    with pytest.raises(Damaged, match="its footer is not what was written"):
        list(salvage(bytes(flipped), STEPS, "steps"))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_a_truncated_part_is_named(share):
    """The place is in the message."""
    whole = body()

    with pytest.raises(Damaged, match="runs/x/parts/n/000000.parquet is damaged"):
        decode(whole[: int(len(whole) * share)], STEPS, "runs/x/parts/n/000000.parquet")


@settings(deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=())))
def test_any_text_can_be_kept(text):
    """Lone surrogates become question marks, as UTF-8 cannot hold them; everything else stays."""
    kept = decode(encode(STEPS, [{"output": text}]), STEPS, "x")["output"].to_pylist()

    assert kept == [text.encode("utf-8", "replace").decode()]


def test_a_first_part_of_nulls_decides_no_type():
    """The schema is explicit, so shards always fit together."""
    assert decode(encode(STEPS, [{"run_id": "r"}]), STEPS, "x").schema.types == STEPS.types


def test_columns_added_later_read_as_null():
    """A file written before columns and fields of a struct were added is read with nulls in them."""
    attempt = pa.struct([field for field in ATTEMPT if field.name != "seed"])
    older = pa.schema(
        [field.with_type(pa.list_(attempt)) if field.name == "attempts" else field for field in STEPS if field.name not in ("waited", "error")],
        metadata=STEPS.metadata,
    )
    written = encode(older, [{"run_id": "r", "task_id": "t", "node": "n", "attempts": [{"number": 1, "usd": 0.5, "criteria": []}]}])

    row = decode(written, STEPS, "part").to_pylist()[0]

    assert (row["waited"], row["error"]) == (None, None)
    assert row["attempts"] == [{name: {"number": 1, "usd": 0.5, "criteria": []}.get(name) for name in ATTEMPT.names}]


def test_another_type_of_a_column_is_refused():
    """A file whose column has another type is not of this version."""
    other = STEPS.set(STEPS.get_field_index("score"), pa.field("score", pa.string()))

    with pytest.raises(Damaged, match="other columns"):
        decode(encode(other, [{"run_id": "r"}]), STEPS, "part")
