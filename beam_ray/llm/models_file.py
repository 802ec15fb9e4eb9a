"""
The models file: name to the settings of a model, or to answers written down beforehand.

    hosted/large: {base_url: https://api.openai.com/v1, model: gpt-5-mini, api_key: "${env:OPENAI_API_KEY}"}
    scripted/small:
      answers:
        - {has: [Which team, charged], answer: {team: billing}}
        - {answer: {team: technical}}
    scripted/agent:
      answers:
        - {has: PO-1, call: {find: {po_number: PO-1}}}
        - {has: [found, true], answer: pay}
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pydantic
from pydantic import Field, field_validator, model_validator

from beam_ray.define.fingerprint import Json, JsonObject, digest
from beam_ray.define.frozen import Frozen
from beam_ray.define.validation import validation_problems
from beam_ray.define.yaml_file import read_yaml
from beam_ray.errors import BadDefinition, ModelRefused, Problem, Unusable
from beam_ray.llm.request import Request, ToolCall
from beam_ray.llm.scripted import ScriptedModel
from beam_ray.llm.settings import ModelSettings


class ScriptedAnswer(Frozen):
    """An answer or calls of tools, and when they are given."""

    answer: Json = None
    """A text, or a value that is sent as JSON."""
    call: dict[str, JsonObject] | None = None
    """Instead of an answer: tools to call, each with its arguments."""
    has: list[str] = []
    """Words that the last message must have, all of them; none for every message."""

    @field_validator("has", mode="before")
    @classmethod
    def _one(cls, written: Json) -> Json:
        return [written] if isinstance(written, str) else written

    @model_validator(mode="after")
    def _either(self) -> "ScriptedAnswer":
        if (self.call is None) == ("answer" not in self.model_fields_set):
            raise ValueError("an entry must have either 'answer' or 'call'")
        return self

    @property
    def said(self) -> str | tuple[ToolCall, ...]:
        """What the model says."""
        if self.call is not None:
            return tuple(ToolCall(name, json.dumps(arguments)) for name, arguments in self.call.items())
        return self.answer if isinstance(self.answer, str) else json.dumps(self.answer)


class ScriptedSettings(Frozen):
    """A model that answers from a list: the first entry whose words are all in the last message."""

    answers: list[ScriptedAnswer] = Field(min_length=1)

    @property
    def model(self) -> ScriptedModel:
        """The model."""
        script = _Script(tuple((tuple(entry.has), entry.said) for entry in self.answers))
        written = [entry.model_dump(mode="json", exclude=None if entry.call else {"call"}) for entry in self.answers]  # as before there were calls
        return ScriptedModel(script, identity=f"scripted {digest('script/1', {'answers': written})}")


@dataclass(frozen=True)
class _Script:
    answers: tuple[tuple[tuple[str, ...], str | tuple[ToolCall, ...]], ...]

    def __call__(self, request: Request) -> str | tuple[ToolCall, ...]:
        said = str(request.messages[-1]["content"])
        for words, answer in self.answers:
            if all(word in said for word in words):
                return answer
        raise ModelRefused("the models file has no answer for this message; add one without 'has', which fits every message")


def load_models(path: Path) -> dict[str, ModelSettings | ScriptedModel]:
    """
    Name to settings, or to a scripted model.

    Raises:
        Unusable: there is no such file.
        BadDefinition: with every problem found.
    """
    if not path.is_file():
        raise Unusable(f"{path}: models file not found\n  name another with --models FILE or BEAM_RAY_MODELS")
    source = read_yaml(path)
    if not isinstance(source.data, Mapping) or not source.data:
        raise BadDefinition(problems=[source.problem((), "a models file must map names to settings")])
    models: dict[str, ModelSettings | ScriptedModel] = {}
    problems: list[Problem] = []
    for name, written in source.data.items():
        kind = ScriptedSettings if isinstance(written, Mapping) and "answers" in written else ModelSettings
        try:
            found = kind.model_validate(written)
            models[str(name)] = found.model if isinstance(found, ScriptedSettings) else found
        except pydantic.ValidationError as error:
            problems += validation_problems(error, source, kind, (name,))
    if problems:
        raise BadDefinition(problems=problems)
    return models
