"""What pages read again and again: finished runs, which do not change, are read once."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

import contextlib
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

import beam_ray
from beam_ray.errors import Damaged, Unusable

KEPT_RUNS = 200
"""Runs whose record and manifest are kept."""
OPEN_RUNS = 3
"""Runs whose files of steps are kept in memory."""
OPEN_QUEUES = 8
"""Samples of outputs to review that are kept."""
KEPT_PAIRS = 4
"""Candidates whose pairs are kept in memory; 100,000 of them take some 30 MB."""
RECENT_RUNS = 20
"""Runs of a workflow whose health is shown, unless all are asked for."""
FRESH_S = 2.0
"""Seconds after which backtests are looked for again."""

Measured = TypeVar("Measured")


def require_no_file(workflow: str) -> None:
    """
    Check that an address names a workflow of the store, and no file of this machine.

    Raises:
        Unusable: it names a file.
    """
    if workflow.endswith((".yaml", ".yml")):
        raise Unusable(f"there is no workflow {workflow[:80]!r}: the console reads none from files\n  beam-ray check FILE  reads one")


class Reader:
    """Runs of a store, for any number of threads."""

    def __init__(self, store: beam_ray.Store):
        self.store = store
        self._runs: OrderedDict[str, beam_ray.Run] = OrderedDict()
        self._verdicts: list[beam_ray.Verdict] = []
        self._looked = -math.inf
        self._open: OrderedDict[str, beam_ray.Run] = OrderedDict()
        self._queues: OrderedDict[tuple[object, ...], beam_ray.ReviewQueue] = OrderedDict()
        self._pairs: OrderedDict[tuple[str, str], beam_ray.Pairs] = OrderedDict()
        self._lock = threading.Lock()
        self._unread = 0
        self._measures: dict[tuple[str, str], tuple[object, Any]] = {}

    def run(self, name: str) -> beam_ray.Run:
        """
        One run, by its id or the beginning of one.

        Raises:
            Unusable: there is none.
        """
        with self._lock:
            known = self._runs.get(name)
            if known is not None:
                self._runs.move_to_end(name)
                return known
        found = self.store.get_run(name)
        if found.finished:
            with self._lock:
                self._runs[found.id] = found
                while len(self._runs) > KEPT_RUNS:
                    self._runs.popitem(last=False)
        return found

    def runs(self) -> list[beam_ray.Run]:
        """All runs that can be read, the newest first; the list of tasks names damaged ones."""
        return self.store.runs(skip_damaged=True)

    def tasks(self, query: beam_ray.TaskQuery, patience: float | None) -> beam_ray.TaskList:
        """A list of tasks; of a store that was never read on this machine what was read after *patience* seconds."""
        found = self.store.list_tasks(query, patience=patience)
        self._unread = found.unread
        return found

    def unread(self) -> int:
        """Runs that are still being read for the first time."""
        if self._unread:
            self._unread = self.store.list_tasks(beam_ray.TaskQuery(limit=1), patience=0).unread
        return self._unread

    def unfinished(self) -> list[beam_ray.RunProgress]:
        """The runs that go on or were stopped, the newest first; the list of tasks names damaged ones."""
        found = []
        for run in self.runs():
            with contextlib.suppress(Damaged):
                if not run.finished:
                    found.append(self.store.progress(run.id))
        return found

    def backtests(self) -> list[beam_ray.Verdict]:
        """All finished backtests, the newest first."""
        with self._lock:
            if time.monotonic() - self._looked > FRESH_S:
                self._verdicts, self._looked = self.store.backtests(self._verdicts), time.monotonic()
            return self._verdicts

    def unsettled(self) -> list[beam_ray.Verdict]:
        """Backtests that nobody has acted on, the newest first."""
        return self.store.unsettled_backtests(self.backtests())

    def backtest(self, name: str) -> beam_ray.Verdict:
        """
        One finished backtest, by its id or the beginning of one.

        Raises:
            Unusable: there is none.
        """
        known = next((each for each in self._verdicts if each.id == name), None)
        return known or self.store.verdict(name)

    def review_queue(self, workflow: str, node: str, run: str, criteria: tuple[str, ...], sample: beam_ray.ReviewSample) -> beam_ray.ReviewQueue:
        """
        Outputs to review; the samples that were drawn last are kept, for whoever answers asks for the same one again and again.

        Raises:
            Unusable: there is no such run, node or criterion.
        """
        key = (workflow, node, run, criteria, sample)
        with self._lock:
            if run and key in self._queues:
                self._queues.move_to_end(key)
                return self._queues[key]
        found = self.store.review_queue(workflow, node or None, run=run or None, criteria=criteria, sample=sample)
        with self._lock:
            self._queues[key] = found
            while len(self._queues) > OPEN_QUEUES:
                self._queues.popitem(last=False)
        return found

    def pairs(self, verdict: beam_ray.Verdict, candidate: str = "") -> beam_ray.Pairs:
        """
        The pairs of a candidate, whose columns are read once.

        Raises:
            Unusable: there is no such candidate.
        """
        key = verdict.id, candidate or verdict.best.name
        with self._lock:
            known = self._pairs.get(key)
            if known is not None:
                self._pairs.move_to_end(key)
                return known
        found = verdict.pairs_of(key[1])
        with self._lock:
            self._pairs[key] = found
            while len(self._pairs) > KEPT_PAIRS:
                self._pairs.popitem(last=False)
        return found

    def health(self, workflow: str, last: int | None = RECENT_RUNS) -> beam_ray.Health:
        """
        What the *last* finished runs of a workflow's newest definition show, or all; measured again when something was run or published.

        Raises:
            Unusable: there is no finished run of it.
        """
        return self._measured(f"health {last}", workflow, lambda: self.store.health(self.definition(workflow), last=last))

    def trend(self, workflow: str) -> beam_ray.Trend:
        """
        A workflow over time; measured again when something was run or published.

        Raises:
            Unusable: there is no finished run of it.
        """
        return self._measured("trend", workflow, lambda: self.store.trend(workflow))

    def _measured(self, what: str, workflow: str, measure: Callable[[], Measured]) -> Measured:
        state = (tuple(self.store.run_ids()), tuple(each.number for each in self._versions(workflow)))
        known = self._measures.get((what, workflow))
        if known is None or known[0] != state:
            known = self._measures[what, workflow] = state, measure()
        found: Measured = known[1]
        return found

    def _versions(self, workflow: str) -> list[beam_ray.Version]:
        try:
            return self.store.versions(workflow)
        except Unusable:
            return []

    def workflows(self) -> list[str]:
        """The names of the workflows that were run, that of the newest run first."""
        return list(dict.fromkeys(run.record.workflow for run in self.runs()))

    def definition(self, workflow: str) -> beam_ray.Workflow | str:
        """
        A workflow as the API takes it: by its name where it is published, else as its newest run defines it.

        Raises:
            Unusable: it is the name of a file.
        """
        require_no_file(workflow)
        if self._versions(workflow):
            return workflow
        newest = next((each.newest for each in self.store.flows() if each.workflow == workflow), None)
        return newest.workflow if newest else workflow

    def draft_defined_as(self, workflow: str, digest: str) -> beam_ray.Draft | None:
        """The draft whose newest revision has the definition with this digest."""
        return next((each for each in self.store.drafts(workflow) if each.definition and each.definition.digest == digest), None)

    def named_task(self, word: str) -> beam_ray.Task:
        """
        The task that a word names as on the command line: an address, an id, or the beginning of one.

        Raises:
            Unusable: there is none.
        """
        found = self.store.task(word)
        return self.task(beam_ray.Address(found.run.id, found.id, found.trial))

    def task(self, address: beam_ray.Address) -> beam_ray.Task:
        """
        One task.

        Raises:
            Unusable: there is none.
        """
        run = self.run(address.run)
        with self._lock:
            self._open[run.id] = run
            self._open.move_to_end(run.id)
            while len(self._open) > OPEN_RUNS:
                self._open.popitem(last=False)[1].forget_step_rows()
        task = beam_ray.Task(run, address.task, address.trial)
        _ = task.given  # a task that the run has not is refused here
        if not 1 <= address.trial <= run.record.trials:
            raise Unusable(f"run {run.id} has no trial {address.trial}; it has {run.record.trials}")
        return task
