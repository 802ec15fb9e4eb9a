"""Broken input that cannot be written down as text."""

import datetime
import gzip
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq


def nul() -> bytes:
    """A byte that no text has."""
    return b"workflow: w\nmodel: m\x00\n"


def latin1() -> bytes:
    """A file in an old encoding."""
    return "workflow: w\ndescription: na\u00efve caf\u00e9\n".encode("latin-1")


def utf16() -> bytes:
    """A file as Windows once saved it."""
    return "workflow: w\n".encode("utf-16")


def too_large() -> str:
    """More than a workflow file ever needs."""
    return "workflow: w\ndescription: " + "x" * 1_100_000 + "\n"


def too_deep() -> str:
    """Brackets that no parser by recursion survives."""
    return "workflow: w\nmodel: " + "[" * 3_000 + "]" * 3_000 + "\n"


def too_many_values() -> str:
    """A long list of nothing."""
    return "workflow: w\nmodel: m\nnodes: [" + "0," * 100_100 + "]\n"


def laughs() -> str:
    """A few lines that stand for 3 to the 30th values."""
    return "\n".join(["a0: &a0 [x]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}, *a{i - 1}]" for i in range(1, 31)), "workflow: *a30\n"])


def many_aliases() -> str:
    """One value used more often than a person would."""
    return "workflow: w\ndescription: &d x\ninputs:\n" + "".join(f"  i{i}: *d\n" for i in range(101))


def long_template() -> str:
    """A prompt longer than any model reads."""
    return f'workflow: w\nmodel: m\nnodes:\n  a: {{llm: {{prompt: "{"x" * 200_001}"}}}}\n'


def deep_template() -> str:
    """A prompt that nests deeper than its parser."""
    inner = "{% if task_query %}" * 400 + "x" + "{% endif %}" * 400
    return f'workflow: w\nmodel: m\nnodes:\n  a: {{llm: {{prompt: "{inner}"}}}}\n'


def deep_expression() -> str:
    """A condition that nests deeper than its parser."""
    return f'workflow: w\nmodel: m\nnodes:\n  a: {{llm: {{prompt: x}}}}\n  b: {{after: a, when: "{"(" * 1500}a.text{")" * 1500}", llm: {{prompt: x}}}}\n'


def deep_schema() -> str:
    """A schema that nests deeper than an answer should."""
    inner = "{type: string}"
    for _ in range(14):
        inner = f"{{type: object, properties: {{f: {inner}}}}}"
    return f"workflow: w\nmodel: m\nnodes:\n  a: {{llm: {{prompt: x, returns: {{f: {inner}}}}}}}\n"


def wide_schema() -> str:
    """A schema that is longer than a prompt."""
    fields = ", ".join(f"field_number_{i}: str" for i in range(1_500))
    return f"workflow: w\nmodel: m\nnodes:\n  a: {{llm: {{prompt: x, returns: {{{fields}}}}}}}\n"


def json_rows(*rows: object) -> str:
    """Tasks as JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows)


# -- tasks ------------------------------------------------------------------------------------


def latin1_task() -> bytes:
    """A task in an old encoding, after a sound one."""
    return b'{"id": "t1", "task_query": "a"}\n{"id": "t2", "task_query": "caf\xe9"}\n'


def utf16_task() -> bytes:
    """Tasks as Windows once saved them."""
    return '{"id": "t1", "task_query": "a"}\n'.encode("utf-16")


def deep_task() -> str:
    """Brackets that no parser by recursion survives."""
    return '{"id": "t1", "task_query": "a", "variables": {"a": ' + "[" * 10_000 + "]" * 10_000 + "}}\n"


def long_number_task() -> str:
    """A number longer than Python reads."""
    return '{"id": "t1", "task_query": "a", "variables": {"a": ' + "1" * 5_000 + "}}\n"


def long_line() -> str:
    """A task larger than any model reads."""
    return '{"id": "t1", "task_query": "' + "a" * 8_100_000 + '"}\n'


def zeros() -> bytes:
    """A file that a full disk left behind."""
    return b"\x00" * 4_096


def many_faults() -> str:
    """More faults than anyone wants to read at once."""
    return "".join(f'{{"id": "t{index}"}}\n' for index in range(100))


def gzip_task() -> bytes:
    """A compressed file under the name of a plain one."""
    return gzip.compress(b'{"id": "t1", "task_query": "a"}\n', mtime=0)


def nul_csv() -> bytes:
    """A byte that no text has."""
    return b"id,task_query\nt1,a\x00b\n"


def latin1_csv() -> bytes:
    """A table as a spreadsheet in Europe saves it."""
    return b"id,task_query\nt1,a\nt2,caf\xe9\n"


def long_cell() -> str:
    """A cell larger than any model reads."""
    return "id,task_query\nt1,a\nt2," + "a" * 8_100_000 + "\n"


def _parquet(**columns: object) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def _sound_parquet() -> bytes:
    return _parquet(id=[f"t{index}" for index in range(500)], task_query=[f"question {index}" for index in range(500)])


def parquet_text() -> str:
    """A text under the name of a table."""
    return "id,task_query\nt1,a\n"


def parquet_half() -> bytes:
    """A download that broke off."""
    return _sound_parquet()[: len(_sound_parquet()) // 2]


def parquet_tail() -> bytes:
    """A file whose last bytes are gone."""
    return _sound_parquet()[:-4]


def parquet_middle() -> bytes:
    """A file with a hole."""
    body = _sound_parquet()
    return body[:100] + bytes(2_000) + body[2_100:]


def parquet_nothing() -> bytes:
    """No byte at all."""
    return b""


def parquet_no_rows() -> bytes:
    """Columns and nothing in them."""
    return _parquet(id=pa.array([], pa.string()), task_query=pa.array([], pa.string()))


def parquet_no_query() -> bytes:
    """Another name for the question."""
    return _parquet(id=["t1", "t2"], query=["a", "b"])


def parquet_numbers() -> bytes:
    """Numbers for questions."""
    return _parquet(id=["t1"], task_query=[12])


def parquet_null() -> bytes:
    """A question that is missing."""
    return _parquet(id=["t1", "t2"], task_query=["a", None])


def parquet_twice() -> bytes:
    """One id for two tasks."""
    return _parquet(id=["t1", "t2", "t1"], task_query=["a", "b", "c"])


def parquet_expected() -> bytes:
    """An expected outcome that is no JSON."""
    return _parquet(id=["t1"], task_query=["a"], expected=["yes"])


def parquet_id() -> bytes:
    """An id over two lines."""
    return _parquet(id=["t1\nt2"], task_query=["a"])


def parquet_time() -> bytes:
    """A value that JSON does not have."""
    return _parquet(id=["t1"], task_query=["a"], variables=[{"at": datetime.datetime(2026, 11, 23, tzinfo=datetime.UTC)}])


def parquet_bytes() -> bytes:
    """Bytes for a question."""
    return _parquet(id=["t1"], task_query=[b"\xff\xfe"])


def parquet_unknown() -> bytes:
    """A column with a slip."""
    return _parquet(id=["t1"], task_query=["a"], expcted=["{}"])


def parquet_bomb() -> bytes:
    """20,000 rows that are one and the same text of 100,000 characters: 2 GB in 100 kB."""
    indices = pa.array([0] * 20_000, pa.int32())
    query = pa.DictionaryArray.from_arrays(indices, pa.array(["a" * 100_000]))
    sink = io.BytesIO()
    pq.write_table(pa.table({"task_query": query}), sink)
    return sink.getvalue()


# -- answers ----------------------------------------------------------------------------------


def _answer(**fields: object) -> str:
    return json.dumps({"total": 12.5, "vendor": "Acme", "day": "2026-11-23", "kind": "order", "lines": ["a"], "count": 1, **fields})


def empty() -> str:
    """Nothing."""
    return ""


def long_number_answer() -> str:
    """A number longer than Python reads."""
    return _answer(total=0).replace(": 0,", ": " + "1" * 5_000 + ",")


def deep_answer() -> str:
    """Brackets that no parser by recursion survives."""
    return "[" * 10_000 + "]" * 10_000


def nested_answer() -> str:
    """An object that nests deeper than its schema."""
    return _answer(vendor=0).replace('"vendor": 0', '"vendor": ' + '{"a": ' * 900 + "1" + "}" * 900)


def long_answer() -> str:
    """More than four million characters."""
    return "a" * 4_000_001


def running_on() -> str:
    """A text that a small model never ended."""
    return _answer(vendor="Acme " * 300)


def endless_list() -> str:
    """A list that a small model never ended."""
    return _answer(lines=["a"] * 201)


def no_text() -> bytes:
    """Bytes that are no UTF-8."""
    return b'{"choices": [{"message": {"content": "caf\xff\xfe'


def deep_reply() -> str:
    """Brackets around the reply."""
    return '{"choices": ' + "[" * 10_000 + "]" * 10_000 + "}"
