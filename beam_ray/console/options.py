"""What a console may do, and where it listens."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ConsoleOptions:
    """How a console is served."""

    host: str = "127.0.0.1"
    port: int = 8090
    token: str = ""
    """What the first request of a browser must know; empty for a random one."""
    read_only: bool = False
    """Whether nothing can be started, stopped or changed: there are no POST routes."""
    no_publish: bool = False
    """Whether versions cannot be published."""
    author: bool = False
    """Whether drafts may bring tools, programs, models, servers and files: whoever has the token can then run code on this machine."""
    max_usd: float | None = None
    """The most that one start may cost."""
    allow_hosts: tuple[str, ...] = ()
    """Further names under which the console is reached, such as that of a proxy."""
