"""Reading the traces of a file: which format it has, and everything that is wrong with it."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
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


@dataclass(frozen=True)
class TraceFile:
    """
    The traces of a file, read anew each time it is iterated over, so that a large file is never held in memory.

    Iterating raises BadDefinition at the end when traces cannot be read or two have one id, with file
    and line each, and Unusable when there are no traces.
    """

    kind: str
    path: Path
    name: str = ""
    """What messages call it; empty for its path, with lines."""

    def __iter__(self) -> Iterator[Trace]:
        problems: list[Problem] = []
        lines: dict[str, int] = {}
        for trace in FORMATS[self.kind](documents(self.path)):
            if isinstance(trace, BadTrace):
                problems.append(self._problem(trace.line, str(trace)))
                if len(problems) >= MAX_PROBLEMS:
                    break
            elif trace.id in lines:
                problems.append(self._problem(trace.line, f"the trace {trace.id!r} is here and in line {lines[trace.id]}"))
            else:
                lines[trace.id] = trace.line
                yield trace
        if problems:
            raise BadDefinition(problems=problems)
        if not lines:
            raise Unusable(f"{self.name or self.path}: there are no traces in it")

    def _problem(self, line: int, text: str) -> Problem:
        return Problem(self.name, 0, 0, text) if self.name else Problem(str(self.path), line, 1, text)


def read_traces(kind: str, path: Path, *, name: str = "") -> TraceFile:
    """
    The traces of the file, in its order; *name* is what messages call it instead of its path.

    Raises:
        Unusable: there is no such file.
    """
    if not path.is_file():
        raise Unusable(f"{path}: there is no such file")
    return TraceFile(kind, path, name)
