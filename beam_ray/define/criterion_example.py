"""
Examples of a plain-language criterion, shown to the judge: outputs that a person has decided about.

    - text: The reply is polite.
      examples:
        - output: Thank you for waiting, it is on its way.
          met: true
        - output: It is on its way, as I said before.
          met: false
          reason: it blames the customer
"""

import json
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from beam_ray.define.fingerprint import Json
from beam_ray.errors import did_you_mean

MAX_EXAMPLES = 10
"""Examples of one criterion."""
MAX_OUTPUT = 4_000
"""Characters of an example's output, as JSON, and of its task."""
MAX_REASON = 500
"""Characters of an example's reason."""
KEYS = ("output", "met", "reason", "task")


class CriterionExample(BaseModel):
    """An output, and whether it meets the criterion."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    output: Json
    """The output: text, or its fields."""
    met: bool
    reason: str = ""
    """Why; the judge gives reasons of the same kind."""
    task: str = ""
    """What the step was asked, where the output cannot be judged without it."""

    def shown(self) -> str:
        """The example as the judge reads it."""
        asked = f"asked {json.dumps(self.task, ensure_ascii=False)}, " if self.task else ""
        why = f" ({self.reason})" if self.reason else ""
        return f"{asked}the output {json.dumps(self.output, ensure_ascii=False)} -> {'met' if self.met else 'not met'}{why}"


def examples_as_written(written: Json) -> tuple[CriterionExample, ...]:
    """
    The examples that a criterion's ``examples`` list.

    Raises:
        ValueError: it is no list of examples, or they are too many or too long.
    """
    if not isinstance(written, (list, tuple)) or not written:
        raise ValueError("'examples' must be a list of outputs, each with 'met: true' or 'met: false'")
    if len(written) > MAX_EXAMPLES:
        raise ValueError(f"a criterion may have at most {MAX_EXAMPLES} examples, not {len(written)}")
    return tuple(each if isinstance(each, CriterionExample) else _example(each, f"example {number}") for number, each in enumerate(written, 1))


def _example(written: Json, which: str) -> CriterionExample:
    if not isinstance(written, Mapping):
        raise ValueError(f"{which} must be a mapping with 'output' and 'met', not {written!r:.60}")
    for key in written:
        if key not in KEYS:
            raise ValueError("\n".join([f"{which} has an unknown key {key!r}; an example has {', '.join(KEYS)}", *did_you_mean(str(key), KEYS)]))
    if written.get("output") in (None, "", {}, []):
        raise ValueError(f"{which} has no output")
    if not isinstance(written.get("met"), bool):
        raise ValueError(f"{which} must say 'met: true' or 'met: false'" + (f", not {written['met']!r:.40}" if "met" in written else ""))
    for key, most in (("reason", MAX_REASON), ("task", MAX_OUTPUT)):
        if not isinstance(written.get(key, ""), str):
            raise ValueError(f"the {key} of {which} must be a text; put it in quotes")
        if len(written.get(key, "")) > most:
            raise ValueError(f"the {key} of {which} has {len(written[key]):,} characters; at most {most:,} are allowed")
    try:
        length = len(json.dumps(written["output"], ensure_ascii=False, allow_nan=False))
    except (TypeError, ValueError):
        raise ValueError(f"the output of {which} is not JSON; put dates and special values in quotes") from None
    if length > MAX_OUTPUT:
        raise ValueError(f"the output of {which} has {length:,} characters; at most {MAX_OUTPUT:,} are allowed")
    return CriterionExample(output=written["output"], met=written["met"], reason=written.get("reason", "").strip(), task=written.get("task", "").strip())
