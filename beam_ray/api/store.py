"""The store: where runs, backtests, versions and libraries are kept, and everything that can be done with them."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

    from beam_ray.api.models import ModelCheckResult, ModelInfo
    from beam_ray.api.plans import Plan
    from beam_ray.api.progress import ProgressOption
    from beam_ray.api.runs import Budget, Run
    from beam_ray.api.tasks import Task
    from beam_ray.api.workflows import CheckResult, WorkflowOption
    from beam_ray.run.connection import Connection
    from beam_ray.store.objects import Objects
    from beam_ray.tasks.sources import Tasks

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

    connection: "Connection | None" = field(default=None, compare=False)
    """A connection to a cluster that is shared and stays open; None for one per command."""

    def __repr__(self) -> str:
        return f"<Store {self.uri}>"

    # -- workflows ------------------------------------------------------------------------

    def check(self, workflow: "WorkflowOption") -> "CheckResult":
        """
        Check a workflow: shape, names, templates, criteria and tools. No model is called.

        Args:
            workflow: A ``Workflow``, the path of a YAML file, or a published ``NAME`` or ``NAME@VERSION``.

        Raises:
            BadDefinition: with every problem and its place.
            Unusable: there is no such file or version.
        """
        from beam_ray.api.workflows import check

        return check(workflow, self)

    def plan(self, workflow: "WorkflowOption", tasks: "Tasks | Any", *, trials: int = 1, borrow_from: str | None = None) -> "Plan":
        """
        What a run would do and cost per node. No model is called and no run is created.

        Args:
            workflow: As for ``check``.
            tasks: As for ``run``.
            trials: Repetitions of each task.
            borrow_from: A run whose unchanged steps would be borrowed.

        Raises:
            BadDefinition: the workflow, the models file or tasks have problems.
            Unusable: a model, file, library or run is missing.
        """
        from beam_ray.api.plans import plan

        return plan(self, workflow, tasks, trials=trials, borrow_from=borrow_from)

    # -- runs -----------------------------------------------------------------------------

    def run(
        self,
        workflow: "WorkflowOption",
        tasks: "Tasks | Any",
        *,
        trials: int = 1,
        budget: "Budget | None" = None,
        takeover: bool = False,
        progress: "ProgressOption" = None,
    ) -> "Run":
        """
        Run a workflow over tasks and return the finished run.

        The same call after a crash or a stop resumes the run: answers that were paid for are kept,
        but for those of the last second before a crash.

        Args:
            workflow: A ``Workflow``, the path of a YAML file, or a published ``NAME`` or ``NAME@VERSION``.
            tasks: A path (.jsonl, .csv, .parquet), ``library:NAME[@VERSION]``, ``run:RUN``, an Arrow table, a
                pandas or polars data frame, a list of dicts, or a ``Tasks`` with options.
            trials: Repetitions of each task.
            budget: Limits by name: ``max_usd``, ``max_tokens``, ``max_calls``, ``max_minutes``.
            takeover: Take over a run whose driver is known to be dead.
            progress: True for a bar on standard error, or a function that receives ``Progress``.

        Raises:
            BadDefinition: the workflow, the models file or tasks have problems; nothing was spent.
            Unusable: something is missing or does not fit; nothing was spent.
            Stopped: before the end; ``error.resume`` is the command that resumes.
        """
        from beam_ray.api.runs import run

        return run(self, workflow, tasks, trials=trials, budget=budget, takeover=takeover, progress=progress)

    def resume(self, run: "str | Run", *, budget: "Budget | None" = None, takeover: bool = False, progress: "ProgressOption" = None) -> "Run":
        """
        Resume an unfinished run; only what is missing is executed. A finished run is returned as it is.

        Args:
            run: A run, its id, the beginning of one, or ``last``.
            budget: A new budget for what is left.
            takeover: As for ``run``.
            progress: As for ``run``.

        Raises:
            Unusable: there is no such run.
            Stopped: before the end.
        """
        from beam_ray.api.runs import resume

        return resume(self, run if isinstance(run, str) else run.id, budget=budget, takeover=takeover, progress=progress)

    def runs(self) -> "list[Run]":
        """All runs, the newest first."""
        from beam_ray.api.runs import runs

        return runs(self)

    def get_run(self, name: str) -> "Run":
        """
        One run.

        Args:
            name: Its id, the beginning of one, or ``last`` for the newest.

        Raises:
            Unusable: no run, or more than one, begins so.
        """
        from beam_ray.api.runs import get_run

        return get_run(self, name)

    # -- tasks ----------------------------------------------------------------------------

    def tasks(self, *, run: str | None = None, status: str | None = None, labels: Iterable[str] = (), where: str | None = None) -> "pa.Table":
        """
        Tasks of all runs, the newest run first: one row per task and trial.

        Args:
            run: Only tasks of this run, named as for ``get_run``.
            status: passed, below, failed, failing (below or failed), or review.
            labels: Only tasks with all of these labels.
            where: Only tasks for which this expression holds, such as ``score < 80 and 'scan' in labels``.

        Raises:
            Unusable: there is no such run, or *where* cannot be evaluated.
        """
        from beam_ray.api.tasks import tasks

        return tasks(self, run=run, status=status, labels=labels, where=where)

    def task(self, address: str) -> "Task":
        """
        One task with its steps.

        Args:
            address: ``RUN/TASK`` (``RUN/TASK#2`` for the second trial), or a task's id for its newest run.

        Raises:
            Unusable: there is no such task.
        """
        from beam_ray.api.tasks import task

        return task(self, address)

    # -- models ---------------------------------------------------------------------------

    def list_models(self) -> "list[ModelInfo]":
        """
        The models of the models file with price, limits and how they are called. No model is called.

        Raises:
            BadDefinition: the models file has problems.
        """
        from beam_ray.api.models import list_models

        return list_models(self)

    def check_model(self, name: str) -> "ModelCheckResult":
        """
        Ask a model's endpoint what it accepts: a few short calls, at most ``ModelInfo.check_calls`` for ``check_usd``.

        What was found is kept in the store and used by all runs where the models file says ``auto``.

        Args:
            name: Its name in the models file.

        Raises:
            Unusable: there is no such model, or its key is not set.
        """
        from beam_ray.api.models import check_models

        return check_models(self, name)

    # -- internal -------------------------------------------------------------------------

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
        from beam_ray.api.models import known_models

        return known_models(self)

    @property
    def option(self) -> str:
        """What a command line needs to find this store: `` --store URI``, or nothing for the default one."""
        return f" --store {self.uri}" if self.uri != DEFAULT_STORE else ""
