"""
The models file: which models there are, where they answer and what they cost.

    local/small:
      base_url: http://127.0.0.1:8377/v1
      model: smollm2-135m-instruct
      api_key: ${env:MY_KEY}
      usd_per_million: {input: 0.15, output: 0.60}
      concurrency: 8
      requests_per_minute: 600
      tokens_per_minute: 200000

A key stands in the file only as ``${env:NAME}`` and is read in the worker that needs it.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pydantic
from pydantic import Field, StrictBool, StrictFloat, StrictInt, field_validator

from beam_ray.define.validation import validation_problems
from beam_ray.define.workflow import Frozen
from beam_ray.define.yaml_file import read_yaml
from beam_ray.errors import BadDefinition, Problem, Unusable

DEFAULT_FILE = "configs/models.yaml"
_SECRET = re.compile(r"\$\{env:([A-Za-z_][A-Za-z0-9_]*)\}")


class UsdPerMillion(Frozen):
    """US dollars per million tokens."""

    input: StrictFloat = Field(ge=0, le=1e6)
    output: StrictFloat = Field(ge=0, le=1e6)


class ModelSettings(Frozen):
    """One model at one OpenAI-compatible endpoint."""

    base_url: str = Field(pattern=r"^(https?://|\$\{env:)")
    model: str
    """The name by which the endpoint knows it."""
    api_key: str = "none"
    usd_per_million: UsdPerMillion | None = None
    concurrency: StrictInt = Field(default=16, ge=1, le=10_000)
    """Calls in flight, over the whole cluster."""
    requests_per_minute: StrictFloat | None = Field(default=None, gt=0, le=1e9)
    tokens_per_minute: StrictFloat | None = Field(default=None, gt=0, le=1e12)
    temperature: StrictFloat | None = Field(default=None, ge=0, le=2)
    tries: StrictInt = Field(default=6, ge=1, le=20)
    """Calls for one answer, before the row fails."""
    deadline_s: StrictFloat = Field(default=300, gt=0, le=86_400)
    """Seconds for one answer over all its tries."""
    structured: Literal["full", "strict", "none"] = "full"
    """full: the whole JSON schema is sent; strict: without the keywords that OpenAI's strict mode refuses; none: asked for in words."""
    seeds: StrictBool = True
    """Whether the endpoint takes a 'seed'."""
    extra: dict[str, Any] = {}
    """Sent with every request as it stands, such as {cache_prompt: false}."""

    @field_validator("api_key")
    @classmethod
    def _no_secret(cls, value: str) -> str:
        if value != "none" and not _SECRET.fullmatch(value):
            raise ValueError("a key may not stand in the file; write ${env:NAME} and set NAME in the environment")
        return value

    @property
    def secret(self) -> str:
        """
        The key itself.

        Raises:
            Unusable: the environment has no such variable.
        """
        return resolve(self.api_key)

    @property
    def url(self) -> str:
        """The address itself."""
        return resolve(self.base_url)

    def hide(self, text: str) -> str:
        """*text* without what came from the environment; an endpoint may say back whatever it was sent."""
        for name in _SECRET.findall(f"{self.api_key} {self.base_url}"):
            value = os.environ.get(name)
            if value:
                text = text.replace(value, f"${{env:{name}}}")
        return text


def resolve(text: str) -> str:
    """
    *text* with ``${env:NAME}`` read from the environment.

    Raises:
        Unusable: the environment has no such variable.
    """

    def value(match: re.Match[str]) -> str:
        found = os.environ.get(match[1])
        if not found:
            raise Unusable(f"the environment has no {match[1]}; the models file asks for it")
        return found

    return _SECRET.sub(value, text)


def load_models(path: Path) -> dict[str, ModelSettings]:
    """
    Name to settings.

    Raises:
        BadDefinition: with every problem found.
    """
    if not path.is_file():
        raise Unusable(f"{path}: there is no such models file\n  --models FILE or BEAM_RAY_MODELS names one")
    source = read_yaml(path)
    if not isinstance(source.data, Mapping) or not source.data:
        raise BadDefinition(problems=[source.problem((), "a models file maps names to settings")])
    models: dict[str, ModelSettings] = {}
    problems: list[Problem] = []
    for name, written in source.data.items():
        try:
            models[str(name)] = ModelSettings.model_validate(written)
        except pydantic.ValidationError as error:
            problems += validation_problems(error, source, ModelSettings, (name,))
    if problems:
        raise BadDefinition(problems=problems)
    return models
