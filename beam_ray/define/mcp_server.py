"""
MCP servers whose tools agents may use, as a file names them beside the models file.

    crm:
      command: [python, -m, crm_server]              # a program on this machine, started without a shell
      env: [CRM_TOKEN]                               # environment variables that it gets, by name
    docs:
      url: https://docs.example.com/mcp              # a server that speaks streamable HTTP
      headers: {Authorization: "Bearer ${env:DOCS_TOKEN}"}
"""

import re
from collections.abc import Mapping
from pathlib import Path

import pydantic
from pydantic import Field, StrictFloat, field_validator, model_validator

from beam_ray.define.fingerprint import JsonObject, digest
from beam_ray.define.frozen import Frozen
from beam_ray.define.validation import validation_problems
from beam_ray.define.yaml_file import read_yaml
from beam_ray.errors import BadDefinition, Problem, Unusable

SECRET_HEADERS = ("authorization", "api-key", "x-api-key", "proxy-authorization", "cookie")


class McpTool(Frozen):
    """A tool as its MCP server lists it."""

    name: str
    description: str = ""
    parameters: JsonObject = {}
    """The JSON schema of its arguments."""


class McpServer(Frozen):
    """One MCP server: a program that is started, or an address."""

    command: tuple[str, ...] = ()
    """The program and its arguments, a list; no shell reads it."""
    env: tuple[str, ...] = ()
    """Names of environment variables that the program gets, besides PATH, HOME and the like."""
    url: str | None = Field(default=None, pattern=r"^(https?://|\$\{env:)")
    """The address of a server that speaks streamable HTTP."""
    headers: dict[str, str] = {}
    """Sent with every request; a secret stands as ${env:NAME}."""
    start_s: StrictFloat = Field(default=30, gt=0, le=600)
    """Seconds that it may take to start and to list its tools."""
    call_s: StrictFloat = Field(default=60, gt=0, le=86_400)
    """Seconds that one call may take."""

    @field_validator("env")
    @classmethod
    def _names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        wrong = next((name for name in value if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name)), None)
        if wrong is not None:
            raise ValueError(f"'env' is a list of names of environment variables, and {wrong!r} is none")
        return value

    @field_validator("headers")
    @classmethod
    def _no_secret(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if name.lower() in SECRET_HEADERS and "${env:" not in text:
                raise ValueError(f"the header {name!r} must not be written in the file; write ${{env:NAME}} and set NAME in the environment")
        return value

    @model_validator(mode="after")
    def _one_kind(self) -> "McpServer":
        if bool(self.command) == (self.url is not None):
            raise ValueError("an MCP server must have either 'command' or 'url'")
        if self.url is not None and self.env:
            raise ValueError("'env' is for programs that are started; an address has 'headers'")
        if self.command and self.headers:
            raise ValueError("'headers' are for an address; a program has 'env'")
        return self


class RecordedServer(Frozen):
    """An MCP server as a run's record has it."""

    server: McpServer
    tools: tuple[McpTool, ...]
    """What it listed when the run was planned; every runner offers these."""

    @property
    def version(self) -> str:
        """The digest of what its tools are, wherever it answers."""
        return digest("mcp server/1", [tool.model_dump() for tool in self.tools])


def load_mcp_servers(path: Path) -> dict[str, McpServer]:
    """
    Name to settings of the MCP servers in the file.

    Raises:
        Unusable: there is no such file.
        BadDefinition: with every problem found.
    """
    if not path.is_file():
        raise Unusable(f"{path}: MCP file not found\n  BEAM_RAY_MCP names it")
    source = read_yaml(path)
    if not isinstance(source.data, Mapping):
        raise BadDefinition(problems=[source.problem((), "an MCP file must map names to servers such as {command: [python, -m, crm_server]}")])
    servers: dict[str, McpServer] = {}
    problems: list[Problem] = []
    for name, written in source.data.items():
        try:
            if isinstance(written, Mapping) and isinstance(written.get("command"), str):
                problems.append(source.problem((name, "command"), f"'command' must be a list such as {written['command'].split()!r}: no shell reads it"))
                continue
            servers[str(name)] = McpServer.model_validate(written)
        except pydantic.ValidationError as error:
            problems += validation_problems(error, source, McpServer, (name,))
    if problems:
        raise BadDefinition(problems=problems)
    return servers
