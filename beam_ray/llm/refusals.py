"""
What an endpoint's refusal means: for this row, for the whole run, or for a moment.

``RULES`` is a table; the first rule that matches decides. A refusal that names a setting, the model
or the schema would meet every row, so it stops the run before more calls are paid for.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from beam_ray.define.fingerprint import Json


class Kind(StrEnum):
    """What a refusal is about."""

    SETTING = "setting"
    """A parameter or the schema: the run stops, with the line to write."""
    ACCESS = "access"
    """The key, the address or the name of the model: the run stops."""
    QUOTA = "quota"
    """Money or quota is used up: the run stops and can be resumed later."""
    CONTENT = "content"
    """The content filter declined this row: the row fails."""
    ROW = "row"
    """Something else about this row, such as a prompt that is too long: the row fails."""
    RATE_LIMIT = "rate limit"
    """Too many calls: another try after a pause, and fewer calls at once."""
    BUSY = "busy"
    """The endpoint has a fault or is overloaded: another try."""


@dataclass(frozen=True)
class Refusal:
    """An error that an endpoint replied with."""

    status: int
    code: str = ""
    param: str = ""
    """The parameter that the endpoint names, where it does."""
    message: str = ""


@dataclass(frozen=True)
class Rule:
    """A row of the table: every condition that it gives must hold."""

    kind: Kind
    status: tuple[int, ...] = ()
    code: str = ""
    """Regular expression for the whole code."""
    message: str = ""
    """Regular expression that is searched in the message, ignoring case."""

    def matches(self, refusal: Refusal) -> bool:
        """Whether all conditions hold."""
        return (
            (not self.status or refusal.status in self.status)
            and (not self.code or re.fullmatch(self.code, refusal.code) is not None)
            and (not self.message or re.search(self.message, refusal.message, re.IGNORECASE) is not None)
        )


_TOO_LONG = r"context (length|window|size)|context_length|maximum (prompt|input|context|model) length|(prompt|input|message|request)s? (is|are|was) too (long|large)|too many (input )?tokens|reduce the length|prompt too long|input token count"
_IMAGE = r"image.{0,80}(too (large|big|small)|exceeds|dimension|could not|cannot|invalid|unsupported|not valid|download|process)|(could not|unable to) (process|download|decode) (the )?image|invalid (base64 )?image"
_FILTER = r"content (management|filter|policy)|safety system|responsible ai"
_UNKNOWN_MODEL = (
    r"model.{0,80}(not found|does not exist|not exist|no such|not supported for|unknown|invalid|deprecated|retired)|(unknown|invalid|no such) model"
)

RULES = (
    Rule(Kind.QUOTA, status=(402,)),
    Rule(Kind.QUOTA, code=r"insufficient_quota|billing_hard_limit_reached|insufficient_balance"),
    Rule(Kind.CONTENT, code=r"content_filter|content_policy_violation"),
    Rule(Kind.CONTENT, status=(400, 403, 422), message=_FILTER),
    Rule(Kind.ACCESS, status=(401,)),
    Rule(Kind.ACCESS, status=(403, 404)),
    Rule(Kind.RATE_LIMIT, status=(429,)),
    Rule(Kind.BUSY, status=(408, 409)),
    Rule(Kind.ROW, status=(413,)),
    Rule(Kind.ROW, code=r"context_length_exceeded|string_above_max_length|invalid_image.*|image_.*|unsupported_image.*"),
    Rule(Kind.ROW, status=(400, 422), message=_TOO_LONG),
    Rule(Kind.ROW, status=(400, 422), message=_IMAGE),
    Rule(Kind.ACCESS, code=r"model_not_found|model_not_available|invalid_model|DeploymentNotFound|unknown_model"),
    Rule(Kind.ACCESS, status=(400, 422), message=_UNKNOWN_MODEL),
)

_REFUSED = r"unsupported|not support|unknown|unrecogni[sz]ed|unexpected|not permitted|extra (inputs|fields)|extra_forbidden|unavailable|not available|does not support|not allowed|cannot find|invalid|only the default|must be|should be|deprecated|removed|out of range"

PARAMETERS = (
    "max_completion_tokens", "max_output_tokens", "max_tokens", "temperature", "top_p", "seed", "response_format", "json_schema", "json_object",
    "text.format", "tool_choice", "tools", "reasoning_effort", "reasoning", "service_tier", "model",
)  # fmt: skip
"""What we send that an endpoint may refuse; of several that a message names the first one counts."""

_SCHEMA = re.compile(
    r"(invalid|unsupported|incompatible|not supported|not permitted).{0,60}schema|schema.{0,80}(invalid|unsupported|not supported|not permitted|required to be)",
    re.IGNORECASE,
)


_REASONING = re.compile(
    r"reasoning_content|reasoning_details|encrypted_content|(?<!\w)reasoning' item|thought_?signature|messages\W{0,3}\d*\W{0,3}reasoning", re.IGNORECASE
)
_NO_TOOLS = re.compile(
    r"(not support|unsupported|no support|not available|requires?|unknown|unexpected|not permitted).{0,60}(?<![\w_])(tools?|function[_ ]call\w*)\b(?!_)"
    r"|(?<![\w_])(tools?|function[_ ]call\w*)\b(?!_).{0,60}(not support|unsupported|not available|requires?|not enabled|not permitted)",
    re.IGNORECASE,
)
_TOOL_SCHEMA = re.compile(
    r"schema for function|tools\W\d+\W.{0,20}(parameters|name)|function_?declarations?.{0,60}(parameters|name)|tool.{0,40}(input_schema|parameters)",
    re.IGNORECASE,
)
_NOT_TOGETHER = re.compile(
    r"(json|format|grammar|schema|mime).{0,100}(?<!\w)(tool|function)|(?<!\w)(tool|function).{0,100}(json|format|grammar|schema|mime)", re.IGNORECASE
)


def kind_of(refusal: Refusal, sent: Mapping[str, Json]) -> tuple[Kind, str]:
    """
    What *refusal* is about, and for a setting the parameter.

    *sent* is the body of the request.
    """
    for rule in RULES:
        if rule.matches(refusal):
            return rule.kind, ""
    if refusal.status >= 500:
        return Kind.BUSY, ""
    if refusal.status in (400, 405, 422):
        parameter = parameter_of(refusal, sent)
        if parameter == "model":
            return Kind.ACCESS, ""
        if parameter:
            return Kind.SETTING, parameter
    return Kind.ROW, ""


def parameter_of(refusal: Refusal, sent: Mapping[str, Json]) -> str:
    """The parameter of *sent* that *refusal* is about, or an empty string."""
    about_tools = _about_tools(refusal, sent) if _is_agents(sent) else ""
    if about_tools:
        return about_tools
    known = (*PARAMETERS, *(name for name in sent if name not in (*PARAMETERS, "messages", "input")))
    root = refusal.param.split(".")[0].split("[")[0]
    if refusal.param in known or root in known:
        return refusal.param if refusal.param in known else root
    if root in ("messages", "input"):
        return ""
    if _SCHEMA.search(refusal.message):
        return "response_format"
    if refusal.code in ("unsupported_parameter", "unsupported_value", "unknown_parameter", "extra_forbidden") or re.search(
        _REFUSED, refusal.message, re.IGNORECASE
    ):
        named = [(found.start(), name) for name in known if name != "model" and (found := re.search(rf"(?<![\w.]){re.escape(name)}(?!\w)", refusal.message))]
        return min(named)[1] if named else ""
    return ""


def _is_agents(sent: Mapping[str, Json]) -> bool:
    """Whether the body offers tools among which the model chooses."""
    return bool(sent.get("tools")) and not isinstance(sent.get("tool_choice"), Mapping)


def _about_tools(refusal: Refusal, sent: Mapping[str, Json]) -> str:
    """Which of our settings for agents the refusal is about, or ``tools`` where the model takes none; empty for anything else."""
    said = f"{refusal.param}: {refusal.message}"
    if "parallel_tool_calls" in said and "parallel_tool_calls" in sent:
        return "parallel_tool_calls"
    if _REASONING.search(said):
        return "reasoning_back"
    if _TOOL_SCHEMA.search(said):
        return "tools.parameters"
    formatted = "response_format" in sent or "format" in (sent.get("text") or {})
    if formatted and _NOT_TOGETHER.search(said):
        return "structured_with_tools"
    return "tools" if refusal.param in ("tools", "tool_choice") or _NO_TOOLS.search(refusal.message) else ""


def read_refusal(status: int, body: Json) -> Refusal:
    """
    The refusal in an endpoint's reply.

    Understood are OpenAI's form, FastAPI's ``detail`` list, Google's list of errors, Anthropic's nested
    form, and plain text.
    """
    if isinstance(body, list) and body:
        body = body[0]
    if not isinstance(body, Mapping):
        text = str(body or "").strip()
        return Refusal(status, message="" if text.startswith("<") else text)  # a proxy's page of HTML says nothing
    error = body.get("error")
    if isinstance(error, str):
        return Refusal(status, str(body.get("code") or ""), str(body.get("param") or ""), error)
    if isinstance(error, Mapping):
        code = error.get("code")
        return Refusal(status, str(code if isinstance(code, str) and code else error.get("type") or ""), str(error.get("param") or ""), _message(error))
    detail = body.get("detail")
    if isinstance(detail, list) and detail and isinstance(detail[0], Mapping):
        written = detail[0].get("loc")
        place = [str(part) for part in (written if isinstance(written, list) else ()) if part != "body"]
        said = ": ".join(filter(None, (".".join(place), str(detail[0].get("msg") or ""))))
        return Refusal(status, str(detail[0].get("type") or ""), ".".join(place), said)
    return Refusal(status, str(body.get("code") or body.get("type") or ""), str(body.get("param") or ""), _message(body) or str(detail or ""))


def status_within(body: Mapping[str, Json]) -> int:
    """The status that an error inside a reply with status 200 stands for; 0 where it does not say."""
    error = body.get("error")
    if not isinstance(error, Mapping):
        return 0
    for name in ("code", "status", "status_code"):
        found = error.get(name)
        if isinstance(found, str) and found.isdigit():
            found = int(found)
        if isinstance(found, int) and not isinstance(found, bool) and 400 <= found < 600:
            return found
    words = f"{error.get('code')} {error.get('type')}".lower()
    if "rate_limit" in words or "too_many" in words:
        return 429
    if any(word in words for word in ("server_error", "overloaded", "unavailable", "timeout", "internal", "insufficient_system_resource")):
        return 503
    return 400 if "invalid_request" in words or "unsupported" in words else 0


def _message(error: Mapping[str, Json]) -> str:
    found = error.get("message") or error.get("msg") or ""
    inner = error.get("metadata")
    if isinstance(inner, Mapping) and isinstance(inner.get("raw"), str):
        return f"{found}: {inner['raw']}"  # a router's own words, then the provider's
    return str(found)
