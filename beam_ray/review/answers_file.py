"""
Files in which people review outputs at their own time: one row per output and criterion.

A row says how its output was drawn. On import the sample is drawn again from that, and an output
that is not in it counts as chosen: nobody can make a chosen output look random by typing so.
"""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from beam_ray.address import parse
from beam_ray.define.fingerprint import Json, JsonObject
from beam_ray.errors import BadDefinition, Problem, Unusable, did_you_mean
from beam_ray.review.queue import MAX_COMMENT, ReviewAnswer, ReviewItem
from beam_ray.review.sample import DRAWN, HOWS, How
from beam_ray.tasks.files import TaskFile, find_files
from beam_ray.tasks.formats import read_rows
from beam_ray.tasks.rows import Row

COLUMNS = (
    "address",
    "criterion",
    "text",
    "task_query",
    "variables",
    "expected",
    "output",
    "output_digest",
    "met",
    "comment",
    "drawn",
    "seed",
    "count",
    "criteria",
    "judge_hidden",
)
"""The columns of a written file; ``judge_met`` follows where the judge's word is shown. Of a file that is read, address, criterion and met are enough."""

READ = (*COLUMNS, "judge_met", "reviewer")

WORDS = {"yes": True, "y": True, "true": True, "1": True, "met": True, "no": False, "n": False, "false": False, "0": False, "not met": False}
UNSURE = ("?", "unsure", "cannot tell")

MAX_PROBLEMS = 20


@dataclass(frozen=True)
class Draw:
    """How the outputs of a file were drawn, as the file says."""

    run_id: str
    node: str
    criteria: tuple[str, ...]
    how: How
    count: int
    seed: int


@dataclass(frozen=True)
class FileAnswer:
    """An answered row of a file."""

    row: Row
    address: str
    criterion: str
    answer: ReviewAnswer
    reviewer: str
    hidden: bool
    output_digest: str
    """Of the output that the person saw; empty where the row does not say."""
    draw: Draw


def write_items(items: Sequence[ReviewItem], path: Path, *, count: int, show_judge: bool) -> None:
    """
    Write the items to a .csv or .jsonl file, with empty columns for the answers.

    Raises:
        Unusable: the file is there already or cannot be written, or its name ends otherwise.
    """
    rows = [_written(item, index, count, show_judge) for item in items for index in range(len(item.questions))]
    if path.suffix == ".jsonl":
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    elif path.suffix == ".csv":
        text = _csv(rows, show_judge)
    else:
        raise Unusable(f"{path}: the name of a review file must end in .csv or .jsonl")
    try:
        with path.open("x", encoding="utf-8", newline="") as file:
            file.write(text)
    except FileExistsError:
        raise Unusable(f"{path} exists already, and may hold answers; choose another name") from None
    except OSError as error:
        raise Unusable(f"{path}: cannot be written ({error.strerror or error})") from None


def _written(item: ReviewItem, index: int, count: int, show_judge: bool) -> JsonObject:
    question = item.questions[index]
    return {
        "address": item.address,
        "criterion": question.criterion,
        "text": question.text,
        "task_query": item.task_query,
        "variables": item.variables,
        "expected": item.expected,
        "output": item.output,
        "output_digest": item.output_digest,
        "met": None,
        "comment": "",
        "drawn": item.how,
        "seed": item.seed,
        "count": count,
        "criteria": [each.criterion for each in item.questions],
        "judge_hidden": not show_judge,
        **({"judge_met": question.judge_met} if show_judge else {}),
    }


def _csv(rows: Iterable[JsonObject], show_judge: bool) -> str:
    sink = io.StringIO()
    names = [*COLUMNS, *(["judge_met"] if show_judge else [])]
    writer = csv.DictWriter(sink, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _cell(value, shown=name in ("text", "task_query", "output")) for name, value in row.items()})
    return sink.getvalue()


def _cell(value: Json, *, shown: bool) -> str:
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    # these cells are only shown, so that a spreadsheet can be kept from computing them
    return f"'{text}" if shown and text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def read_answers(file: str) -> list[FileAnswer]:
    """
    The answered rows of a file (.csv, .tsv, .jsonl, .json, .xlsx or .parquet); rows without an answer are skipped.

    Raises:
        BadDefinition: with every problem and its place.
        Unusable: the file cannot be read.
    """
    [found] = _files(file)
    problems: list[Problem] = []
    answers: list[FileAnswer] = []
    for row in read_rows(found):
        if isinstance(row, Problem):
            problems.append(row)
        else:
            try:
                answers += _answer(row)
            except BadDefinition as error:
                problems += error.problems
        if len(problems) >= MAX_PROBLEMS:
            break
    if problems:
        raise BadDefinition(problems=problems)
    return answers


def _files(file: str) -> list[TaskFile]:
    files = find_files(file, Path())
    if len(files) != 1:
        raise Unusable(f"{file}: name one file of reviews, not {len(files)}")
    return files


def _answer(row: Row) -> list[FileAnswer]:
    written = row.written
    if not isinstance(written, dict):
        raise _bad(row, "a review must be an object with address, criterion and met")
    unknown = next((name for name in written if name not in READ), None)
    if unknown is not None:
        raise _bad(row, f"a review has no column {unknown!r}", f"columns: {', '.join(READ)}", *did_you_mean(str(unknown), READ), field=str(unknown))
    said = _met(row, written.get("met"))
    comment = str(written.get("comment") or "").strip()
    if said is None:
        return []
    for name in ("address", "criterion"):
        if not isinstance(written.get(name), str) or not written[name]:
            raise _bad(row, f"the row has an answer but no {name}", field=name)
    if len(comment) > MAX_COMMENT:
        raise _bad(row, f"the comment has {len(comment):,} characters; at most {MAX_COMMENT:,} are kept", field="comment")
    try:
        address = parse(written["address"])
    except Unusable as error:
        raise _bad(row, str(error).splitlines()[0], field="address") from None
    if not address.node:
        raise _bad(row, f"{written['address']!r} names no step; an address is RUN/TASK/NODE", field="address")
    hidden = str(written.get("judge_hidden", "true")).strip().lower() not in ("false", "0", "no") and written.get("judge_met") in (None, "")
    return [
        FileAnswer(
            row,
            written["address"],
            written["criterion"],
            ReviewAnswer(None if said == "unsure" else bool(said), comment),
            str(written.get("reviewer") or ""),
            hidden,
            str(written.get("output_digest") or ""),
            _draw(row, address.run, address.node),
        )
    ]


def _met(row: Row, value: Json) -> bool | str | None:
    """The answer; ``unsure`` where the person cannot tell, None where there is none."""
    if isinstance(value, bool):
        return value
    word = "" if value is None else str(value).strip().lower()
    if not word:
        return None
    if word in UNSURE:
        return "unsure"
    if word not in WORDS:
        raise _bad(row, f"'met' must be yes, no, ? (cannot tell) or empty, not {str(value)[:40]!r}", field="met")
    return WORDS[word]


def _draw(row: Row, run_id: str, node: str) -> Draw:
    written = row.written
    said = written.get("drawn") or "chosen"
    how: How | None = next((each for each in HOWS if each == said), None)
    if how is None:
        raise _bad(row, f"'drawn' must be {', '.join(HOWS[:-1])} or {HOWS[-1]}, not {str(said)[:40]!r}", field="drawn")
    if how not in DRAWN:
        return Draw(run_id, node, (), how, 0, 0)
    try:
        criteria = written["criteria"] if isinstance(written["criteria"], list) else json.loads(written["criteria"])
        return Draw(run_id, node, tuple(map(str, criteria)), how, int(written["count"]), int(written["seed"]))
    except (KeyError, ValueError, TypeError):
        raise _bad(
            row, f"a {how} sample must say its seed, count and criteria", "keep the columns as 'beam-ray review draw' wrote them", field="drawn"
        ) from None


def _bad(row: Row, text: str, *notes: str, field: str = "") -> BadDefinition:
    return BadDefinition(problems=[row.problem(text, *notes, field=field)])
