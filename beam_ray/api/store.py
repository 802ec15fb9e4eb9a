"""The store: where runs, backtests, versions and libraries are kept, and everything that can be done with them."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from beam_ray.store.objects import Objects

DEFAULT_STORE = ".beam-ray"
DEFAULT_MODELS = "configs/models.yaml"


def open(uri: str | Path | None = None, *, models: "str | Path | Mapping[str, Any] | None" = None, address: str | None = None) -> "Store":
    """
    Open a store; nothing is read or written until it is used.

    Args:
        uri: A folder or ``s3://bucket/prefix``. Default: ``BEAM_RAY_STORE``, else ``.beam-ray``.
        models: A models file, or a mapping from name to ``ModelSettings`` or to a model object such as
            ``ScriptedModel``. Default: ``BEAM_RAY_MODELS``, else ``configs/models.yaml``.
        address: The Ray cluster that runs execute on. Default: ``RAY_ADDRESS``, else a local Ray that is
            started when it is first needed.
    """
    chosen = str(uri or os.environ.get("BEAM_RAY_STORE") or DEFAULT_STORE)
    return Store(chosen, models or os.environ.get("BEAM_RAY_MODELS") or DEFAULT_MODELS, address or os.environ.get("RAY_ADDRESS"))


@dataclass(frozen=True, repr=False)
class Store:
    """A store, with the models and the cluster that its commands use. Made by ``beam_ray.open``."""

    uri: str
    """A folder or ``s3://bucket/prefix``."""
    models: "str | Path | Mapping[str, Any]" = field(default=DEFAULT_MODELS, compare=False)
    """A models file, or a mapping from name to settings or model object."""
    address: str | None = field(default=None, compare=False)
    """The Ray cluster's address; None for a local Ray."""

    def __repr__(self) -> str:
        return f"<Store {self.uri}>"

    @property
    def exists(self) -> bool:
        """Whether the folder is a store already; a bucket's prefix counts as one."""
        return self.uri.startswith("s3://") or (Path(self.uri) / "store.json").is_file()

    @cached_property
    def objects(self) -> "Objects":
        """The store's files (internal). Creates the store where there is none."""
        from beam_ray.store.objects import open_objects

        return open_objects(self.uri)

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
    def known_models(self) -> Mapping[str, Any]:
        """
        Model name to its settings or model object (internal).

        Raises:
            BadDefinition: the models file has problems.
        """
        from beam_ray.llm.settings import load_models

        return self.models if isinstance(self.models, Mapping) else load_models(Path(self.models))

    @property
    def option(self) -> str:
        """What a command line needs to find this store: `` --store URI``, or nothing for the default one."""
        return f" --store {self.uri}" if self.uri != DEFAULT_STORE else ""
