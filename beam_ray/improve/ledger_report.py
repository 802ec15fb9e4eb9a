"""The ledger as tables for the terminal, as Markdown, and as a self-contained HTML page."""

from collections import Counter
from dataclasses import dataclass

from beam_ray.compare.formatting import amount, plain, plural
from beam_ray.compare.html import page
from beam_ray.compare.markdown import MAX_CHARACTERS, all_safe, safe
from beam_ray.compare.markdown import table as markdown_table
from beam_ray.improve.failure_groups import TaskResult
from beam_ray.improve.ledger import Ledger, RedoneTask, Rerun, Totals

SHOWN = 500
"""The most rows of a table that a page shows."""

CAUTION = "Rerunning a failed task without any change sometimes makes it pass. To measure a change over all tasks, run a backtest."


@dataclass(frozen=True)
class Table:
    """One table. *right* are the columns that are right-aligned, *long* those whose text may wrap."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: tuple[int, ...]
    long: tuple[int, ...] = ()


def tables(ledger: Ledger) -> tuple[Table, ...]:
    """The failures, the reruns with their reasons, and each task before and after."""
    return (
        Table(
            "Failures before the reruns",
            ("step", "reason", "tasks", "passing now", "example"),
            tuple(
                (
                    pattern.failure.node,
                    f"{pattern.failure.kind} {pattern.failure.what}: {pattern.failure.text}"
                    if pattern.failure.kind != "model away"
                    else "a model did not answer",
                    f"{len(pattern.tasks):,}",
                    f"{pattern.passing:,}",
                    pattern.tasks[0],
                )
                for pattern in ledger.patterns
            ),
            (2, 3),
            (1,),
        ),
        Table(
            "Reruns",
            ("rerun", "started", "definition", "reason", "changed", "tasks", "solved", "not solved", "newly failing", "cost"),
            tuple(_rerun(rerun) for rerun in ledger.reruns),
            (5, 6, 7, 8, 9),
            (2, 3, 4),
        ),
        Table(
            "Tasks",
            ("task", "rerun of", "before", "score", "after", "score", "result", "cost"),
            tuple(_task(task, rerun) for rerun in ledger.reruns for task in rerun.tasks),
            (3, 5, 7),
        ),
    )


def summary(ledger: Ledger) -> list[str]:
    """Cost and effect of the reruns, in sentences."""
    totals = ledger.totals
    lines = [f"{plural(len(ledger.reruns), 'rerun')} of {plural(totals.tasks, 'task')}: {totals.solved:,} solved, {totals.newly_failing:,} newly failing"]
    running = sum(rerun.count("running") for rerun in ledger.reruns)
    if running:
        lines.append(f"{plural(running, 'task')} still running")
    if totals.recovered:
        lines.append(f"{totals.recovered:,} of the solved tasks had failed only because a model did not answer")
    if totals.unchanged:
        lines.append(f"{totals.unchanged:,} of the solved tasks passed although nothing had changed: chance, or a temporary fault")
    if totals.other_criteria:
        lines.append(f"{plural(totals.other_criteria, 'task')} judged by different criteria than before: counted neither as solved nor in the points")
    if totals.away:
        lines.append(f"{plural(totals.away, 'task')} with an unknown result: a model did not answer")
    return [*lines, *(f"{name}: {value}" for name, value in figures(totals))]


def figures(totals: Totals) -> list[tuple[str, str]]:
    """Cost, points gained, and both per dollar."""
    spent = f"unpriced: {plural(totals.unpriced, 'rerun')} used a model without a price" if totals.usd is None else amount(totals.usd, "USD")
    points = (
        "no task has a score before and after"
        if totals.points is None
        else f"{amount(totals.points, 'points', signed=True)} over {plural(totals.scored, 'task')}"
    )
    per_dollar = [("solved per dollar", _per_usd(totals, totals.solved_per_usd)), ("points per dollar", _points_per_usd(totals))]
    # at a cost of 0 there is nothing to divide by
    return [("cost", f"{spent}, {plural(totals.calls, 'model call')}"), ("points gained", points), *(per_dollar if totals.usd != 0 else [])]


def markdown(ledger: Ledger) -> str:
    """The ledger as Markdown; text from tasks, models and definitions is escaped."""
    parts = [f"# Reruns of {safe(ledger.workflow)}", "\n".join(f"- {safe(line)}" for line in summary(ledger)), f"*{CAUTION}*"]
    for table in tables(ledger):
        if table.rows:
            shown = markdown_table(table.header, [all_safe(row) for row in table.rows[:SHOWN]], table.right)
            more = f"\n\n{len(table.rows) - SHOWN:,} more rows" if len(table.rows) > SHOWN else ""
            parts.append(f"## {table.title}\n\n{shown}{more}")
    text = "\n\n".join(parts) + "\n"
    return text if len(text) <= MAX_CHARACTERS else text[:MAX_CHARACTERS].rsplit("\n", 1)[0] + "\n\n… truncated; the HTML page has more\n"


def html(ledger: Ledger) -> str:
    """The ledger as one page without scripts, links or fonts; text from tasks, models and definitions is escaped."""
    return page(
        "ledger.html",
        "beam_ray.improve",
        title=f"Reruns of {ledger.workflow}",
        summary=summary(ledger)[: -len(figures(ledger.totals))],
        tiles=[("solved", f"{ledger.totals.solved:,} of {plural(ledger.totals.tasks, 'task')}"), *figures(ledger.totals)],
        caution=CAUTION,
        tables=tables(ledger),
        changes=[rerun for rerun in ledger.reruns if rerun.changed],
        shown=SHOWN,
    )


def _rerun(rerun: Rerun) -> tuple[str, ...]:
    definition = f"version {rerun.version}" if rerun.version else "draft" if rerun.changed else "original"
    return (
        rerun.run_id,
        rerun.started,
        definition + (f", from {rerun.start}" if rerun.start else ""),
        plain(rerun.because) or "none given",
        _changed(rerun) + ("" if rerun.same_criteria else " (different criteria)"),
        *(f"{count:,}" for count in (len(rerun.tasks), rerun.count("solved"), rerun.count("not solved"), rerun.count("newly failing"))),
        _usd(rerun.usd),
    )


def _changed(rerun: Rerun) -> str:
    """The changed parts of the definition, each with its number of changed fields."""
    parts = Counter[str]()
    for change in rerun.changed:
        path = change.name.split(".")
        parts[".".join(path[: 3 if path[1:2] in (["llm"], ["agent"]) else 2])] += 1
    return ", ".join(part if count == 1 else f"{part} ({count} fields)" for part, count in parts.items()) or "nothing"


def _task(task: RedoneTask, rerun: Rerun) -> tuple[str, ...]:
    word = ("model did not answer" if task.word == "model away" else task.word) + ("" if rerun.same_criteria else ", different criteria")
    return (task.task, task.origin, *_result_cells(task.before), *_result_cells(task.after), word, _usd(task.usd))


def _result_cells(state: TaskResult | None) -> tuple[str, str]:
    if state is None:
        return "-", "-"
    mark = "no answer" if state.model_unavailable else {"passed": "pass", "below": "BELOW", "failed": "FAILED"}[state.status]
    return mark, "unscored" if state.score is None else amount(state.score, "points")


def _points_per_usd(totals: Totals) -> str:
    return "-" if totals.points is None else _per_usd(totals, totals.points_per_usd)


def _per_usd(totals: Totals, value: float | None) -> str:
    return "unpriced" if totals.usd is None or value is None else f"{value:,.{0 if abs(value) >= 100 else 2}f}"


def _usd(usd: float | None) -> str:
    return "unpriced" if usd is None else amount(usd, "USD")
