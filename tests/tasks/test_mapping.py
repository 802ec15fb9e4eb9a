"""Files with columns of any name, such as a data set's Parquet, as tasks by a mapping."""

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import beam_ray
from beam_ray.errors import BadDefinition
from tests.commands import run_command

ROWS = [
    {"question": f"What is {number} + 1?", "answer": str(number + 1), "level": number, "topic": "sums", "reply": f"It is {number + 1}."} for number in range(3)
]
MAPPING = {"task_query": "question", "expected": "answer,level", "variables": "topic", "recorded": "reply"}


def parquet(path: Path) -> None:
    when = datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC)
    pq.write_table(pa.Table.from_pylist([{**row, "when": when, "image": {"bytes": b"\x89", "path": "a.png"}} for row in ROWS]), path)


def jsonl(path: Path) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))


def csv(path: Path) -> None:
    lines = [",".join(ROWS[0]), *(",".join(str(value) for value in row.values()) for row in ROWS)]
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(("write", "suffix"), [(parquet, ".parquet"), (jsonl, ".jsonl"), (csv, ".csv")])
def test_columns_become_fields(tmp_path: Path, write: Callable[[Path], None], suffix: str) -> None:
    """
    Several columns make an object, one column an object of itself, and recorded outputs of one column are the output.
    """
    path = tmp_path / f"data{suffix}"
    write(path)
    store = beam_ray.open(tmp_path / "store", models={})

    store.add_to_library("sums", beam_ray.Tasks(path, MAPPING))
    task: dict[str, Any] = store.library("sums").tasks.to_pylist()[1]

    assert task["task_query"] == "What is 1 + 1?"
    assert json.loads(task["expected"]) in ({"answer": "2", "level": 1}, {"answer": "2", "level": "1"})
    assert json.loads(task["variables"]) == {"topic": "sums"}
    assert json.loads(task["recorded"]) == {"output": "It is 2."}


def test_times_and_queries_of_several_columns(tmp_path: Path) -> None:
    """
    A query of several columns is an object, and a time is written as ISO 8601.
    """
    parquet(tmp_path / "data.parquet")
    store = beam_ray.open(tmp_path / "store", models={})

    store.add_to_library("sums", beam_ray.Tasks(tmp_path / "data.parquet", {"task_query": "question,topic", "variables": "when"}))
    task = store.library("sums").tasks.to_pylist()[0]

    assert json.loads(task["task_query"]) == {"question": "What is 0 + 1?", "topic": "sums"}
    assert json.loads(task["variables"]) == {"when": "2026-11-01T00:00:00+00:00"}


def test_an_object_stays_what_it_is(tmp_path: Path) -> None:
    """
    A column that holds an object, or the JSON of one, is the field as it stands.
    """
    rows = [{"q": "a", "gold": {"team": "x"}}, {"q": "b", "gold": '{"team": "y"}'}]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    store = beam_ray.open(tmp_path / "store", models={})

    store.add_to_library("set", beam_ray.Tasks(tmp_path / "data.jsonl", {"task_query": "q", "expected": "gold"}))

    assert [json.loads(text) for text in store.library("set").tasks["expected"].to_pylist()] == [{"team": "x"}, {"team": "y"}]


def test_a_column_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """
    A column that no row has is refused once, with the columns that there are.
    """
    parquet(tmp_path / "data.parquet")
    words = ("--map", "task_query=question", "--map", "expected=answr")

    done = run_command(capsys, "library", "import", "sums", tmp_path / "data.parquet", *words, "--store", tmp_path / "store")

    assert done.code == 2
    assert done.err.count("'answr'") == 1
    assert "did you mean 'answer'" in done.err
    with pytest.raises(BadDefinition):
        beam_ray.open(tmp_path / "store", models={}).add_to_library("sums", beam_ray.Tasks(tmp_path / "data.parquet", {"task_query": "questin"}))
