"""Health: warnings about a workflow from its runs, each with the tasks behind it and what to do."""

from dataclasses import dataclass, field
from pathlib import Path

from beam_ray.api.display import Display, Displayed
from beam_ray.api.location import Location
from beam_ray.api.workflows import WorkflowOption, check
from beam_ray.improve.health import Health as Engine
from beam_ray.improve.health import HealthDocument
from beam_ray.improve.health import health as measure
from beam_ray.improve.health_rules import DEFAULT_RULES, load_rules


@dataclass(frozen=True)
class Sign:
    """What one rule found."""

    rule: str
    """used_up, auto_reruns, uplift or seconds."""
    node: str
    """Empty for rules about the whole workflow."""
    word: str
    """WARNING, ok or unknown."""
    found: str
    allowed: str
    tasks: tuple[str, ...]
    """Addresses of the tasks or steps behind a warning."""
    advice: str
    commands: tuple[str, ...]
    """Commands that follow from a warning."""


@dataclass(frozen=True, repr=False)
class Health(Displayed):
    """What the finished runs of a definition show."""

    workflow: str
    version: int | None
    """Number of the published version; None for a draft."""
    rules: str
    """Name of the rules."""
    runs: tuple[str, ...]
    tasks: int
    """Executions of tasks; a task that several runs execute counts in each."""
    distinct_tasks: int
    passed: int
    """Executions that passed."""
    model_unavailable: int
    """Executions left out because a model did not answer."""
    has_auto_reruns: bool
    """Whether any node reruns automatically."""
    signs: tuple[Sign, ...]
    _engine: Engine = field(compare=False)

    @property
    def warnings(self) -> tuple[Sign, ...]:
        """The signs that need a person's attention."""
        return tuple(sign for sign in self.signs if sign.word == "WARNING")

    def display(self) -> Display:
        facts = (("tasks", self.tasks), ("runs", len(self.runs)), ("passed", self.passed), ("warnings", len(self.warnings)))
        return Display(self.workflow, facts, ("sign", "node", "observed", "limit", ""), [(s.rule, s.node, s.found, s.allowed, s.word) for s in self.signs])

    def document(self) -> HealthDocument:
        """The result as a JSON document."""
        return self._engine.document()


def health(store: Location, workflow: WorkflowOption, *, rules: str | Path | None = None, since: str = "", last: int | None = None) -> Health:
    """See ``Store.health``."""
    chosen = load_rules(Path(rules)) if rules else DEFAULT_RULES
    objects = store.existing()
    found = check(workflow, store)
    made = measure(objects, found.workflow, found.version, rules=chosen, since=since, last=last)
    signs = tuple(Sign(sign.rule, sign.node, sign.word, sign.found, sign.allowed, tuple(sign.tasks), sign.advice, tuple(sign.commands)) for sign in made.signs)
    again = any(node.auto_rerun for node in found.workflow.nodes.values())
    return Health(made.workflow, made.version, made.rules.name, tuple(made.runs), made.tasks, made.different, made.passed, made.model_away, again, signs, made)
