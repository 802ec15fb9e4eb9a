"""The store: where runs, backtests, versions and libraries are kept, and everything that can be done with them."""

import contextlib
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from beam_ray.api.location import DEFAULT_MODELS, DEFAULT_STORE, Location
from beam_ray.temporary import ensure_temporary_folder

if TYPE_CHECKING:
    import pyarrow as pa

    from beam_ray.api.backtest_progress import BacktestProgress
    from beam_ray.api.backtest_specs import SpecOption
    from beam_ray.api.backtests import Backtest, BacktestOptions, BacktestPlan
    from beam_ray.api.batches import OpenBatch
    from beam_ray.api.comparisons import Comparison
    from beam_ray.api.criteria import CriteriaCheck, CriteriaDraft, CriteriaProposal, Outputs
    from beam_ray.api.criteria_plan import CriteriaPlan, CriteriaProposalPlan
    from beam_ray.api.detection import Detectable
    from beam_ray.api.draft_nodes import DraftNode, NodeValues
    from beam_ray.api.drafts import Draft, DraftEdit
    from beam_ray.api.flow import Flow
    from beam_ray.api.flow_list import FlowSummary
    from beam_ray.api.flow_numbers import NodeNumbers
    from beam_ray.api.health import Health
    from beam_ray.api.history import TaskHistory
    from beam_ray.api.jobs import Job
    from beam_ray.api.ledger import Ledger
    from beam_ray.api.libraries import Library
    from beam_ray.api.library_changes import LibraryChange, LibraryDiff, LibraryVersion, SavedTasks, TaskEdit
    from beam_ray.api.maintenance import Diagnosis, GarbageReport, Repair
    from beam_ray.api.marks import PairMark
    from beam_ray.api.mlflow import MlflowLog
    from beam_ray.api.models import ModelCheckResult, ModelInfo
    from beam_ray.api.optimise import DraftFile, PromptProposal
    from beam_ray.api.optimise_plan import OptimisePlan
    from beam_ray.api.pins import Pin, PinnedView
    from beam_ray.api.plans import Plan
    from beam_ray.api.progress import ProgressOption
    from beam_ray.api.prompt_search import PromptSearch, SearchOptions
    from beam_ray.api.prompt_tries import PromptTry
    from beam_ray.api.proofs import FlippedTasks, Proof, ProofPlan
    from beam_ray.api.reproductions import Reproduction
    from beam_ray.api.reruns import Rerun, Selection
    from beam_ray.api.reviews import Met, RecordedReviews, ReviewQueue, ReviewSample
    from beam_ray.api.run_progress import RunProgress
    from beam_ray.api.runs import Budget, Run
    from beam_ray.api.task_list import ListedTask, TaskList, TaskQuery
    from beam_ray.api.tasks import Task
    from beam_ray.api.traces import TraceImport, TraceOptions
    from beam_ray.api.trend import Trend
    from beam_ray.api.verdicts import Candidate, Verdict
    from beam_ray.api.versions import Evidence, Version
    from beam_ray.api.workflows import CheckResult, WorkflowOption
    from beam_ray.define.diff import Change
    from beam_ray.define.fingerprint import Json, JsonObject
    from beam_ray.define.mcp_server import McpServer
    from beam_ray.define.workflow import Workflow
    from beam_ray.llm.scripted import Models
    from beam_ray.review.judge_report import JudgeReport
    from beam_ray.review.queue import ReviewItem
    from beam_ray.review.waiting import ReviewSource
    from beam_ray.tasks.changed_inputs import Changes
    from beam_ray.tasks.sources import Tasks


def open(
    uri: str | Path | None = None,
    *,
    models: "str | Path | Models | None" = None,
    address: str | None = None,
    lane: str | None = None,
    mcp: "str | Path | Mapping[str, McpServer] | None" = None,
) -> "Store":
    """
    Open a store; nothing is read or written until it is used.

    Args:
        uri: A folder or ``s3://bucket/prefix``. Default: ``BEAM_RAY_STORE``, else ``.beam-ray``.
        models: A models file, or a mapping from name to ``ModelSettings`` or to a model object such as
            ``ScriptedModel``. Default: ``BEAM_RAY_MODELS``, else ``configs/models.yaml``.
        address: The Ray cluster that runs execute on. Default: ``RAY_ADDRESS``, else a local Ray that is
            started when it is first needed.
        lane: ``batch`` asks models through their batch endpoints at half the price, ``interactive`` call by
            call. Default: what the models file or the spec says, else interactive.
        mcp: A file of MCP servers that agents may use, or a mapping from name to ``McpServer``. Default:
            ``BEAM_RAY_MCP``, else ``mcp.yaml`` beside the models file.
    """
    ensure_temporary_folder()
    chosen = str(uri or os.environ.get("BEAM_RAY_STORE") or DEFAULT_STORE)
    models = models or os.environ.get("BEAM_RAY_MODELS") or DEFAULT_MODELS
    mcp = os.environ.get("BEAM_RAY_MCP") if mcp is None else mcp
    return Store(chosen, models, address or os.environ.get("RAY_ADDRESS"), lane=lane or "", mcp=mcp)


@dataclass(frozen=True, repr=False)
class Store(Location):
    """A store, with the models and the cluster that its commands use. Made by ``beam_ray.open``."""

    def __repr__(self) -> str:
        return f"<Store {self.uri}>"

    @contextlib.contextmanager
    def connected(self) -> "Iterator[Store]":
        """
        Keep one connection to the Ray cluster open while the block runs: a local Ray starts once for all calls in it.

        Yields the store that uses the connection.

        Raises:
            Unusable: there is no cluster at the address, or it requires no token.
        """
        from beam_ray.api.runs import connection

        with connection(self) as opened:
            opened.open()
            yield self.with_connection(opened)

    # -- workflows ------------------------------------------------------------------------

    def check(self, workflow: "WorkflowOption") -> "CheckResult":
        """
        Check a workflow: shape, names, templates, criteria, tools and the models that it names. No model is called.

        Args:
            workflow: A ``Workflow``, the path of a YAML file, a published ``NAME`` or ``NAME@VERSION``, or a draft
                ``NAME@DRAFT`` or ``NAME@DRAFT:N``.

        Raises:
            BadDefinition: with every problem and its place.
            Unusable: there is no such file or version.
        """
        from beam_ray.api.workflows import check_with_models

        return check_with_models(workflow, self)

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
            workflow: A ``Workflow``, the path of a YAML file, a published ``NAME`` or ``NAME@VERSION``, or a draft
                ``NAME@DRAFT`` or ``NAME@DRAFT:N``.
            tasks: A file (.jsonl, .json, .csv, .tsv, .parquet, .xlsx; text also as .gz), a folder, a pattern, an
                ``s3://`` address, ``library:NAME[@VERSION]``, ``run:RUN``, several of these in a list, an Arrow
                table, a pandas or polars data frame, a list of dicts, or a ``Tasks`` with options.
            trials: Repetitions of each task.
            budget: Limits by name: ``max_usd``, ``max_tokens``, ``max_calls``, ``max_minutes``.
            takeover: Take over a run whose driver is known to be dead.
            progress: True for a bar on standard error, or a function that receives ``Progress``.

        Raises:
            BadDefinition: the workflow, the models file or tasks have problems; no model was called.
            Unusable: something is missing or does not fit; no model was called.
            Stopped: before the end; ``error.resume`` is the command that resumes.
        """
        from beam_ray.api.runs import run

        return run(self, workflow, tasks, trials=trials, budget=budget, takeover=takeover, progress=progress)

    def resume(self, run: "str | Run", *, budget: "Budget | None" = None, takeover: bool = False, progress: "ProgressOption" = None) -> "Run":
        """
        Resume an unfinished run; only what is missing is executed. A finished run is returned as it is.

        Args:
            run: A run, its id, the beginning of one, or ``last``.
            budget: A new budget for the remaining work.
            takeover: As for ``run``.
            progress: As for ``run``.

        Raises:
            Unusable: there is no such run.
            Stopped: before the end.
        """
        from beam_ray.api.runs import resume

        return resume(self, run if isinstance(run, str) else run.id, budget=budget, takeover=takeover, progress=progress)

    def batches(self) -> "list[OpenBatch]":
        """The batches that unfinished runs wait for, the newest run first; their endpoints are asked how far they are."""
        from beam_ray.api.batches import batches

        return batches(self)

    def progress(self, run: str) -> "RunProgress":
        """
        How far a run is: of one that goes on, as its driver reports it about once a second.

        Args:
            run: Named as for ``get_run``.
        """
        from beam_ray.api.run_progress import run_progress

        return run_progress(self, run)

    def stop(self, run: str) -> "RunProgress":
        """
        Ask the process that drives a run to stop; it does so within seconds, keeps all results, and the run can be resumed.

        Args:
            run: Named as for ``get_run``.

        Raises:
            Unusable: the run is finished, or no process drives it.
        """
        from beam_ray.api.run_progress import stop

        return stop(self, run)

    def run_ids(self) -> list[str]:
        """The ids of all runs, in no particular order; nothing of them is read."""
        from beam_ray.store.lookup import find_runs

        return find_runs(self.existing())

    def begun(self, plan: "Plan") -> "Run | None":
        """The unfinished run that a command with this plan has begun, and would resume; None where there is none."""
        from beam_ray.api.runs import begun

        return begun(self, plan.key)

    def runs(self, *, skip_damaged: bool = False) -> "list[Run]":
        """
        All runs, the newest first.

        Args:
            skip_damaged: Leave out runs that cannot be read.

        Raises:
            Damaged: a run cannot be read, and is not to be left out.
        """
        from beam_ray.api.runs import runs

        return runs(self, skip_damaged=skip_damaged)

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

    def tasks(
        self, *, run: "str | Run | Iterable[Run] | None" = None, status: str | None = None, labels: Iterable[str] = (), where: str | None = None
    ) -> "pa.Table":
        """
        Tasks of all runs, the newest run first: one row per task and trial.

        Args:
            run: Only tasks of this run, named as for ``get_run``, or of these runs, in this order.
            status: passed, below, failed, failing (below or failed), or review.
            labels: Only tasks with all of these labels.
            where: Only tasks for which this expression holds, such as ``score < 80 and 'scan' in labels``.

        Raises:
            Unusable: there is no such run, or *where* cannot be evaluated.
        """
        from beam_ray.api.tasks import tasks

        return tasks(self, run=run, status=status, labels=labels, where=where)

    def list_tasks(self, query: "TaskQuery | None" = None, *, patience: float | None = None) -> "TaskList":
        """
        One page of the tasks of all runs, unfinished ones included, with counts by status, workflow, run, route and label.

        Args:
            query: Filters, order, and where the page begins.
            patience: Seconds to wait for runs that were never read on this machine; ``unread`` of the list says how many it leaves out. None waits for all.

        Raises:
            Unusable: the query names what is not there, or cannot be evaluated.
        """
        from beam_ray.api.task_list import list_tasks

        return list_tasks(self, query, patience=patience)

    def pin(self, view: str, *, note: str = "", by: str = "") -> "Pin":
        """
        Pin a view of tasks: its filters, the finished runs that have tasks of it, and its numbers. The same view pinned twice is one pin.

        Args:
            view: A link of the console's Tasks page, or its filters such as ``status=failing&label=scan``.
            note: What it shows, for readers.
            by: Who pins it; by default the user of this machine.

        Raises:
            Unusable: the filters mean nothing, or no task matches.
        """
        from beam_ray.api.pins import pin

        return pin(self, view, note=note, by=by)

    def pins(self) -> "list[Pin]":
        """All pinned views, the newest first."""
        from beam_ray.api.pins import pins

        return pins(self)

    def get_pin(self, name: str) -> "Pin":
        """
        One pinned view, as it was pinned.

        Args:
            name: Its id, or the beginning of it.

        Raises:
            Unusable: there is none.
        """
        from beam_ray.api.pins import get_pin

        return get_pin(self, name)

    def pinned_view(self, name: str) -> "PinnedView":
        """
        What a pinned view counts now, and what changed since: runs that were repaired, that are gone, and newer ones with tasks that match.

        Args:
            name: As for ``get_pin``.

        Raises:
            Unusable: there is none.
        """
        from beam_ray.api.pins import pinned_view

        return pinned_view(self, name)

    def task_family(self, address: str) -> "tuple[ListedTask, ...]":
        """
        A task with all that it reruns and all that reruns it, the oldest first.

        Args:
            address: ``RUN/TASK``, as lists have it.
        """
        from beam_ray.api.task_list import task_family

        return task_family(self, address)

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

    # -- reruns ---------------------------------------------------------------------------

    def rerun(
        self,
        tasks: "Task | str | Iterable[Task | str] | Selection",
        *,
        from_node: str | None = None,
        using: "WorkflowOption" = "published",
        because: str = "",
        allow_writes: bool = False,
        budget: "Budget | None" = None,
        takeover: bool = False,
        progress: "ProgressOption" = None,
    ) -> "list[Rerun]":
        """
        Execute tasks of earlier runs again, in one new run per original run; the originals stay unchanged.

        Args:
            tasks: A task, its address or id (of its newest run), several of these, or a ``Selection``.
            from_node: Start at this node: steps that do not descend from it are borrowed. None reruns every step.
            using: ``published``, ``original`` (the definition of the original run), or a workflow.
            because: Reason for the rerun, stored with it.
            allow_writes: Call tools with write effects again; otherwise their recorded outputs are replayed.
            budget: As for ``run``.
            takeover: As for ``run``.
            progress: As for ``run``.

        Raises:
            Unusable: there is no such task or definition, or the original is unfinished; no model was called.
            Stopped: before the end.
        """
        from beam_ray.api.reruns import Rerunning, rerun

        return rerun(self, tasks, how=Rerunning(from_node, using, because, allow_writes), budget=budget, takeover=takeover, progress=progress)

    def what_if(
        self,
        tasks: "Task | str | Iterable[Task | str] | Selection",
        inputs: "Changes | str | Path",
        *,
        using: "WorkflowOption" = "published",
        because: str = "",
        allow_writes: bool = False,
        budget: "Budget | None" = None,
        takeover: bool = False,
        progress: "ProgressOption" = None,
    ) -> "list[Rerun]":
        """
        Rerun tasks with a changed input: steps that see none of the changes are borrowed, all others are executed.

        Args:
            tasks: As for ``rerun``.
            inputs: Field to new value, such as ``{"task_query": "…", "variables.customer": "Ace"}``, or a JSON or YAML
                file of such an object.
            using: As for ``rerun``.
            because: As for ``rerun``.
            allow_writes: As for ``rerun``.
            budget: As for ``run``.
            takeover: As for ``run``.
            progress: As for ``run``.

        Raises:
            Unusable: as for ``rerun``, or a task has no such field.
            Stopped: before the end.
        """
        from beam_ray.api.reruns import Rerunning, rerun

        how = Rerunning(None, using, because, allow_writes, inputs)
        return rerun(self, tasks, how=how, budget=budget, takeover=takeover, progress=progress)

    def get_rerun(self, run: str) -> "Rerun":
        """
        A rerun that was made before: each of its tasks before and after. Of one that goes on, the tasks that are done.

        Args:
            run: Its run, named as for ``get_run``.

        Raises:
            Unusable: there is no such run, or it reruns no other.
        """
        from beam_ray.api.reruns import get_rerun

        return get_rerun(self, run)

    def plan_rerun(
        self,
        tasks: "Task | str | Iterable[Task | str] | Selection",
        *,
        from_node: str | None = None,
        using: "WorkflowOption" = "published",
        inputs: "Changes | str | Path | None" = None,
        allow_writes: bool = False,
    ) -> "list[Plan]":
        """What ``rerun``, or with *inputs* ``what_if``, would do and cost, one plan per original run. No model is called."""
        from beam_ray.api.reruns import Rerunning, plan_rerun

        return plan_rerun(self, tasks, how=Rerunning(from_node, using, allow_writes=allow_writes, inputs=inputs))

    # -- backtests ------------------------------------------------------------------------

    def backtest(self, spec: "SpecOption | Backtest", *, options: "BacktestOptions | None" = None, progress: "ProgressOption" = None) -> "Verdict":
        """
        Compare candidates with a baseline over the same tasks, and return the verdict.

        The same call after a stop resumes the backtest; one that has a verdict is not run again.

        Args:
            spec: The path of a spec file, ``-`` for standard input, a spec file's content as a mapping, the id of a
                backtest that was begun in this store, or a ``Backtest``.
            options: Changes to the spec, and how it is run.
            progress: As for ``run``; the title of each report is the side.

        Raises:
            BadDefinition: the spec, a definition, the gate or tasks have problems; no model was called.
            Stopped: before the end; ``error.resume`` is the command that resumes.
        """
        from beam_ray.api.backtests import backtest

        return backtest(self, spec, options=options, progress=progress)

    def plan_backtest(self, spec: "SpecOption | Backtest", *, options: "BacktestOptions | None" = None, detect: float | str | None = None) -> "BacktestPlan":
        """
        What each side of a backtest would do, cost, and how long it would take. No model is called.

        Args:
            spec: As for ``backtest``.
            options: As for ``backtest``.
            detect: A change to detect with 80% power: 3 for points of success rate and mean score, ``"3%"`` for the success
                rate alone. ``plan.detection`` then says how many tasks and trials show it, and what they cost, from how much
                finished runs of the workflow differ.

        Raises:
            BadDefinition: the spec, a definition, the gate or tasks have problems.
            Unusable: *detect* is no number of points.
        """
        from beam_ray.api.backtests import plan_backtest

        return plan_backtest(self, spec, options=options, detect=detect)

    def backtest_spec(self, backtest: str) -> "JsonObject | None":
        """
        The spec that a backtest was begun with, drafts in it by their revision; None where none was kept.

        None was kept by earlier versions and of a ``Backtest``.

        Args:
            backtest: The backtest's id.
        """
        from beam_ray.api.backtest_specs import backtest_spec

        return backtest_spec(self, backtest)

    def backtest_runs(self, backtest: str) -> dict[str, str]:
        """
        The runs of a backtest that was begun, whether it is finished or not: side to run, the baseline first.

        Args:
            backtest: The backtest's id.
        """
        from beam_ray.api.backtest_specs import backtest_runs

        return backtest_runs(self, backtest)

    def unfinished_backtests(self, finished: "Collection[str]" = ()) -> list[str]:
        """
        The ids of backtests that were begun and have no verdict yet.

        Args:
            finished: Ids that are known to have one, and are not looked up.
        """
        from beam_ray.api.backtest_progress import unfinished_backtests

        return unfinished_backtests(self, finished)

    def backtest_progress(self, backtest: str) -> "BacktestProgress":
        """
        How far a backtest without a verdict is, and what its gate says of the pairs so far. No model is called.

        Args:
            backtest: Its id, or the beginning of one.

        Raises:
            Unusable: there is no such backtest, or it has its verdict.
        """
        from beam_ray.api.backtest_progress import backtest_progress

        return backtest_progress(self, backtest)

    def backtests(self, known: "Iterable[Verdict]" = ()) -> "list[Verdict]":
        """
        All finished backtests, the newest first.

        Args:
            known: Verdicts that were read before; a verdict never changes, so they are not read again.
        """
        from beam_ray.api.verdicts import backtests

        return backtests(self, known)

    def unsettled_backtests(self, verdicts: "Sequence[Verdict] | None" = None) -> "list[Verdict]":
        """
        Backtests that ended with BLOCK or INCONCLUSIVE and that nobody has acted on: neither was a backtest of the same
        name finished later, nor a version of the workflow published.

        Args:
            verdicts: Those of ``backtests()``, where they were read already.
        """
        from beam_ray.api.verdicts import unsettled_backtests

        return unsettled_backtests(self, verdicts)

    def verdict(self, backtest: str) -> "Verdict":
        """
        A finished backtest.

        Args:
            backtest: Its id, or the beginning of one.

        Raises:
            Unusable: there is no such backtest, or it is unfinished.
        """
        from beam_ray.api.verdicts import verdict

        return verdict(self, backtest)

    def report(self, backtest: str, name: str = "report.txt") -> str:
        """
        A report of a finished backtest, as it was stored.

        Args:
            backtest: The backtest's id, or the beginning of one.
            name: report.txt, report.md, report.html, junit.xml, manifest.json or verdict.json.
        """
        return self.verdict(backtest).report(name)

    def prove(
        self,
        backtest: str,
        of: "FlippedTasks | None" = None,
        *,
        control: bool = False,
        budget: "Budget | None" = None,
        takeover: bool = False,
        progress: "ProgressOption" = None,
    ) -> "Proof":
        """
        Run flipped tasks of a backtest again with the baseline's output pinned at the node where the sides part.

        Where a task then has the baseline's result, the output of that node made it flip. Only what descends from the
        node is executed. Tasks that were tried before are not run again; tools that write are not called.

        Args:
            backtest: The backtest's id, or the beginning of one.
            of: Which flipped tasks; None for all newly failing ones of the best candidate.
            control: Run the same tasks also with the candidate's own output pinned, to see how many change by chance.
            budget: Limits of the whole proof: max_usd, max_tokens, max_calls, max_minutes.
            takeover: Take over a run whose driver is known to be dead.
            progress: As for ``run``.

        Raises:
            Unusable: there is no such backtest, candidate, group or task, or the models are not those of the backtest.
            Stopped: before the end; the same call resumes.
        """
        from beam_ray.api.prove import prove

        return prove(self, backtest, of, control=control, budget=budget, takeover=takeover, progress=progress)

    def plan_prove(self, backtest: str, of: "FlippedTasks | None" = None, *, control: bool = False) -> "ProofPlan":
        """What ``prove`` would do and cost, and which tasks cannot be pinned. No model is called."""
        from beam_ray.api.prove import plan_prove

        return plan_prove(self, backtest, of, control=control)

    def proof(self, backtest: str, of: "FlippedTasks | None" = None) -> "Proof":
        """What ``prove`` has found so far. No model is called."""
        from beam_ray.api.prove import proof

        return proof(self, backtest, of)

    def proof_runs(self, backtest: str) -> list[str]:
        """The ids of runs that ``prove`` has begun for a backtest and not finished."""
        from beam_ray.api.prove import proof_runs

        return proof_runs(self, backtest)

    def reproduce(self, backtest: str) -> "Reproduction":
        """
        Compute the comparison and verdict of a finished backtest again from the rows of its runs. No model is called and nothing is written.

        Args:
            backtest: The backtest's id, or the beginning of one.

        Raises:
            Unusable: there is no such backtest, or it was finished by a version that kept no manifest.
            Damaged: a file is missing, or is not what was written.
        """
        from beam_ray.api.reproductions import reproduce

        return reproduce(self, backtest)

    def export_backtest(self, backtest: str, file: "str | Path") -> int:
        """
        Write a finished backtest with its runs, tasks and attachments to one file; the number of files in it.

        Args:
            backtest: The backtest's id, or the beginning of one.
            file: Where the bundle is written, a zip.

        Raises:
            Unusable: there is no such backtest, or it is too large.
            Damaged: a file is missing, or is not what was written.
        """
        from beam_ray.api.reproductions import export_backtest

        return export_backtest(self, backtest, file)

    def import_backtest(self, file: "str | Path") -> str:
        """
        Put a backtest that ``export_backtest`` wrote into this store; its id. What is there already and equal stays.

        The whole file is checked before anything is written. It is not signed: import only what you would believe.

        Raises:
            Unusable: it is no bundle, has something else in it, or differs from what is in the store.
            Damaged: a file in it is not what was packed; the message names it.
        """
        from beam_ray.api.reproductions import import_backtest

        return import_backtest(self, file)

    def compare(
        self,
        before: str,
        after: str,
        *,
        gate: "str | Path | None" = None,
        names: tuple[str, str] = ("baseline", "candidate"),
        cluster: str | None = None,
        slices: "Sequence[str]" = (),
    ) -> "Comparison":
        """
        Compare two finished runs pair by pair.

        Args:
            before: A run, named as for ``get_run``.
            after: Another one, over the same tasks.
            gate: ``no-harm`` (the default), ``improve``, ``cheaper``, ``none``, or a gate file.
            names: The names of the two runs in reports.
            cluster: A field of tasks such as ``variables.customer``; intervals and tests then count its values and not tasks.
            slices: Fields of tasks such as ``variables.country``, or ``labels``, by which the comparison is shown in parts.

        Raises:
            Unusable: a run is missing or unfinished, no task has one of the fields, or there are too few clusters.
            BadDefinition: the gate has problems.
        """
        from beam_ray.api.comparisons import compare

        return compare(self, before, after, gate=gate, names=names, cluster=cluster, slices=slices)

    def log_to_mlflow(self, name: str, uri: str | None = None) -> "MlflowLog":
        """
        Log a finished backtest or search to MLflow; repeating it changes nothing.

        Args:
            name: The id of a backtest, or of a search by ``optimise``.
            uri: The tracking server. Default: ``MLFLOW_TRACKING_URI``, else a database in the store.

        Raises:
            TrackingUnavailable: MLflow does not answer; nothing is lost.
        """
        from beam_ray.api.mlflow import log_to_mlflow

        return log_to_mlflow(self, name, uri)

    def mlflow_page(self, backtest: str) -> str:
        """Where MLflow shows a backtest that was logged, without credentials; empty where none of its logs is known. MLflow is not asked."""
        from beam_ray.api.mlflow import mlflow_page

        return mlflow_page(self, backtest)

    # -- versions -------------------------------------------------------------------------

    def publish(self, workflow: "Workflow | str | Path | Candidate", *, evidence: "Verdict | str | None" = None, without_evidence: str = "") -> "Version":
        """
        Make a definition the current version of its workflow.

        Args:
            workflow: A ``Workflow``, the path of a YAML file, a draft ``NAME@DRAFT``, or a candidate of a backtest.
            evidence: A finished backtest of exactly this definition against the current version, with verdict PASS or WARN.
            without_evidence: Reason for publishing without evidence.

        Raises:
            Unusable: nothing supports it, the evidence does not fit, or another process published first.
        """
        from beam_ray.api.versions import publish

        return publish(self, workflow, evidence=evidence, without_evidence=without_evidence)

    def evidence(self, workflow: "WorkflowOption", most: int = 20) -> "list[Evidence]":
        """
        The newest finished backtests of a workflow, those first on which the definition could be published, and why not the others.

        Args:
            workflow: The definition, as for ``check``.
            most: How many at most.
        """
        from beam_ray.api.versions import evidence

        return evidence(self, workflow, most)

    def versions(self, workflow: str) -> "list[Version]":
        """
        The published versions of a workflow, the newest first.

        Raises:
            Unusable: nothing is published under this name.
        """
        from beam_ray.api.versions import versions

        return versions(self, workflow)

    def rollback(self, workflow: str, number: int, *, because: str = "") -> "Version":
        """
        Publish the definition of an old version as a new version.

        Raises:
            Unusable: there is no such version, or it is the current one.
        """
        from beam_ray.api.versions import rollback

        return rollback(self, workflow, number, because=because)

    def diff(self, before: "WorkflowOption", after: "WorkflowOption") -> "tuple[Change, ...]":
        """What differs between two definitions, by node and field; layout, comments and titles do not count."""
        from beam_ray.api.versions import diff

        return diff(self, before, after)

    def mark_production(self, version: "Version", uri: str | None = None) -> bool:
        """
        Move the alias ``production`` of the version's prompts in MLflow's registry; whether there is a registry.

        Raises:
            TrackingUnavailable: MLflow does not answer.
        """
        from beam_ray.api.mlflow import mark_production

        return mark_production(self, version, uri)

    # -- drafts ---------------------------------------------------------------------------

    def drafts(self, workflow: str | None = None) -> "list[Draft]":
        """The newest revision of every draft of a workflow, or of all workflows, the newest first."""
        from beam_ray.api.drafts import drafts

        return drafts(self, workflow)

    def draft(self, workflow: str, name: str, number: int | None = None) -> "Draft":
        """
        One revision of a draft; by default the newest.

        Raises:
            Unusable: there is no such draft or revision, or the draft is dropped.
        """
        from beam_ray.api.drafts import draft

        return draft(self, workflow, name, number)

    def create_draft(
        self, workflow: str, name: str, *, text: str | None = None, by: str = "", author: bool = False, folder: str | Path | None = None
    ) -> "Draft":
        """
        Begin a draft: the published definition of a workflow, or that of its newest run, to be changed.

        Args:
            workflow: The workflow's name.
            name: The draft's: letters, digits, ``-`` and ``_``, beginning with a letter.
            text: A workflow file's text to begin with instead.
            by: Who makes it; by default the user of this machine.
            author: Whether it may bring what runs code or reaches other models: see ``edit_draft``.
            folder: Where the text's prompt files are read from and its tools imported; by default as for the published definition.

        Raises:
            Unusable: there is such a draft already, or nothing is known of the workflow.
        """
        from beam_ray.api.drafts import create_draft

        return create_draft(self, workflow, name, text=text, by=by, author=author, folder=folder)

    def edit_draft(self, draft: "Draft", edits: "Sequence[DraftEdit]", *, by: str = "", author: bool = False) -> "Draft":
        """
        Change values of a draft at their places; the next revision, with comments and order kept.

        A change that leaves errors is kept too, with ``problems``; it can be neither run nor published.

        Args:
            draft: The revision to change.
            edits: What to change.
            by: Who changes it; by default the user of this machine.
            author: Without it a tool, program, ``python`` criterion, MCP server, model or requirement that neither the
                published definition nor the draft has is refused, and so is a file.

        Raises:
            Unusable: somebody changed the draft in the meantime, a path leads nowhere, or only an author may change this.
        """
        from beam_ray.api.drafts import edit_draft

        return edit_draft(self, draft, edits, by=by, author=author)

    def save_draft(self, draft: "Draft", text: str, *, by: str = "", author: bool = False, folder: str | Path | None = None) -> "Draft":
        """
        Replace the text of a draft; the next revision. As for ``edit_draft``, text with errors is kept.

        Args:
            draft: The revision that the text was made from.
            text: The whole YAML text.
            by: As for ``edit_draft``.
            author: As for ``edit_draft``.
            folder: As for ``create_draft``.

        Raises:
            Unusable: somebody changed the draft in the meantime, or only an author may change this.
        """
        from beam_ray.api.drafts import save_draft

        return save_draft(self, draft, text, by=by, author=author, folder=folder)

    def drop_draft(self, workflow: str, name: str, *, by: str = "") -> None:
        """
        End a draft; it is no longer listed, and its revisions stay in the store.

        Raises:
            Unusable: there is no such draft.
        """
        from beam_ray.api.drafts import drop_draft

        drop_draft(self, workflow, name, by=by)

    def draft_node(self, draft: "Draft", node: str) -> "DraftNode | None":
        """
        A node of a draft as its text has it, valid or not, with what is wrong at which of its values.

        None where the text is not YAML, or has no such node.
        """
        from beam_ray.api.draft_nodes import draft_node

        return draft_node(draft, node)

    def check_node(self, draft: "Draft", node: str, values: "NodeValues") -> "DraftNode":
        """
        What ``edit_node`` would make of the node; nothing is kept.

        Raises:
            Unusable: the draft has no such node, or a value cannot be changed in its place.
        """
        from beam_ray.api.draft_nodes import check_node

        return check_node(self, draft, node, values)

    def edit_node(self, draft: "Draft", node: str, values: "NodeValues", *, by: str = "", author: bool = False) -> "Draft":
        """
        The next revision of a draft, with these values at one of its nodes; only what differs is changed in the text.

        Args:
            draft: Its newest revision.
            node: Name of the node.
            values: What the node has then.
            by: As for ``create_draft``.
            author: As for ``create_draft``.

        Raises:
            Unusable: as for ``edit_draft``, or the draft has no such node.
        """
        from beam_ray.api.draft_nodes import edit_node

        return edit_node(self, draft, node, values, by=by, author=author)

    def node_by_version(self, workflow: str, node: str, versions: "Iterable[int]") -> "dict[int, NodeNumbers]":
        """How a node did in the newest finished run of each of these versions; versions without one are left out."""
        from beam_ray.api.flow_numbers import numbers_of_versions

        return numbers_of_versions(self, self.run_counts, workflow, node, versions)

    def require_library_name(self, name: str) -> None:
        """
        Check that a new library may have this name.

        Raises:
            Unusable: it may not.
        """
        from beam_ray.store.libraries import require_library_name

        require_library_name(name)

    def check_change(self, workflow: str, changes: "Mapping[str, Json]", *, author: bool = False) -> "CheckResult":
        """
        The definition that changes make of the published one, or where there is none of the newest run's; nothing is kept.

        Args:
            workflow: The workflow's name.
            changes: Path to new value, as a backtest's candidates have them: ``{"nodes.sort.llm.prompt": "..."}``.
            author: As for ``edit_draft``.

        Raises:
            BadDefinition: a path or a value does not fit.
            Unusable: only an author may change this.
        """
        from beam_ray.api.drafts import check_change

        return check_change(self, workflow, changes, author=author)

    def draft_changes(self, draft: "Draft") -> "tuple[Change, ...]":
        """
        What differs between the published definition, or where there is none that of the newest run, and a draft.

        Raises:
            BadDefinition: the draft has errors.
        """
        from beam_ray.api.drafts import draft_changes

        return draft_changes(self, draft)

    # -- history --------------------------------------------------------------------------

    def history(self, subject: str) -> "TaskHistory | Ledger":
        """A task with all its reruns, or where *subject* names a workflow, the ledger of its reruns."""
        from beam_ray.api.history import history

        return history(self, subject)

    def ledger(self, workflow: str) -> "Ledger":
        """All reruns of a workflow's tasks: why, what had changed, whether it solved the problem, and what it cost."""
        from beam_ray.api.ledger import ledger

        return ledger(self, workflow)

    # -- libraries ------------------------------------------------------------------------

    def libraries(self) -> "list[Library]":
        """The newest version of every library."""
        from beam_ray.api.libraries import libraries

        return libraries(self)

    def library(self, name: str) -> "Library":
        """
        One version of a library.

        Args:
            name: ``NAME`` for the newest version, or ``NAME@VERSION``.

        Raises:
            Unusable: there is no such library or version.
        """
        from beam_ray.api.libraries import library

        return library(self, name)

    def add_to_library(
        self, name: str, tasks: "Task | Sequence[Task | str] | Selection | TaskQuery | Tasks | Any", *, saved: "SavedTasks | None" = None
    ) -> "LibraryChange":
        """
        Save tasks as the next version of a library, which is created where there is none.

        Args:
            name: The library.
            tasks: A task, a list of tasks or their addresses, a ``Selection`` of a run, a ``TaskQuery`` over all runs (of a task
                that ran several times the newest that matches), or tasks as for ``run``.
            saved: Labels, notes and expected outcomes to save with them.

        Raises:
            Unusable: a task with the same id has other content, or another process changed the library at the same time.
        """
        from beam_ray.api.library_changes import add_to_library

        return add_to_library(self, name, tasks, saved=saved)

    def import_traces(self, name: str, source: str, *, options: "TraceOptions | None" = None, replace: bool = False) -> "TraceImport":
        """
        Save production traces as tasks of a library: input, recorded output and human feedback.

        Tags become variables, feedback labels and notes, expectations the expected outcome; what came out
        is kept with the task as ``recorded``.

        Args:
            name: The library.
            source: ``mlflow:EXPERIMENT`` (name or id), ``otel:FILE``, ``langfuse:FILE``, ``langsmith:FILE``,
                ``openai:FILE`` or ``mlflow-file:FILE``.
            options: Which traces, sampling and redaction.
            replace: Replace tasks that are there already with other content.

        Raises:
            BadDefinition: traces cannot be read, each with file and line; nothing was saved.
            Unusable: there is no such file or experiment, or MLflow does not accept the filter.
            Stopped: MLflow cannot be reached.
        """
        from beam_ray.api.traces import import_traces

        return import_traces(self, name, source, options=options, replace=replace)

    def remove_from_library(self, name: str, tasks: "Sequence[str]") -> "LibraryChange":
        """
        Remove tasks, named by id, from the next version of a library; earlier versions keep them.

        Raises:
            Unusable: there is no such library or task.
        """
        from beam_ray.api.library_changes import remove_from_library

        return remove_from_library(self, name, tasks)

    def edit_library(self, name: str, tasks: "Sequence[str]", edit: "TaskEdit", *, seen: int | None = None) -> "LibraryChange":
        """
        Change labels, purpose, notes or expected outcomes of saved tasks, in the next version of a library.

        Args:
            name: The library.
            tasks: Ids of its tasks.
            edit: What is changed; the same for all of them.
            seen: The version that the edit is based on. A task that was changed after it is not overwritten. None for the newest.

        Raises:
            Unusable: there is no such library or task, or a task was changed after version *seen*.
        """
        from beam_ray.api.library_changes import edit_library

        return edit_library(self, name, tasks, edit, seen=seen)

    def library_versions(self, name: str, *, limit: int | None = None) -> "list[LibraryVersion]":
        """
        The versions of a library, the newest first; at most *limit*.

        Raises:
            Unusable: there is no such library.
        """
        from beam_ray.api.library_changes import list_library_versions

        return list_library_versions(self, name, limit=limit)

    def diff_library(self, name: str, before: int, after: int) -> "LibraryDiff":
        """
        What differs between two versions of a library: tasks added, removed, and changed by field.

        Raises:
            Unusable: there is no such library or version.
        """
        from beam_ray.api.library_changes import diff_libraries

        return diff_libraries(self, name, before, after)

    # -- improving ------------------------------------------------------------------------

    def optimise(
        self, task: str, node: str, *, model: str | None = None, again: bool = False, proposal: int | None = None, draft: "DraftFile | str | None" = None
    ) -> "PromptProposal":
        """
        Propose a better prompt for a failed step: its weaknesses, and changes with a reason each. Nothing is published.

        Args:
            task: Address or id of the task.
            node: The failed step.
            model: The proposing model. None for the judge, or the step's own model.
            again: Ask for another proposal than the stored one.
            proposal: The kept proposal of this number; no model is asked.
            draft: Where the draft goes: a file, or the name of a draft in the store. Needed for ``PromptProposal.apply``.

        Raises:
            Unusable: there is no such step, or nothing is wrong with it.
            Stopped: the model does not answer.
        """
        from beam_ray.api.optimise import optimise

        return optimise(self, task, node, model=model, again=again, proposal=proposal, draft=draft)

    def plan_optimise(self, task: str, node: str, *, model: str | None = None, again: bool = False) -> "OptimisePlan":
        """
        What ``optimise`` would ask of which model, and what that costs at most. No model is called.

        Raises:
            Unusable: as for ``optimise``.
        """
        from beam_ray.api.optimise_plan import plan_optimise

        return plan_optimise(self, task, node, model=model, again=again)

    def proposals(self, task: str, node: str) -> "list[PromptProposal]":
        """The prompts that were proposed for a step, the newest first. No model is called."""
        from beam_ray.api.optimise import proposals

        return proposals(self, task, node)

    def try_prompt(self, task: str, node: str, prompt: "Sequence[Mapping[str, str]]", *, base: str = "", count: int = 0) -> "PromptTry":
        """
        What running a changed prompt of a step would do, for a task and for others of its run. No model is called.

        Args:
            task: Address or id of the task.
            node: The step.
            prompt: The turns, with role and content.
            base: The draft, ``NAME@DRAFT:N``, whose prompt is changed. By default the published version; for a task of a run of
                a draft, such as a backtest's candidate, the definition of that run.
            count: How many other tasks are drawn at random from those of the run that reach the step; at most 200.

        Raises:
            Unusable: there is no such task, step or draft, or the step has no prompt.
        """
        from beam_ray.api.prompt_tries import try_prompt

        return try_prompt(self, task, node, prompt, base=base, count=count)

    def prompt_of(self, task: str, node: str, base: str = "") -> "tuple[Mapping[str, str], ...]":
        """The turns, with role and content, that a try of another prompt begins with: see ``try_prompt``."""
        from beam_ray.api.prompt_tries import prompt_of

        return prompt_of(self, task, node, base)

    def save_try(self, task: str, node: str, prompt: "Sequence[Mapping[str, str]]", *, base: str = "", by: str = "") -> "Draft":
        """
        Keep a changed prompt as a draft: the next revision of *base*, or a new draft where there is none or it was changed since.

        Args:
            task: As for ``try_prompt``, as are *node*, *prompt* and *base*.
            by: Who saves it; by default the user of this machine.
        """
        from beam_ray.api.prompt_tries import save_try

        return save_try(self, task, node, prompt, base=base, by=by)

    def detectable(self, workflow: str, tasks: int) -> "Detectable":
        """
        The smallest changes that so many tasks of a workflow show with 80% power, from how much its finished runs differ.

        ``plan_backtest`` with *detect* asks the other way round.
        """
        from beam_ray.api.detection import detectable

        return detectable(self, workflow, tasks)

    def search_prompts(
        self,
        workflow: str,
        library: str,
        *,
        options: "SearchOptions | None" = None,
        budget: "Budget | None" = None,
        takeover: bool = False,
        progress: "ProgressOption" = None,
    ) -> "PromptSearch":
        """
        Search for better prompts over a library, and test the best draft once on tasks that the search did not see.

        Args:
            workflow: The path of a YAML file, or a published name whose file is here.
            library: ``NAME`` or ``NAME@VERSION``.
            options: Nodes, proposing model, rounds, seed and the draft's path.
            budget: ``max_usd``, ``max_tokens`` or ``max_calls``, for search and holdout set together.
            takeover: As for ``run``.
            progress: As for ``run``.

        Raises:
            Unusable: the budget or the library is too small; no model was called.
            Stopped: before the end; the same call resumes.
        """
        from beam_ray.api.prompt_search import search_prompts

        return search_prompts(self, workflow, library, options=options, budget=budget, takeover=takeover, progress=progress)

    def criteria(
        self,
        workflow: "WorkflowOption",
        node: str | None = None,
        *,
        outputs: "Outputs | None" = None,
        repeats: int = 3,
        takeover: bool = False,
        progress: "ProgressOption" = None,
    ) -> "list[CriteriaCheck]":
        """
        Judge stored outputs again: how often each criterion is met, and how reliable its judge is. No step is executed.

        Outputs that people reviewed are judged too, where the judge has changed since. Most is asked for *repeats*;
        ``plan_criteria`` says how much.

        Args:
            workflow: As for ``check``.
            node: Only this node; None for all that have criteria.
            outputs: Which stored outputs.
            repeats: How often each output is judged.
            takeover: As for ``run``.
            progress: As for ``run``.
        """
        from beam_ray.api.criteria import check_criteria

        return check_criteria(self, workflow, node, outputs=outputs, repeats=repeats, takeover=takeover, progress=progress)

    def plan_criteria(self, workflow: "WorkflowOption", node: str | None = None, *, outputs: "Outputs | None" = None, repeats: int = 3) -> "list[CriteriaPlan]":
        """What ``criteria`` would ask judges, at most, per node. No model is called."""
        from beam_ray.api.criteria import plan_criteria

        return plan_criteria(self, workflow, node, outputs=outputs, repeats=repeats)

    def plan_criteria_proposal(
        self, workflow: str, node: str, *, draft: "CriteriaDraft | None" = None, outputs: "Outputs | None" = None
    ) -> "CriteriaProposalPlan":
        """
        What ``propose_criteria`` would ask models at most, and what that costs. No model is called.

        Args:
            workflow: As for ``propose_criteria``.
            node: As for ``propose_criteria``.
            draft: As for ``propose_criteria``.
            outputs: As for ``propose_criteria``.

        Raises:
            Unusable: as for ``propose_criteria``.
        """
        from beam_ray.api.criteria import CriteriaDraft, Outputs
        from beam_ray.api.criteria_plan import plan_proposal

        how, which = draft or CriteriaDraft(), outputs or Outputs()
        return plan_proposal(self, workflow, node, add=how.add, model=how.model, run=which.run, outputs=which.limit, again=how.again)

    def propose_criteria(
        self,
        workflow: str,
        node: str,
        *,
        draft: "CriteriaDraft | None" = None,
        outputs: "Outputs | None" = None,
        takeover: bool = False,
        progress: "ProgressOption" = None,
    ) -> "CriteriaProposal":
        """
        Let a model propose criteria for a node, try them on stored outputs, and write those that are useful to a draft.

        Args:
            workflow: The path of a YAML file, or a published name whose file is here.
            node: The node.
            draft: Proposing model, whether to keep the existing criteria, and the draft's path.
            outputs: Which stored outputs.
            takeover: As for ``run``.
            progress: As for ``run``.
        """
        from beam_ray.api.criteria import propose

        return propose(self, workflow, node, draft=draft, outputs=outputs, takeover=takeover, progress=progress)

    # -- reviews --------------------------------------------------------------------------

    def review_queue(
        self,
        workflow: str,
        node: str | None = None,
        *,
        run: str | None = None,
        criteria: Iterable[str] = (),
        sample: "ReviewSample | None" = None,
    ) -> "ReviewQueue":
        """
        Outputs of a finished run for people to review, drawn at random unless *sample* says otherwise. Nothing is stored.

        The same arguments give the same queue, so it can be made anew at any time; ``ReviewQueue.next`` is the next item
        that a reviewer has not answered. Only reviews of random and balanced samples say how often a judge errs.

        Args:
            workflow: The workflow's name.
            node: The node; None for the only one whose criteria a judge decides.
            run: The run, named as for ``get_run``; None for the workflow's newest finished run.
            criteria: Ids of the criteria to review; by default those that a judge decides.
            sample: How many, how they are drawn, and the seed.

        Raises:
            Unusable: there is no such run, node or criterion.
        """
        from beam_ray.api.reviews import review_queue

        return review_queue(self, workflow, node, run=run, criteria=criteria, sample=sample)

    def review_sources(self) -> "list[ReviewSource]":
        """
        Outputs that people can review: what workflows flagged for a person in any run, and of each workflow's newest
        finished run what the judges of a panel disagree on, and what measures the judge when it is drawn at random.
        """
        from beam_ray.api.reviews import review_sources

        return review_sources(self)

    def tasks_to_review(self, *, patience: float | None = None) -> int:
        """
        How many tasks have a step that its workflow flagged for a person and that nobody has reviewed. No run is read for it.

        Args:
            patience: Seconds to wait for runs that were never read on this machine; tasks of the others are counted then. None waits for all.
        """
        from beam_ray.api.reviews import tasks_to_review

        return tasks_to_review(self, patience)

    def record_review(
        self, item: "ReviewItem", answers: "Mapping[str, Met]", *, reviewer: str = "", comment: str = "", hidden: bool = True
    ) -> "RecordedReviews":
        """
        Keep what a person says of an output. What the judge said is kept beside it and never changed.

        A later answer by the same person counts instead of an earlier one; both stay in the store.

        Args:
            item: An item of a queue.
            answers: Criterion id to True (met), False (not met) or None (cannot tell).
            reviewer: Who says so; by default the user of this machine.
            comment: Kept with each answer that has none of its own.
            hidden: Whether the judge's word was hidden until the person had answered.

        Raises:
            Unusable: the item does not ask about a criterion.
        """
        from beam_ray.api.reviews import record_review

        return record_review(self, item, answers, reviewer=reviewer, comment=comment, hidden=hidden)

    def mark_pair(self, backtest: str, task: str, mark: str, *, candidate: str | None = None, trial: int = 1, by: str = "", note: str = "") -> "PairMark":
        """
        Keep what a person says of a pair of a finished backtest. The verdict and its numbers stay what they are.

        Of several marks by one person the newest counts; all stay in the store.

        Args:
            backtest: Its id, or the beginning of one.
            task: Id of the task.
            mark: ``real``, ``noise``, ``judge`` (the judge is wrong) or ``expected`` (the expected outcome is wrong);
                ``none`` takes one's own mark back.
            candidate: Whose pair; None for the best candidate's.
            trial: Which trial of the task.
            by: Who says so; by default the user of this machine.
            note: Why, for readers.

        Raises:
            Unusable: there is no such backtest, candidate, pair or mark, or the note is too long.
        """
        from beam_ray.api.marks import mark_pair

        return mark_pair(self.verdict(backtest).pairs_of(candidate), task, mark, trial=trial, by=by, note=note)

    def pair_marks(self, backtest: str, candidate: str | None = None) -> "list[PairMark]":
        """What people say of the pairs of a candidate, by default of the best one; of each person and pair the newest mark."""
        from beam_ray.api.marks import pair_marks

        return pair_marks(self, backtest, candidate)

    def import_reviews(self, file: str | Path, *, reviewer: str = "") -> "RecordedReviews":
        """
        Record the answered rows of a file that ``ReviewQueue.write`` wrote, or of one with address, criterion and met.

        Importing a file again records nothing twice.

        Args:
            file: .csv, .tsv, .jsonl, .json, .xlsx or .parquet.
            reviewer: Who answered; by default what the column ``reviewer`` says, else the user of this machine.

        Raises:
            BadDefinition: with every problem of the file and its place; nothing was recorded.
            Unusable: the file cannot be read, or nothing in it is answered.
        """
        from beam_ray.api.reviews import import_reviews

        return import_reviews(self, file, reviewer=reviewer)

    def review_agreement(self, workflow: str, node: str | None = None) -> "list[JudgeReport]":
        """
        How far each judge agrees with people so far, per criterion, its version and the judge. No model is called.

        Agreement, kappa, sensitivity and specificity have 95% intervals and stand on outputs drawn at random alone; false
        passes and false failures are listed one by one, whatever way they came to be reviewed.

        Args:
            workflow: The workflow's name.
            node: Only this node.
        """
        from beam_ray.api.reviews import review_agreement

        return review_agreement(self, workflow, node)

    def reviews(self, workflow: str | None = None) -> "pa.Table":
        """Every review of a workflow, or of all: one row per person, output and criterion, in the order in which they were made."""
        from beam_ray.api.reviews import reviews

        return reviews(self, workflow)

    # -- jobs -----------------------------------------------------------------------------

    def submit(
        self,
        command: "Sequence[str]",
        *,
        address: str,
        folder: "str | Path" = ".",
        allow_open: bool = False,
        metadata: Mapping[str, str] | None = None,
        given: str = "",
    ) -> "Job":
        """
        Run a command as a Ray job; ``Job.wait`` follows it and returns its exit code from the store.

        Args:
            command: run, resume, backtest, prove, rerun or optimise with its arguments, as on the command line.
            address: The cluster's dashboard, such as ``http://127.0.0.1:8265``.
            folder: The folder to upload, without what .gitignore and .rayignore name.
            allow_open: Submit although the cluster requires no token.
            metadata: Shown on Ray's dashboard.
            given: What the command reads on standard input, such as the spec of ``backtest -``; everyone on the cluster can read it.

        Raises:
            Unusable: the cluster cannot be reached, refuses the job, or cannot share the store.
        """
        from beam_ray.api.jobs import submit

        return submit(self, command, address=address, folder=folder, allow_open=allow_open, metadata=metadata, given=given)

    def models_for_jobs(self, folder: "str | Path" = ".") -> str:
        """
        The models file as Ray jobs over this store name it: relative to the folder that is uploaded.

        Raises:
            Unusable: the store would be lost with a job, or the models file is not in the folder.
        """
        from beam_ray.api.jobs import models_for_jobs

        return models_for_jobs(self, folder)

    # -- health and maintenance -----------------------------------------------------------

    def health(self, workflow: "WorkflowOption", *, rules: "str | Path | None" = None, since: str = "", last: int | None = None) -> "Health":
        """
        Warnings from the finished runs of a definition: frequent auto-reruns, no gain from them, slower execution.

        Args:
            workflow: As for ``check``.
            rules: A file of warning rules; None for the defaults.
            since: Only runs from this day on, ``2026-11-23``, UTC.
            last: Only the newest runs, this many.

        Raises:
            Unusable: no finished run is of this definition.
        """
        from beam_ray.api.health import health

        return health(self, workflow, rules=rules, since=since, last=last)

    def flow(
        self,
        workflow: "WorkflowOption",
        *,
        run: str | None = None,
        all_runs: bool = False,
        backtest: str | None = None,
        candidate: str | None = None,
        criteria_of: "Iterable[str] | Literal['weakest'] | None" = None,
    ) -> "Flow":
        """
        A workflow's graph with how each node, criterion and branch did. No model is called.

        Args:
            workflow: As for ``check``; also the name of a workflow that was run and never published.
            run: Numbers of this run, named as for ``get_run``. Default: the newest finished run of the definition, else of the workflow.
            all_runs: Numbers of all finished runs of the definition; those of reruns do not count.
            backtest: Numbers of this backtest: its baseline and a candidate, whose definition is then shown.
            candidate: Name of the candidate. Default: the best one.
            criteria_of: Nodes whose criteria are counted, or ``weakest`` for the one with the lowest score. Default: all.

        Raises:
            Unusable: there is no such workflow, run, backtest or candidate.
        """
        from beam_ray.api.flow import flow

        return flow(self, workflow, run=run, all_runs=all_runs, backtest=backtest, candidate=candidate, criteria_of=criteria_of)

    def flows(self) -> "list[FlowSummary]":
        """All workflows that were published or run, by name, with how the newest runs of each did."""
        from beam_ray.api.flow_list import flows

        return flows(self)

    def trend(self, workflow: str, *, since: str = "") -> "Trend":
        """
        A workflow over time: success rate, score, cost, time and auto-reruns per version and day, with 95% intervals.

        Runs of the same tasks with one definition and the same models are a canary set: its newest run is compared with
        its first, which tells whether a hosted model has changed under its name.

        Args:
            workflow: The workflow's name.
            since: Only runs from this day on, ``2026-11-23``, UTC.

        Raises:
            Unusable: no finished run is of a workflow of that name.
        """
        from beam_ray.api.trend import trend

        return trend(self, workflow, since=since)

    def diagnose(self, run: str) -> "Diagnosis":
        """
        What is damaged in a run, and what repairing it takes. Nothing is changed.

        Args:
            run: A run, named as for ``get_run``.
        """
        from beam_ray.api.maintenance import diagnosis

        return diagnosis(self, run)

    def repair(self, run: "str | Diagnosis", *, allow_writes: bool = False, takeover: bool = False, progress: "ProgressOption" = None) -> "Repair":
        """
        Repair a damaged run: intact rows are kept, damaged ones are executed again. The same call resumes.

        Args:
            run: A run, named as for ``get_run``, or what ``diagnose`` found in it.
            allow_writes: Call tools with write effects again where their rows are lost.
            takeover: As for ``run``.
            progress: As for ``run``.

        Raises:
            Damaged: the run cannot be repaired.
            Stopped: before the end.
        """
        from beam_ray.api.maintenance import repair

        return repair(self, run, allow_writes=allow_writes, takeover=takeover, progress=progress)

    def gc(self, *, delete: bool = False, abandoned: bool = False, older_than_days: float = 7.0) -> "GarbageReport":
        """
        List what nothing in the store needs, with its size, or delete it.

        Args:
            delete: Delete what is listed.
            abandoned: Include unfinished runs whose driver is gone, with everything they paid for.
            older_than_days: Days since an abandoned run was last active.
        """
        from beam_ray.api.maintenance import gc

        return gc(self, delete=delete, abandoned=abandoned, older_than_days=older_than_days)
