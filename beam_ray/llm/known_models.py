"""The models of a models file, with the MCP servers of the file beside it."""

from collections.abc import Callable, Mapping
from functools import cached_property

from beam_ray.define.mcp_server import McpServer
from beam_ray.llm.scripted import Models, ScriptedModel
from beam_ray.llm.settings import ModelSettings


class KnownModels(dict[str, ModelSettings | ScriptedModel]):
    """Models by name. The MCP file is read only where a workflow names a server."""

    def __init__(self, models: Models, servers: Callable[[], Mapping[str, McpServer]]):
        super().__init__(models)
        self.servers = servers

    @cached_property
    def mcp(self) -> Mapping[str, McpServer]:
        """
        The MCP servers by name.

        Raises:
            BadDefinition: the MCP file has problems.
        """
        return self.servers()


def mcp_servers(models: Models) -> Mapping[str, McpServer]:
    """The MCP servers that are known beside *models*."""
    return models.mcp if isinstance(models, KnownModels) else {}


def with_servers_of(models: Models, changed: Models) -> Models:
    """The models *changed*, beside the MCP servers of *models*."""
    return KnownModels(changed, models.servers) if isinstance(models, KnownModels) else changed
