"""The names that a prompt may use; and a prompt that was written for something else, as a template over them."""

import re

from beam_ray.define.template import TemplateFault, uses
from beam_ray.define.workflow import Workflow

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


def names_for(workflow: Workflow, node: str) -> tuple[str, ...]:
    """What templates of the node may use: the inputs, what every task has, and the fields of nodes upstream."""
    found = [*workflow.inputs, *(name for name in GIVEN if name not in workflow.inputs and name not in workflow.nodes)]
    for name in workflow.order:
        if name in workflow.upstream[node]:
            fields = workflow.nodes[name].fields
            found += [name] if fields is None else [f"{name}.{field}" for field in fields]
    return tuple(found)


def _literal(text: str) -> str:
    """Text in which nothing is a tag."""
    return re.sub(r"\{[{%#]", lambda found: f"{{{{ '{found[0]}' }}}}", text)
