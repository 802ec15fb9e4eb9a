"""Drafts: definitions of a workflow that have no version yet, kept in the store as revisions."""

import contextlib
import datetime
import getpass
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TypedDict

from beam_ray.api.display import Display, Displayed
from beam_ray.api.location import Location
from beam_ray.api.workflows import CheckResult
from beam_ray.backtest.overrides import overridden
from beam_ray.define.check import check
from beam_ray.define.diff import Change, changes
from beam_ray.define.fingerprint import Json
from beam_ray.define.load import names_file
from beam_ray.define.workflow import Workflow
from beam_ray.define.yaml_file import NoFile, relative_path
from beam_ray.errors import BadDefinition, Problem, Unusable
from beam_ray.improve.draft_limits import require_allowed
from beam_ray.improve.draft_text import text_of, with_edit, with_files
from beam_ray.publish import Version, current
from beam_ray.run.tools import tool_folders
from beam_ray.store.drafts import DRAFT_NAME, Revision, last_number, newest_drafts, read_draft, save_revision
from beam_ray.store.newest_run import newest_definition
from beam_ray.store.objects import Objects


class DraftProblemDocument(TypedDict):
    """An error of a draft, or advice on it."""

    path: str
    """The value that it is about, such as ``nodes.extract.llm.prompt[0].user``; empty where that is not known."""
    line: int
    column: int
    text: str
    notes: list[str]
    is_error: bool


class DraftDocument(TypedDict):
    """A draft as ``--json`` prints it."""

    workflow: str
    name: str
    number: int
    text: str
    saved_at: str
    saved_by: str
    base: int | None
    digest: str | None
    """That of the definition; None while it has errors."""
    problems: list[DraftProblemDocument]


@dataclass(frozen=True)
class DraftEdit:
    """One value of a draft that changes."""

    path: str
    """Where, such as ``nodes.extract.llm.prompt``, ``nodes.extract.auto_rerun.max`` or ``nodes.extract.evaluate.criteria[0]``."""
    value: Json
    """What is there then; None removes it. A prompt may be a text or a list of turns; an index one past the end of a list appends."""


@dataclass(frozen=True, repr=False)
class Draft(Displayed):
    """One revision of a draft. A change makes the next revision, and all earlier ones stay."""

    workflow: str
    name: str
    number: int
    """Its revision, counted from 1."""
    text: str
    """The YAML as the author wrote it, with comments and order; its prompts are in it."""
    saved_at: datetime.datetime
    saved_by: str
    base: int | None
    """The published version that it began from; None for none."""
    _revision: Revision = field(repr=False, compare=False)

    @property
    def reference(self) -> str:
        """``NAME@DRAFT:N``, which names this revision wherever a workflow is named."""
        return self._revision.reference

    @cached_property
    def _checked(self) -> tuple[Workflow | None, tuple[Problem, ...]]:
        try:
            workflow, source = self._revision.parse()
            return workflow, tuple(check(workflow, source, folders=tool_folders(workflow)))
        except BadDefinition as error:
            return None, error.problems

    @property
    def definition(self) -> Workflow | None:
        """The workflow; None while it has errors."""
        return self._checked[0]

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Errors, or where there are none advice, each with line, column and path as far as they are known."""
        return self._checked[1]

    def display(self) -> Display:
        state = "OK" if self.definition else f"{len(self.problems)} problem{'s'[: len(self.problems) != 1]}"
        facts = (("check", state), ("base", self.base), ("by", self.saved_by), ("at", f"{self.saved_at:%Y-%m-%d %H:%M} UTC"))
        return Display(self.reference, facts)

    def document(self) -> DraftDocument:
        """The draft as a JSON document."""
        return {
            "workflow": self.workflow,
            "name": self.name,
            "number": self.number,
            "text": self.text,
            "saved_at": self.saved_at.isoformat(),
            "saved_by": self.saved_by,
            "base": self.base,
            "digest": self.definition.digest if self.definition else None,
            "problems": [_problem(each, is_error=self.definition is None) for each in self.problems],
        }


def _problem(problem: Problem, *, is_error: bool) -> DraftProblemDocument:
    return {
        "path": problem.path,
        "line": problem.line,
        "column": problem.column,
        "text": problem.text.removeprefix("warning: "),
        "notes": list(problem.notes),
        "is_error": is_error,
    }


def drafts(store: Location, workflow: str | None = None) -> list[Draft]:
    """See ``Store.drafts``."""
    return [_draft(each) for each in newest_drafts(store.existing(), workflow)]


def draft(store: Location, workflow: str, name: str, number: int | None = None) -> Draft:
    """See ``Store.draft``."""
    return _draft(read_draft(store.existing(), workflow, name, number))


def create_draft(
    store: Location, workflow: str, name: str, *, text: str | None = None, by: str = "", author: bool = False, folder: str | Path | None = None
) -> Draft:
    """See ``Store.create_draft``."""
    if not DRAFT_NAME.fullmatch(name):
        raise Unusable(f"the name {name!r} of a draft must begin with a letter, and have at most 64 letters, digits, - or _")
    # an author's file may be the first of its workflow
    objects = store.objects if author and text is not None else store.existing()
    number, exists = last_number(objects, workflow, name)
    if exists:
        raise Unusable(f"there is a draft {workflow}@{name} already\n  beam-ray draft show {workflow}@{name}  shows it; choose another name for a new one")
    base, origin = current(objects, workflow), None
    if base is None:
        origin = newest_definition(objects, workflow)
        if origin is None and not (author and text is not None):
            raise Unusable(
                f"nothing is known of a workflow {workflow!r}: it is neither published nor run\n  beam-ray publish FILE, or beam-ray run FILE, comes first"
            )
    known = base.plan if base else origin
    place = relative_path(Path(folder), Path.cwd()) if folder is not None else known.tools_from if known else ""
    revision = Revision(workflow, name, number + 1, "", saved_by=by or getpass.getuser(), base=base.version if base else None, tools_from=place)
    if text is None:
        assert known
        return _draft(save_revision(objects, replace(revision, text=text_of(known, base.source if base else ""))))
    return _saved(objects, revision, _with_files(revision, text) if author else text, author=author, known=[known] if known else [])


def edit_draft(store: Location, draft: Draft, edits: Sequence[DraftEdit], *, by: str = "", author: bool = False) -> Draft:
    """See ``Store.edit_draft``."""
    text = draft.text
    for edit in edits:
        try:
            text = with_edit(text, edit.path, edit.value, draft.reference)
        except BadDefinition as error:
            raise Unusable(f"{str(error).splitlines()[0]}\n  values can be changed one by one once the text is YAML again; save its text instead") from None
    return save_draft(store, draft, text, by=by, author=author)


def save_draft(store: Location, draft: Draft, text: str, *, by: str = "", author: bool = False, folder: str | Path | None = None) -> Draft:
    """See ``Store.save_draft``."""
    objects = store.existing()
    revision = replace(draft._revision, number=draft.number + 1, saved_by=by or getpass.getuser())
    if folder is not None:
        revision = replace(revision, tools_from=relative_path(Path(folder), Path.cwd()))
    text = _with_files(revision, text) if author else text
    return draft if text == draft.text else _saved(objects, revision, text, author=author, known=[] if author else _known(objects, draft))


def drop_draft(store: Location, workflow: str, name: str, *, by: str = "") -> None:
    """See ``Store.drop_draft``."""
    newest = read_draft(store.existing(), workflow, name)
    save_revision(store.existing(), replace(newest, number=newest.number + 1, text="", dropped=True, saved_by=by or getpass.getuser()))


def draft_changes(store: Location, draft: Draft) -> tuple[Change, ...]:
    """See ``Store.draft_changes``."""
    if draft.definition is None:
        raise BadDefinition(problems=draft.problems)
    before = _base(store.existing(), draft.workflow)
    return tuple(changes(before, draft.definition)) if before else ()


def check_change(store: Location, workflow: str, changes: Mapping[str, Json], *, author: bool = False) -> CheckResult:
    """See ``Store.check_change``."""
    base = _base(store.existing(), workflow)
    if base is None:
        raise Unusable(f"nothing is known of a workflow {workflow!r}: it is neither published nor run")
    named = next((value for path, value in changes.items() if path.endswith(".prompt") and isinstance(value, str) and names_file(value)), None)
    if named and not author:
        raise Unusable(f"{named!r} is the name of a prompt file; write its content instead")
    found, advice = overridden("change", changes, base, Path.cwd(), NoFile("change"))
    if not author:
        require_allowed(found, [base])
    return CheckResult(found, None, tuple(advice))


def _base(objects: Objects, workflow: str) -> Workflow | None:
    """The definition that drafts of the workflow are made from and compared with: the published one, or that of the newest run."""
    published: Version | None = current(objects, workflow)
    return published.plan if published else newest_definition(objects, workflow)


def _known(objects: Objects, draft: Draft) -> list[Workflow]:
    """The definitions that a visitor's change may take everything from: what is published, and the draft as it was."""
    base = _base(objects, draft.workflow)
    return [each for each in (base, draft.definition) if each]


def _with_files(revision: Revision, text: str) -> str:
    """The text with the prompt files that it names; as it is where it has errors, which are told once it is kept."""
    with contextlib.suppress(BadDefinition):
        return with_files(text, Path.cwd() / revision.tools_from, revision.reference)
    return text


def _saved(objects: Objects, revision: Revision, text: str, *, author: bool, known: Sequence[Workflow]) -> Draft:
    """Keep the text; one with errors is kept too, so that nothing that was typed is lost."""
    revision = replace(revision, text=text)
    try:
        workflow, _ = revision.parse()
    except BadDefinition:
        return _draft(save_revision(objects, revision))
    if workflow.name != revision.workflow:
        raise Unusable(f"the text is of the workflow {workflow.name!r}, and {revision.workflow}@{revision.name} is a draft of {revision.workflow!r}")
    if not author:
        require_allowed(workflow, known)
    return _draft(save_revision(objects, revision))


def _draft(revision: Revision) -> Draft:
    at = datetime.datetime.fromisoformat(revision.saved_at)
    return Draft(revision.workflow, revision.name, revision.number, revision.text, at, revision.saved_by, revision.base, revision)


def as_draft(draft: Draft, text: str) -> Draft:
    """The draft with another text, which is not kept."""
    return _draft(replace(draft._revision, text=text, saved_at=draft._revision.saved_at))
