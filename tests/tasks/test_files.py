"""Tasks from files of every kind, several at once, from S3 and standard input, and from data frames."""

import gzip
import io
import json
import sys
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import beam_ray
from beam_ray.errors import BadDefinition, Unusable
from beam_ray.store.opening import open_objects
from tests.commands import CommandResult, run_command

ROWS = [
    {"id": "a", "task_query": "x, y", "expected": {"n": 1}, "labels": ["l"]},
    {"id": "b", "task_query": 'two\nlines and "quotes"', "expected": {"m": 2}, "labels": ["l", "k"]},
]
CELLS = [
    ["id", "task_query", "expected", "labels"],
    *([row["id"], row["task_query"], json.dumps(row["expected"]), ", ".join(row["labels"])] for row in ROWS),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def cli(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., CommandResult]:
    """The command line in the working folder."""
    monkeypatch.setenv("BEAM_RAY_STORE", "store")
    return partial(run_command, capsys)


def read(source: Any, **options: Any) -> list[dict[str, Any]]:
    """The tasks as a store keeps them."""
    found = beam_ray.open("store").add_to_library(f"l{uuid.uuid4().hex}", beam_ray.Tasks(source, **options)).library.tasks.to_pylist()
    return [
        {"id": row["task_id"], "task_query": row["task_query"], "expected": json.loads(row["expected"] or "null"), "labels": row["labels"]} for row in found
    ]


def json_lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def separated(cells: list[list[str]], sign: str) -> bytes:
    return "".join(sign.join('"' + cell.replace('"', '""') + '"' for cell in row) + "\n" for row in cells).encode()


def workbook(cells: list[list[Any]], title: str = "Sheet", **more: list[list[Any]]) -> bytes:
    book = openpyxl.Workbook()
    book.active.title = title
    sheets = {title: cells, **more}
    for name, rows in sheets.items():
        sheet = book.active if name == title else book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    body = io.BytesIO()
    book.save(body)
    return body.getvalue()


def parquet(rows: list[dict[str, Any]]) -> bytes:
    body = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), body)
    return body.getvalue()


FILES = {
    "t.jsonl": json_lines(ROWS),
    "t.jsonl.gz": gzip.compress(json_lines(ROWS)),
    "t.json": json.dumps(ROWS, indent=2).encode(),
    "t.json.gz": gzip.compress(json.dumps(ROWS).encode()),
    "lines.json": json_lines(ROWS),
    "t.csv": separated(CELLS, ","),
    "t.csv.gz": gzip.compress(separated(CELLS, ",")),
    "t.tsv": separated(CELLS, "\t"),
    "t.parquet": parquet(ROWS),
    "t.xlsx": workbook(CELLS),
}


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_says_the_same(folder: Path, name: str) -> None:
    """
    The same tasks come from a file of each kind.
    """
    (folder / name).write_bytes(FILES[name])

    assert read(name) == ROWS


def test_a_long_json_document_is_read_piece_by_piece(folder: Path) -> None:
    """
    Tasks that lie across the pieces in which a document is read are whole, and the place of a later fault is right.
    """
    rows = [{"id": f"t{number}", "task_query": "é" * (number * 700)} for number in range(1, 200)]
    (folder / "t.json").write_text(json.dumps(rows, indent=1, ensure_ascii=False))
    (folder / "bad.json").write_text(json.dumps([*rows, {"task_query": 5}], indent=1, ensure_ascii=False))

    assert [row["task_query"] for row in read("t.json")] == [row["task_query"] for row in rows]
    with pytest.raises(BadDefinition, match=rf"^bad.json:{2 + 4 * len(rows) + 1}:3: 'task_query' is a text or an object, not 5"):
        read("bad.json")


def test_cells_of_a_workbook_are_text(folder: Path) -> None:
    """
    Numbers, dates and truth values come as a CSV file would have them, and empty rows count.
    """
    (folder / "t.xlsx").write_bytes(
        workbook([["id", "task_query", "notes"], [7, 12.0, None], [], [8, True, "n"], [9, pd.Timestamp("2026-11-29").to_pydatetime()]])
    )

    assert [(row["id"], row["task_query"]) for row in read("t.xlsx")] == [("7", "12"), ("8", "true"), ("9", "2026-11-29")]


@pytest.mark.parametrize(
    ("name", "body", "said"),
    [
        ("t.xlsx", workbook([["id", "task_query"], ["a", "x"], [], ["a", "y"]]), "t.xlsx, sheet Sheet, row 4: the id 'a' stands here and in row 2"),
        ("t.xlsx", workbook([["id", "query"], ["a", "x"]]), "t.xlsx, sheet Sheet: the header has no 'task_query'"),
        ("t.xlsx", workbook([["task_query"]], "One", Two=[["task_query"]]), "t.xlsx: it has several sheets: One, Two; name one of them: t.xlsx#One"),
        ("t.xlsx", b"no workbook", "t.xlsx: not an Excel workbook (.xlsx), or a damaged one (File is not a zip file)"),
        ("t.jsonl.gz", gzip.compress(json_lines(ROWS))[:-9], "t.jsonl.gz: the gzip file is cut off or damaged"),
        ("t.csv.gz", b"id,task_query\n", "t.csv.gz: the gzip file is cut off or damaged (Not a gzipped file"),
        ("t.jsonl.gz", gzip.compress(json_lines([{"task_query": ""}])), "t.jsonl.gz:1:2: the task's 'task_query' is empty"),
        ("t.parquet.gz", b"", "t.parquet.gz: a tasks file ends in .jsonl, "),
        ("t.txt", b"", "t.txt: a tasks file ends in .jsonl, "),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_broken_file_is_named_with_its_place(folder: Path, name: str, body: bytes, said: str) -> None:
    """
    The message begins with the file, and where there is one with sheet and row, or line and column.
    """
    (folder / name).write_bytes(body)

    with pytest.raises(Unusable) as caught:
        read(name)
    assert str(caught.value).startswith(said)


def test_a_sheet_is_named_after_the_file(folder: Path) -> None:
    """
    ``book.xlsx#SHEET`` reads that sheet, and a sheet that is not there is refused with those that are.
    """
    (folder / "t.xlsx").write_bytes(workbook([["task_query"], ["x"]], "One", Two=[["task_query"], ["y"]]))

    assert [row["task_query"] for row in read("t.xlsx#Two")] == ["y"]
    with pytest.raises(BadDefinition, match=r"^t.xlsx: there is no sheet 'Three'; it has One, Two"):
        read("t.xlsx#Three")


def test_without_openpyxl_the_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    One line says what to install.
    """
    (folder / "t.xlsx").write_bytes(FILES["t.xlsx"])
    monkeypatch.setitem(sys.modules, "openpyxl", None)

    with pytest.raises(Unusable, match=r"^t.xlsx: Excel workbooks are read by openpyxl, which is not installed: pip install 'beam-ray\[excel\]'$"):
        read("t.xlsx")


# -- several files ------------------------------------------------------------------------


@pytest.fixture
def many(folder: Path) -> Path:
    """A folder with three files of tasks, and a file that is none."""
    (folder / "data" / "deep").mkdir(parents=True)
    (folder / "data" / "b.jsonl").write_bytes(json_lines([{"id": "b", "task_query": "x"}]))
    (folder / "data" / "a.csv").write_bytes(b"id,task_query\na,x\n")
    (folder / "data" / "c.json").write_bytes(b'[{"id": "c", "task_query": "x"}]')
    (folder / "data" / "readme.md").write_bytes(b"# mine")
    (folder / "data" / "deep" / "d.jsonl").write_bytes(json_lines([{"id": "d", "task_query": "x"}]))
    return folder


@pytest.mark.parametrize(
    ("source", "ids"),
    [
        ("data", "abc"),
        ("data/*.jsonl", "b"),
        ("data/**/*.json*", "bcd"),
        (["data/c.json", Path("data/a.csv")], "ca"),
        (["data/deep", "data/[ab].*"], "dab"),
    ],
)
def test_several_files_are_one_set_of_tasks(many: Path, source: Any, ids: str) -> None:
    """
    A folder, a pattern and a list give the tasks of all their files, sorted by name within each.
    """
    assert "".join(row["id"] for row in read(source)) == ids


def test_the_number_of_files_is_said(many: Path, cli: Callable[..., CommandResult]) -> None:
    """
    A plan names the sources, and says how many files a folder or a pattern stands for; the command for the run repeats them.
    """
    (many / "w.yaml").write_text("workflow: w\nmodel: m\nnodes: {a: {llm: {prompt: '{{ task_query }}'}}}\n")
    (many / "m.yaml").write_text("m: {base_url: 'http://127.0.0.1:9/v1', model: x}\n")
    one = cli("plan", "w.yaml", "--models", "m.yaml", "--tasks", "data")
    two = cli("plan", "w.yaml", "--models", "m.yaml", "--tasks", "data/a.csv", "--tasks", "data/deep/*")

    assert one.out.startswith("w · 3 tasks from data (3 files)\n")
    assert two.out.startswith("w · 2 tasks from 2 sources: data/a.csv, data/deep/* (1 file)\n")
    assert two.out.endswith("run it:  beam-ray run w.yaml --tasks data/a.csv --tasks 'data/deep/*' --store store\n")


def test_ids_differ_across_files(many: Path) -> None:
    """
    A task in two files is refused with both places, and so is one in a file and a library.
    """
    (many / "again.jsonl").write_bytes(json_lines([{"task_query": "x"}, {"id": "a", "task_query": "y"}]))

    with pytest.raises(BadDefinition, match=r"^again.jsonl:2:2: the id 'a' stands here and in data/a.csv:2; ids must differ$"):
        read(["data", "again.jsonl"])
    beam_ray.open("store").add_to_library("kept", beam_ray.Tasks("data/a.csv"))
    with pytest.raises(BadDefinition, match=r"^again.jsonl:2:2: the id 'a' stands here and in library:kept@1; ids must differ$"):
        read(["library:kept", "again.jsonl"])
    with pytest.raises(BadDefinition, match=r"^library:kept@1: the id 'a' stands here and in again.jsonl:2; ids must differ$"):
        read(["again.jsonl", "library:kept"])


def test_a_limit_counts_over_all_files(many: Path) -> None:
    """
    The first tasks of the first files are taken.
    """
    assert [row["id"] for row in read("data", limit=2)] == ["a", "b"]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("empty", "empty: there are no tasks files in this folder; they end in .jsonl, "),
        ("data/*.tsv", "data/*.tsv: no file matches this pattern"),
        ("data/*.md", "data/readme.md: a tasks file ends in .jsonl, "),
        ("data/a.cvs", "data/a.cvs: a tasks file ends in .jsonl, "),
        ("data/aa.csv", "data/aa.csv: there is no such file\n  did you mean 'a.csv'?"),
    ],
)
def test_what_names_no_file_is_refused(many: Path, source: str, said: str) -> None:
    """
    One line says what is missing.
    """
    (many / "empty").mkdir()

    with pytest.raises(Unusable) as caught:
        read(source)
    assert str(caught.value).startswith(said)


def test_a_list_in_a_spec_is_read_beside_it(many: Path, cli: Callable[..., CommandResult]) -> None:
    """
    A backtest takes several sources, relative to its spec.
    """
    (many / "w.yaml").write_text("workflow: w\nmodel: m\nnodes: {a: {llm: {prompt: '{{ task_query }}'}}}\n")
    (many / "m.yaml").write_text("m: {base_url: 'http://127.0.0.1:9/v1', model: x}\n")
    (many / "data" / "spec.yaml").write_text(
        "backtest: b\nworkflow: ../w.yaml\nbaseline: ../w.yaml\ntasks: [a.csv, deep]\ncandidates: {v2: {nodes.a.llm.prompt: 'better {{ task_query }}'}}\n"
    )

    assert cli("plan", "data/spec.yaml", "--models", "m.yaml").out.startswith("baseline: 2 tasks\n")


# -- S3 -----------------------------------------------------------------------------------


def test_tasks_are_read_from_s3(folder: Path, s3_uri: str) -> None:
    """
    A file with its attachment, a folder and a pattern on S3 are read by the store's own client; what is not there is named.
    """
    objects = open_objects(s3_uri)
    objects.put("data/a.jsonl", json_lines([{"id": "a", "task_query": "x", "attachments": ["files/note.txt"]}]))
    objects.put("data/b.csv.gz", gzip.compress(b"id,task_query\nb,x\n"))
    objects.put("data/files/note.txt", b"a note")
    objects.put("data/files/c.jsonl", json_lines([{"id": "c", "task_query": "x"}]))
    objects.put("bad/d.jsonl", json_lines([{"task_query": "x"}, {"task_query": "x", "attachments": ["../data/a.jsonl"]}]))
    store = beam_ray.open("store")
    (kept,) = store.add_to_library("s3", beam_ray.Tasks(f"{s3_uri}/data/a.jsonl")).library.tasks["attachments"].to_pylist()[0]

    assert store.objects.read(f"attachments/{kept['sha256']}") == b"a note"
    assert [row["id"] for row in read(f"{s3_uri}/data/")] == ["a", "b"]
    assert [row["id"] for row in read([f"{s3_uri}/data/*.gz", f"{s3_uri}/data/**.jsonl"])] == ["b", "a", "c"]
    with pytest.raises(Unusable, match=rf"^{s3_uri}/data/none.jsonl: there is no such object$"):
        read(f"{s3_uri}/data/none.jsonl")
    with pytest.raises(Unusable, match=rf"^{s3_uri}/none/: there are no tasks files$"):
        read(f"{s3_uri}/none/")
    with pytest.raises(BadDefinition, match=rf"^{s3_uri}/bad/d.jsonl:2:21: the attachment '../data/a.jsonl' lies outside the folder of the tasks file"):
        read(f"{s3_uri}/bad/d.jsonl")


# -- standard input -----------------------------------------------------------------------


class Pipe(io.RawIOBase):
    """A pipe: it gives its bytes once."""

    def __init__(self, body: bytes):
        self.body = body

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece, self.body = self.body[: len(buffer)], self.body[len(buffer) :]
        buffer[: len(piece)] = piece
        return len(piece)


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Puts bytes on standard input."""
    return lambda body: monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(Pipe(body))))


@pytest.mark.parametrize("name", FILES)
def test_standard_input_is_read_by_what_it_holds(folder: Path, pipe: Callable[[bytes], None], name: str) -> None:
    """
    A file of each kind can be piped in.
    """
    pipe(FILES[name])

    assert read("-") == ROWS


def test_standard_input_is_read_once(folder: Path, pipe: Callable[[bytes], None]) -> None:
    """
    What is needed twice, such as for a plan and its run, is there the second time.
    """
    pipe(FILES["t.jsonl"])

    assert read("-") == read("-") == ROWS


def test_standard_input_that_is_wrong_is_named(pipe: Callable[[bytes], None], cli: Callable[..., CommandResult]) -> None:
    """
    Its faults have lines; a job cannot have it.
    """
    pipe(b'{"task_query": "x"}\n{"task_query": 5}\n')
    added = cli("library", "import", "l", "-")
    sent = cli("submit", "run", "w.yaml", "--tasks", "-")

    assert (added.code, added.err) == (2, "standard input:2:2: 'task_query' is a text or an object, not 5\n")
    assert (sent.code, sent.err.splitlines()[0]) == (
        2,
        "standard input does not reach a job; name a file that the job can read, such as s3://bucket/tasks.jsonl",
    )


# -- data frames --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pandas", "polars", "arrow", "parquet"])
def test_a_frame_gives_each_task_its_own_keys(folder: Path, kind: str) -> None:
    """
    A row's objects do not gain the keys of other rows, and its empty cells are absent.
    """
    rows = [
        {"id": "a", "task_query": "x", "expected": {"n": 1, "deep": [{"p": 1}]}},
        {"id": "b", "task_query": "y", "expected": {"m": 2}},
        {"id": "c", "task_query": "z"},
    ]
    if kind == "parquet":
        (folder / "t.parquet").write_bytes(parquet(rows))
    frames = {"pandas": pd.DataFrame, "polars": pl.DataFrame, "arrow": pa.Table.from_pylist, "parquet": lambda rows: "t.parquet"}

    assert [row["expected"] for row in read(frames[kind](rows))] == [{"n": 1, "deep": [{"p": 1}]}, {"m": 2}, None]


def test_cells_of_a_pandas_frame_are_what_they_were(folder: Path) -> None:
    """
    Whole numbers stay whole, NaN is no value, and a column twice is refused.
    """
    frame = pd.DataFrame({"id": [1, 2], "body": ["x", "y"], "variables": [{"k": None}, float("nan")], "notes": [float("nan"), "n"]})
    tasks = beam_ray.open("store").add_to_library("l", beam_ray.Tasks(frame, columns={"task_query": "body"})).library.tasks

    assert tasks.select(["task_id", "variables", "notes"]).to_pylist() == [
        {"task_id": "1", "variables": '{"k": null}', "notes": None},
        {"task_id": "2", "variables": "{}", "notes": "n"},
    ]
    with pytest.raises(Unusable, match="^the data frame has the column 'id' twice$"):
        read(pd.concat([frame, frame[["id"]]], axis=1))
