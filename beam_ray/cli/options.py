"""Options that several commands share, gathered into one value per group."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from typing import Any, TypeVar

import beam_ray

Command = TypeVar("Command", bound=Callable[..., Any])


def grouped(group: type[Any], name: str, *options: Callable[[Any], Any]) -> Callable[[Command], Command]:
    """A decorator that adds *options* to a command and passes them to it as one value, the dataclass *group*, under *name*."""

    def decorate(command: Command) -> Command:
        @wraps(command)
        def called(*args: Any, **kwargs: Any) -> Any:
            kwargs[name] = group(**{field.name: kwargs.pop(field.name) for field in fields(group)})
            return command(*args, **kwargs)

        decorated: Any = called
        for option in reversed(options):
            decorated = option(decorated)
        return decorated  # type: ignore[no-any-return]

    return decorate


@dataclass(frozen=True)
class Place:
    """--store, --models, --address: where a command reads and writes, and what it may use."""

    store: str
    models: str = ""
    address: str | None = None

    def open(self) -> "beam_ray.Store":
        """The store."""
        return beam_ray.open(self.store, models=self.models or None, address=self.address)
