"""A prompt that was written for something else, as a template whose names are variables of a task."""

import re

from beam_ray.define.template import TemplateFault, uses

GIVEN = ("task_query", "variables", "attachments")
"""Names that a template has anyway."""

_MUSTACHE = re.compile(r"\{\{-?\s*[A-Za-z_]\w*")
_BRACE = re.compile(r"(?<!\{)\{([A-Za-z_]\w*)\}(?!\})")
_TAG = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)


def to_template(prompt: str) -> tuple[str, tuple[str, ...]]:
    """
    The prompt as a template, and the names of the variables that it takes from a task.

    ``{{ name }}`` and Jinja tags are kept and ``{name}``, as of Python's format, becomes ``{{ variables.name }}``.

    Raises:
        TemplateFault: it is no template.
    """
    text = prompt
    if not _MUSTACHE.search(prompt) and _BRACE.search(prompt):
        # in a format string, doubled braces stand for single ones
        parts = _BRACE.split(prompt)
        parts[::2] = [_literal(part.replace("{{", "{").replace("}}", "}")) for part in parts[::2]]
        parts[1::2] = [f"{{{{ {name} }}}}" for name in parts[1::2]]
        text = "".join(parts)
    names = tuple(dict.fromkeys(use.root for use in uses(text) if use.root not in GIVEN))
    if names:
        word = re.compile(rf"(?<![\w.'\"])({'|'.join(map(re.escape, names))})\b(?!\s*[=(])")
        text = _TAG.sub(lambda tag: word.sub(r"variables.\1", tag[0]), text)
    rest = {use.root for use in uses(text)} - set(GIVEN)
    if rest:
        raise TemplateFault(f"the name {sorted(rest)[0]!r} is used in a way that cannot be made a variable; write it as {{{{ {sorted(rest)[0]} }}}}")
    return text, names


def _literal(text: str) -> str:
    """Text in which nothing is a tag."""
    return re.sub(r"\{[{%#]", lambda found: f"{{{{ '{found[0]}' }}}}", text)
