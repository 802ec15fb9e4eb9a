"""Traces saved in a library by a command, and run from there."""

import json
from pathlib import Path
from typing import Any

import pytest

import beam_ray
from beam_ray.errors import Unusable


def chats(path: Path, count: int) -> Path:
    turns = [[{"role": "user", "content": f"question {number} from a@b.c"}, {"role": "assistant", "content": f"answer {number}"}] for number in range(count)]
    path.write_text("".join(json.dumps({"id": f"c{number}", "messages": each}) + "\n" for number, each in enumerate(turns)))
    return path


def test_a_sample_of_traces_becomes_a_library(tmp_path: Path) -> None:
    """
    Ten of forty chats are saved with their answers as expected outcome and as recorded, and read back as tasks.
    """
    store = beam_ray.open(tmp_path / "store", models={})

    done = store.import_traces("chats", f"openai:{chats(tmp_path / 'chats.jsonl', 40)}", options=beam_ray.TraceOptions(sample=10))
    rows: list[dict[str, Any]] = store.library("chats").tasks.to_pylist()

    assert (done.traces, len(rows)) == (40, 10)
    assert json.loads(rows[0]["expected"]) == {"text": json.loads(rows[0]["recorded"])["output"]}
    assert rows[0]["task_query"].startswith("question ")


def test_redaction_happens_before_anything_is_stored(tmp_path: Path) -> None:
    """
    No file of the store has what the function removed.
    """
    store = beam_ray.open(tmp_path / "store", models={})
    options = beam_ray.TraceOptions(redact=lambda text: text.replace("a@b.c", "EMAIL"))

    store.import_traces("chats", f"openai:{chats(tmp_path / 'chats.jsonl', 3)}", options=options)

    assert "EMAIL" in store.library("chats").tasks["task_query"][0].as_py()
    assert not any(b"a@b.c" in path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("source", "says"), [("otl:x", "did you mean 'otel'"), ("openai", "is no source of traces"), ("openai:nothing.jsonl", "there is no such file")]
)
def test_sources_that_are_none(tmp_path: Path, source: str, says: str) -> None:
    """
    An unknown format or a missing file is refused with what may be written.
    """
    with pytest.raises(Unusable, match=says):
        beam_ray.open(tmp_path / "store", models={}).import_traces("x", source)
