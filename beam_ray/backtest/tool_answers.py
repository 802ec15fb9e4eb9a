"""
Static answers of tools in a backtest spec: what a tool returns in the test, instead of being called.

    tools:
      find: {when: {po_number: PO-1}, answer: {found: true}}     # one case
      mail:                                                      # or several: the first that fits answers
        - {when: {to: nobody@example.com}, error: there is no such address}
        - {answer: {sent: true}}                                 # without 'when' it fits every call
"""

import json
from collections.abc import Iterable, Mapping

from pydantic import field_validator, model_validator

from beam_ray.define.fingerprint import Json, JsonObject
from beam_ray.define.frozen import Frozen
from beam_ray.define.validation import as_written
from beam_ray.define.workflow import Workflow
from beam_ray.define.yaml_file import Source
from beam_ray.errors import BadDefinition, did_you_mean


class ToolAnswer(Frozen):
    """What a tool answers to calls with certain arguments."""

    when: dict[str, Json] = {}
    """Arguments that a call must have, white space at the ends of strings left out; others may be anything."""
    answer: Json = None
    error: str | None = None
    """What the agent is told went wrong, instead of an answer."""

    @field_validator("when", "answer")
    @classmethod
    def _finite(cls, value: Json) -> Json:
        try:
            json.dumps(value, allow_nan=False, default=str)
        except ValueError:
            raise ValueError(f"a tool's static answer must be JSON, which has no NaN and no infinity, not {as_written(value)}") from None
        return value

    @model_validator(mode="after")
    def _one(self) -> "ToolAnswer":
        if ("answer" in self.model_fields_set) == (self.error is not None):
            raise ValueError("a tool's static answer must have either 'answer' or 'error'")
        return self

    def case(self) -> JsonObject:
        """The answer as the run record has it."""
        given = {"error": self.error} if self.error is not None else {"answer": self.answer}
        return {"when": dict(self.when), **given}


def as_cases(written: Json) -> Json:
    """The value of ``tools`` in a spec, with one case as a list of one."""
    if not isinstance(written, Mapping):
        return written
    return {tool: [cases] if isinstance(cases, Mapping) else cases for tool, cases in written.items()}


def require_tools(answers: Mapping[str, Json], workflows: Iterable[Workflow], source: Source) -> None:
    """
    See that some side has each of the tools that have static answers.

    Raises:
        BadDefinition: no agent of any side has such a tool.
    """
    known = list[str]()
    for workflow in workflows:
        if any(node.asks for node in workflow.nodes.values()):
            return  # a program says what its tools are only when it calls them
        for entry in (tool for node in workflow.nodes.values() if node.agent for tool in node.agent.tools):
            if entry.mcp and not entry.only:
                return  # a server says what it offers only when it is started
            known += [entry.function_name] if entry.function_name else [f"{entry.prefix}{name}" for name in entry.only]
    for tool in answers:
        if tool not in known:
            notes = [f"they have: {', '.join(dict.fromkeys(known)) or 'no agent with tools'}", *did_you_mean(tool, known)]
            raise BadDefinition(problems=[source.problem(("tools", tool), f"no agent of any side has the tool {tool!r}", *notes)])
