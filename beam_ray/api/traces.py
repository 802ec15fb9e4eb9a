"""Production traces saved as tasks of a library."""

import dataclasses
import importlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from beam_ray.api.display import Display, Displayed
from beam_ray.api.library_changes import LibraryChange, SavedTasks, add_to_library
from beam_ray.api.location import Location
from beam_ray.errors import Unusable, did_you_mean
from beam_ray.library.recorded import redacted, sample, task_of
from beam_ray.tasks.traces import FORMATS, TraceFile, read_traces
from beam_ray.tracking import copied_traces, default_uri

SOURCES = ("mlflow", *FORMATS)
"""Words before the colon of a source."""


@dataclass(frozen=True)
class TraceOptions:
    """Which traces are saved, and what of them."""

    sample: int | None = None
    """How many to draw; None for all. Rare kinds of executions and failures stay in the sample."""
    stratify: str = ""
    """A tag whose values are drawn in proportion; empty for the route of the execution."""
    seed: int = 0
    """Another seed draws another sample."""
    redact: Callable[[str], str] | str | None = None
    """A function that changes every text before anything is stored, or its name, ``module:function``."""
    filter: str = ""
    """Of an MLflow experiment: which traces, in MLflow's search syntax, such as ``tags.customer = 'acme'``."""
    mlflow: str | None = None
    """Of an MLflow experiment: MLflow's URI. None for ``MLFLOW_TRACKING_URI``, or else the database in the store."""


@dataclass(frozen=True, repr=False)
class TraceImport(Displayed):
    """Traces that were saved in a library."""

    change: LibraryChange
    traces: int
    """Traces in the source."""
    strata: Mapping[str, tuple[int, int]]
    """Kind of execution to how many traces were drawn of how many."""
    near_duplicates: Mapping[str, str] = field(default_factory=dict)
    """Task to an earlier task with nearly the same query; both were saved."""
    left_out: int = 0
    """Traces of an MLflow experiment that are still in progress, or have no spans."""

    def display(self) -> Display:
        rows = [(kind, drawn, of) for kind, (drawn, of) in self.strata.items()]
        facts = (("traces", self.traces), ("left out", self.left_out or None), ("near duplicates", len(self.near_duplicates) or None))
        return Display(str(self.change.library), facts, ("kind of execution", "drawn", "of"), rows)


def import_traces(store: Location, name: str, source: str, *, options: TraceOptions | None = None, replace: bool = False) -> TraceImport:
    """See ``Store.import_traces``."""
    options = options or TraceOptions()
    kind, _, written = source.partition(":")
    if kind not in SOURCES or not written:
        known = f"write mlflow:EXPERIMENT, {', '.join(f'{each}:FILE' for each in FORMATS)}"
        raise Unusable("\n  ".join([f"{source!r} is no source of traces", known, *did_you_mean(kind, SOURCES)]))
    if kind != "mlflow":
        if options.filter:
            raise Unusable("a filter selects traces of an MLflow experiment, mlflow:EXPERIMENT; a file is read whole")
        return _saved(store, name, source, read_traces(kind, Path(written)), options, replace)
    with copied_traces(options.mlflow or default_uri(store.uri), written, options.filter) as copied:
        found = read_traces("mlflow-file", copied.file, name=source)
        return dataclasses.replace(_saved(store, name, source, found, options, replace), left_out=copied.left_out)


def _saved(store: Location, name: str, source: str, found: TraceFile, options: TraceOptions, replace: bool) -> TraceImport:
    change = _function(options.redact) if isinstance(options.redact, str) else options.redact
    drawn = sample(found, options.sample, stratify=options.stratify, seed=options.seed)
    kept = [redacted(trace, change) if change else trace for trace in drawn.traces]
    saved = add_to_library(store, name, [task_of(trace, source) for trace in kept], saved=SavedTasks(replace=replace))
    return TraceImport(saved, drawn.total, drawn.strata, drawn.near_duplicates)


def _function(reference: str) -> Callable[[str], str]:
    module, colon, name = reference.partition(":")
    if not colon or not module or not name:
        raise Unusable(f"--redact {reference}: write it as MODULE:FUNCTION")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found: Callable[[str], str] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise Unusable(f"--redact {reference}: {error}") from None
    return found
