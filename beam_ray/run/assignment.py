"""The assignment that a driver gives to a runner."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from beam_ray.llm.scripted import Models
from beam_ray.store.key_index import Key
from beam_ray.store.run_record import RunRecord


@dataclass(frozen=True)
class Assignment:
    """What a runner needs to know when it starts."""

    store: str
    run_id: str
    models: Models
    runner: str
    window: int
    """Rows in flight at most."""
    runners: int = 1
    """Runners of the run, this one included."""
    folder: str = ""
    """Working folder of the driver: workers of a cluster may have been started in another one."""
    unfinished: frozenset[int] = frozenset()
    """Shards of which an earlier driver or runner may have spooled rows."""
    budget: Mapping[str, float] = field(default_factory=dict)
    """What is left of max_usd, max_tokens and max_calls when the runner starts; the driver adds up what all runners spend."""
    requirements: tuple[str, ...] = ()
    """Packages that a cluster installs for the runner."""
    crashed_rows: Mapping[Key, str] = field(default_factory=dict)
    """Rows that crash their worker process and are not tried again, with the error that they get."""
    batched: frozenset[str] = frozenset()
    """Models whose requests wait for a batch."""
    tool_processes: int = 2
    """Child processes that run its tools at most."""
    record: RunRecord | None = None
    """What is to be done; None reads it from the store."""
    untouched: bool = False
    """Whether no other driver or runner has had a row of the shards that this runner is given."""
    wave: int = 0
    """The wave that requests are put aside for; 0 in a run without batches."""
