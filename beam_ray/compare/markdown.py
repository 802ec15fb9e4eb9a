"""The comparison as a comment on a pull request."""

import re
from collections.abc import Sequence

from beam_ray.compare.candidate_tables import front_table, gain_table, overview_notes, rerun_notes
from beam_ray.compare.candidates import Overview, overview
from beam_ray.compare.classification_tables import confusion_table, measures_table
from beam_ray.compare.comparison import Comparison
from beam_ray.compare.formatting import line_word, plain
from beam_ray.compare.report import Result, best_first
from beam_ray.compare.subgroup_tables import subgroup_table
from beam_ray.compare.terminal import ids, metric_cells, notes, slice_cells, worth_showing
from beam_ray.compare.verdict import Verdict

SIGNS = {"NONE": "📊", "PASS": "✅", "WARN": "⚠️", "BLOCK": "⛔", "INCONCLUSIVE": "❔"}
MAX_CHARACTERS = 60_000
"""A comment on a pull request holds 65,536."""


def markdown(results: Sequence[Result], title: str = "Backtest", rerun: Result | None = None) -> str:
    """Verdict first, then gate, numbers and flips; nothing that a task or model wrote is read as Markdown."""
    found = overview(results)
    again = ["\n".join(safe(note) for note in rerun_notes(rerun, len(results))), _result(*rerun)] if rerun else []
    parts = [f"# {safe(title)}", *again, *([_overview(found)] if found else []), *(_result(comparison, verdict) for comparison, verdict in best_first(results))]
    text = "\n\n".join(parts) + "\n"
    if len(text) > MAX_CHARACTERS:
        text = text[:MAX_CHARACTERS].rsplit("\n", 1)[0] + "\n\n… truncated; report.html has the whole report\n"
    return text


def _overview(found: Overview) -> str:
    parts = ["\n".join(safe(note) for note in overview_notes(found))]
    for made in (gain_table(found), front_table(found)):
        if made:
            parts.append(table(all_safe(made.header), [all_safe(row) for row in made.rows]))
    return "\n\n".join(parts)


def _result(comparison: Comparison, verdict: Verdict) -> str:
    heading = f"## {SIGNS[verdict.word]} {verdict.word}: {safe(comparison.candidate.name)} against {safe(comparison.baseline.name)}"
    gate = table(
        ["gate", "limit", "observed", "", "why"],
        [[safe(line.rule), safe(line.allowed), safe(line.found), signed_word(line.word, line.level), safe(line.reason)] for line in verdict.lines],
    )
    interval = f"{comparison.confidence:g}% confidence interval"
    metrics = table(["", "baseline", "candidate", "change", "relative", interval], [all_safe(metric_cells(metric)) for metric in worth_showing(comparison)])
    parts = [heading, "\n".join(safe(note) for note in notes(comparison)), *([gate] if verdict.lines else []), metrics, _flips(comparison)]
    for kind, name in (("node", "Nodes"), ("criterion", "Criteria"), ("label", "Labels"), ("route", "Routes"), ("recording", "Recording")):
        rows = [all_safe(slice_cells(part)) for part in comparison.of_kind(kind)]
        if rows:
            shown = table([kind, "pairs", "baseline", "candidate", "change", interval, ""], rows)
            parts.append(f"<details><summary>{name}</summary>\n\n{shown}\n\n</details>")
    for classification in comparison.shown_classifications:
        tables = (measures_table(classification, comparison.confidence), confusion_table(classification))
        made = [table(all_safe(each.header), [all_safe(row) for row in each.rows]) + (f"\n\n{safe(each.note)}" if each.note else "") for each in tables]
        parts.append("\n\n".join([f"<details><summary>Classes of {safe(classification.name)}</summary>", *made, "</details>"]))
    for group in comparison.shown_subgroups:
        sliced = subgroup_table(group, comparison.confidence)
        note = f"\n\n{safe(sliced.note)}" if sliced.note else ""
        parts.append(
            f"<details><summary>By {safe(group.field)}</summary>\n\n{table(all_safe(sliced.header), [all_safe(row) for row in sliced.rows])}{note}\n\n</details>"
        )
    return "\n\n".join(parts)


def signed_word(word: str, level: str) -> str:
    """The word of a gate's line with its sign; a target that is not met is no warning."""
    sign = "▫️" if level == "target" and word != "PASS" else SIGNS[word]
    return f"{sign} {line_word(word, level)}"


def _flips(comparison: Comparison) -> str:
    rows = []
    for name, tasks in (
        ("newly passing", comparison.newly_passing),
        ("newly failing", comparison.newly_failing),
        ("confirmed regressions", comparison.regressions.confirmed),
        ("both failing", comparison.both_failing),
    ):
        rows.append([name, f"{len(tasks):,}", safe(ids(tasks, 20))])
    told = [[safe(each.task_id), safe(each.flip), safe(str(each.diverges_at)), safe(each.first_call)] for each in comparison.changes if each.first_call]
    calls = ["", table(["task", "flip", "node", "first call that differs"], told[:20], right=[])] if told else []
    return "\n".join([table(["tasks", "", ""], rows), *calls])


def table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] | None = None) -> str:
    """A Markdown table of cells that are safe already; *right* are the columns of numbers, all but the outer two unless given."""
    numbers = range(1, len(header) - 1) if right is None else right
    rule = ["---:" if column in numbers else "---" for column in range(len(header))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))


def all_safe(cells: Sequence[str]) -> list[str]:
    """The cells of a row, each as ``safe`` makes it."""
    return [safe(cell) for cell in cells]


def safe(text: str) -> str:
    """*text* on one line, in which nothing is Markdown, HTML or a mention of a person."""
    escaped = re.sub(r"([\\`*_\[\]<>|~#])", r"\\\1", plain(text, 500).replace("&", "&amp;"))
    # a zero-width joiner keeps a foreign text from notifying people or linking threads
    return re.sub(r"(@|://|www\.)", "\\1\u200d", escaped)
