"""Task files: what is read, and what is said about what cannot be."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_ray.errors import BadDefinition, Unusable
from beam_ray.tasks.parse import read_tasks
from tests.conftest import Lab


def test_three_kinds_of_file_say_the_same(lab: Lab):
    """JSONL, CSV with a column mapping, and Parquet give the same tasks."""
    lines = lab.write("t.jsonl", '{"id": "a", "task_query": "x", "labels": ["l"], "expected": {"n": 1}}\n')
    cells = lab.write("t.csv", 'key,body,labels,expected\na,x,l,"{""n"": 1}"\n')
    pq.write_table(pa.table({"id": ["a"], "task_query": ["x"], "labels": [["l"]], "expected": ['{"n": 1}']}), lab.folder / "t.parquet")

    read = [
        read_tasks(lines, lab.objects),
        read_tasks(cells, lab.objects, mapping={"id": "key", "task_query": "body"}),
        read_tasks(lab.folder / "t.parquet", lab.objects),
    ]

    assert read[0].equals(read[1]) and read[0].equals(read[2])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", ":2:2: not JSON: "),
        ("[1]", ":2:1: a task is an object"),
        ('{"task_qery": "x"}', ":2:1: the task has no 'task_query'\n  it has: task_qery\n  --map task_query=task_qery  takes it"),
        ('{"task_query": 5}', ":2:2: 'task_query' is a text or an object, not 5"),
        ('{"id": "a", "task_query": "x"}', ":2:2: the id 'a' stands here and in line 1; ids must differ"),
        ('{"task_query": "x", "expected": "no"}', ":2:21: 'expected' is not JSON: 'no'"),
        ('{"task_query": "x", "variables": [1]}', ":2:21: 'variables' must be an object, not [1]"),
        ('{"task_query": "x", "attachments": ["none.pdf"]}', ":2:21: the attachment 'none.pdf' cannot be read (No such file or directory)"),
        ('{"task_query": NaN}', ":2:16: not JSON: NaN is not a JSON value"),
        ('{"task_query": "x", "task_query": "y"}', ":2:21: not JSON: the key 'task_query' appears twice"),
        ('{"task_query": "x", "id": "a\\u0007"}', ":2:21: the id 'a\\x07' must be 1 to 200 printable characters"),
    ],
)
def test_a_bad_row_is_named_with_its_line(lab: Lab, line, said):
    """Nothing is spent on a file with a fault in it."""
    path = lab.write("t.jsonl", '{"id": "a", "task_query": "x"}\n' + line + "\n")

    with pytest.raises(BadDefinition) as caught:
        read_tasks(path, lab.objects)

    assert said in str(caught.value)


def test_a_query_that_is_an_object_keeps_its_order(lab: Lab):
    """What is given is kept as it was given."""
    query = {"b": 1, "a": {"z": [1.5, None], "y": "é"}}
    path = lab.write("t.jsonl", json.dumps({"task_query": query}) + "\n")

    assert json.loads(read_tasks(path, lab.objects)["task_query"][0].as_py()) == query


def test_a_file_that_is_not_there_is_guessed_at(lab: Lab):
    """The remedy is offered."""
    lab.write("tasks.jsonl", "{}")

    with pytest.raises(Unusable, match="did you mean 'tasks.jsonl'"):
        read_tasks(lab.folder / "task.jsonl", lab.objects)
