"""
The rules file of ``beam-ray health``.

    health: default
    min_tasks: 10                         # with fewer tasks a rule reports 'unknown' and never warns
    rules:
      used_up: {at_least: 10 %}           # of the tasks that reach a step use all its auto-reruns
      auto_reruns: {more_than: 30 %}      # of the tasks have an auto-rerun at any step
      uplift: {confidence: 95}            # percent; warns when the interval of the score uplift contains 0
      seconds: {up_by_more_than: 25 %}    # of the previous version's mean execution time

Rules that a file leaves out are not checked.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import pydantic
from pydantic import BeforeValidator, Field, StrictFloat, StrictInt

from beam_ray.define.frozen import Frozen
from beam_ray.define.validation import validation_problems
from beam_ray.define.yaml_file import read_yaml
from beam_ray.errors import BadDefinition


def _percent(written: Any) -> Any:
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?%", written.strip()) if isinstance(written, str) else None
    return float(found[1]) if found else written


Share = Annotated[StrictFloat, BeforeValidator(_percent), Field(ge=0, le=100, allow_inf_nan=False)]
Growth = Annotated[StrictFloat, BeforeValidator(_percent), Field(ge=0, le=10_000, allow_inf_nan=False)]


class UsedUp(Frozen):
    """Warns when a step often uses all its auto-reruns."""

    at_least: Share = 10.0


class AutoReruns(Frozen):
    """Warns when many tasks need auto-reruns."""

    more_than: Share = 30.0


class Uplift(Frozen):
    """Warns when auto-reruns do not improve scores."""

    confidence: Annotated[StrictFloat, Field(ge=50, le=99.9, allow_inf_nan=False)] = 95.0


class Seconds(Frozen):
    """Warns when a version takes much longer than the previous one."""

    up_by_more_than: Growth = 25.0


class Checks(Frozen):
    """The rules that are checked."""

    used_up: UsedUp | None = None
    auto_reruns: AutoReruns | None = None
    uplift: Uplift | None = None
    seconds: Seconds | None = None


class Rules(Frozen):
    """A rules file."""

    name: str = Field(alias="health", pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")
    min_tasks: StrictInt = Field(default=10, ge=2, le=1_000_000)
    rules: Checks


DEFAULT_RULES = Rules(health="default", rules=Checks(used_up=UsedUp(), auto_reruns=AutoReruns(), uplift=Uplift(), seconds=Seconds()))


def load_rules(path: Path) -> Rules:
    """
    The rules in the file at *path*.

    Raises:
        BadDefinition: Lists every problem with its line.
    """
    source = read_yaml(path)
    if not isinstance(source.data, Mapping):
        raise BadDefinition(problems=[source.problem((), "a health rules file starts with 'health: NAME'")])
    written = source.data.get("rules")
    if isinstance(written, Mapping):
        wrong = [name for name, rule in written.items() if name in Checks.model_fields and not isinstance(rule, Mapping)]
        known = {
            name: next(iter(model.model_fields)) for name, model in (("used_up", UsedUp), ("auto_reruns", AutoReruns), ("uplift", Uplift), ("seconds", Seconds))
        }
        if wrong:
            raise BadDefinition(
                problems=[
                    source.problem(("rules", name), f"{name!r} must be a mapping such as {{{known[name]}: 20}}", "omit a rule to disable it") for name in wrong
                ]
            )
        if not written:
            raise BadDefinition(problems=[source.problem(("rules",), "no rule given", f"available rules: {', '.join(known)}")])
    try:
        return Rules.model_validate(source.data)
    except pydantic.ValidationError as error:
        raise BadDefinition(problems=validation_problems(error, source, Rules)) from None
