"""
Prompts, conditions and checks: one small language for all three.

Jinja2 in its immutable sandbox, strict: a name that is not there is an error, never an
empty string. A value is rendered once and is never itself taken for a template.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import StrictUndefined, meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from beam_ray.errors import BadTemplate

MAX_SOURCE = 200_000
"""Characters of a template's text."""

MAX_RENDERED = 2_000_000
"""Characters that a template may render to."""


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, which also refuses to multiply a text into a bomb."""

    intercepted_binops = frozenset(["*", "**"])

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        for one, other in ((left, right), (right, left)):
            if isinstance(one, (str, list, tuple)) and isinstance(other, int) and len(one) * other > MAX_RENDERED:
                raise SecurityError("a text may not be multiplied beyond the length limit")
        if operator == "**" and (abs(left) > 10**6 or abs(right) > 64):
            raise SecurityError("a power this large takes too long")
        return super().call_binop(context, operator, left, right)


_ENVIRONMENT = _Environment(undefined=StrictUndefined, keep_trailing_newline=False, autoescape=False)


@dataclass(frozen=True)
class Use:
    """A name that a template asks for: ``extract.po_number`` is root 'extract', field 'po_number'."""

    root: str
    field: str
    line: int


class TemplateFault(ValueError):
    """A template's text is wrong at *line* (from 1)."""

    def __init__(self, message: str, *, line: int = 1):
        self.line = line
        super().__init__(message)


def uses(source: str, *, expression: bool = False) -> list[Use]:
    """
    The names that a template, or an expression, takes from outside.

    Raises:
        TemplateFault: it cannot be parsed, or is too long.
    """
    if len(source) > MAX_SOURCE:
        raise TemplateFault(f"the template has {len(source):,} characters; at most {MAX_SOURCE:,} are allowed")
    try:
        if expression:
            _ENVIRONMENT.compile_expression(source)
            tree = _ENVIRONMENT.parse("{{ (" + source + ") }}")
        else:
            # compiling finds unknown filters and tests, which parsing does not
            _ENVIRONMENT.compile(source)
            tree = _ENVIRONMENT.parse(source)
        outside = meta.find_undeclared_variables(tree)
    except jinja2.TemplateSyntaxError as error:
        raise TemplateFault(str(error.message), line=error.lineno or 1) from None
    except RecursionError:
        raise TemplateFault("the template is nested too deep") from None
    found: list[Use] = []
    inside = set()
    for node in tree.find_all((nodes.Getattr, nodes.Getitem)):
        assert isinstance(node, (nodes.Getattr, nodes.Getitem))
        if not isinstance(node.node, nodes.Name) or node.node.name not in outside:
            continue
        if isinstance(node, nodes.Getattr):
            field = node.attr
        elif isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str):
            field = node.arg.value
        else:
            continue
        inside.add(id(node.node))
        found.append(Use(node.node.name, field, node.lineno))
    found += [Use(node.name, "", node.lineno) for node in tree.find_all(nodes.Name) if node.name in outside and id(node) not in inside]
    return sorted(set(found), key=lambda use: (use.line, use.root, use.field))


@lru_cache(maxsize=4096)
def _template(source: str) -> jinja2.Template:
    return _ENVIRONMENT.from_string(source)


@lru_cache(maxsize=4096)
def _expression(source: str) -> Any:
    return _ENVIRONMENT.compile_expression(source, undefined_to_none=False)


def render(source: str, values: Mapping[str, Any]) -> str:
    """
    *source* with *values* filled in.

    Raises:
        BadTemplate: a value is missing, or the result is too long.
    """
    pieces, length = [], 0
    try:
        for piece in _template(source).generate(values):
            length += len(piece)
            if length > MAX_RENDERED:
                raise BadTemplate(f"the prompt rendered to more than {MAX_RENDERED:,} characters")
            pieces.append(piece)
    except (jinja2.TemplateError, SecurityError, ArithmeticError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise BadTemplate(f"the template could not be filled in: {error}") from None
    return "".join(pieces)


def evaluate(source: str, values: Mapping[str, Any]) -> Any:
    """
    The value of the expression *source*.

    Raises:
        BadTemplate: a value is missing, or the expression cannot be computed.
    """
    try:
        result = _expression(source)(values)
        if isinstance(result, jinja2.Undefined):
            str(result)  # a strict undefined raises here, with the name that is missing
        return result
    except (jinja2.TemplateError, SecurityError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise BadTemplate(f"{source!r} could not be computed: {error}") from None


def fill(value: Any, values: Mapping[str, Any]) -> Any:
    """
    A tool's argument: ``"{{ extract.amount }}"`` alone keeps its type, text around it makes a text.

    Raises:
        BadTemplate: a value is missing.
    """
    if isinstance(value, Mapping):
        return {key: fill(inner, values) for key, inner in value.items()}
    if isinstance(value, list):
        return [fill(inner, values) for inner in value]
    if not isinstance(value, str) or "{" not in value:
        return value
    inner = value.strip()
    if inner.startswith("{{") and inner.endswith("}}") and inner.count("{{") == 1:
        return evaluate(inner[2:-2].strip(), values)
    return render(value, values)
