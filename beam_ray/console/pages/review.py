"""Review: one output after the other for a person to judge, and how far the judge agrees with what people said."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

import json
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import beam_ray
from beam_ray.console.forms import Fields, one
from beam_ray.console.links import address_path, with_query
from beam_ray.console.rendering import Page
from beam_ray.console.site import Site
from beam_ray.errors import Unusable

if TYPE_CHECKING:
    from beam_ray import ReviewItem, ReviewQueue

WHICH = ("workflow", "node", "run", "criterion", "sample", "count", "seed", "task", "reviewer")
"""Fields that say which outputs are reviewed, and by whom."""
FIELDS = (*WHICH, "at", "again", "saved")
AGREEMENT_FIELDS = ("workflow", "node")
SAMPLE_TITLES = {
    "random": "drawn at random",
    "balanced": "half of what the judge passed, half of what it did not",
    "flagged": "flagged for a person",
    "disagreed": "judges disagree",
    "chosen": "chosen",
}
ANSWERS = {"yes": True, "no": False, "unsure": None}
SHOWN = 30
"""Counter-examples of a kind that are listed."""


@dataclass(frozen=True)
class Wanted:
    """Which outputs are reviewed, and by whom."""

    workflow: str
    node: str
    run: str
    criteria: tuple[str, ...]
    sample: beam_ray.ReviewSample
    reviewer: str
    fields: dict[str, list[str]]
    """The same as fields of an address."""

    @classmethod
    def of(cls, fields: Fields) -> Wanted:
        """
        What the fields say.

        Raises:
            Unusable: a field has no meaning.
        """
        how, count, seed, tasks = one(fields, "sample", "random"), one(fields, "count"), one(fields, "seed", "0"), tuple(fields.get("task", ()))
        if how not in SAMPLE_TITLES:
            raise Unusable(f"there is no sample {how[:40]!r}\n  samples are: {', '.join(SAMPLE_TITLES)}")
        if (count and not count.isdecimal()) or not seed.removeprefix("-").isdecimal():
            raise Unusable("count and seed of a sample are whole numbers")
        drawn = how in ("random", "balanced")
        sample = beam_ray.ReviewSample(how, int(count or (50 if drawn else 1_000)), int(seed), tasks)  # type: ignore[arg-type]
        kept = {name: fields[name] for name in WHICH if fields.get(name)}
        return cls(one(fields, "workflow"), one(fields, "node"), one(fields, "run"), tuple(fields.get("criterion", ())), sample, one(fields, "reviewer"), kept)

    def link(self, **more: Any) -> str:
        """The page of one output of it, or of the next that is open."""
        return with_query("/review", {**self.fields, **more})

    def words(self, command: str) -> list[str]:
        """A command of ``beam-ray review`` over it."""
        words = ["review", command, self.workflow]
        words += ["--node", self.node] if self.node else []
        words += ["--run", self.run] if self.run else []
        words += [word for name in self.criteria for word in ("--criterion", name)]
        sample = self.sample
        words += [word for task in sample.tasks for word in ("--task", task)] if sample.tasks else ["--sample", sample.how, "--count", str(sample.count)]
        words += ["--seed", str(sample.seed)] if sample.seed else []
        return [*words, "--reviewer", self.reviewer] if self.reviewer and command != "draw" else words


def review(site: Site, path: str, fields: Fields) -> Page | str:
    """The page of one output; without a workflow what waits for a person."""
    if not one(fields, "workflow"):
        return _waiting(site)
    wanted = Wanted.of(fields)
    queue = _queue(site, wanted)
    if not wanted.run or not wanted.node:
        # an address names its run, so that it shows the same outputs when a newer run is there
        return with_query("/review", {**wanted.fields, "run": queue.run_id, "node": queue.node})
    said, waiting = queue.answers(wanted.reviewer), queue.open(wanted.reviewer)
    asked, again = one(fields, "at"), one(fields, "again")
    item = queue.item(asked) if asked else next(iter(waiting), None)
    place = queue.items.index(item) if item else 0
    later = [each for each in (*queue.items[place + 1 :], *queue.items[:place]) if each in waiting]
    mine = said.get(item.address, {}) if item else {}
    last = max((row for every in said.values() for row in every.values()), key=lambda row: row["reviewed_at"], default=None)
    reports = _reports(site, queue)
    values: dict[str, Any] = {
        "wanted": wanted,
        "queue": queue,
        "item": item,
        "place": place + 1,
        "left": len(waiting),
        "mine": mine,
        "shown": bool(item) and item not in waiting and not again,
        "current": again or next((each.criterion for each in item.questions if each.criterion not in mine), "") if item else "",
        "next": wanted.link(at=later[0].address) if later else "",
        "undo": wanted.link(at=last["address"], again=last["criterion"]) if last else "",
        "reports": reports,
        "hidden": [(name, value) for name, every in wanted.fields.items() for value in every],
        "samples": SAMPLE_TITLES,
        "step": address_path(item.address) if item else "",
        "agreement": with_query("/review/agreement", {"workflow": queue.workflow, "node": queue.node}),
        "criterion": _criterion_link(queue.workflow, queue.node),
        "reviewer": beam_ray.reviewer_of(wanted.reviewer),
        "saved": one(fields, "saved"),
        "libraries": [each.name for each in site.store.libraries()],
        "larger": wanted.link(count=2 * wanted.sample.count) if len(queue.items) < queue.population else "",
    }
    document = {
        "workflow": queue.workflow,
        "node": queue.node,
        "run_id": queue.run_id,
        "sample": {"how": wanted.sample.how, "outputs": len(queue.items), "of": queue.population, "seed": wanted.sample.seed},
        "left": len(waiting),
        "output": _item_document(item, mine, values["shown"]) if item else None,
        "judges": [report.document() for report in reports],
    }
    command = f"beam-ray {shlex.join(wanted.words('start'))}{site.store.option}"
    return Page("review", f"Review {queue.workflow}/{queue.node}", values, document, section="review", command=command)


def _queue(site: Site, wanted: Wanted) -> ReviewQueue:
    return site.reader.review_queue(wanted.workflow, wanted.node, wanted.run, wanted.criteria, wanted.sample)


def _reports(site: Site, queue: ReviewQueue) -> list[beam_ray.JudgeReport]:
    """How far the judges of these questions agree with people so far."""
    versions = {(each.version, each.judge_version) for item in queue.items[:1] for each in item.questions}
    return [each for each in site.store.review_agreement(queue.workflow, queue.node) if (each.version, each.judge_version) in versions]


def _criterion_link(workflow: str, node: str) -> str:
    return with_query(f"/flows/{workflow}", {"node": node})


def _item_document(item: ReviewItem, mine: dict[str, Any], shown: bool) -> dict[str, Any]:
    questions = [
        {
            "criterion": each.criterion,
            "text": each.text,
            "answered": each.criterion in mine,
            "met": mine[each.criterion]["met"] if each.criterion in mine else None,
            **({"judge_met": each.judge_met, "judge_reason": each.judge_reason} if shown else {}),
        }
        for each in item.questions
    ]
    return {
        "address": item.address,
        "task_query": item.task_query,
        "variables": item.variables,
        "expected": item.expected,
        "output": item.output,
        "probability": item.probability,
        "questions": questions,
    }


def _waiting(site: Site) -> Page:
    sources = site.store.review_sources()
    rows: list[dict[str, Any]] = [
        {
            "source": each,
            "link": with_query(
                "/review", {"workflow": each.workflow, "node": each.node, "run": each.run_id, "criterion": list(each.criteria), "sample": each.how}
            ),
            "tasks": with_query("/tasks", {"run": each.run_id, **({"status": "review"} if each.how == "flagged" else {})}),
            "agreement": with_query("/review/agreement", {"workflow": each.workflow, "node": each.node}),
        }
        for each in sources
    ]
    values = {"groups": {how: [row for row in rows if row["source"].how == how] for how in ("flagged", "disagreed", "random")}}
    document = [each.document() for each in sources]
    return Page("waiting", "Review", values, document, section="review", command=f"beam-ray review waiting{site.store.option}")


def agreement(site: Site, path: str, fields: Fields) -> Page:
    """How far the judges of a workflow agree with people, with every counter-example."""
    workflow, node = one(fields, "workflow"), one(fields, "node")
    if not workflow:
        raise Unusable("name the workflow\n  the address is /review/agreement?workflow=NAME")
    reports = site.store.review_agreement(workflow, node or None)
    values = {
        "workflow": workflow,
        "node": node,
        "start": f"beam-ray review start {shlex.quote(workflow)}{site.store.option}",
        "reports": [(each, _criterion_link(workflow, each.node), _examples(each)) for each in reports],
        "shown": SHOWN,
    }
    words = ["review", "agreement", workflow, *(["--node", node] if node else [])]
    command = f"beam-ray {shlex.join(words)}{site.store.option}"
    return Page("agreement", f"Judges of {workflow}", values, [each.document() for each in reports], section="review", command=command)


def _examples(report: beam_ray.JudgeReport) -> list[tuple[str, str, list[tuple[Any, str]]]]:
    return [
        (title, note, [(each, address_path(each.address, tab="criteria")) for each in found])
        for title, note, found in (
            ("False passes", "The judge says met, people say not met.", report.false_passes),
            ("False failures", "The judge says not met, people say met.", report.false_failures),
        )
        if found
    ]


def record(site: Site, path: str, fields: Fields) -> str:
    """Keep an answer about one criterion of an output; the page of that output."""
    wanted = Wanted.of({name: values for name, values in fields.items() if name in WHICH})
    queue = _queue(site, wanted)
    item, word = queue.item(one(fields, "at")), one(fields, "met")
    if word not in ANSWERS:
        raise Unusable(f"an answer is {', '.join(ANSWERS)}, not {word[:20]!r}")
    # whoever has answered all of it before has seen the judge's word since
    hidden = item in queue.open(wanted.reviewer)
    answers = {one(fields, "answer_of"): ANSWERS[word]}
    site.store.record_review(item, answers, reviewer=wanted.reviewer, comment=one(fields, "comment"), hidden=hidden)
    return wanted.link(at=item.address)


def expect(site: Site, path: str, fields: Fields) -> str:
    """Save the task of an output in a library with the expected outcome that a person wrote; the page of the output."""
    wanted = Wanted.of({name: values for name, values in fields.items() if name in WHICH})
    item, name = _queue(site, wanted).item(one(fields, "at")), one(fields, "library")
    try:
        expected = json.loads(one(fields, "expected"))
    except (ValueError, RecursionError) as error:
        raise Unusable(f"the expected outcome is not JSON: {error}") from None
    if not isinstance(expected, dict) or not expected:
        raise Unusable('the expected outcome is an object of fields, such as {"vendor": "Hansen"}')
    if not name:
        raise Unusable("name a library")
    site.store.add_to_library(name, [item.address.rpartition("/")[0]], saved=beam_ray.SavedTasks(expected=expected, replace=True))
    return wanted.link(at=item.address, saved=name)
