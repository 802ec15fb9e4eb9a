"""Memory of processes of our own: what is not loaded, and what is given back."""

import gc
import subprocess
import sys

import pyarrow as pa

import beam_ray
from tests.conftest import Lab

WORKFLOW = "workflow: w\nmodel: m\nnodes:\n  one: {llm: {prompt: '{{ task_query }}'}}\n"

SCRIPT = """
import sys
import pyarrow as pa
from beam_ray.memory import spare_pandas
from beam_ray.store.parquet import to_table
from beam_ray.store.tables import TASKS
spare_pandas()
to_table(TASKS, [{"task_id": "t", "labels": ["x"]}])
before = "pandas" in sys.modules
frame = pa.table({"a": [1, 2]}).to_pandas()
import pandas
print(before, len(frame), pa.array(pandas.Series([1.0, float("nan")])).null_count)
"""


def test_rows_become_tables_without_pandas_and_frames_are_made_as_ever():
    """Rows that are written load no pandas; a table becomes a frame, and a series an array whose NaN are null."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["False", "2", "1"]


def test_a_run_that_is_forgotten_gives_back_the_memory_of_its_files(lab: Lab):
    """At once, and not when Python next looks for cycles, which a console of many runs would not live to see."""
    run = beam_ray.open(lab.objects.uri).get_run(lab.run(WORKFLOW, [f"task {number}" for number in range(20)], lambda request: "x" * 2_000).run_id)
    name = run.inputs()["task_id"][0].as_py()
    before = pa.total_allocated_bytes()
    gc.disable()
    try:
        found = run.step_rows("one", [(name, 1)])
        held = pa.total_allocated_bytes() - before
        run.forget_step_rows()
        left = pa.total_allocated_bytes() - before
    finally:
        gc.enable()

    assert found
    assert held > 0
    assert left <= 0
