"""What all pages share."""

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
