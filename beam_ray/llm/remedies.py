"""The lines to write in the models file when an endpoint refuses a setting."""

import re

from beam_ray.llm.families import STRUCTURED
from beam_ray.llm.refusals import Refusal
from beam_ray.llm.settings import ModelSettings, lines

_MISSING = re.compile(r"missing|without|must be (passed|provided|present|returned|included)|required", re.IGNORECASE)
_TOO_LARGE = re.compile(r"too large|at most|maximum|exceed|less than or equal|up to", re.IGNORECASE)


def remedy(parameter: str, refusal: Refusal, settings: ModelSettings, name: str, node: str, *, node_is_agent: bool = False) -> str:
    """What to do about the *parameter* that the endpoint of the model *name* refuses, as indented lines."""
    advice = change_for(parameter, refusal, settings, node, node_is_agent=node_is_agent)
    if isinstance(advice, str):
        return f"  {advice}; then run the same command again to resume"
    return "\n".join(["  write in the models file:", *(f"    {line}" for line in lines(name, advice)), "  then run the same command again to resume"])


def change_for(parameter: str, refusal: Refusal, settings: ModelSettings, node: str = "", *, node_is_agent: bool = False) -> dict[str, str | bool] | str:
    """The settings of the model to change, or advice in words where it is not a setting of the model."""
    call = settings.call
    if parameter in settings.extra:
        return f"remove {parameter!r} from 'extra' of the model in the models file"
    if parameter in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
        if _TOO_LARGE.search(refusal.message) or parameter != call.max_tokens_as:
            return f"lower max_tokens{f' of node {node!r}' if node else ''}"
        return {"max_tokens_as": "max_completion_tokens" if parameter == "max_tokens" else "max_tokens"}
    if parameter in ("temperature", "top_p"):
        return {"temperature": "omit"}
    if parameter == "seed":
        return {"seeds": False}
    if parameter == "structured_with_tools":
        return {"structured_with_tools": "function"}
    if parameter == "reasoning_back":
        return {"reasoning_back": bool(_MISSING.search(refusal.message))}
    if parameter == "parallel_tool_calls":
        return f"remove {parameter!r} from the settings of the model in the models file"
    if parameter == "tools.parameters":
        return (
            f"the endpoint does not take how a tool{f' of agent {node!r}' if node else ''} is described; give its arguments simpler types, or ask another model"
        )
    if parameter == "tools" and node_is_agent:
        return f"the endpoint takes no tools from this model; give the agent{f' {node!r}' if node else ''} another model"
    if parameter in ("response_format", "json_schema", "json_object", "text", "text.format", "tools", "tool_choice"):
        at = STRUCTURED.index(call.structured)
        return {"structured": STRUCTURED[min(at + 1, len(STRUCTURED) - 1)]}
    if parameter in ("reasoning_effort", "reasoning"):
        return {"reasoning_effort": "auto"}
    return f"the endpoint does not accept {parameter!r}; 'beam-ray models check' shows what it accepts"
