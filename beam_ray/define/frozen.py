"""The base of all values that come from files: immutable, and without unknown keys."""

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from beam_ray.define.validation import validation_problems
from beam_ray.define.yaml_file import NoFile
from beam_ray.errors import BadDefinition


class Frozen(BaseModel):
    """An immutable value that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, populate_by_name=True)

    if not TYPE_CHECKING:  # type checkers derive the parameters from the fields

        def __init__(self, **fields: Any) -> None:
            """
            Validate *fields*.

            Raises:
                BadDefinition: with every problem found, each with the path of its value.
            """
            try:
                super().__init__(**fields)
            except ValidationError as error:
                raise BadDefinition(problems=validation_problems(error, NoFile(type(self).__name__), type(self))) from None

        # pydantic then validates nested models as usual, instead of calling this for each of them
        __init__.__pydantic_base_init__ = True
