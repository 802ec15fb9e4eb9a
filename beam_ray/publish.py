"""
Published versions of workflows: numbered, immutable, and based on evidence.

A version is written with create-if-absent, so of two concurrent publishers one wins and the other gets an error.
"""

import getpass
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from beam_ray.compare.verdict_json import BacktestDocument
from beam_ray.define.check import check
from beam_ray.define.diff import changes
from beam_ray.define.fingerprint import JsonObject
from beam_ray.define.load import load
from beam_ray.define.workflow import Workflow
from beam_ray.errors import Damaged, Problem, Unusable, did_you_mean
from beam_ray.run.tools import tool_folders
from beam_ray.store.checksummed_json import read_document, seal, unseal
from beam_ray.store.drafts import Revision, parse_draft_reference, read_draft
from beam_ray.store.objects import NotThere, Objects
from beam_ray.store.run_record import now


class Version(BaseModel):
    """One published version: the complete definition, and the evidence for it."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    format: int = 1
    workflow: str
    version: int
    definition: JsonObject
    digest: str
    source: str = ""
    """The YAML file as written, with its comments."""
    evidence: str = ""
    """Id of the backtest that justified it."""
    verdict: str = ""
    reason: str = ""
    """Reason for publishing without evidence, or for a rollback."""
    rollback_of: int | None = None
    published_by: str
    published_at: str

    @property
    def plan(self) -> Workflow:
        """The workflow."""
        return Workflow.model_validate(self.definition)


def versions(objects: Objects, workflow: str) -> list[int]:
    """The workflow's version numbers, in ascending order."""
    names = [key.rsplit("/", 1)[-1] for key, _ in objects.keys(f"workflows/{workflow}/")]
    return sorted(int(name.removesuffix(".json")) for name in names)


def current(objects: Objects, workflow: str) -> Version | None:
    """The newest version; None when nothing was published."""
    numbers = versions(objects, workflow)
    return read_version(objects, workflow, numbers[-1]) if numbers else None


def read_version(objects: Objects, workflow: str, number: int | None = None) -> Version:
    """
    A version of the workflow; by default the newest.

    Raises:
        Unusable: There is no such version.
    """
    numbers = versions(objects, workflow)
    if not numbers:
        known = objects.folders("workflows")
        has = f"published workflows: {', '.join(known)}" if known else "nothing is published in this store yet"
        raise Unusable(
            "\n  ".join(
                [
                    f"no version of {workflow!r} is published in {objects.uri}",
                    has,
                    *did_you_mean(workflow, known),
                    "publish one with: beam-ray publish FILE, or name a workflow file instead",
                ]
            )
        )
    number = numbers[-1] if number is None else number
    try:
        key = f"workflows/{workflow}/{number:06d}.json"
        return Version.model_validate(unseal(objects.read(key), key))
    except NotThere:
        raise Unusable(f"{workflow!r} has no version {number}; its versions are {numbers[0]} to {numbers[-1]}") from None
    except ValueError as error:
        raise Damaged(f"workflows/{workflow}/{number:06d}.json is damaged: {str(error).splitlines()[0]}") from None


def publish(objects: Objects, workflow: Workflow, *, source: str = "", evidence: str = "", reason: str = "") -> Version:
    """
    Publish *workflow* as the new current version, on the evidence of a backtest or for a stated reason.

    Raises:
        Unusable: There is neither evidence nor a reason, the backtest tested another definition or
            did not pass, or somebody else published at the same time.
    """
    latest = current(objects, workflow.name)
    if latest and latest.digest == workflow.digest:
        raise Unusable(f"{workflow.name} version {latest.version} has exactly this definition, so there is nothing to publish")
    if bool(evidence) == bool(reason):
        raise Unusable('publishing needs evidence\n  --evidence BACKTEST names a backtest that passed; --without-evidence "reason" publishes without one')
    verdict = require_evidence(objects, evidence, workflow, latest) if evidence else ""
    return _write(objects, workflow, latest, source=source, evidence=evidence, verdict=verdict, reason=reason)


def evidence_problem(objects: Objects, backtest: str, workflow: Workflow) -> str:
    """Why *workflow* cannot be published on the evidence of the backtest, in a line; empty where it can."""
    latest = current(objects, workflow.name)
    if latest is not None and latest.digest == workflow.digest:
        return f"it is the current version {latest.version}"
    try:
        require_evidence(objects, backtest, workflow, latest)
    except Unusable as error:
        return str(error).partition("\n")[0]
    return ""


def rollback(objects: Objects, workflow: str, number: int, *, reason: str = "") -> Version:
    """
    Publish the definition of an old version as a new version.

    Raises:
        Unusable: There is no such version, or it is the current one.
    """
    old, latest = read_version(objects, workflow, number), current(objects, workflow)
    if latest and latest.digest == old.digest:
        raise Unusable(f"{workflow} version {latest.version} already has the definition of version {number}")
    return _write(objects, old.plan, latest, source=old.source, reason=reason or f"rolled back to version {number}", rollback_of=number)


def _write(objects: Objects, workflow: Workflow, latest: Version | None, **why: Any) -> Version:
    number = latest.version + 1 if latest else 1
    version = Version(
        workflow=workflow.name,
        version=number,
        definition=workflow.document(),
        digest=workflow.digest,
        published_by=getpass.getuser(),
        published_at=now(),
        **why,
    )
    if not objects.create(f"workflows/{workflow.name}/{number:06d}.json", seal(version.model_dump(mode="json"))):
        winner = read_version(objects, workflow.name, number)
        raise Unusable(
            f"{winner.published_by} published {workflow.name} version {number} at the same time\n  compare it with: beam-ray diff {workflow.name}@{number} FILE, then publish again"
        )
    return version


def require_evidence(objects: Objects, evidence: str, workflow: Workflow, latest: Version | None) -> str:
    """
    The verdict of the backtest *evidence*, which supports publishing *workflow* after the version *latest*.

    Raises:
        Unusable: It does not, and why.
    """
    try:
        document = read_document(objects, f"backtests/{evidence}/verdict.json", BacktestDocument)
    except NotThere:
        known = objects.folders("backtests")
        raise Unusable("\n  ".join([f"there is no finished backtest {evidence!r}", *did_you_mean(evidence, known)])) from None
    if document.get("aa"):
        raise Unusable(f"the backtest {evidence} compared the baseline with itself (A/A); it measures noise and is no evidence for a change")
    sides = {entry["definition_digest"]: entry for entry in document["candidates"]}
    candidate = sides.get(workflow.digest)
    if candidate is None:
        tested = Workflow.model_validate(document["candidates"][0]["definition"])
        differs = ", ".join(str(change) for change in changes(tested, workflow)[:5])
        raise Unusable(
            f"the backtest {evidence} tested a different definition (differences: {differs or 'its name'})\n  run it again with this one as the candidate"
        )
    if latest and document["baseline"]["definition_digest"] != latest.digest:
        raise Unusable(f"the backtest {evidence} used a baseline other than the current version {latest.version}; run it again")
    again = document["rerun"]["candidate"] if "rerun" in document else None
    word = (again if again and again["definition_digest"] == workflow.digest else candidate)["verdict"]["word"]
    if word == "NONE":
        raise Unusable(f"the backtest {evidence} has no verdict: its gate only compares\n  beam-ray backtest SPEC --again --gate no-harm  judges it")
    if word not in ("PASS", "WARN"):
        raise Unusable(f'the backtest {evidence} ended in {word}\n  to publish anyway, use --without-evidence "reason"')
    return word


@dataclass(frozen=True)
class Definition:
    """A workflow that was named, checked."""

    workflow: Workflow
    version: int | None = None
    """Number of the published version; None for a file or a draft."""
    warnings: tuple[Problem, ...] = ()
    source: str = ""
    """The YAML as its author wrote it; empty for a published version."""


def load_definition(objects: Objects | None, written: str, folder: Path | None = None) -> Definition:
    """
    The workflow that *written* names, as for ``find_workflow``; checked.

    Raises:
        BadDefinition: with every problem that was found.
        Unusable: there is none.
    """
    found = find_workflow(objects, written, folder)
    if isinstance(found, Version):
        workflow = found.plan
        return Definition(workflow, found.version, tuple(check(workflow, folders=tool_folders(workflow))))
    if isinstance(found, Revision):
        workflow, source = found.parse()
        return Definition(workflow, None, tuple(check(workflow, source, folders=tool_folders(workflow))), found.text)
    workflow, source = load(found)
    return Definition(workflow, None, tuple(check(workflow, source, folders=tool_folders(workflow))), found.read_text(encoding="utf-8-sig"))


def find_workflow(objects: Objects | None, written: str, folder: Path | None = None) -> Path | Version | Revision:
    """
    What *written* names: a workflow file, a published ``NAME`` or ``NAME@VERSION``, or a draft ``NAME@DRAFT`` or ``NAME@DRAFT:N``.

    Raises:
        Unusable: It names none of them.
    """
    path = (folder or Path.cwd()) / written
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            near = did_you_mean(path.name, [entry.name for entry in path.parent.glob("*.y*ml")] if path.parent.is_dir() else [])
            raise Unusable("\n  ".join([f"{written}: there is no such file", *near]))
        return path
    name, at, number = written.partition("@")
    draft = parse_draft_reference(written)
    if at and not number.isdecimal() and draft is None:
        raise Unusable(f"{written!r}: the number of a version or the name of a draft must follow the @")
    if objects is None:
        raise Unusable(f"{written!r} is not a workflow file (.yaml), and a published workflow needs a store")
    if draft:
        return read_draft(objects, draft.workflow, draft.name, draft.number)
    return read_version(objects, name, int(number) if number else None)
