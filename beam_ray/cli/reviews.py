"""review: people judge outputs, in the terminal or in a file."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

import json
import shlex
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

import beam_ray
from beam_ray.cli.judge_reports import show_judge_report, shown_figure
from beam_ray.cli.options import Place, grouped, pairs, reads_store
from beam_ray.cli.screen import emit, plural, say, show, table

WIDTH = 100
"""Columns of the texts that a person reads."""

SHOWN = 8_000
"""Characters of a task or an output that are shown."""


@dataclass(frozen=True)
class Sampled:
    """Which outputs are reviewed."""

    node: str | None
    run_id: str | None
    criteria: tuple[str, ...]
    how: str
    count: int
    seed: int
    tasks: tuple[str, ...]

    def queue(self, place: Place, workflow: str) -> beam_ray.ReviewQueue:
        """The queue that the options name."""
        how: Any = "chosen" if self.tasks else self.how
        sample = beam_ray.ReviewSample(how, self.count, self.seed, self.tasks)
        return place.opened.review_queue(workflow, self.node, run=self.run_id, criteria=self.criteria, sample=sample)


draws = grouped(
    Sampled,
    "sampled",
    click.argument("workflow", metavar="WORKFLOW"),
    click.option("--node", metavar="NODE", help="Node whose outputs are reviewed. Default: the only one whose criteria a judge decides."),
    click.option("--run", "run_id", metavar="RUN", help="Run whose outputs are reviewed. Default: the workflow's newest finished run."),
    click.option("--criterion", "criteria", multiple=True, metavar="ID", help="Criterion to review; repeatable. Default: those that a judge decides."),
    click.option(
        "--sample",
        "how",
        type=click.Choice(["random", "balanced", "flagged", "disagreed"]),
        default="random",
        show_default=True,
        help="balanced: as many outputs that the judge passed as others; flagged: for a person; disagreed: the judges of a panel disagree.",
    ),
    click.option("--count", default=50, show_default=True, type=click.IntRange(min=1), help="Number of outputs."),
    click.option("--seed", default=0, show_default=True, type=int, help="Seed of the sample; a larger count with the same seed extends it."),
    click.option("--task", "tasks", multiple=True, metavar="TASK", help="Review this task instead of a sample; repeatable."),
)
_REVIEWER = click.option("--reviewer", default="", metavar="NAME", help="Who reviews. Default: the user of this machine.")


@click.group()
def review() -> None:
    """Review outputs by hand, and find out how often a judge errs."""


@review.command()
@draws
@_REVIEWER
@click.option("--show-judge", is_flag=True, help="Show the judge's verdict before you answer. Hidden by default, so that it cannot influence you.")
@reads_store
def start(sampled: Sampled, workflow: str, reviewer: str, show_judge: bool, place: Place) -> None:
    """
    Review outputs of WORKFLOW one by one in the terminal. Each answer is recorded at once; run it again to continue.

    Keys: y met, n not met, ? cannot tell, s skip this output, q stop. A text after the key is kept as a comment: n wrong year.
    """
    queue = sampled.queue(place, workflow)
    waiting = queue.open(reviewer)
    say(f"{queue.workflow}/{queue.node} · run {queue.run_id} · {_words(queue)} · {len(queue.items) - len(waiting)} answered")
    recorded = 0
    for number, item in enumerate(waiting, len(queue.items) - len(waiting) + 1):
        _show_item(item, f"{number}/{len(queue.items)}")
        answers: dict[str, beam_ray.ReviewAnswer] = {}
        for question in item.questions:
            if show_judge:
                show(f"  judge: {_word(question.judge_met)} ({question.judge_reason})")
            said = _ask(question)
            if said in ("s", "q"):
                break
            assert isinstance(said, beam_ray.ReviewAnswer)
            answers[question.criterion] = said
        if len(answers) == len(item.questions):
            place.opened.record_review(item, answers, reviewer=reviewer, hidden=not show_judge)
            recorded += 1
        elif said == "q":
            break
    show()
    show(f"{plural(recorded, 'output')} reviewed, {len(queue.open(reviewer))} left")


def _ask(question: beam_ray.ReviewQuestion) -> beam_ray.ReviewAnswer | str:
    show(f"  criterion: {question.text}")
    while True:
        try:
            typed = click.prompt("  met? [y/n/?/s/q]", prompt_suffix=" ", type=str, err=True)
        except click.Abort:
            return "q"
        key, _, comment = typed.strip().partition(" ")
        key = key.lower()
        if key in ("s", "q"):
            return key
        if key in ("y", "n", "?"):
            return beam_ray.ReviewAnswer({"y": True, "n": False, "?": None}[key], comment.strip())
        say("  y met, n not met, ? cannot tell, s skip, q stop; a text after the key is a comment")


def _show_item(item: beam_ray.ReviewItem, place: str) -> None:
    show()
    show(f"{place}  {item.address}")
    for title, value in (("task", item.task_query), ("variables", item.variables), ("expected", item.expected), ("output", item.output)):
        if value not in (None, {}, ""):
            show(f"  {title}:")
            for line in _text(value).splitlines():
                show(textwrap.fill(line, WIDTH, initial_indent="    ", subsequent_indent="    ", replace_whitespace=False))


def _text(value: Any) -> str:
    if isinstance(value, dict) and len(value) == 1 and isinstance(value.get("text"), str):
        value = value["text"]
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _word(met: bool | None) -> str:
    return {True: "met", False: "not met", None: "undecided"}[met]


def _words(queue: beam_ray.ReviewQueue) -> str:
    drawn = {"random": "drawn at random", "balanced": "a balanced sample"}.get(queue.sample.how, queue.sample.how)
    of = f" of {queue.population:,}" if queue.sample.how in ("random", "balanced") else ""
    return f"{len(queue.items)}{of} {'output' if len(queue.items) == 1 and not of else 'outputs'}, {drawn}"


@review.command()
@draws
@click.option("--to", "file", required=True, metavar="FILE", help="New file, .csv or .jsonl.")
@click.option("--show-judge", is_flag=True, help="Include the judge's verdict. Hidden by default, so that it cannot influence the reviewer.")
@reads_store
def draw(sampled: Sampled, workflow: str, file: str, show_judge: bool, place: Place) -> None:
    """Write outputs of WORKFLOW to a file for review: answer yes, no or ? in its column 'met', then import it."""
    queue = sampled.queue(place, workflow)
    if not queue.items:
        raise click.UsageError(f"run {queue.run_id} has no such outputs of {queue.node!r}")
    path = queue.write(Path(file), show_judge=show_judge)
    if place.as_json:
        emit(
            {
                "file": str(path),
                "run_id": queue.run_id,
                "node": queue.node,
                "criteria": list(queue.criteria),
                "outputs": len(queue.items),
                "of": queue.population,
            }
        )
        return
    show(f"wrote {path}: {queue.workflow}/{queue.node}, run {queue.run_id}, {_words(queue)}, criteria {', '.join(queue.criteria)}")
    show(f"answer yes, no or ? in the column 'met', then:  beam-ray review import {path}{place.option}")


@review.command(name="import")
@click.argument("file", metavar="FILE")
@_REVIEWER
@reads_store
def import_(file: str, reviewer: str, place: Place) -> None:
    """Record the answered rows of FILE (.csv, .tsv, .jsonl, .json, .xlsx or .parquet). Safe to repeat."""
    _show_recorded(place, place.opened.import_reviews(file, reviewer=reviewer))


@review.command()
@draws
@click.option("--output", required=True, metavar="RUN/TASK/NODE", help="Output of the sample that is reviewed.")
@click.option("--met", "said", multiple=True, required=True, metavar="ID=yes|no|?", help="What holds of a criterion; ? for cannot tell. Repeatable.")
@click.option("--comment", default="", metavar="TEXT", help="Comment, kept with each answer.")
@_REVIEWER
@click.option("--judge-seen", is_flag=True, help="The judge's verdict was in sight.")
@reads_store
def record(sampled: Sampled, workflow: str, output: str, said: tuple[str, ...], comment: str, reviewer: str, judge_seen: bool, place: Place) -> None:
    """Record what a person says of one output of a sample of WORKFLOW, as the console does."""
    words, answers = {"yes": True, "no": False, "?": None}, pairs(said, "--met")
    wrong = next((word for word in answers.values() if word not in words), None)
    if wrong is not None:
        raise click.UsageError(f"--met takes yes, no or ?, not {wrong!r}")
    item = sampled.queue(place, workflow).item(output)
    met = {name: words[word] for name, word in answers.items()}
    _show_recorded(place, place.opened.record_review(item, met, reviewer=reviewer, comment=comment, hidden=not judge_seen))


def _show_recorded(place: Place, made: beam_ray.RecordedReviews) -> None:
    if place.as_json:
        emit({"recorded": list(made.reviews), "unchanged": made.unchanged})
        return
    same = f", {made.unchanged} recorded before" if made.unchanged else ""
    show(f"{plural(len(made.reviews), 'review')} recorded{same}")


@review.command()
@reads_store
def waiting(place: Place) -> None:
    """List what people can review: outputs that were flagged for a person, that judges disagree on, and that measure a judge."""
    found = place.opened.review_sources()
    if place.as_json:
        emit([each.document() for each in found])
        return
    words = {"flagged": "flagged for a person", "disagreed": "judges disagree", "random": "measures the judge"}
    rows = [[each.workflow, each.node, each.run_id, words.get(each.how, each.how), f"{each.outputs:,}", f"{each.reviewed:,}"] for each in found]
    if not rows:
        show("nothing can be reviewed: no finished run has outputs that a judge decides about")
        return
    show(table(["workflow", "node", "run", "", "outputs", "reviewed"], rows, right=[4, 5]))
    first = found[0]
    sample = f" --sample {first.how}" if first.how != "random" else ""
    show(f"review the first:  beam-ray review start {first.workflow} --node {first.node} --run {first.run_id}{sample}{place.option}")


@review.command()
@click.argument("workflow", metavar="WORKFLOW")
@click.option("--node", metavar="NODE", help="Only this node.")
@reads_store
def agreement(workflow: str, node: str | None, place: Place) -> None:
    """
    Show how far judges agree with people: kappa, sensitivity, specificity, and every disagreement. No model is called.

    Figures stand on outputs drawn at random. 'beam-ray criteria WORKFLOW --check' asks today's judge about the reviewed outputs.
    """
    reports = place.opened.review_agreement(workflow, node)
    if place.as_json:
        emit([report.document() for report in reports])
        return
    if not reports:
        show(f"no reviews of {workflow} yet\n  beam-ray review start {workflow}{place.option}  begins")
    for number, report in enumerate(reports):
        if number:
            show()
        show_judge_report(report)


@review.command()
@click.argument("backtest_id", metavar="BACKTEST")
@click.option("--candidate", metavar="NAME", help="Candidate. Default: the best one.")
@reads_store
def correct(backtest_id: str, candidate: str | None, place: Place) -> None:
    """
    Correct the rates of a finished BACKTEST for the errors of its judge, by all reviews so far. No model is called.

    Draw outputs of both sides first: beam-ray review start WORKFLOW --run RUN, once for each side's run.
    """
    verdict = place.opened.verdict(backtest_id)
    rates = verdict.corrected_rates(candidate)
    if place.as_json:
        emit([rate.document() for rate in rates])
        return
    side = next(each for each in verdict.candidates if each.name == (candidate or verdict.best.name))
    if not rates:
        show("too few reviews: 20 outputs of each side, drawn at random, or 20 of the same judge elsewhere")
        for run in (side.baseline_run, side.run):
            show(f"  beam-ray review start {verdict.workflow} --run {run.id}{place.option}")
        return
    rows = [
        [rate.name, shown_figure(rate.judged_before), shown_figure(rate.judged_after), "", rate.tasks, "as judged"]
        if judged
        else [
            "",
            shown_figure(rate.before),
            shown_figure(rate.after),
            shown_figure(rate.change, sign="+"),
            "",
            f"corrected, by {rate.by} ({rate.reviews[0]}, {rate.reviews[1]})",
        ]
        for rate in rates
        for judged in (True, False)
    ]
    show(table(["rate", "baseline", side.name, "change", "tasks", ""], rows, right=[4], width=60))


@dataclass(frozen=True)
class Marked:
    """Which pair is marked, and by whom."""

    task: str
    candidate: str | None
    trial: int
    by: str
    note: str


@review.command()
@click.argument("backtest_id", metavar="BACKTEST")
@grouped(
    Marked,
    "marked",
    click.argument("task", metavar="TASK"),
    click.option("--candidate", metavar="NAME", help="Candidate. Default: the best one."),
    click.option("--trial", default=1, show_default=True, type=click.IntRange(min=1), help="Trial of the task."),
    click.option("--reviewer", "by", default="", metavar="NAME", help="Who says so. Default: the user of this machine."),
    click.option("--note", default="", metavar="TEXT", help="Why, for readers."),
)
@click.argument("word", metavar="real|noise|judge|expected|none")
@reads_store
def mark(backtest_id: str, marked: Marked, word: str, place: Place) -> None:
    """
    Mark the pair of TASK in a finished BACKTEST: the difference is real, or noise; the judge, or what is expected, is wrong.

    A mark is kept with who and when and changes no number of the verdict; none takes yours back. 'beam-ray flips BACKTEST' counts them.
    """
    made = place.opened.mark_pair(backtest_id, marked.task, word, candidate=marked.candidate, trial=marked.trial, by=marked.by, note=marked.note)
    if place.as_json:
        emit(made.document())
        return
    show(f"{made.task}, {made.candidate}: {made.words if made.mark != 'none' else 'no mark'}, by {made.marked_by}")
    verdict = place.opened.verdict(backtest_id)
    if made.mark in ("judge", "expected"):
        run = next(each.run.id for each in verdict.candidates if each.name == made.candidate)
        show(f"judge it yourself:  beam-ray review start {verdict.workflow} --run {run} --task {shlex.quote(made.task)}{place.option}")
    if made.mark == "expected":
        show(f'say what is right:  beam-ray library expect LIBRARY {shlex.quote(made.task)} \'{{"FIELD": "VALUE"}}\'{place.option}')


@review.command(name="list")
@click.argument("workflow", required=False, metavar="[WORKFLOW]")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(min=0), help="Show at most N reviews; 0 shows all.")
@reads_store
def list_(workflow: str | None, limit: int, place: Place) -> None:
    """List reviews, the newest first."""
    rows = sorted(place.opened.reviews(workflow).to_pylist(), key=lambda row: row["reviewed_at"], reverse=True)
    if place.as_json:
        emit(rows[:limit] if limit else rows)
        return
    cells = [
        [
            row["address"],
            row["criterion"],
            {True: "met", False: "NOT MET", None: "cannot tell"}[row["met"]],
            _word(row["judge_met"]),
            row["reviewer"],
            f"{row['reviewed_at']:%Y-%m-%d %H:%M}",
            row["drawn"],
            row["comment"] or "",
        ]
        for row in (rows[:limit] if limit else rows)
    ]
    show(table(["output of", "criterion", "review", "judge", "reviewer", "reviewed", "drawn", "comment"], cells, width=48))
    if limit and len(rows) > limit:
        show(f"  {len(rows) - limit:,} older reviews: --limit 0 shows all")
