"""
The results of a backtest as files for machines: verdict.json, comparison.parquet, junit.xml.

A result is one candidate's comparison with its verdict; a backtest has one or more.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple
from xml.etree import ElementTree

import pyarrow as pa

from beam_ray.compare.comparison import Comparison
from beam_ray.compare.formatting import line_word, plain
from beam_ray.compare.pair_table import PAIRS
from beam_ray.compare.verdict import WORST_FIRST, Verdict
from beam_ray.compare.verdict_json import ResultsDocument

SCHEMA = "verdict/1"
ON_FRESH_TASKS = " on fresh tasks"
"""What follows a candidate's name where it was run again."""
COMPARISON = pa.schema([pa.field("candidate", pa.string(), False, {"meaning": "the candidate's name"}), *PAIRS], metadata=PAIRS.metadata)
"""The schema of comparison.parquet."""


class Result(NamedTuple):
    """One candidate's comparison with the baseline, and what the gate says of it."""

    comparison: Comparison
    verdict: Verdict


def best(results: Sequence[Result]) -> Result:
    """The result with the best word; among equals the one with the highest mean score."""
    return best_first(results)[0]


def best_first(results: Sequence[Result]) -> list[Result]:
    """The results with the best word first; among equals the one with the highest mean score."""
    return sorted(results, key=lambda result: (WORST_FIRST.index(result.verdict.word), result.comparison.metric("score").after or 0.0), reverse=True)


def document(results: Sequence[Result], rerun: Result | None = None) -> ResultsDocument:
    """The results as plain JSON; where the best candidate was run again on fresh tasks, word and exit code are those of the *rerun*."""
    chosen = rerun or best(results)
    return {
        "schema": SCHEMA,
        "word": chosen.verdict.word,
        "exit_code": chosen.verdict.exit_code,
        "best": chosen.comparison.candidate.name.removesuffix(ON_FRESH_TASKS),
        "candidates": [
            {"name": comparison.candidate.name, "verdict": verdict.document(), "comparison": comparison.document()} for comparison, verdict in results
        ],
    }


def table(results: Sequence[Result]) -> pa.Table:
    """The content of comparison.parquet: one row for each candidate and pair."""
    parts = []
    for comparison, _ in results:
        name = pa.array([comparison.candidate.name] * comparison.table.num_rows, pa.string())
        parts.append(pa.table([name, *comparison.table.columns], schema=COMPARISON))
    return pa.concat_tables(parts)


def junit(results: Sequence[Result], name: str = "backtest") -> str:
    """The content of junit.xml: a test case for each limit of the gate and each newly failing task."""
    root = ElementTree.Element("testsuites", name=plain(name))
    for comparison, verdict in results:
        suite = ElementTree.SubElement(root, "testsuite", name=plain(comparison.candidate.name))
        for line in verdict.lines:
            case = _case(suite, f"gate.{verdict.gate}", f"{line.rule} {line.allowed}")
            text = f"{line_word(line.word, line.level)}: observed {line.found}. {line.reason}"
            if line.word == "BLOCK":
                _mark(case, "failure", "BLOCK", text)
            elif line.word == "INCONCLUSIVE":
                _mark(case, "error", "INCONCLUSIVE", text)
            else:
                ElementTree.SubElement(case, "system-out").text = plain(text, 2_000)
        _newly_failing(suite, comparison)
        suite.set("tests", str(len(suite.findall("testcase"))))
        suite.set("failures", str(len(suite.findall("testcase/failure"))))
        suite.set("errors", str(len(suite.findall("testcase/error"))))
        suite.set("skipped", str(len(suite.findall("testcase/skipped"))))
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _newly_failing(suite: ElementTree.Element, comparison: Comparison) -> None:
    confirmed = set(comparison.regressions.confirmed)
    shown = {change.task_id: change for change in comparison.changes}
    for task in comparison.newly_failing:
        case = _case(suite, "newly failing", task)
        change = shown.get(task)
        where = f"; first difference at {change.diverges_at}" if change and change.diverges_at else ""
        where += f", {change.first_call}" if change and change.first_call else ""
        if task in confirmed:
            _mark(case, "failure", "regression", f"passed on the baseline, fails on the candidate, confirmed by repeats{where}")
        else:
            _mark(case, "skipped", None, f"newly failing, not confirmed by repeats{where}")


def _case(suite: ElementTree.Element, group: str, name: str) -> ElementTree.Element:
    return ElementTree.SubElement(suite, "testcase", classname=_sound(group), name=_sound(name))


def _mark(case: ElementTree.Element, tag: str, kind: str | None, text: str) -> None:
    mark = ElementTree.SubElement(case, tag, message=_sound(text))
    if kind:
        mark.set("type", kind)


def _sound(text: str) -> str:
    # XML has no way to write some characters, not even escaped
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "", plain(text, 2_000))
