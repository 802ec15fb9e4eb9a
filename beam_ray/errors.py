"""
The errors of beam_ray, with the exit code of a command that they end.

    BeamRayError
    ├── Unusable                 2   you can fix it; no model was called
    │   └── BadDefinition            a definition has problems; all of them are reported at once
    ├── Stopped                  3   stopped before the end; run the same command again to resume
    │   ├── WrongSetting             an endpoint refuses a setting, the key or the model, as it would for every row
    │   ├── OutOfQuota               the account at an endpoint has no money or quota left
    │   ├── Interrupted        130   Ctrl-C (143 for SIGTERM)
    │   ├── RunIsTaken               another driver owns the run
    │   └── BudgetReached            a limit of the budget was reached
    ├── TrackingUnavailable          MLflow could not be reached; a warning, never the result's
    ├── NotificationFailed           a webhook did not accept a verdict; a warning, never the result's
    ├── Damaged                  6   stored data failed its checksum
    └── StepFailed                   the failure of one row: recorded with it, never raised to the caller
        ├── NoAnswer                 a model did not answer
        │   ├── ModelUnavailable         no answer within the deadline
        │   └── ModelRefused             the model declined to answer; another attempt will not help
        ├── BadAnswer                the answer does not fit what the node returns
        ├── ToolFailed               the tool raised an exception, timed out or its process died
        ├── BadTemplate              a template could not be rendered with this row's values
        └── FailedInProduction       what was recorded of the row is a failed execution

The message is the only positional argument and facts are keyword attributes, so that an error
keeps its type when it is pickled between processes. Exit code 1 is Python's own, for a crash;
those of a verdict (0, 4 and 5) are in ``compare.verdict``. ``reproduce`` also exits with 6 where
a verdict does not follow from what is stored.
"""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field


class BeamRayError(Exception):
    """Base class of all errors that beam_ray raises on purpose."""

    exit_code = 1


class Unusable(BeamRayError):
    """Something that the user can fix; no model was called."""

    exit_code = 2


@dataclass(frozen=True, order=True)
class Problem:
    """One problem at one place of a file. Lines and columns count from 1; 0 means unknown."""

    file: str
    """The file, or the path of the value in a definition that was built in Python."""
    line: int
    column: int
    text: str
    notes: tuple[str, ...] = ()
    """Further lines: what is allowed instead, and what to do."""
    unit: str = "line"
    """What *line* counts: ``line``, or ``row`` of a table."""
    path: str = field(default="", compare=False)
    """The value that it is about, such as ``nodes.extract.llm.prompt[0].user``; empty where that is not known."""

    def __str__(self) -> str:
        place = self.file
        if not place:
            return "\n".join([self.text, *(f"  {note}" for note in self.notes)])
        if self.line and self.unit == "row":
            place += f", row {self.line}"
        elif self.line:
            place += f":{self.line}"
            if self.column:
                place += f":{self.column}"
        return "\n".join([f"{place}: {self.text}", *(f"  {note}" for note in self.notes)])


class BadDefinition(Unusable):
    """A definition has problems; ``problems`` holds all of them, in the order of the file."""

    def __init__(self, message: str = "", *, problems: Iterable[Problem] = ()):
        self.problems = tuple(sorted(set(problems)))
        super().__init__(message or "\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[object, ...]:
        return (_bad_definition, (str(self), self.problems))


def _bad_definition(message: str, problems: tuple[Problem, ...]) -> BadDefinition:
    return BadDefinition(message, problems=problems)


class Stopped(BeamRayError):
    """Stopped before the end. Every paid result is kept; run the same command again to resume."""

    exit_code = 3
    resume = ""
    """The command that resumes, where one is known."""


class Interrupted(Stopped):
    """A user (Ctrl-C) or a scheduler (SIGTERM) asked the command to stop."""

    exit_code = 130


class RunIsTaken(Stopped):
    """Another driver owns the run, or took it over from this one."""


class BudgetReached(Stopped):
    """A limit of the budget was reached."""

    limit = ""
    """Its name, such as ``max_usd``."""


class WrongSetting(Stopped):
    """An endpoint refuses a setting, the key or the model, as it would for every row. The message says what to change."""


class OutOfQuota(Stopped):
    """The account at an endpoint has no money or quota left."""


class Damaged(BeamRayError):
    """Stored data failed its checksum: the bytes read are not the bytes written."""

    exit_code = 6


class TrackingUnavailable(BeamRayError):
    """MLflow could not be reached. Nothing is lost: the results are in the store and can be logged later."""


class NotificationFailed(BeamRayError):
    """A webhook did not accept a verdict. Nothing is lost: the verdict is in the store."""


class StepFailed(BeamRayError):
    """The failure of one row. It is recorded with the row; other rows go on."""


class NoAnswer(StepFailed):
    """There is no answer of a model; *status*, *code* and *param* are those of the endpoint's last reply, where it gave one."""

    status, code, param = 0, "", ""

    def __init__(self, message: str = "", *, status: int = 0, code: str = "", param: str = ""):
        super().__init__(message)
        self.status, self.code, self.param = status, code, param


class ModelUnavailable(NoAnswer):
    """The model gave no answer within the deadline."""


class ModelRefused(NoAnswer):
    """The model declined to answer. Another attempt will not help."""


class BadAnswer(StepFailed):
    """
    The answer does not fit what the node returns; *raw* holds the answer as it came.

    *again* says whether another sample may fit: an answer that was cut off would be cut off again.
    """

    def __init__(self, message: str, *, raw: str = "", again: bool = True):
        self.raw, self.again = raw, again
        super().__init__(message)


class ToolFailed(StepFailed):
    """The tool raised an exception, timed out, or its process died."""


class BadTemplate(StepFailed):
    """A template could not be rendered with the values of this row."""


class FailedInProduction(StepFailed):
    """What was recorded of the row is a failed execution."""


def did_you_mean(word: str, known: Iterable[str]) -> tuple[str, ...]:
    """A note with the most similar of the *known* words, or nothing where none is similar."""
    near = difflib.get_close_matches(str(word), [str(other) for other in known], n=1, cutoff=0.6)
    return (f"did you mean {near[0]!r}?",) if near else ()
