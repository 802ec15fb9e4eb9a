"""Reading the traces of a file: which format it has, and everything that is wrong with it."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from beam_ray.errors import BadDefinition, Problem, Unusable
from beam_ray.tasks.traces import langfuse, langsmith, mlflow_json, openai_chat, otel
from beam_ray.tasks.traces.documents import documents
from beam_ray.tasks.traces.trace import BadTrace, Json, Trace

Reader = Callable[[Iterable[tuple[int, Json]]], Iterator[Trace | BadTrace]]

FORMATS: dict[str, Reader] = {
    "otel": otel.traces,
    "langfuse": langfuse.traces,
    "langsmith": langsmith.traces,
    "openai": openai_chat.traces,
    "mlflow-file": mlflow_json.traces,
}
"""Word before the colon to the reader of that format."""

MAX_PROBLEMS = 20


def read_traces(kind: str, path: Path) -> list[Trace]:
    """
    The traces of the file, in its order.

    Raises:
        BadDefinition: traces cannot be read, or two have one id; with file and line each.
        Unusable: the file cannot be opened, or it has no traces.
    """
    if not path.is_file():
        raise Unusable(f"{path}: there is no such file")
    found: list[Trace] = []
    problems: list[Problem] = []
    lines: dict[str, int] = {}
    for trace in FORMATS[kind](documents(path)):
        if isinstance(trace, BadTrace):
            problems.append(Problem(str(path), trace.line, 1, str(trace)))
            if len(problems) >= MAX_PROBLEMS:
                break
        elif trace.id in lines:
            problems.append(Problem(str(path), trace.line, 1, f"the trace {trace.id!r} is here and in line {lines[trace.id]}"))
        else:
            lines[trace.id] = trace.line
            found.append(trace)
    if problems:
        raise BadDefinition(problems=problems)
    if not found:
        raise Unusable(f"{path}: there are no traces in it")
    return found
