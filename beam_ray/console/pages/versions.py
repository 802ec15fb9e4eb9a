"""A workflow's versions and drafts, any two of them compared, and publishing: on evidence or for a stated reason."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

import contextlib
import shlex
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import beam_ray
from beam_ray.console.forms import Fields, one
from beam_ray.console.links import draft_test_path, flow_path, publish_path, versions_path, with_query
from beam_ray.console.rendering import Page
from beam_ray.console.site import Site
from beam_ray.console.word_diff import Piece, word_diff
from beam_ray.errors import BadDefinition, BeamRayError, TrackingUnavailable, Unusable

if TYPE_CHECKING:
    from beam_ray import Candidate, Change, Draft, Version, Workflow

FIELDS = ("a", "b")
PUBLISH_FIELDS = ("draft", "number", "backtest", "candidate")
SHORT = 24
"""Characters up to which a value is shown whole and not word by word."""


@dataclass(frozen=True)
class _Side:
    """A definition that can be compared: a version or the newest revision of a draft."""

    value: str
    """As the address has it: a version's number, or a draft's name and revision."""
    title: str
    definition: Workflow | None


def versions(site: Site, path: str, fields: Fields) -> Page:
    """The list, and two of them compared."""
    name = _workflow(path)
    published, drafts = _published(site, name), site.store.drafts(name)
    if not published and not drafts:
        raise Unusable(f"there is no version and no draft of {name!r}")
    sides = [_Side(str(each.number), f"version {each.number}", each.definition) for each in published]
    sides = [*(_Side(f"{each.name}:{each.number}", f"draft {each.name}", each.definition) for each in drafts), *sides]
    before, after = _chosen(site, name, sides, fields)
    changes, fault = _changes(site, before, after)
    values: dict[str, Any] = {
        "name": name,
        "published": [_row(site, each, published[index + 1] if index + 1 < len(published) else None) for index, each in enumerate(published)],
        "current": published[0].number if published else None,
        "drafts": [_draft_row(site, each, published[0] if published else None) for each in drafts],
        "sides": sides if before and after else [],
        "before": before,
        "after": after,
        "changes": [(each, _pieces(each)) for each in changes],
        "fault": fault,
        "swap": versions_path(name, a=after.value, b=before.value) if before and after else "",
    }
    command = f"beam-ray versions {name}{site.store.option}"
    if fields and before and after:
        command = f"beam-ray diff {name}@{before.value} {name}@{after.value}{site.store.option}"
    document = {
        "versions": [each.document() for each in published],
        "drafts": [each.document() for each in drafts],
        "compared": [before.value, after.value] if before and after else None,
        "changes": [{"node": each.node, "field": each.field, "before": each.before, "after": each.after} for each in changes],
        "refused": fault or None,
    }
    return Page("versions", f"Versions of {name}", values, document, section="flows", command=command)


def _workflow(path: str) -> str:
    return unquote(path.split("/")[2])


def _published(site: Site, name: str) -> list[Version]:
    try:
        return site.store.versions(name)
    except Unusable:
        return []


def _chosen(site: Site, name: str, sides: list[_Side], fields: Fields) -> tuple[_Side | None, _Side | None]:
    """The two sides that are compared: those asked for, else the newest and what comes before it."""
    if len(sides) < 2 and not fields:
        return None, None
    versions = [each for each in sides if each.value.isdecimal()]
    after = versions[0] if len(versions) > 1 else sides[0]
    before = versions[1] if len(versions) > 1 else sides[-1]
    return _side(site, name, sides, one(fields, "a")) or before, _side(site, name, sides, one(fields, "b")) or after


def _side(site: Site, name: str, sides: list[_Side], value: str) -> _Side | None:
    if not value:
        return None
    found = next((each for each in sides if each.value == value), None)
    if found:
        return found
    draft, _, number = value.partition(":")
    if draft.isdecimal() or (number and not number.isdecimal()):
        raise Unusable(f"there is no version or draft {value[:80]!r} of {name!r}\n  there are: {', '.join(each.title for each in sides)}")
    old = site.store.draft(name, draft, int(number) if number else None)
    return _Side(f"{old.name}:{old.number}", f"draft {old.name}, revision {old.number}", old.definition)


def _changes(site: Site, before: _Side | None, after: _Side | None) -> tuple[list[Change], str]:
    if not before or not after:
        return [], ""
    wrong = next((each for each in (before, after) if each.definition is None), None)
    if wrong:
        return [], f"The {wrong.title} has problems, so it cannot be compared yet."
    assert before.definition and after.definition
    return list(site.store.diff(before.definition, after.definition)), ""


def _pieces(change: Change) -> tuple[Piece, ...]:
    """Both values as one text: words of a prompt are compared, numbers and single words are shown whole."""
    before, after = change.texts
    if len(before) > SHORT or len(after) > SHORT or "\n" in before + after:
        return word_diff(before, after)
    arrow = (Piece("same", " → "),) if before and after else ()
    return tuple(each for each in (Piece("removed", before), *arrow, Piece("added", after)) if each.text)


def _row(site: Site, version: Version, earlier: Version | None) -> dict[str, Any]:
    changes = site.store.diff(earlier.definition, version.definition) if earlier else ()
    return {
        "version": version,
        "changes": [str(each) for each in changes],
        "link": versions_path(version.workflow, a=earlier.number, b=version.number) if earlier else "",
        "flow": flow_path(version.workflow, version=version.number),
    }


def _draft_row(site: Site, draft: Draft, published: Version | None) -> dict[str, Any]:
    changes = site.store.draft_changes(draft) if draft.definition else ()
    return {
        "draft": draft,
        "changes": [str(each) for each in changes],
        "outdated": bool(published and draft.base != published.number),
        "flow": flow_path(draft.workflow, draft=draft.name),
        "link": versions_path(draft.workflow, a=published.number, b=f"{draft.name}:{draft.number}") if published and draft.definition else "",
        "test": draft_test_path(draft.workflow, draft.reference),
        "publish": publish_path(draft.workflow, draft.name, draft.number),
    }


@dataclass(frozen=True)
class _Subject:
    """What is published: a revision of a draft, or a candidate of a backtest."""

    workflow: str
    title: str
    definition: Workflow | None
    words: list[str]
    """What the command line names it by."""
    fields: list[tuple[str, str]]
    """What the form names it by."""
    draft: Draft | None = None
    candidate: Candidate | None = None


def sheet(site: Site, path: str, fields: Fields) -> Page | str:
    """The form that publishes a draft or a candidate: what changes, and on which evidence or for which reason."""
    subject = _subject(site, _workflow(path), fields)
    if subject.candidate and (same := site.reader.draft_defined_as(subject.workflow, subject.candidate.workflow.digest)):
        return publish_path(same.workflow, same.name, same.number)  # whose text has its author's comments
    published = _published(site, subject.workflow)
    changes: tuple[Change, ...] = ()
    fault, found = "", []
    try:
        if subject.definition is None:
            assert subject.draft
            raise BadDefinition(problems=subject.draft.problems)
        if published:
            changes = site.store.diff(published[0].definition, subject.definition)
            if not changes:
                fault = f"It is defined exactly as version {published[0].number}, so there is nothing to publish."
        elif subject.draft:
            changes = site.store.draft_changes(subject.draft)
        found = site.store.evidence(subject.definition)
    except BeamRayError as error:
        fault = str(error)
    usable = [each for each in found if not each.why_not]
    words = ["publish", *subject.words, *(["--evidence", usable[0].backtest] if usable else ["--without-evidence", "REASON"])]
    newest = site.store.draft(subject.draft.workflow, subject.draft.name) if subject.draft else None
    values: dict[str, Any] = {
        "subject": subject,
        "draft": subject.draft,
        "newest": publish_path(newest.workflow, newest.name, newest.number) if newest and subject.draft and newest.number != subject.draft.number else "",
        "next": (published[0].number if published else 0) + 1,
        "published": published[0].number if published else None,
        "changes": [(each, _pieces(each)) for each in changes],
        "usable": usable,
        "useless": [each for each in found if each.why_not],
        "fault": fault,
        "test": draft_test_path(subject.workflow, subject.draft.reference) if subject.draft else with_query("/backtests/new", {"workflow": subject.workflow}),
    }
    document = {
        "definition": subject.definition.digest if subject.definition else None,
        "evidence": [each.document() for each in found],
        "refused": fault or None,
    }
    command = f"beam-ray {shlex.join(words)}{site.store.option}"
    return Page("publish", f"Publish {subject.title}", values, document, section="flows", command=command)


def _subject(site: Site, workflow: str, fields: Fields) -> _Subject:
    name, number, backtest = one(fields, "draft"), one(fields, "number"), one(fields, "backtest")
    if backtest:
        verdict = site.reader.backtest(backtest)
        wanted = one(fields, "candidate") or verdict.best.name
        found = next((each for each in verdict.candidates if each.name == wanted), None)
        if found is None or verdict.workflow != workflow:
            raise Unusable(f"the backtest {verdict.id} has no candidate {wanted[:60]!r} of {workflow}")
        words = [f"{workflow}.yaml", "--candidate", found.name]
        title = f"the candidate {found.name} of {verdict.id}"
        return _Subject(workflow, title, found.workflow, words, [("backtest", verdict.id), ("candidate", found.name)], candidate=found)
    if not name or (number and not number.isdecimal()):
        raise Unusable("name the draft that is to be published\n  the address is /flows/WORKFLOW/publish?draft=DRAFT")
    draft = site.store.draft(workflow, name, int(number) if number else None)
    return _Subject(workflow, f"the draft {name}", draft.definition, [draft.reference], [("draft", name), ("number", str(draft.number))], draft=draft)


def publish(site: Site, path: str, fields: Fields) -> str:
    """Publish the definition that the form showed; the page of the versions."""
    _require_publishing(site)
    subject = _subject(site, _workflow(path), fields)
    what = subject.candidate or subject.words[0]
    if one(fields, "how") == "evidence":
        made = site.store.publish(what, evidence=one(fields, "evidence"))
    else:
        made = site.store.publish(what, without_evidence=_reason(fields, "reason"))
    return _done(site, made)


def rollback(site: Site, path: str, fields: Fields) -> str:
    """Publish the definition of an old version again; the page of the versions."""
    _require_publishing(site)
    number = one(fields, "version")
    if not number.isdecimal():
        raise Unusable("the form names no version; reload the page and send it again")
    return _done(site, site.store.rollback(_workflow(path), int(number), because=_reason(fields, "because")))


def _require_publishing(site: Site) -> None:
    if site.options.no_publish:
        raise Unusable(
            "this console publishes no versions, because it was started with --no-publish\n  beam-ray publish, and beam-ray rollback, do so on the command line"
        )


def _reason(fields: Fields, name: str) -> str:
    reason = one(fields, name)
    if not reason:
        raise Unusable("say why: the reason is stored with the version, where everybody sees it")
    return reason


def _done(site: Site, made: beam_ray.Version) -> str:
    # MLflow takes seconds, and the version is published without it
    threading.Thread(target=_mark, args=(site, made), daemon=True).start()
    return versions_path(made.workflow)


def _mark(site: Site, made: beam_ray.Version) -> None:
    # without MLflow its prompts get their alias when something is logged the next time
    with contextlib.suppress(TrackingUnavailable):
        site.store.mark_production(made)
