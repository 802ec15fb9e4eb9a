"""Conversations in tasks: files of every kind, and the shapes in which other systems write the same turns."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_ray.store.opening import open_objects
from beam_ray.tasks.messages import TaskMessage, no_images, read_messages
from beam_ray.tasks.parse import read_tasks
from beam_ray.tasks.sources import Tasks
from beam_ray.tasks.sources import read as gather
from beam_ray.tasks.traces.trace import conversation

TURNS = [{"role": "user", "content": 'hello, "you"'}, {"role": "assistant", "content": "hi\nthere"}]
ROW = {"id": "a", "task_query": "and now?", "messages": TURNS}
CELLS = {**ROW, "messages": json.dumps(TURNS)}


def workbook() -> bytes:
    book = openpyxl.Workbook()
    book.active.append(list(CELLS))
    book.active.append(list(CELLS.values()))
    body = io.BytesIO()
    book.save(body)
    return body.getvalue()


def parquet(row: dict[str, Any]) -> bytes:
    body = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([row]), body)
    return body.getvalue()


FILES = {
    "tasks.jsonl": json.dumps(ROW).encode(),
    "tasks.json": json.dumps([ROW]).encode(),
    "tasks.csv": pd.DataFrame([CELLS]).to_csv(index=False).encode(),
    "tasks.tsv": pd.DataFrame([CELLS]).to_csv(index=False, sep="\t").encode(),
    "tasks.xlsx": workbook(),
    "text.parquet": parquet(CELLS),
    "lists.parquet": parquet(ROW),
}


def read(tmp_path: Path, name: str, body: bytes) -> dict[str, Any]:
    """The only task of a file."""
    (tmp_path / name).write_bytes(body)
    return read_tasks(tmp_path / name, open_objects(str(tmp_path / "store"))).to_pylist()[0]


@pytest.mark.parametrize("name", sorted(FILES))
def test_every_kind_of_file_holds_conversations(tmp_path: Path, name: str) -> None:
    """As a list, or as JSON in a cell: the task is the same."""
    task, same = read(tmp_path, name, FILES[name]), read(tmp_path, "same.jsonl", FILES["tasks.jsonl"])

    assert json.loads(task["messages"]) == TURNS
    assert task["inputs"] == same["inputs"]


def test_data_frames_hold_conversations(tmp_path: Path) -> None:
    """As Python lists in a column."""
    tasks, _ = gather(open_objects(str(tmp_path / "store")), Tasks(pd.DataFrame([ROW, {"id": "b", "task_query": "x"}])))

    assert [json.loads(written or "null") for written in tasks["messages"].to_pylist()] == [TURNS, None]


def test_a_conversation_alone_ends_in_the_query(tmp_path: Path) -> None:
    """A line of a chat file is a task: the last turn of the user is what is asked."""
    task = read(tmp_path, "chat.jsonl", json.dumps({"messages": [*TURNS, {"role": "user", "content": [{"type": "text", "text": "well?"}]}]}).encode())

    assert (task["task_query"], json.loads(task["messages"])) == ("well?", TURNS)


def test_tasks_without_a_conversation_keep_their_digest(tmp_path: Path) -> None:
    """Whatever was paired by it before is still the same task."""
    task = read(tmp_path, "tasks.jsonl", b'{"id": "a", "task_query": "x", "messages": []}')

    assert (task["messages"], task["inputs"]) == (None, "06aaf66750872f518a64ef64532e8069")


def test_an_image_is_kept_once_among_the_attachments(tmp_path: Path) -> None:
    """In base64 or as a file, and listed as an attachment too."""
    (tmp_path / "scan.png").write_bytes(b"image")
    url = f"data:image/png;base64,{base64.b64encode(b'image').decode()}"
    shown = [{"type": "image_url", "image_url": {"url": address}} for address in (url, "scan.png")]
    body = json.dumps({"task_query": "x", "attachments": ["scan.png"], "messages": [{"role": "user", "content": shown}]}).encode()
    task = read(tmp_path, "tasks.jsonl", body)
    [kept] = task["attachments"]

    assert kept["name"] == "scan.png"
    assert [part["image_url"]["url"] for part in json.loads(task["messages"])[0]["content"]] == [f"attachment:{kept['sha256']}"] * 2


CALL = {"role": "assistant", "content": "", "tool_calls": [{"id": "c1", "name": "find", "arguments": '{"number": 7}'}]}
RESULT: TaskMessage = {"role": "tool", "content": "none", "tool_call_id": "c1", "name": "find"}

FOREIGN = {
    "openai": [
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"number": 7}'}}]},
        {"role": "tool", "tool_call_id": "c1", "content": "none"},
    ],
    "langchain": [
        {"role": "ai", "content": "", "tool_calls": [{"name": "find", "args": {"number": 7}, "id": "c1", "type": "tool_call"}]},
        {"role": "tool", "name": "find", "tool_call_id": "c1", "content": "none"},
    ],
    "blocks": [
        {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "find", "input": {"number": 7}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "none"}]}]},
    ],
    "otel": [
        {"role": "assistant", "parts": [{"type": "tool_call", "id": "c1", "name": "find", "arguments": {"number": 7}}]},
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": "none"}]},
    ],
}


@pytest.mark.parametrize("system", sorted(FOREIGN))
def test_calls_of_tools_have_one_form(system: str) -> None:
    """Whichever system wrote them."""
    assert read_messages(FOREIGN[system], no_images) == [CALL, RESULT]


def test_what_is_read_is_read_again_unchanged() -> None:
    """The stored form is one that is read."""
    assert read_messages(read_messages(FOREIGN["blocks"], no_images), no_images) == [CALL, RESULT]


@pytest.mark.parametrize(("role", "known"), [("human", "user"), ("ai", "assistant"), ("gpt", "assistant"), ("developer", "system"), ("Assistant", "assistant")])
def test_roles_of_other_systems(role: str, known: str) -> None:
    """Both as role and content, and as from and value."""
    assert [read_messages([turn], no_images)[0]["role"] for turn in ({"role": role, "content": "x"}, {"from": role, "value": "x"})] == [known, known]


def test_traces_keep_what_models_cannot_be_shown_as_words() -> None:
    """A trace of production is never refused for a sound, an image elsewhere, or an empty turn."""
    parts = [{"type": "input_audio"}, {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}, {"type": "text", "text": "so"}]

    assert conversation([{"role": "user", "content": parts}, {"role": "assistant", "content": ""}, {"role": "robot", "content": {"x": 1}}]) == [
        {"role": "user", "content": "[input_audio]\n[image: https://example.com/a.png]\nso"},
        {"role": "user", "content": '{"x": 1}'},
    ]
