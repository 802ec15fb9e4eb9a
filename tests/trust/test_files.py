"""Files from strangers (threats 11 and 21): nothing in them runs, and a few bytes stand for no gigabyte."""

import ast
import gzip
import io
import json
import os
import resource
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import beam_ray
from beam_ray.errors import BadDefinition, StepFailed
from beam_ray.store.attachments import keep_attachment, read_attachment
from beam_ray.tasks.parse import read_tasks
from tests.conftest import Lab
from tests.corpus import made

SOURCES = sorted(Path(beam_ray.__file__).parent.rglob("*.py"))


def test_nothing_of_ours_reads_what_can_run():
    """No pickle and no like of it is imported anywhere."""
    banned = {"pickle", "cloudpickle", "_pickle", "dill", "joblib", "marshal", "shelve", "jsonpickle", "yaml"}
    found = []
    for file in SOURCES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [f"{file.name}:{node.lineno}: {name}" for name in names if name.split(".")[0] in banned or name.startswith("ray.cloudpickle")]

    assert found == []


def test_what_is_handed_to_mlflow_is_data(tmp_path):
    """The folder between driver and MLflow's process holds JSON and Parquet."""
    from beam_ray.define.workflow import Workflow
    from beam_ray.tracking import snapshot as handover

    workflow = Workflow.model_validate({"workflow": "w", "model": "m", "nodes": {"a": {"llm": {"prompt": "x"}}}})
    handover.write(tmp_path, "production_alias", "sqlite:///x", workflow)

    assert [path.name for path in tmp_path.iterdir()] == ["work.json"]
    assert handover.read(tmp_path) == ("production_alias", "sqlite:///x", workflow)


def test_mlflow_is_started_without_pickle():
    """Its own reading of pickles is switched off where we start it."""
    assert any("MLFLOW_ALLOW_PICKLE_DESERIALIZATION" in file.read_text(encoding="utf-8") for file in SOURCES)


READ = """
import resource, sys
from pathlib import Path
from beam_ray.errors import BeamRayError
from beam_ray.store.disk import Disk
from beam_ray.tasks.parse import read_tasks
objects = Disk(Path("store"))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    print(read_tasks(Path(sys.argv[1]), objects).num_rows)
except BeamRayError as error:
    print(str(error).splitlines()[0])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def _nested_bomb() -> bytes:
    """The same long text in a list of each of 20,000 rows."""
    lists = pa.array([["a" * 100_000]] * 50)
    sink = io.BytesIO()
    schema = pa.schema([("task_query", pa.string()), ("labels", lists.type)])
    with pq.ParquetWriter(sink, schema) as writer:
        for _ in range(400):
            writer.write_table(pa.table({"task_query": ["x"] * 50, "labels": lists}, schema=schema))
    return sink.getvalue()


def _gzip_bomb() -> bytes:
    """A million bytes for a billion spaces."""
    return gzip.compress((b" " * 999_999 + b"\n") * 1_000, 9)


def _workbook_bomb() -> bytes:
    """A workbook whose texts are half a billion bytes."""
    body = io.BytesIO()
    book = openpyxl.Workbook()
    book.active.append(["task_query"])
    book.save(body)
    with zipfile.ZipFile(body, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as parts:
        parts.writestr("xl/more.xml", b" " * 500_000_000)
    return body.getvalue()


BOMBS = {
    "a text again and again.parquet": made.parquet_bomb,
    "a list of a text again and again.parquet": _nested_bomb,
    "one line.jsonl": lambda: b'{"task_query": "',
    "one cell.csv": lambda: b"task_query\n",
    "one quoted cell.csv": lambda: b'task_query\n"' + b"a\n" * 30_000_000,
    "one task.json": lambda: b'[{"task_query": "',
    "spaces.jsonl.gz": _gzip_bomb,
    "texts.xlsx": _workbook_bomb,
    "brackets.jsonl": lambda: b'{"task_query": ' + b"[" * 7_000_000,
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_in_little_memory(name, tmp_path):
    """Read in a process of its own, of which the memory is measured: less than 300 MB beyond what it had."""
    (tmp_path / name).write_bytes(BOMBS[name]())
    if name.startswith(("one line", "one cell", "one task")):
        os.truncate(tmp_path / name, 1_000_000_000)  # a hole that takes no disk, and reads as one line
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}

    done = subprocess.run([sys.executable, "-c", READ, name], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=True)
    said, grown = done.stdout.strip().rsplit("\n", 1)

    assert ":" in said, said
    assert int(grown) < 300


@pytest.mark.parametrize(
    "body",
    [
        b"%PDF-1.4\n",
        b"%PDF-1.4\n" + b"[" * 100_000,
        b"not a PDF",
        b"",
        b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 1 0 R>>endobj trailer<</Root 1 0 R>>",
        b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[2 0 R]/Count 1>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF",
    ],
    ids=["a head", "brackets", "words", "nothing", "a catalog of itself", "pages of themselves"],
)
def test_a_broken_pdf_is_a_failed_row(body, lab: Lab):
    """Whatever is wrong inside, the row has the error and the run continues."""
    path = lab.folder / "a.pdf"
    path.write_bytes(body)

    with pytest.raises(StepFailed, match="cannot be read as PDF"):
        read_attachment(keep_attachment(path, lab.objects), lab.objects)


def test_a_pdf_that_unpacks_to_gigabytes_is_a_failed_row(lab: Lab):
    """200 kB of zeros for 200 MB of page."""
    packed = zlib.compress(b"BT (a) Tj ET\n" * 16_000_000, 9)
    objects = [
        b"1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n",
        b"2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n",
        b"3 0 obj<</Type/Page/Parent 2 0 R/Contents 4 0 R/MediaBox[0 0 9 9]>>endobj\n",
        b"4 0 obj<</Filter/FlateDecode/Length %d>>stream\n%s\nendstream endobj\n" % (len(packed), packed),
    ]
    body, places = b"%PDF-1.4\n", []
    for each in objects:
        places.append(len(body))
        body += each
    start = len(body)
    body += b"xref\n0 5\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % place for place in places)
    body += b"trailer<</Size 5/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % start
    path = lab.folder / "a.pdf"
    path.write_bytes(body)

    with pytest.raises(StepFailed, match="cannot be read as PDF"):
        read_attachment(keep_attachment(path, lab.objects), lab.objects)


def test_an_attachment_stays_in_the_folder_of_its_tasks(lab: Lab, tmp_path):
    """A tasks file from a stranger sends no file of ours to a model."""
    (tmp_path.parent / "secret.txt").write_text("canary")
    for name in ("../secret.txt", str(tmp_path.parent / "secret.txt"), "a/../../secret.txt", "./../secret.txt"):
        path = lab.write("t.jsonl", json.dumps({"task_query": "x", "attachments": [name]}) + "\n")

        with pytest.raises(BadDefinition, match="lies outside"):
            read_tasks(path, lab.objects)
    assert not list(lab.objects.keys("attachments/"))


def test_memory_is_measured_in_kilobytes():
    """The bound above means what it says on this system."""
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 20_000
