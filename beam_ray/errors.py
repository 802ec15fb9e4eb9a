"""
Everything that can go wrong, as one family.

    BeamRayError
    ├── Unusable                 2   you can fix it; nothing was spent
    │   └── BadDefinition            a file says something it must not; all problems at once
    ├── Stopped                  3   stopped before the end; the same command goes on
    │   ├── Interrupted        130   Ctrl-C (143 for SIGTERM)
    │   ├── RunIsTaken               another driver owns the run
    │   └── BudgetReached            a limit of the budget was met
    ├── Damaged                  6   stored bytes are not what was written
    └── StepFailed                   one row's own failure: recorded, never raised to the user
        ├── ModelUnavailable         no answer within the deadline
        ├── ModelRefused             the model declined; another attempt will not help
        ├── BadAnswer                an answer that is not what the node returns
        ├── ToolFailed               the tool raised, hung or died
        └── BadTemplate              a template could not be rendered with this row's values

A message is the only positional argument and facts are keyword attributes, so that an
error crosses process borders as itself. Exit code 1 stays Python's own: a crash.
"""

from collections.abc import Iterable
from dataclasses import dataclass


class BeamRayError(Exception):
    """Anything that beam_ray raises on purpose."""

    exit_code = 1


class Unusable(BeamRayError):
    """Something that the user can fix; nothing was spent."""

    exit_code = 2


@dataclass(frozen=True, order=True)
class Problem:
    """One thing wrong in one place of a file. Lines and columns count from 1; 0 means unknown."""

    file: str
    line: int
    column: int
    text: str
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        place = self.file
        if self.line:
            place += f":{self.line}"
            if self.column:
                place += f":{self.column}"
        return "\n".join([f"{place}: {self.text}", *(f"  {note}" for note in self.notes)])


class BadDefinition(Unusable):
    """A file says something that it must not; carries every problem found, in file order."""

    def __init__(self, message: str = "", *, problems: Iterable[Problem] = ()):
        self.problems = tuple(sorted(set(problems)))
        super().__init__(message or "\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[object, ...]:
        return (_bad_definition, (str(self), self.problems))


def _bad_definition(message: str, problems: tuple[Problem, ...]) -> BadDefinition:
    return BadDefinition(message, problems=problems)


class Stopped(BeamRayError):
    """Stopped before the end. What was paid for is kept; the same command goes on."""

    exit_code = 3
    resume = ""
    """The command that goes on, where one is known."""


class Interrupted(Stopped):
    """A person or a scheduler asked us to stop."""

    exit_code = 130


class RunIsTaken(Stopped):
    """Another driver owns the run, or took it from this one."""


class BudgetReached(Stopped):
    """A limit of the budget was met."""


class Damaged(BeamRayError):
    """Stored bytes are not the bytes that were written."""

    exit_code = 6


class StepFailed(BeamRayError):
    """One row's failure. It is recorded with the row and harms no other row."""


class ModelUnavailable(StepFailed):
    """The model gave no answer within the deadline."""


class ModelRefused(StepFailed):
    """The model declined to answer. Another attempt will not help."""


class BadAnswer(StepFailed):
    """
    The answer is not what the node says it returns; *raw* keeps what came.

    *again* tells whether another sample may be better: an answer that was cut off will be cut off again.
    """

    def __init__(self, message: str, *, raw: str = "", again: bool = True):
        self.raw, self.again = raw, again
        super().__init__(message)


class ToolFailed(StepFailed):
    """The tool raised, ran out of time, or its process died."""


class BadTemplate(StepFailed):
    """A template could not be rendered with the values of this row."""
