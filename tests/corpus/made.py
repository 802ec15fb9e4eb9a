"""Broken input that cannot be written down as text."""

import json


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
