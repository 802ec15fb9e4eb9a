"""Versions: published definitions of a workflow, numbered and immutable."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from beam_ray.api.display import Display, Displayed
from beam_ray.api.location import Location
from beam_ray.api.workflows import WorkflowOption, check
from beam_ray.define.diff import Change, changes
from beam_ray.define.workflow import Workflow
from beam_ray.errors import Unusable
from beam_ray.improve.draft_text import text_of_draft
from beam_ray.publish import Version as StoredVersion
from beam_ray.publish import current, load_definition, read_version, require_evidence
from beam_ray.publish import publish as publish_definition
from beam_ray.publish import rollback as publish_old
from beam_ray.publish import versions as version_numbers
from beam_ray.store.drafts import parse_draft_reference

if TYPE_CHECKING:
    from beam_ray.api.verdicts import Candidate, Verdict


class VersionDocument(TypedDict):
    """A version as ``--json`` prints it, without its definition."""

    format: int
    workflow: str
    version: int
    digest: str
    evidence: str
    verdict: str
    reason: str
    rollback_of: int | None
    published_by: str
    published_at: str


@dataclass(frozen=True, repr=False)
class Version(Displayed):
    """A published version of a workflow."""

    workflow: str
    number: int
    definition: Workflow = field(compare=False)
    digest: str
    """Identifies the definition."""
    evidence: str
    """Id of the backtest that it was published on; empty without one."""
    verdict: str
    """That backtest's verdict; empty without one."""
    reason: str
    """Reason for publishing without evidence, or for the rollback."""
    rollback_of: int | None
    """Number of the version whose definition was published again."""
    published_by: str
    published_at: str
    """ISO 8601, UTC."""
    _document: VersionDocument = field(compare=False)

    def display(self) -> Display:
        why = f"backtest {self.evidence} ({self.verdict})" if self.evidence else self.reason
        return Display(
            f"{self.workflow}@{self.number}", (("evidence", why), ("by", self.published_by), ("at", self.published_at[:16].replace("T", " ") + " UTC"))
        )

    def document(self) -> VersionDocument:
        """The version as a JSON document, without its definition."""
        return self._document.copy()


def version_of(stored: StoredVersion) -> Version:
    """The stored version as a public value."""
    return Version(
        stored.workflow,
        stored.version,
        stored.plan,
        stored.digest,
        stored.evidence,
        stored.verdict,
        stored.reason,
        stored.rollback_of,
        stored.published_by,
        stored.published_at,
        {
            "format": stored.format,
            "workflow": stored.workflow,
            "version": stored.version,
            "digest": stored.digest,
            "evidence": stored.evidence,
            "verdict": stored.verdict,
            "reason": stored.reason,
            "rollback_of": stored.rollback_of,
            "published_by": stored.published_by,
            "published_at": stored.published_at,
        },
    )


class EvidenceDocument(TypedDict):
    """A backtest and whether it supports publishing a definition, as JSON."""

    backtest: str
    name: str
    verdict: str
    finished_at: str
    why_not: str


@dataclass(frozen=True)
class Evidence:
    """A finished backtest, and whether a definition can be published on it."""

    backtest: str
    """Its id."""
    name: str
    verdict: str
    """Its word: that of the candidate with the definition, or its own."""
    finished_at: str
    why_not: str = ""
    """Why it is no evidence for the definition; empty where it is."""

    def document(self) -> EvidenceDocument:
        """The same as JSON."""
        return {"backtest": self.backtest, "name": self.name, "verdict": self.verdict, "finished_at": self.finished_at, "why_not": self.why_not}


def evidence(store: Location, workflow: WorkflowOption, most: int = 20) -> list[Evidence]:
    """See ``Store.evidence``."""
    definition = check(workflow, store).workflow
    from beam_ray.api.verdicts import backtests

    objects = store.existing()
    latest = current(objects, definition.name)
    found = []
    for verdict in backtests(store):
        document = verdict.document()
        if document["workflow"] != definition.name:
            continue
        word, why = next((str(each["verdict"]["word"]) for each in document["candidates"] if each["definition_digest"] == definition.digest), verdict.word), ""
        try:
            word = require_evidence(objects, verdict.id, definition, latest)
        except Unusable as error:
            why = str(error)
        found.append(Evidence(verdict.id, document["name"], word, document["finished_at"], why))
        if len(found) == most:
            break
    return sorted(found, key=lambda each: bool(each.why_not))


def publish(
    store: Location,
    workflow: "Workflow | str | Path | Candidate",
    *,
    evidence: "Verdict | str | None" = None,
    without_evidence: str = "",
    mlflow: str | None = None,
) -> Version:
    """See ``Store.publish``."""
    source = ""
    if isinstance(workflow, Workflow):
        definition = check(workflow).workflow
    elif isinstance(workflow, str | Path):
        if not str(workflow).endswith((".yaml", ".yml")) and not parse_draft_reference(str(workflow)):
            raise Unusable(f"{str(workflow)!r} is neither a file nor a draft; a version is published from a workflow file or from NAME@DRAFT")
        found = load_definition(store.objects, str(workflow))
        definition, source = found.workflow, found.source
    else:
        definition = workflow.workflow
        if latest := current(store.objects, definition.name):
            source = text_of_draft(definition, latest.plan, latest.source)
    backtest = "" if evidence is None else evidence if isinstance(evidence, str) else evidence.id
    return version_of(publish_definition(store.objects, definition, source=source, evidence=backtest, reason=without_evidence))


def versions(store: Location, workflow: str) -> list[Version]:
    """See ``Store.versions``."""
    objects = store.existing()
    read_version(objects, workflow)  # an unknown name is refused with those that exist
    return [version_of(read_version(objects, workflow, number)) for number in reversed(version_numbers(objects, workflow))]


def rollback(store: Location, workflow: str, number: int, *, because: str = "") -> Version:
    """See ``Store.rollback``."""
    return version_of(publish_old(store.existing(), workflow, number, reason=because))


def diff(store: Location, before: WorkflowOption, after: WorkflowOption) -> tuple[Change, ...]:
    """See ``Store.diff``."""
    # what is a value already is compared as it is, also where its tools are gone by now
    found = [each if isinstance(each, Workflow) else check(each, store).workflow for each in (before, after)]
    return tuple(changes(*found))
