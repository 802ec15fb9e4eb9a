"""
Drafts: definitions of a workflow that have no version yet, kept as revisions. Nothing is overwritten.

    drafts/<workflow>/<draft>/<n>.yaml      revision n, created if absent: of two that save at the same time one is told

A file is the YAML as its author wrote it below one comment line, which says in JSON who saved it
and when, which version the draft began from, and what the digest of all of this is. A draft that
was dropped has a last revision that says so; one that is made again under the same name goes on
counting.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from beam_ray.define.load import parse_workflow
from beam_ray.define.workflow import Workflow
from beam_ray.define.yaml_file import MAX_BYTES, Source, read_yaml
from beam_ray.errors import Damaged, Unusable, did_you_mean
from beam_ray.store.objects import NotThere, Objects
from beam_ray.store.run_record import now

DRAFT_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_REFERENCE = re.compile(rf"(?P<workflow>[^@]+)@(?P<draft>{DRAFT_NAME.pattern})(?::(?P<number>[0-9]+))?")
_KEY = re.compile(r"drafts/(?P<workflow>[^/]+)/(?P<draft>[^/]+)/(?P<number>[0-9]+)\.yaml")
_HEAD = "# beam-ray draft "
"""How the comment line begins."""


@dataclass(frozen=True)
class Revision:
    """One revision of a draft."""

    workflow: str
    name: str
    number: int
    text: str
    """The YAML as its author wrote it; prompts and requirements are in it and not in files."""
    saved_at: str = ""
    """ISO 8601, UTC."""
    saved_by: str = ""
    base: int | None = None
    """The published version that the draft began from."""
    tools_from: str = ""
    """The folder that tools are imported from, relative to the project."""
    dropped: bool = False
    """Whether the draft ends with this revision."""

    @property
    def reference(self) -> str:
        """``NAME@DRAFT:N``, by which this revision is named everywhere."""
        return f"{self.workflow}@{self.name}:{self.number}"

    def parse(self) -> tuple[Workflow, Source]:
        """
        The workflow that the text describes, its shape validated, and the source for further rules. No file is read.

        Raises:
            BadDefinition: with every problem of shape found.
        """
        source = read_yaml(Path(self.reference), self.text)
        source.file = self.reference
        return parse_workflow(source, Path.cwd() / self.tools_from, Path.cwd(), files=False), source


@dataclass(frozen=True)
class DraftReference:
    """A draft as users name it: ``NAME@DRAFT``, or ``NAME@DRAFT:N`` for one revision."""

    workflow: str
    name: str
    number: int | None = None


def parse_draft_reference(written: str) -> DraftReference | None:
    """What *written* names, if it has the form of a draft's name; versions are digits."""
    found = _REFERENCE.fullmatch(written)
    return DraftReference(found["workflow"], found["draft"], int(found["number"]) if found["number"] else None) if found else None


def draft_numbers(objects: Objects, workflow: str | None = None) -> dict[tuple[str, str], int]:
    """Workflow and name of every draft, dropped ones included, with the number of its newest revision."""
    found: dict[tuple[str, str], int] = {}
    for key, _ in objects.keys(f"drafts/{workflow}/" if workflow else "drafts/"):
        if of := _KEY.fullmatch(key):
            found[of["workflow"], of["draft"]] = max(found.get((of["workflow"], of["draft"]), 0), int(of["number"]))
    return found


def newest_drafts(objects: Objects, workflow: str | None = None) -> list[Revision]:
    """The newest revision of every draft that is not dropped, the newest first."""
    found = [_read(objects, of, name, number) for (of, name), number in draft_numbers(objects, workflow).items()]
    return sorted((each for each in found if not each.dropped), key=lambda each: each.saved_at, reverse=True)


def read_draft(objects: Objects, workflow: str, name: str, number: int | None = None) -> Revision:
    """
    A revision of a draft; by default the newest.

    Raises:
        Unusable: there is no such draft or revision, or the draft is dropped.
        Damaged: it is not what was saved.
    """
    numbers = draft_numbers(objects, workflow)
    newest = numbers.get((workflow, name))
    found = _read(objects, workflow, name, newest if number is None else number) if newest and (number or newest) <= newest else None
    if found is None or found.dropped:
        if newest and found is None:
            raise Unusable(f"the draft {workflow}@{name} has no revision {number}; its newest is {newest}")
        others = [each.name for each in newest_drafts(objects, workflow)]
        said = f"the draft {workflow}@{name} was dropped by {found.saved_by}" if found else f"{workflow!r} has no draft {name!r}"
        has = f"its drafts: {', '.join(others)}" if others else f"it has no drafts; beam-ray draft create {workflow}@{name}  makes one"
        raise Unusable("\n  ".join([said, has, *did_you_mean(name, others)]))
    return found


def last_number(objects: Objects, workflow: str, name: str) -> tuple[int, bool]:
    """The number of the draft's newest revision, 0 without any, and whether there is a draft: not where it was dropped."""
    newest = draft_numbers(objects, workflow).get((workflow, name), 0)
    return newest, bool(newest) and not _read(objects, workflow, name, newest).dropped


def save_revision(objects: Objects, revision: Revision) -> Revision:
    """
    Keep the revision; it with the time at which it was saved.

    Raises:
        Unusable: another revision has this number already, or the text is too large.
    """
    if len(revision.text.encode()) > MAX_BYTES:
        raise Unusable(f"the text of {revision.workflow}@{revision.name} has {len(revision.text.encode()):,} bytes; at most {MAX_BYTES:,} are allowed")
    saved = replace(revision, saved_at=now())
    if not objects.create(_key(saved.workflow, saved.name, saved.number), _body(saved)):
        newest = _read(objects, saved.workflow, saved.name, draft_numbers(objects, saved.workflow)[saved.workflow, saved.name])
        done = "dropped" if newest.dropped else "changed"
        raise Unusable(
            f"the draft {saved.workflow}@{saved.name} was {done} in the meantime by {newest.saved_by}: its newest revision is {newest.number}, not {saved.number - 1}\n"
            f"  your text was not saved; beam-ray draft show {saved.workflow}@{saved.name}  shows theirs"
        )
    return saved


def _key(workflow: str, name: str, number: int) -> str:
    return f"drafts/{workflow}/{name}/{number:06d}.yaml"


def _body(revision: Revision) -> bytes:
    said = {key: value for key, value in asdict(revision).items() if key != "text"}
    return f"{_HEAD}{json.dumps({**said, 'sha256': _digest(said, revision.text)})}\n{revision.text}".encode()


def _digest(said: Mapping[str, object], text: str) -> str:
    return hashlib.sha256(f"{json.dumps(said, sort_keys=True)}\n{text}".encode()).hexdigest()


def _read(objects: Objects, workflow: str, name: str, number: int) -> Revision:
    key = _key(workflow, name, number)
    try:
        head, _, text = objects.read(key).decode().partition("\n")
        said = json.loads(head.removeprefix(_HEAD))
        digest = said.pop("sha256")
        if digest == _digest(said, text):
            known = {each.name for each in fields(Revision)}
            return Revision(**{name: value for name, value in said.items() if name in known}, text=text)
    except NotThere:
        raise Unusable(f"the draft {workflow}@{name} has no revision {number}") from None
    except (ValueError, TypeError, KeyError, AttributeError):
        pass
    raise Damaged(f"{key} is damaged: its content does not match its checksum")
