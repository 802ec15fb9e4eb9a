"""Arrow in processes of our own: pandas is loaded when it is used, and not before."""

import subprocess
import sys

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
