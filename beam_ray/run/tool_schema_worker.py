"""
The process that describes Python functions to models: reads one function per line, writes one description per line.

Like ``tool_worker`` it is started as a file, and imports nothing of beam_ray.
"""

import importlib
import inspect
import json
import logging
import os
import sys
import types
import typing
from collections.abc import Callable
from typing import Any

PLAIN = (str, int, float, bool, type(None), list, dict, Any, object, inspect.Parameter.empty)
"""Types whose values are JSON as they are."""


def main(folders: list[str]) -> None:
    """Describe functions until standard input ends."""
    results = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.path[:0] = folders
    sys.dont_write_bytecode = True
    logging.disable(logging.WARNING)  # that a docstring repeats no types is no fault
    for line in sys.stdin:
        wanted = json.loads(line)
        try:
            result = describe(getattr(importlib.import_module(wanted["module"]), wanted["function"]))
        except BaseException as error:  # an error of the module is the result
            missing = error.name if isinstance(error, ModuleNotFoundError) else None
            result = {"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:1000], "missing": missing}
        results.write(json.dumps(result) + "\n")
        results.flush()


def describe(function: Callable[..., Any]) -> dict[str, Any]:
    """The function's description, the JSON schema of its arguments, and whether its types need pydantic."""
    from pydantic import TypeAdapter

    kind: Any = function
    schema = TypeAdapter(kind).json_schema()
    text, described = from_docstring(function)
    for name, parameter in schema.get("properties", {}).items():
        if name in described and "description" not in parameter:
            parameter["description"] = described[name]
    schema.setdefault("properties", {})
    return {"description": text, "parameters": tidy(schema, schema.pop("$defs", {})), "typed": not all(map(is_plain, hints(function)))}


def from_docstring(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """What the docstring says: of the function, and of each parameter."""
    import griffe

    written = inspect.getdoc(function) or ""
    if not written:
        return "", {}
    docstring = griffe.Docstring(written)
    style, _ = griffe.infer_docstring_style(docstring, default="google")
    texts: list[str] = []
    described: dict[str, str] = {}
    for section in docstring.parse(style or "google"):
        if section.kind is griffe.DocstringSectionKind.text:
            texts.append(section.value)
        elif section.kind is griffe.DocstringSectionKind.parameters:
            described |= {parameter.name: " ".join(parameter.description.split()) for parameter in section.value if parameter.description}
    return "\n\n".join(texts).strip(), described


def tidy(schema: Any, defs: dict[str, Any], above: tuple[str, ...] = ()) -> Any:
    """The schema without titles, and with definitions in their places; a type that contains itself ends in any value."""
    if isinstance(schema, list):
        return [tidy(part, defs, above) for part in schema]
    if not isinstance(schema, dict):
        return schema
    name = schema.get("$ref", "").rpartition("/")[2]
    if name:
        rest = {key: value for key, value in schema.items() if key != "$ref"}
        return {**(tidy(defs.get(name, {}), defs, (*above, name)) if name not in above else {}), **rest}
    result: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "properties":
            result[key] = {field: tidy(inner, defs, above) for field, inner in value.items()}
        elif key in ("default", "enum", "const", "examples"):
            result[key] = value
        elif key not in ("title", "discriminator"):
            result[key] = tidy(value, defs, above)
    return result


def hints(function: Callable[..., Any]) -> list[Any]:
    """The types of its parameters and of its result."""
    found = typing.get_type_hints(function, include_extras=False)
    return [*(found.get(name, inspect.Parameter.empty) for name in inspect.signature(function).parameters), found.get("return", inspect.Parameter.empty)]


def is_plain(kind: Any) -> bool:
    """Whether JSON values are values of the type."""
    origin = typing.get_origin(kind)
    if origin is typing.Literal:
        return True
    if origin in (typing.Union, types.UnionType, list, dict):
        return all(map(is_plain, typing.get_args(kind)))
    return any(kind is plain for plain in PLAIN)


if __name__ == "__main__":
    main(sys.argv[1:])
