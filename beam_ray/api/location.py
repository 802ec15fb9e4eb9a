"""Where a store is, and the models and the cluster that its commands use."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from beam_ray.define.mcp_server import McpServer
    from beam_ray.llm.scripted import Models
    from beam_ray.run.connection import Connection
    from beam_ray.store.objects import Objects
    from beam_ray.store.outcome_index import OutcomeIndex
    from beam_ray.store.step_counts import RunCounts

DEFAULT_STORE = ".beam-ray"
DEFAULT_MODELS = "configs/models.yaml"
MCP_FILE = "mcp.yaml"
"""The MCP file's name, beside the models file."""


@dataclass(frozen=True, repr=False)
class Location:
    """A store's place, models and cluster: what every function of the API needs. ``Store`` adds what can be done."""

    uri: str
    """A folder or ``s3://bucket/prefix``."""
    models: "str | Path | Models" = field(default=DEFAULT_MODELS, compare=False)
    """A models file, or a mapping from name to settings or model object."""
    address: str | None = field(default=None, compare=False)
    """The Ray cluster's address; None for a local Ray."""

    connection: "Connection | None" = field(default=None, compare=False)
    """A connection to a cluster that is shared and stays open; None for one per command."""

    lane: str = field(default="", compare=False)
    """interactive or batch, for all models whose settings leave it open; empty where the models file or the spec decides."""

    mcp: "str | Path | Mapping[str, McpServer] | None" = field(default=None, compare=False)
    """An MCP file, or a mapping from name to settings; None for ``mcp.yaml`` beside the models file."""

    @property
    def exists(self) -> bool:
        """Whether the folder is a store already; a bucket's prefix counts as one."""
        return self.uri.startswith("s3://") or (Path(self.uri) / "store.json").is_file()

    @cached_property
    def objects(self) -> "Objects":
        """The store's files (internal). Creates the store where there is none."""
        from beam_ray.store.opening import open_objects

        return open_objects(self.uri)

    def with_connection(self, connection: "Connection") -> "Self":
        """The same place with a shared connection; it is not opened and put to the proof again (internal)."""
        found = replace(self, connection=connection)
        found.__dict__.update({name: self.__dict__[name] for name in ("objects", "known_models") if name in self.__dict__})
        return found

    @cached_property
    def index(self) -> "OutcomeIndex":
        """The tasks of all runs, kept as long as this value (internal)."""
        from beam_ray.store.outcome_index import outcome_index

        return outcome_index(self.existing())

    @cached_property
    def run_counts(self) -> "RunCounts":
        """What happened at each node of the runs, counted, and kept as long as this value (internal)."""
        from beam_ray.store.step_counts import RunCounts

        return RunCounts(self.existing())

    def existing(self) -> "Objects":
        """
        The files of a store that must be there already (internal).

        Raises:
            Unusable: there is no store.
        """
        from beam_ray.errors import Unusable

        if not self.exists:
            raise Unusable(f"there is no store at {self.uri}\n  beam-ray run  creates one; --store or BEAM_RAY_STORE names another")
        return self.objects

    @cached_property
    def known_models(self) -> "Models":
        """
        Model name to its settings or model object, with what was found about it where the settings say ``auto`` (internal).

        Raises:
            BadDefinition: the models file has problems.
        """
        from beam_ray.llm.families import EndpointFindings
        from beam_ray.llm.known_models import KnownModels, with_servers_of
        from beam_ray.llm.lanes import in_lane
        from beam_ray.llm.models_file import load_models
        from beam_ray.llm.settings import ModelSettings
        from beam_ray.store.model_findings import read_findings

        written = self.models if isinstance(self.models, Mapping) else load_models(Path(self.models))
        known = in_lane(KnownModels(written, self._mcp_servers), self.lane)
        if not self.exists:
            return known
        found = {name: read_findings(self.objects, model.endpoint, EndpointFindings) for name, model in known.items() if isinstance(model, ModelSettings)}
        as_found = {
            name: model.with_found(document["found"]) if isinstance(model, ModelSettings) and (document := found[name]) else model
            for name, model in known.items()
        }
        return with_servers_of(known, as_found)

    def _mcp_servers(self) -> "Mapping[str, McpServer]":
        from beam_ray.define.mcp_server import load_mcp_servers

        if isinstance(self.mcp, Mapping):
            return self.mcp
        beside = Path(DEFAULT_MODELS if isinstance(self.models, Mapping) else self.models).with_name(MCP_FILE)
        return load_mcp_servers(Path(self.mcp)) if self.mcp else load_mcp_servers(beside) if beside.is_file() else {}

    @property
    def option(self) -> str:
        """What a command line needs to find this store: `` --store URI``, or nothing for the default one."""
        return f" --store {shlex.quote(self.uri)}" if self.uri != DEFAULT_STORE else ""
