"""
The sandbox that templates run in, with a limit on the work of one rendering.

Authors write templates, but the values that are looped over, repeated and padded come from
tasks and models, so a template could be made to render gigabytes. Each loop iteration, each
call and each value that is built counts as work, and a rendering has a budget of it. Work is
counted rather than timed, so a row fails on every machine or on none.

Filters and globals with random results are removed, since a prompt is identified by its text.
"""

import functools
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from jinja2 import StrictUndefined, nodes
from jinja2.exceptions import SecurityError
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

MAX_VALUE = 2_000_000
"""Characters of a value that a template builds, including all its parts."""

MAX_WORK = 20_000_000
"""Units of work of one rendering: a character built is one unit, a loop iteration or a call is STEP units."""

STEP = 50
PART = 8
"""Units for an element of a list or mapping, which takes longer to process than a character."""

MAX_BITS = 10_000
"""Bits of an integer."""

_PADS = ("center", "ljust", "rjust", "zfill", "expandtabs")
_NOT_REPEATABLE = ("random",)
_WIDTH = re.compile(r"%[^%a-zA-Z]*(\*|[0-9]{5})")

_left = threading.local()


def begin() -> None:
    """Reset the work budget for the next rendering in this thread."""
    _left.work = MAX_WORK


def _spend(units: int) -> None:
    _left.work = getattr(_left, "work", MAX_WORK) - units
    if _left.work < 0:
        raise SecurityError(f"the template takes more than {MAX_WORK // STEP:,} steps, or builds more than {MAX_WORK:,} characters")


def _weigh(value: Any, most: int) -> int:
    """The number of characters of *value* with all its parts; counting stops above *most*."""
    if isinstance(value, str):
        return len(value)
    if not isinstance(value, (list, tuple, Mapping)):
        return PART
    total = PART
    for part in [*value, *value.values()] if isinstance(value, Mapping) else value:
        total += _weigh(part, most - total)
        if total > most:
            break
    return total


def _made(value: Any) -> Any:
    """*value*, after charging its size to the budget."""
    weight = _weigh(value, MAX_VALUE)
    _refuse(weight)
    _spend(weight)
    return value


def _refuse(size: int) -> None:
    if size > MAX_VALUE:
        raise SecurityError(f"the template builds a value of more than {MAX_VALUE:,} characters")


def _steps(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        _spend(STEP)
        yield value


def _expected_size(name: str, text: str, arguments: tuple[Any, ...], named: Mapping[str, object]) -> None:
    """Refuse a filter or method whose result for *text* would be too large, before it runs."""
    given = [*arguments, *named.values()]
    widths = [value for value in given if isinstance(value, int)]
    if name in _PADS and widths:
        _refuse(max(widths) * (text.count("\t") + 1))
    elif name in ("indent", "wordwrap") and given:
        width = max((value if isinstance(value, int) else len(str(value)) for value in given), default=0)
        _refuse(width * (text.count("\n") + 1))
    elif name == "replace" and len(given) >= 2:
        _refuse(len(text) + (text.count(str(given[0])) if given[0] else len(text) + 1) * len(str(given[1])))
    elif name == "format" and (_WIDTH.search(text) or len(text) > 100_000):
        raise SecurityError("a string may not be padded to this width")


def _bounded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The filter *function* with its result limited and charged to the budget."""
    skip = 1 if hasattr(function, "jinja_pass_arg") else 0

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        _spend(STEP)
        first, rest = arguments[skip] if len(arguments) > skip else "", arguments[skip + 1 :]
        if isinstance(first, str):
            _expected_size(name, first, rest, named)
        elif name == "join":
            first = list(_steps(first))
            between = str((*rest, named.get("d", ""))[0])
            _refuse(_weigh(first, MAX_VALUE) + len(between) * len(first))
            arguments = (*arguments[:skip], first, *rest)
        if name in ("batch", "slice", "tojson") and any(isinstance(value, int) and value > 10_000 for value in (*rest, *named.values())):
            raise SecurityError(f"the argument of {name!r} is too large")
        return _made(function(*arguments, **named))

    return call


class _Counted(NodeTransformer):
    """Inserts the accounting into a template's syntax tree: around every iterable of a loop and every value that is built."""

    def visit_For(self, node: nodes.For) -> nodes.For:
        self.generic_visit(node)
        node.iter = self._through("steps", node.iter)
        return node

    def _value(self, node: nodes.Expr) -> nodes.Expr:
        self.generic_visit(node)
        if getattr(node, "ctx", "load") != "load":
            return node
        return self._through("made", node)

    visit_Concat = visit_List = visit_Dict = visit_Tuple = _value

    def _through(self, name: str, node: Any) -> nodes.Filter:
        return nodes.Filter(node, f" {name}", [], [], None, None, lineno=node.lineno, environment=node.environment)


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja2's immutable sandbox with strict undefined names and a work budget."""

    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self) -> None:
        super().__init__(undefined=StrictUndefined, keep_trailing_newline=False, autoescape=False)
        for name in (*_NOT_REPEATABLE, "attr", "xmlattr", "urlize", "pprint"):
            del self.filters[name]
        del self.globals["lipsum"]
        self.filters = {name: _bounded(name, function) for name, function in self.filters.items()}
        # names that a template cannot spell
        self.filters |= {" steps": _steps, " made": _made}

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        _spend(STEP)
        if operator == "*":
            for one, other in ((left, right), (right, left)):
                if isinstance(one, (str, list, tuple)) and isinstance(other, int):
                    _refuse(_weigh(one, MAX_VALUE) * max(other, 0))
            if isinstance(left, int) and isinstance(right, int) and left.bit_length() + right.bit_length() > MAX_BITS:
                raise SecurityError("the number would be too large")
        elif operator == "**":
            if not isinstance(left, (int, float)) or not isinstance(right, (int, float)):
                raise SecurityError("the power operator applies to numbers only")
            if isinstance(left, int) and isinstance(right, int) and left.bit_length() * abs(right) > MAX_BITS:
                raise SecurityError("the power would be too large")
        elif operator == "%" and isinstance(left, str):
            _expected_size("format", left, (), {})
        elif operator == "+" and isinstance(left, (str, list, tuple)):
            _refuse(_weigh(left, MAX_VALUE) + _weigh(right, MAX_VALUE))
        return _made(super().call_binop(context, operator, left, right))

    def call(self, context: Any, function: Any, /, *arguments: Any, **named: Any) -> Any:  # type: ignore[override]
        _spend(STEP)
        if isinstance(function, LoopContext) and arguments:
            arguments = (_steps(arguments[0]), *arguments[1:])
        own, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
        if isinstance(own, str):
            if name == "join" and arguments:
                parts = list(_steps(arguments[0]))
                _refuse(_weigh(parts, MAX_VALUE) + len(own) * len(parts))
                arguments = (parts,)
            else:
                _expected_size(name, own, arguments, named)
        return _made(super().call(context, function, *arguments, **named))

    def wrap_str_format(self, value: Any) -> None:
        """Refuse ``str.format``, whose syntax reaches attributes and widths."""
        if getattr(value, "__name__", "") in ("format", "format_map") and isinstance(getattr(value, "__self__", None), str):
            raise SecurityError("the string method 'format' is not available; write {{ … }}")

    def _generate(self, source: nodes.Template, name: str | None, filename: str | None, defer_init: bool = False) -> str:
        begin()
        return super()._generate(_Counted().visit(source), name, filename, defer_init)
