"""What all pages share."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

import shlex
from dataclasses import dataclass

import beam_ray
from beam_ray.console.commands import Commands
from beam_ray.console.options import ConsoleOptions
from beam_ray.console.reading import Reader


@dataclass(frozen=True)
class Site:
    """A console's store, and what it may do with it."""

    store: beam_ray.Store
    options: ConsoleOptions
    reader: Reader
    commands: Commands
    patience: float | None = None
    """Seconds that a page waits for runs that were never read on this machine; None waits for all."""

    @property
    def option(self) -> str:
        """What a printed command that asks models needs to find this store and its models again."""
        models = str(self.store.models)
        return self.store.option + (f" --models {shlex.quote(models)}" if models != beam_ray.DEFAULT_MODELS else "")
