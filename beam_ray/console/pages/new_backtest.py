"""A new backtest: workflow, tasks, candidates, gate and limits, with the plan beside the form before anything starts."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

import io
import re
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import LiteralScalarString

import beam_ray
from beam_ray.console.commands import here_document, new_key
from beam_ray.console.forms import Fields, names_draft, number, one
from beam_ray.console.links import backtest_path, flow_path, with_query
from beam_ray.console.reading import require_no_file
from beam_ray.console.rendering import Page
from beam_ray.console.site import Site
from beam_ray.errors import BeamRayError, Unusable

if TYPE_CHECKING:
    from beam_ray import BacktestPlan, Draft, Workflow

FIELDS = ("workflow", "name", "tasks", "label", "limit", "candidate", "path", "value", "gate", "trials", "confirm", "stop", "max_usd", "again", "repeat")
GATES = (
    ("no-harm", "no harm: nothing got worse"),
    ("improve", "improve: the targets for a change that is meant to help"),
    ("cheaper", "cheaper: costs less, quality not inferior"),
    ("none", "none: only compare"),
)
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
"""Names of workflows."""
DETECT = 5.0
"""Points of change of which the plan says how many tasks show it."""
KEPT = "kept:"
"""How a candidate is named that is that of the repeated backtest."""
RUNS = 8
"""Runs that are offered as tasks."""
CARRIED = ("baseline", "matrix", "models", "tools", "fresh", "slices", "cluster", "rerun", "lane")
"""What a repeated backtest takes over that the form does not ask for."""


@dataclass(frozen=True)
class Wanted:
    """What the form says."""

    workflow: str
    name: str = ""
    tasks: tuple[str, ...] = ()
    label: str = ""
    limit: str = ""
    candidates: tuple[str, ...] = ()
    """Drafts as ``NAME@DRAFT:N``, and candidates of the repeated backtest as ``kept:NAME``."""
    path: str = ""
    """The value that one more candidate changes."""
    value: str = ""
    gate: str = ""
    trials: str = ""
    confirm: str = ""
    stop: str = ""
    max_usd: float | None = None
    again: bool = False
    repeat: str = ""
    kept: dict[str, Any] = field(default_factory=dict)
    """The spec of the repeated backtest."""

    @classmethod
    def of(cls, site: Site, fields: Fields, workflow: str) -> Wanted:
        """
        What the fields say.

        Raises:
            Unusable: one of them cannot be.
        """
        repeat = one(fields, "repeat")
        written = "\n".join((fields.get("value") or [""])[-1].splitlines())
        return cls(
            workflow,
            one(fields, "name"),
            tuple(dict.fromkeys(each.strip() for each in fields.get("tasks", ()))),
            one(fields, "label"),
            one(fields, "limit"),
            tuple(dict.fromkeys(fields.get("candidate", ()))),
            one(fields, "path"),
            written,
            one(fields, "gate"),
            one(fields, "trials"),
            one(fields, "confirm"),
            one(fields, "stop"),
            number(fields, "max_usd"),
            one(fields, "again") == "yes",
            repeat,
            (site.store.backtest_spec(repeat) or {}) if repeat else {},
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that tasks must have."""
        return (self.label,) if self.label else ()

    @property
    def query(self) -> dict[str, Any]:
        """The form as a query."""
        return {
            "workflow": self.workflow,
            "name": self.name,
            "tasks": self.tasks,
            "label": self.label,
            "limit": self.limit,
            "candidate": self.candidates,
            "path": self.path,
            "value": self.value,
            "gate": self.gate,
            "trials": self.trials,
            "confirm": self.confirm,
            "stop": self.stop,
            "max_usd": f"{self.max_usd:g}" if self.max_usd is not None else "",
            "again": "yes" if self.again else "",
            "repeat": self.repeat,
        }

    @property
    def fields(self) -> list[tuple[str, str]]:
        """The same as fields of a form."""
        flat = [(name, each) for name, value in self.query.items() for each in (value if isinstance(value, tuple) else (value,))]
        return [(name, each) for name, each in flat if each]

    def spec(self, site: Site) -> dict[str, Any]:
        """
        The spec, as a file has it.

        Raises:
            Unusable: something is missing, or is not for a visitor of the console.
        """
        if not NAME.fullmatch(self.workflow):
            raise Unusable(f"{self.workflow[:80]!r} is not the name of a workflow\n  beam-ray backtest SPEC  reads workflow files")
        if not self.tasks:
            raise Unusable("choose the tasks: a library or a run")
        kept_tasks = self.kept.get("tasks", [])
        own = [kept_tasks] if isinstance(kept_tasks, str) else kept_tasks
        odd = next((each for each in self.tasks if not each.startswith(("library:", "run:")) and each not in own), None)
        if odd:
            raise Unusable(f"tasks: {odd[:80]!r} is not a library or a run\n  beam-ray backtest SPEC  reads files")
        candidates = self._candidates(site)
        if not candidates and not self.kept.get("matrix"):
            raise Unusable("choose at least one candidate: a draft, or a single change")
        spec: dict[str, Any] = {
            "backtest": self.name or _slug(f"{self.workflow}-{next(iter(candidates), 'repeat')}"),
            "workflow": self.workflow,
            "tasks": self.tasks[0] if len(self.tasks) == 1 else list(self.tasks),
            **{name: self.kept[name] for name in CARRIED if name in self.kept},
            "candidates": candidates,
        }
        if self.gate and self.gate != "no-harm":
            if self.gate not in dict(GATES) and self.gate != self.kept.get("gate"):
                raise Unusable(f"there is no gate {self.gate[:60]!r}; the console knows {', '.join(dict(GATES))}")
            spec["gate"] = self.gate
        for name, least, most in (("limit", 1, None), ("trials", 1, 100)):
            if written := getattr(self, name):
                spec[name] = _whole(name, written, least, most)
        if isinstance(self.kept.get("limit"), dict) and self.kept["limit"].get("first") == spec.get("limit"):
            spec["limit"] = self.kept["limit"]
        if self.confirm:
            spec["confirm"] = "auto" if self.confirm == "auto" else _whole("confirm", self.confirm, 0, 20)
        if self.stop:
            spec["stop"] = self.stop
        limits = [each for each in (self.max_usd, site.options.max_usd) if each is not None]
        budget = {**self.kept.get("budget", {}), **({"max_usd": min(limits)} if limits else {})}
        return {**spec, "budget": budget} if budget else spec

    def _candidates(self, site: Site) -> dict[str, Any]:
        found: dict[str, Any] = {}
        kept = self.kept.get("candidates", {})
        for each in self.candidates:
            if each.startswith(KEPT) and each.removeprefix(KEPT) in kept:
                found[each.removeprefix(KEPT)] = kept[each.removeprefix(KEPT)]
            elif names_draft(each, self.workflow):
                draft = each.partition("@")[2].partition(":")[0]
                found[_free(_slug(draft), found)] = each
            else:
                raise Unusable(f"{each[:80]!r} is not a draft of {self.workflow}")
        if self.path:
            change = {self.path: _value(self.path, self.value)}
            site.store.check_change(self.workflow, change, author=site.options.author)
            found[_free("change", found)] = change
        return found


def sheet(site: Site, path: str, fields: Fields) -> Page | str:
    """The form with the plan of what it says; a repeat goes to the filled-in form first."""
    repeat = one(fields, "repeat")
    if repeat and "workflow" not in fields:
        return _repeated(site, repeat)
    names = [each.workflow for each in site.store.flows()]
    workflow = one(fields, "workflow") or next(iter(names), "")
    if not workflow:
        raise Unusable("there is no workflow yet: publish one, or run one\n  beam-ray publish FILE --without-evidence REASON")
    wanted = Wanted.of(site, fields, workflow)
    choices = _tasks(site, workflow)
    if not wanted.tasks and choices:
        wanted = Wanted.of(site, {**fields, "tasks": [choices[0][0]]}, workflow)
    drafts = site.store.drafts(workflow)
    plan, spec, fault, finished = None, {}, "", ""
    try:
        spec = wanted.spec(site)
        plan = site.store.plan_backtest(spec, options=_options(wanted), detect=DETECT)
        require_within(site, plan)
        finished = _finished(site, plan)
    except BeamRayError as error:
        fault = str(error)
    text = _yaml(spec) if spec else ""
    command = _line(site, wanted, text) if text else f"beam-ray backtest SPEC{site.option}"
    values: dict[str, Any] = {
        "wanted": wanted,
        "names": names if workflow in names else [workflow, *names],
        "task_choices": [*choices, *((each, each) for each in wanted.tasks if each not in dict(choices))],
        "drafts": _draft_choices(wanted, drafts),
        "kept": [(f"{KEPT}{name}", name) for name in wanted.kept.get("candidates", {})],
        "carried": [name for name in CARRIED if name in wanted.kept],
        "gates": GATES if wanted.gate in ("", *dict(GATES)) else (*GATES, (wanted.gate, f"{wanted.gate}, as in the repeated backtest")),
        "paths": _paths(site, workflow),
        "plan": plan,
        "fault": fault,
        "finished": finished,
        "spec": text,
        "key": new_key(),
        "placeholder": spec.get("backtest", ""),
        "points": DETECT,
        "able": _able(plan) if plan else "",
        "repeat_of": backtest_path(repeat) if repeat else "",
        "flow": flow_path(workflow),
    }
    document = {"spec": spec or None, "plan": plan.document() if plan else None, "refused": fault or None}
    return Page("new_backtest", "New backtest", values, document, section="backtests", command=command)


def start(site: Site, path: str, fields: Fields) -> str:
    """Start the backtest; the page that follows it."""
    workflow = one(fields, "workflow")
    wanted = Wanted.of(site, {name: values for name, values in fields.items() if name in FIELDS}, workflow)
    spec = wanted.spec(site)
    plan = site.store.plan_backtest(spec, options=_options(wanted))
    require_within(site, plan)
    key = one(fields, "key")
    site.commands.start(key, _words(wanted), f"Backtest {spec['backtest']} of {workflow}", text=_yaml(spec), backtest=plan.id)
    return f"/started/{key}"


def _words(wanted: Wanted) -> list[str]:
    return ["backtest", "-", *(word for label in wanted.labels for word in ("--label", label)), *(["--again"] if wanted.again else [])]


def _options(wanted: Wanted) -> beam_ray.BacktestOptions:
    return beam_ray.BacktestOptions(labels=wanted.labels, again=wanted.again)


def _line(site: Site, wanted: Wanted, text: str) -> str:
    """The command as it is typed, with its spec on standard input."""
    return f"beam-ray {shlex.join(_words(wanted))}{site.option}{here_document(text)}"


def require_within(site: Site, plan: BacktestPlan) -> None:
    """
    Check that a backtest costs no more than this console may spend; repeats of ``confirm`` count.

    Raises:
        Unusable: it may cost more, or nobody knows what it costs.
    """
    site.commands.require_within([side.plan for side in plan.sides if side.plan], plan.repeats.most_usd if plan.repeats else 0.0)


def _finished(site: Site, plan: BacktestPlan) -> str:
    """The id of the very same backtest, where it has its verdict."""
    return plan.id if any(each.id == plan.id for each in site.reader.backtests()) else ""


def _repeated(site: Site, backtest: str) -> str:
    """The form as the backtest was: its spec, or of one without, what its verdict says of it."""
    spec = site.store.backtest_spec(backtest)
    verdict = None
    if spec is None:
        verdict = site.store.verdict(backtest).document()
        source = verdict["tasks_source"]
        spec = {"workflow": verdict["workflow"], "backtest": verdict["name"], "trials": verdict["trials"]}
        spec["tasks"] = source if source.startswith(("library:", "run:")) else []
    limit = spec.get("limit")
    workflow = str(spec["workflow"])
    query = {
        "workflow": _name_of(site, workflow, backtest),
        "name": spec["backtest"],
        "tasks": spec["tasks"],
        "limit": limit["first"] if isinstance(limit, dict) else limit,
        "candidate": [f"{KEPT}{name}" for name in spec.get("candidates", {})],
        "gate": spec.get("gate"),
        "trials": spec.get("trials"),
        "confirm": spec.get("confirm"),
        "stop": spec.get("stop"),
        "max_usd": spec.get("budget", {}).get("max_usd"),
        "repeat": backtest,
    }
    return with_query("/backtests/new", query)


def _name_of(site: Site, written: str, backtest: str) -> str:
    """The workflow's name, where the spec names a file or a version."""
    if written.endswith((".yaml", ".yml")):
        return site.store.verdict(backtest).workflow
    return written.partition("@")[0]


def _tasks(site: Site, workflow: str) -> list[tuple[str, str]]:
    """What can be the tasks: libraries, those of this workflow first, and its newest runs."""
    libraries = sorted(site.store.libraries(), key=lambda each: each.workflow != workflow)
    found = [(f"library:{each.name}", f"library {each.name}, {each.size:,} tasks") for each in libraries]
    runs = [run for run in site.reader.runs() if run.record.workflow == workflow and run.finished and run.record.mode == "run"][:RUNS]
    return [*found, *((f"run:{run.id}", f"tasks of run {run.id}, {run.record.tasks:,}") for run in runs)]


def _draft_choices(wanted: Wanted, drafts: list[Draft]) -> list[tuple[str, Draft | None, bool]]:
    """Reference, draft and whether it is chosen; an older revision that the address names is a choice of its own."""
    found = [(each.reference, each, each.reference in wanted.candidates or f"{each.workflow}@{each.name}" in wanted.candidates) for each in drafts]
    named = [reference for reference, draft, _ in found if draft] + [f"{each.workflow}@{each.name}" for each in drafts]
    return [*found, *((each, None, True) for each in wanted.candidates if not each.startswith(KEPT) and each not in named)]


def _paths(site: Site, workflow: str) -> list[str]:
    """What a single change may change."""
    try:
        require_no_file(workflow)
        definition: Workflow = site.store.check(workflow).workflow
    except BeamRayError:
        return []
    found = []
    for name in definition.order:
        node = definition.nodes[name]
        if node.call:
            found += [f"nodes.{name}.{node.kind}.{each}" for each in ("prompt", "temperature", "max_tokens", "model")]
        if node.evaluate:
            found += [f"nodes.{name}.evaluate.threshold", f"nodes.{name}.auto_rerun.max"]
    return found


def _able(plan: BacktestPlan) -> str:
    """What so many tasks can show."""
    found = plan.detection
    if found is None:
        return ""
    shown = [(found.detectable_rate, "of the success rate"), (found.detectable_score, "of the mean score")]
    named = ", ".join(f"{value:.1f} points {what}" for value, what in shown if value is not None)
    return f"Minimum detectable effect at 80% power: {named}." if named else ""


def _value(path: str, written: str) -> Any:
    """The value of a single change: text for a prompt or a model, else a number or a word of YAML."""
    if path.endswith(("prompt", "model")):
        return written
    for kind in (int, float):
        try:
            return kind(written)
        except ValueError:
            continue
    return {"true": True, "false": False, "null": None, "": None}.get(written, written)


def _whole(name: str, written: str, least: int, most: int | None) -> int:
    if not written.isdecimal() or int(written) < least or (most is not None and int(written) > most):
        raise Unusable(f"{name}: {written[:60]!r} is not a number {f'from {least} to {most}' if most is not None else f'of {least} or more'}")
    return int(written)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9_-]+", "-", text.lower()).strip("-_")[:64] or "backtest"


def _free(name: str, taken: dict[str, Any]) -> str:
    return next(each for each in (name, *(f"{name[:60]}-{n}" for n in range(2, 1_000))) if each not in taken)


def _yaml(spec: dict[str, Any]) -> str:
    sink = io.StringIO()
    yaml = YAML(typ="rt", pure=True)
    yaml.width = 1_000_000
    yaml.allow_unicode = True
    yaml.dump(_literal(spec), sink)
    return sink.getvalue()


def _literal(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _literal(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_literal(each) for each in value]
    return LiteralScalarString(value) if isinstance(value, str) and "\n" in value else value
