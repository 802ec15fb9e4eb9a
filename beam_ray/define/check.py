"""
Check a workflow before any model is called: names, graph, templates, criteria and tools.

One small function per rule. Every rule runs and every problem is reported; errors refuse the
workflow, warnings are advice.
"""

import re
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from beam_ray.address import NODE_NAME
from beam_ray.define.call_criterion import expressions_in
from beam_ray.define.check_agent import agent_advice, agent_problems
from beam_ray.define.check_calls import call_faults
from beam_ray.define.check_program import program_problems
from beam_ray.define.conversation import conversation_faults, is_expression, says_nothing
from beam_ray.define.criterion import CALL_KINDS, expand
from beam_ray.define.llm_call import CONVERSATION, Turn
from beam_ray.define.returns import type_schema
from beam_ray.define.template import TemplateFault, Use, uses
from beam_ray.define.tool_source import find_tool
from beam_ray.define.workflow import Node, Workflow
from beam_ray.define.yaml_file import NoFile, Source, dotted
from beam_ray.errors import BadDefinition, Problem, Unusable, did_you_mean

GIVEN = ("task_query", "variables", "attachments", "messages")
"""Names that every template may use, beside the inputs and the upstream nodes."""

# 'messages' is not reserved: nodes and inputs of 0.1 may have that name, which then means them
RESERVED = (
    "task_query",
    "variables",
    "attachments",
    "expected",
    "output",
    "true",
    "false",
    "none",
    "not",
    "and",
    "or",
    "in",
    "is",
    "if",
    "else",
    "loop",
    "self",
    "range",
)


def check(workflow: Workflow, source: Source | None = None, *, folders: Iterable[Path] = (), project: Path | None = None) -> list[Problem]:
    """
    The warnings for *workflow*.

    Args:
        source: The file that it was loaded from, so that problems name line and column. Without
            it they name the path of the value, such as ``nodes.extract.when``.
        folders: The folders that its tools may be imported from.
        project: The folder that its commands start in; by default the working folder.

    Raises:
        BadDefinition: with every error found, in the order of the file.
    """
    source = source or NoFile(workflow.name)
    problems = list(_names(workflow, source)) + list(_graph(workflow, source))
    if not problems:
        # the rules below follow the graph, so they need one
        places = tuple(folders)
        problems += [*_inputs(workflow, source), *_templates(workflow, source), *_criteria(workflow, source, places)]
        problems += [*_switches(workflow, source), *_tools(workflow, source, places), *agent_problems(workflow, source, places)]
        problems += program_problems(workflow, source, project or Path.cwd())
    if problems:
        raise BadDefinition(problems=problems)
    return [*_advice(workflow, source), *agent_advice(workflow, source, tuple(folders))]


def _names(workflow: Workflow, source: Source) -> Iterator[Problem]:
    for name in workflow.nodes:
        at = ("nodes", name)
        if not NODE_NAME.fullmatch(name):
            yield source.problem(at, f"the node name {name!r} must be a lower-case letter followed by lower-case letters, digits or _ (at most 64 characters)")
        elif name in RESERVED or name in workflow.inputs:
            yield source.problem(at, f"the node name {name!r} is reserved in templates; choose another")
    for name in workflow.inputs:
        if not str(name).isidentifier() or name in ("variables", "attachments", "expected"):
            yield source.problem(("inputs", name), f"the input name {name!r} cannot be used in templates; choose another")


def _graph(workflow: Workflow, source: Source) -> Iterator[Problem]:
    broken = False
    for name, node in workflow.nodes.items():
        for parent in node.after:
            if parent == name:
                broken = True
                yield source.problem(("nodes", name, "after"), f"node {name!r} depends on itself")
            elif parent not in workflow.nodes:
                broken = True
                yield source.problem(
                    ("nodes", name, "after"),
                    f"'after' of node {name!r} names {parent!r}, which is not a node",
                    f"nodes: {', '.join(workflow.nodes)}",
                    *did_you_mean(parent, workflow.nodes),
                )
        if len(set(node.after)) < len(node.after):
            yield source.problem(("nodes", name, "after"), f"'after' of node {name!r} names a node twice")
    if not broken:
        loop = _cycle(workflow)
        if loop:
            yield source.problem(("nodes", loop[0], "after"), f"the graph has a cycle: {' -> '.join([*loop, loop[0]])}", "remove one of these 'after' entries")


def _cycle(workflow: Workflow) -> list[str]:
    try:
        TopologicalSorter({name: node.after for name, node in workflow.nodes.items()}).prepare()
    except CycleError as error:
        # the sorter lists the cycle with its first node repeated at the end
        return list(error.args[1][:-1])
    return []


def _inputs(workflow: Workflow, source: Source) -> Iterator[Problem]:
    for name, written in workflow.inputs.items():
        try:
            type_schema(written, str(name))
        except ValueError as error:
            yield source.problem(("inputs", name), str(error))


def _templates(workflow: Workflow, source: Source) -> Iterator[Problem]:
    for name, node in workflow.nodes.items():
        at = ("nodes", name)
        upstream = workflow.upstream[name]
        if node.call:
            if says_nothing(node.call):
                yield source.problem(
                    (*at, node.kind, "prompt"),
                    f'the prompt of node {name!r} takes in conversations and asks nothing itself; add what is asked: - user: "{{{{ task_query }}}}"',
                )
            for index, turn in enumerate(node.call.prompt):
                spot = (*at, node.kind, "prompt", index, turn.role)
                if turn.role == CONVERSATION and not is_expression(turn):
                    for text, notes in conversation_faults(workflow, name, turn):
                        yield _in_prompt(source, spot, turn, 1, "", text, *notes)
                    continue
                try:
                    found = uses(turn.content)
                except TemplateFault as fault:
                    yield _in_prompt(source, spot, turn, fault.line, "", f"invalid template: {fault}", _HINT if "end of" in str(fault) else "")
                    continue
                for use in found:
                    for text, notes in _unknown(workflow, name, use, upstream, prompt=True):
                        yield _in_prompt(source, spot, turn, use.line, use.root, text, *notes)
        for key, text in _texts(node.arguments, ()):
            yield from _expression(workflow, source, name, (*at, "with", *key), text, upstream, template=True)
        if node.when is not None:
            yield from _expression(workflow, source, name, (*at, "when"), node.when, upstream)


_HINT = "close every {{ with }} and every {% if %} with {% endif %}"


def _in_prompt(source: Source, at: tuple[str | int, ...], turn: Turn, line: int, word: str, text: str, *notes: str) -> Problem:
    said = tuple(note for note in notes if note)
    if turn.file:
        lines = turn.content.splitlines()
        written = lines[line - 1] if line <= len(lines) else ""
        # the position of a turn within a YAML file of turns is not known
        known = not turn.file.endswith((".yaml", ".yml"))
        found = re.search(rf"\b{re.escape(word)}\b", written) if word and known else None
        return Problem(turn.file, line if known else 1, found.start() + 1 if found else 1, text, said)
    if isinstance(source, NoFile):
        return source.problem(at[:-1], text, *said)
    first, column = source.place(at)
    return Problem(source.file, first + line - 1 + (len(turn.content.splitlines()) > 1), column, text, said, path=dotted(at))


def _texts(value: object, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _texts(inner, (*path, index))


_SIGNS = {"{{": "write an expression without {{ }}", "&&": "write 'and'", "||": "write 'or'", "===": "compare with ==", " = ": "compare with =="}


def _expression(
    workflow: Workflow, source: Source, node: str, at: tuple[str | int, ...], text: str, known: Iterable[str], *, template: bool = False, expected: bool = False
) -> Iterator[Problem]:
    try:
        found = uses(text, expression=not template)
    except TemplateFault as fault:
        shown = text if len(text) < 60 else f"{text[:57]}…"
        hint = next((hint for sign, hint in _SIGNS.items() if sign in text), "") if not template else ""
        yield source.problem(at, f"invalid {'template' if template else 'expression'} {shown!r}: {fault}", *([hint] if hint else []))
        return
    for use in found:
        for problem, notes in _unknown(workflow, node, use, known, prompt=not expected):
            yield source.problem(at, problem, *notes)


def _unknown(workflow: Workflow, node: str, use: Use, known: Iterable[str], *, prompt: bool) -> Iterator[tuple[str, tuple[str, ...]]]:
    available = [*workflow.inputs, *(name for name in GIVEN if name not in workflow.inputs and name not in workflow.nodes), *sorted(known)]
    if not prompt:
        available += ["expected", "reasoning"]
    if use.root == "expected" and prompt:
        yield f"node {node!r} uses 'expected', which only criteria may use", ()
    elif use.root not in available:
        what = "which is not upstream of it; add it to 'after'" if use.root in workflow.nodes else "which nothing upstream produces"
        yield f"node {node!r} asks for {use.root!r}, {what}", (f"available here: {', '.join(available)}", *did_you_mean(use.root, available))
    elif use.field and use.root in workflow.nodes:
        fields = workflow.nodes[use.root].fields
        if fields is not None and use.field not in fields:
            yield (
                f"node {node!r} asks for '{use.root}.{use.field}', which {use.root!r} does not return",
                (f"it returns: {', '.join(fields)}", *did_you_mean(use.field, fields)),
            )


def _criteria(workflow: Workflow, source: Source, folders: tuple[Path, ...]) -> Iterator[Problem]:
    for name, node in workflow.nodes.items():
        if node.evaluate is None:
            continue
        place: tuple[str | int, ...] = ("nodes", name, "evaluate", "criteria")
        known = workflow.upstream[name] | {name}
        for criterion, entry in zip(node.evaluate.criteria, _entries(node, name, source), strict=True):
            at: tuple[str | int, ...] = (*place, *entry)
            if criterion.kind == "check":
                yield from _expression(workflow, source, name, at, criterion.want, known, expected=True)
            if criterion.kind == "equals" and isinstance(criterion.want, str):
                yield from _expression(workflow, source, name, at, criterion.want, known, expected=True)
            for field in (field for each in criterion.examples if isinstance(each.output, dict) for field in each.output):
                if node.fields is not None and field not in node.fields:
                    yield source.problem(
                        at,
                        f"an example of a criterion of node {name!r} has the field {field!r}, which the node does not return",
                        f"it returns: {', '.join(node.fields)}",
                        *did_you_mean(str(field), node.fields),
                    )
            if criterion.kind in CALL_KINDS:
                for text, notes in call_faults(workflow, name, criterion, folders):
                    yield source.problem(at, text, *notes)
                for expression in expressions_in(criterion.kind, criterion.want):
                    yield from _expression(workflow, source, name, at, expression, known, expected=True)
            root = criterion.field.split(".")[0]
            if root and node.fields is not None and root not in node.fields:
                yield source.problem(
                    at,
                    f"a criterion of node {name!r} checks the field {criterion.field!r}, which the node does not return",
                    f"it returns: {', '.join(node.fields)}",
                    *did_you_mean(root, node.fields),
                )
        if workflow.judge_of(name) is None and any(criterion.kind == "plain" for criterion in node.evaluate.criteria):
            yield source.problem(
                place, f"node {name!r} has a plain-language criterion but no judge model", "set 'judge' in its 'evaluate' or for the whole workflow"
            )


def _entries(node: Node, name: str, source: Source) -> list[tuple[int, ...]]:
    """For each criterion the index of the list entry that it was written in; empty where there is no file."""
    assert node.evaluate
    try:
        written = source.data["nodes"][name]["evaluate"]["criteria"]
        found: list[tuple[int, ...]] = [(index,) for index, entry in enumerate(written) for _ in expand(entry)]
    except (TypeError, KeyError, ValueError):
        found = []
    return found if len(found) == len(node.evaluate.criteria) else [()] * len(node.evaluate.criteria)


def _switches(workflow: Workflow, source: Source) -> Iterator[Problem]:
    for name, node in workflow.nodes.items():
        at = ("nodes", name)
        if node.route is not None and node.when is None:
            yield source.problem((*at, "route"), f"node {name!r} has a 'route' but no 'when'")
        if node.when is not None and not node.after:
            yield source.problem((*at, "when"), f"node {name!r} has 'when' but no 'after'; name the nodes that the condition depends on")
        if node.auto_rerun and node.evaluate is None:
            yield source.problem((*at, "auto_rerun"), f"node {name!r} has auto_rerun but no criteria, so no score can trigger it")
        if node.effects != "none" and node.llm:
            yield source.problem((*at, "effects"), f"node {name!r} calls a model; 'effects' applies to tools only")
        if node.effects != "none" and node.agent:
            yield source.problem(
                (*at, "effects"), f"node {name!r} is an agent; write 'effects' at its tools, such as {{tool: tools.mail:send, effects: write}}"
            )
        if node.arguments and node.call:
            yield source.problem((*at, "with"), f"node {name!r} calls a model; 'with' applies to tools only, so put the values into the prompt")
        if node.call and workflow.model_of(name) is None:
            yield source.problem(
                (*at, node.kind), f"node {name!r} has no model, and the workflow has no default model", "add 'model: NAME', a name from the models file"
            )


def _tools(workflow: Workflow, source: Source, folders: tuple[Path, ...]) -> Iterator[Problem]:
    for name, node in workflow.nodes.items():
        if node.evaluate:
            for criterion, entry in zip(node.evaluate.criteria, _entries(node, name, source), strict=True):
                if criterion.kind == "python":
                    try:
                        find_tool(workflow, criterion.want, folders)
                    except Unusable as error:
                        yield source.problem(("nodes", name, "evaluate", "criteria", *entry), str(error).replace("the tool", "the function", 1))
        if node.tool:
            reference = node.tool
            try:
                tool = find_tool(workflow, reference, folders)
            except Unusable as error:
                yield source.problem(("nodes", name, "tool"), str(error))
                continue
            if tool.parameters is not None:
                for argument in node.arguments:
                    if argument not in tool.parameters:
                        yield source.problem(
                            ("nodes", name, "with", argument),
                            f"the tool {reference!r} has no parameter {argument!r}",
                            f"its parameters: {', '.join(tool.parameters) or 'none'}",
                            *did_you_mean(argument, tool.parameters),
                        )
            missing = [parameter for parameter in tool.required if parameter not in node.arguments]
            if missing:
                yield source.problem(("nodes", name, "tool"), f"the tool {reference!r} requires {', '.join(map(repr, missing))} in 'with'")


def _advice(workflow: Workflow, source: Source) -> Iterator[Problem]:
    for place, judge in (((), workflow.judge), *((("nodes", name, "evaluate"), node.evaluate.judge) for name, node in workflow.nodes.items() if node.evaluate)):
        if isinstance(judge, tuple) and len(judge) % 2 == 0:
            yield source.problem((*place, "judge"), f"warning: a panel of {len(judge)} judges can tie, which leaves the output unscored; an odd number cannot")
    last = {name for name in workflow.nodes if not workflow.downstream(name)}
    for name, node in workflow.nodes.items():
        if node.auto_rerun is None:
            continue
        at = ("nodes", name, "auto_rerun")
        if node.program and not node.asks:
            yield source.problem(at, f"warning: node {name!r} is a {node.kind}: the same input gives the same result, so auto_rerun rarely helps")
        if name in last:
            yield source.problem(
                at,
                f"warning: node {name!r} produces the final output, where a person's review may serve better than auto_rerun",
                "'on_exhausted: review' flags the step for a person",
            )
        if node.evaluate and not any(criterion.kind == "plain" for criterion in node.evaluate.criteria):
            yield source.problem(
                at, f"warning: node {name!r} has auto_rerun and only rules as criteria; make sure that their results can change from attempt to attempt"
            )
        if node.evaluate and any(criterion.kind == "equals" and "expected" in str(criterion.want) for criterion in node.evaluate.criteria):
            yield source.problem(at, f"warning: node {name!r} triggers auto_rerun by comparing with the expected outcome, which does not exist in production")
