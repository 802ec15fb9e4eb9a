"""
Warnings about a workflow from its stored runs, each with the affected tasks and the next command.

Percentages are compared as exact fractions: 30 of 100 is not more than 30%. Tasks for which a
model did not answer and steps that could not be scored are left out of all percentages.
"""

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from typing import Any, Literal, TypedDict, cast

import numpy as np

from beam_ray.compare.formatting import amount, plural, span
from beam_ray.compare.intervals import change, sample
from beam_ray.compare.sequential import Confidence
from beam_ray.compare.statistics import Interval, Quantity
from beam_ray.define.fingerprint import Json, JsonObject
from beam_ray.define.workflow import Workflow
from beam_ray.errors import Unusable
from beam_ray.improve.duration import duration_change
from beam_ray.improve.executions import Executions, StepExecution, TaskExecution, executions, runs_of
from beam_ray.improve.health_rules import DEFAULT_RULES, Rules
from beam_ray.publish import Version, current, read_version, versions
from beam_ray.store.objects import Objects

Word = Literal["WARNING", "ok", "unknown"]


@dataclass(frozen=True)
class Finding:
    """The result of one rule."""

    rule: str
    node: str
    """Empty for rules about the whole workflow."""
    word: Word
    found: str
    """The observed value in words; where it is unknown, why."""
    allowed: str
    figures: Mapping[str, Json] = field(default_factory=dict)
    tasks: tuple[str, ...] = ()
    """Addresses of the tasks or steps behind a warning."""
    advice: str = ""
    commands: tuple[str, ...] = ()


class FindingDocument(TypedDict):
    """The result of one rule as JSON."""

    rule: str
    node: str
    word: Word
    found: str
    allowed: str
    figures: Mapping[str, Json]
    """The numbers behind it; each rule has its own."""
    tasks: Sequence[str]
    advice: str
    commands: Sequence[str]


class HealthDocument(TypedDict):
    """The health of a definition as JSON."""

    workflow: str
    version: int | None
    definition_digest: str
    rules: JsonObject
    """The rules file."""
    runs: Sequence[str]
    tasks: int
    different: int
    passed: int
    model_away: int
    previous: int | None
    previous_runs: Sequence[str]
    signs: Sequence[FindingDocument]
    warnings: int


@dataclass(frozen=True)
class Health:
    """The health of one definition. ``document()`` gives the JSON document."""

    workflow: str
    version: int | None
    definition_digest: str
    rules: Rules
    runs: tuple[str, ...]
    tasks: int
    """Executions of tasks; a task that several runs execute counts in each."""
    different: int
    """Number of distinct tasks among them."""
    passed: int
    """Executions that passed. Shown for information: what pass rate is enough is for a gate to decide."""
    model_away: int
    """Executions left out because a model did not answer."""
    previous: int | None
    previous_runs: tuple[str, ...]
    signs: tuple[Finding, ...]

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The findings that need attention."""
        return tuple(sign for sign in self.signs if sign.word == "WARNING")

    def document(self) -> HealthDocument:
        """The result as a JSON document."""
        found = {**asdict(self), "rules": self.rules.model_dump(mode="json", by_alias=True), "warnings": len(self.warnings)}
        return cast(HealthDocument, found)


def health(
    objects: Objects, workflow: Workflow, version: int | None = None, *, rules: Rules = DEFAULT_RULES, since: str = "", last: int | None = None
) -> Health:
    """
    Check the finished runs of *workflow*: all of them, the *last* ones, or those since the date *since*.

    The execution time is compared with the previous published version.

    Raises:
        Unusable: There is no finished run of this definition.
    """
    runs = runs_of(objects, workflow, since=since, last=last)
    if not runs:
        which = f"version {version}" if version else "this definition"
        when = f" since {since}" if since else ""
        raise Unusable(
            f"no finished run of {which} of {workflow.name!r}{when} (reruns do not count)\n  start one with: beam-ray run {workflow.name} --tasks SOURCE"
        )
    found = executions(runs, workflow)
    earlier = _previous(objects, workflow, version)
    before = executions(runs_of(objects, earlier.plan, last=last), earlier.plan) if earlier else None
    checks = _Checks(workflow, rules, found)
    signs = [*checks.used_up(), *checks.auto_reruns(), *checks.uplift(), *checks.seconds(before, earlier, version)]
    return Health(
        workflow.name,
        version,
        workflow.digest,
        rules,
        found.runs,
        len(found.tasks),
        len({task.key for task in found.tasks}),
        sum(task.passed for task in found.tasks),
        sum(task.model_unavailable for task in found.tasks),
        earlier.version if earlier else None,
        before.runs if before else (),
        tuple(signs),
    )


def _previous(objects: Objects, workflow: Workflow, version: int | None) -> Version | None:
    """The newest published version with a different definition, before *version* where that is given."""
    latest = current(objects, workflow.name)
    for number in reversed(versions(objects, workflow.name) if latest else []):
        if version is None or number < version:
            found = read_version(objects, workflow.name, number)
            if found.digest != workflow.digest:
                return found
    return None


@dataclass(frozen=True)
class _Checks:
    workflow: Workflow
    rules: Rules
    found: Executions

    def used_up(self) -> list[Finding]:
        rule = self.rules.rules.used_up
        return [] if rule is None else [self._used_up(node, steps, rule.at_least) for node, steps in self.found.steps.items()]

    def _used_up(self, node: str, steps: Sequence[StepExecution], limit: float) -> Finding:
        again = self.workflow.nodes[node].auto_rerun
        assert again
        known = [step for step in steps if step.known]
        behind = [step for step in known if step.auto_reruns >= again.max]
        allowed = f"under {limit:g}% of {_unit(known)}"
        few = self._too_few("used_up", node, known, allowed, len(steps) - len(known))
        if few:
            return few
        in_vain = [step for step in behind if not step.passed]
        found = f"{_share(len(behind), known)} use all {again.max}; {len(in_vain):,} of these still fail"
        figures = {
            "steps": len(known),
            "used_up": len(behind),
            "in_vain": len(in_vain),
            "percent": _percentage(len(behind), len(known)),
            "left_out": len(steps) - len(known),
        }
        if not known or Fraction(100 * len(behind), len(known)) < Fraction(str(limit)):
            return Finding("used_up", node, "ok", found, allowed, figures)
        in_vain_first = sorted(behind, key=lambda step: bool(step.passed))
        tasks = _addresses(in_vain_first)
        return Finding(
            "used_up",
            node,
            "WARNING",
            found,
            allowed,
            figures,
            tasks,
            f"Review the criteria of {node!r} first: each should be specific and achievable. Then review its prompt.",
            (f"beam-ray criteria {self.workflow.name} --node {node} --generate", f"beam-ray optimise {shlex.quote(_task_of(tasks[0]))} --step {node}"),
        )

    def auto_reruns(self) -> list[Finding]:
        rule = self.rules.rules.auto_reruns
        if rule is None or not self.found.steps:
            return []
        known = [task for task in self.found.tasks if task.known]
        behind = [task for task in known if task.auto_reruns]
        limit, left_out = rule.more_than, len(self.found.tasks) - len(known)
        allowed = f"at most {limit:g}% of {_unit(known)}"
        few = self._too_few("auto_reruns", "", known, allowed, left_out)
        if few:
            return [few]
        by_node = {node: sum(1 for step in steps if step.known and step.auto_reruns) for node, steps in self.found.steps.items()}
        found = _share(len(behind), known)
        figures = {
            "tasks": len(known),
            "with_auto_reruns": len(behind),
            "percent": _percentage(len(behind), len(known)),
            "by_node": by_node,
            "left_out": left_out,
        }
        if Fraction(100 * len(behind), len(known)) <= Fraction(str(limit)):
            return [Finding("auto_reruns", "", "ok", found, allowed, figures)]
        worst = max(by_node, key=lambda node: by_node[node])
        first = next((step.address for step in self.found.steps[worst] if step.known and step.auto_reruns), behind[0].address)
        where = ", ".join(f"{node} {count:,}" for node, count in by_node.items() if count)
        advice = f"Optimise the prompt of the step with the most auto-reruns (by step: {where})."
        command = f"beam-ray optimise {shlex.quote(_task_of(str(first)))} --step {worst}"
        return [Finding("auto_reruns", "", "WARNING", found, allowed, figures, _addresses(behind), advice, (command,))]

    def uplift(self) -> list[Finding]:
        rule = self.rules.rules.uplift
        return [] if rule is None else [self._uplift(node, steps, rule.confidence) for node, steps in self.found.steps.items()]

    def _uplift(self, node: str, steps: Sequence[StepExecution], confidence: float) -> Finding:
        again = [step for step in steps if step.auto_reruns]
        scored = [step for step in again if step.first is not None and step.final is not None]
        allowed = "entire interval above 0"
        if not again:
            return Finding("uplift", node, "ok", "no auto-reruns", allowed, {"auto_rerun_steps": 0, "left_out": 0})
        few = self._too_few("uplift", node, scored, allowed, len(again) - len(scored))
        if few:
            return few
        first, final = (np.array([getattr(step, name) for step in scored], dtype=np.float64) for name in ("first", "final"))
        sampled = sample(Quantity(first, final), _clusters([step.address.task for step in scored]), largest=100.0)
        interval = change(sampled, Confidence(confidence))
        was, gain = sampled.means[0], math.fsum(final - first) / len(scored)
        better = int((final > first).sum())
        found = f"{amount(gain, 'points', signed=True)} points ({span(interval, 'points')}) over {plural(len(scored), 'step')}, {better:,} improved"
        figures = {
            "auto_rerun_steps": len(scored),
            "first_score": was,
            "score": was + gain,
            "uplift": gain,
            "interval": _ends(interval),
            "better": better,
            "left_out": len(again) - len(scored),
        }
        if interval is None or interval.low > 0:
            return Finding("uplift", node, "ok" if interval else "unknown", found, allowed, figures)
        in_vain = _addresses([step for step, before, after in zip(scored, first, final, strict=True) if after <= before])
        advice = f"Check whether the inputs contain what {node!r} asks for; retrying cannot find what is missing. If they do, remove 'auto_rerun' from {node!r}: it adds cost without improving the scores."
        commands = (f"beam-ray show {shlex.quote(_task_of(in_vain[0]))} --step {node}",) if in_vain else ()
        return Finding("uplift", node, "WARNING", found, allowed, figures, in_vain, advice, commands)

    def seconds(self, before: Executions | None, earlier: Version | None, version: int | None) -> list[Finding]:
        rule = self.rules.rules.seconds
        if rule is None or earlier is None or before is None:
            return [] if rule is None else [Finding("seconds", "", "unknown", "no previous version to compare with", f"at most +{rule.up_by_more_than:g}%")]
        limit = rule.up_by_more_than
        allowed = f"at most +{limit:g}%"
        found = duration_change(before, self.found, self.rules.min_tasks)
        if isinstance(found, str):
            return [Finding("seconds", "", "unknown", found, allowed)]
        about = (
            f"over {found.tasks:,} tasks run by both"
            if found.paired
            else f"over {found.tasks:,} tasks now and {found.tasks_before:,} different tasks before, which may differ in difficulty"
        )
        reach = f" ({span(found.interval, '%')})" if found.interval else ""
        grown = "-" if found.percent is None else amount(found.percent, "%", signed=True)
        words = f"{amount(found.before, 's')} → {amount(found.after, 's')}, {grown}{reach} {about}"
        figures = {
            "seconds_before": found.before,
            "seconds": found.after,
            "percent": found.percent,
            "interval": _ends(found.interval),
            "same_tasks": found.paired,
            "tasks": found.tasks,
            "tasks_before": found.tasks_before,
        }
        if Fraction(found.after) - Fraction(found.before) <= Fraction(str(limit)) * Fraction(found.before) / 100:
            return [Finding("seconds", "", "ok", words, allowed, figures)]
        if found.paired and before.runs[0] != self.found.runs[0]:
            command = f"beam-ray compare {before.runs[0]} {self.found.runs[0]}"
        else:
            command = f"beam-ray diff {self.workflow.name}@{earlier.version} {f'{self.workflow.name}@{version}' if version else 'FILE'}"
        advice = f"Find the step that takes longer than in version {earlier.version}; auto-reruns take time too."
        tasks = _addresses(found.slowest)
        return [Finding("seconds", "", "WARNING", words, allowed, figures, tasks, advice, (command, f"beam-ray show {shlex.quote(tasks[0])}"))]

    def _too_few(self, rule: str, node: str, known: Sequence[StepExecution | TaskExecution], allowed: str, left_out: int) -> Finding | None:
        count = len({entry.address.task for entry in known})
        if count >= self.rules.min_tasks:
            return None
        aside = f"; {left_out:,} more could not be judged" if left_out else ""
        return Finding(rule, node, "unknown", f"too few tasks: {count:,} of {self.rules.min_tasks:,}{aside}", allowed, {"tasks": count, "left_out": left_out})


def _clusters(names: Sequence[str]) -> np.ndarray[Any, Any]:
    numbers = {name: index for index, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names])


def _ends(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [interval.low, interval.high]


def _percentage(count: int, of: int) -> float:
    return round(100 * count / of, 4)


def _share(count: int, of: Sequence[StepExecution | TaskExecution]) -> str:
    return f"{count:,} of {len(of):,} {_unit(of)} ({amount(100 * count / len(of), '%')})"


def _unit(entries: Sequence[StepExecution | TaskExecution]) -> str:
    """What is counted: a task that several runs or trials execute is counted each time."""
    return "tasks" if len({entry.address.task for entry in entries}) == len(entries) else "executions"


def _addresses(entries: Sequence[StepExecution | TaskExecution]) -> tuple[str, ...]:
    return tuple(str(entry.address) for entry in entries)


def _task_of(address: str) -> str:
    """The address of the step's task."""
    return "/".join(address.split("/")[:2])
