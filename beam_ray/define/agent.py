"""
An agent: a model that may call tools, turn by turn, until it answers.

    agent:
      prompt: prompts/resolve.md
      tools:
        - tools.orders:find                                   # effects as the module's EFFECTS says
        - {tool: "tools.mail:send", effects: write}
        - {mcp: crm, only: [search_accounts], effects: read}
      returns: {decision: {one of: [pay, hold]}, reason: str}
      max_turns: 8
"""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field, StrictInt, field_validator, model_validator

from beam_ray.define.fingerprint import Json
from beam_ray.define.frozen import Frozen
from beam_ray.define.llm_call import LlmCall, Turn
from beam_ray.define.returns import Faults

Effects = Literal["none", "read", "write"]
EFFECTS: tuple[Effects, ...] = ("none", "read", "write")
OnMiss = Literal["live", "refuse", "fail"]

FUNCTION = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"
"""``module:function``"""
ANSWER_TOOL = "give_answer"
"""The function by which an agent answers where an endpoint takes no schema beside tools; no tool may have this name."""

TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""Names of functions that every provider accepts."""


class AgentTool(Frozen):
    """A Python function, or the tools of an MCP server, that an agent may call."""

    tool: str | None = Field(default=None, pattern=FUNCTION)
    """An importable function, ``module:function``, from an allowed folder."""
    mcp: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")
    """The name of an MCP server in the MCP file."""
    only: tuple[str, ...] = ()
    """The tools of the MCP server that are offered; all of them where it is empty."""
    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_-]{1,64}$")
    """The function's name as the model sees it. Default: the name of the function."""
    prefix: str = Field(default="", pattern=r"^[A-Za-z0-9_-]{0,32}$")
    """Put before the names of an MCP server's tools, where another tool has the same name."""
    effects: Effects | None = None
    """Default: what the function's module declares in ``EFFECTS``, else write."""
    on_miss: OnMiss | None = None
    """What a call does in reruns and backtests that the recording does not answer. Default: that of the agent."""
    version: str | None = None
    """The function's declared version. Default: the digest of its source file."""
    key: str | None = Field(default=None, pattern=FUNCTION)
    """A function that gives for a call's arguments what identifies it in a recording. Default: the arguments themselves."""

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            tool: str | None = None,
            mcp: str | None = None,
            only: Sequence[str] = (),
            name: str | None = None,
            prefix: str = "",
            effects: Effects | None = None,
            on_miss: OnMiss | None = None,
            version: str | None = None,
            key: str | None = None,
        ) -> None: ...

    @field_validator("only", mode="before")
    @classmethod
    def _one(cls, written: Json) -> Json:
        return [written] if isinstance(written, str) else written

    @model_validator(mode="after")
    def _one_kind(self) -> "AgentTool":
        if (self.tool is None) == (self.mcp is None):
            raise ValueError("a tool of an agent must have either 'tool' or 'mcp'")
        if self.mcp is not None:
            wrong = next((name for name in ("name", "version") if getattr(self, name) is not None), None)
            if wrong:
                raise ValueError(f"{wrong!r} is for Python functions; the tools of an MCP server have their own names and versions")
            if self.effects not in (None, "write") and not self.only:
                raise ValueError(f"'effects: {self.effects}' needs 'only': name the tools of the MCP server {self.mcp!r} that it holds for")
            if len(set(self.only)) < len(self.only):
                raise ValueError("'only' names a tool twice")
        elif self.only or self.prefix:
            raise ValueError(f"{'only' if self.only else 'prefix'!r} is for MCP servers; a function may have 'name'")
        return self

    @property
    def shown(self) -> str:
        """The tool in messages and tables: ``module:function``, or ``mcp:server``."""
        return self.tool or f"mcp:{self.mcp}"

    @property
    def function_name(self) -> str | None:
        """The name of a Python function as the model sees it; None for an MCP server."""
        return (self.name or self.tool.partition(":")[2]) if self.tool else None


class Agent(LlmCall):
    """A model that may call tools, turn by turn, until it answers. Sampling settings are those of the models file unless given here."""

    tools: tuple[AgentTool, ...] = Field(min_length=1)
    """Python functions as ``module:function``, and MCP servers as ``{mcp: NAME, only: [TOOL]}``."""
    max_turns: StrictInt = Field(default=10, ge=1, le=200)
    """Model calls of one attempt at most."""
    on_miss: OnMiss | None = None
    """What a tool call does in reruns and backtests that the recording does not answer. Default: live, and refuse for write tools."""

    if TYPE_CHECKING:  # what the validators accept

        def __init__(
            self,
            *,
            prompt: str | Sequence[Turn | Mapping[str, str]],
            tools: Sequence[str | AgentTool | Mapping[str, Json]],
            returns: Mapping[str, Json] | None = None,
            max_turns: int = 10,
            on_miss: OnMiss | None = None,
            model: str | None = None,
            temperature: float | None = None,
            top_p: float | None = None,
            max_tokens: int = 1024,
            seed: int = 0,
        ) -> None: ...

    @field_validator("tools", mode="before")
    @classmethod
    def _tools(cls, written: Json) -> Json:
        if not isinstance(written, (list, tuple)):
            return written
        faults: list[tuple[int | str, str]] = [
            (index, f"a tool must be module:function or a mapping such as {{mcp: NAME}}, not {entry!r}")
            for index, entry in enumerate(written)
            if not isinstance(entry, (str, Mapping, AgentTool))
        ]
        if faults:
            raise Faults(faults)
        return [{"tool": entry} if isinstance(entry, str) else entry for entry in written]

    @property
    def servers(self) -> tuple[str, ...]:
        """The MCP servers that it uses, by name."""
        return tuple(dict.fromkeys(entry.mcp for entry in self.tools if entry.mcp))

    @property
    def functions(self) -> tuple[AgentTool, ...]:
        """Those of its tools that are Python functions."""
        return tuple(entry for entry in self.tools if entry.tool)
