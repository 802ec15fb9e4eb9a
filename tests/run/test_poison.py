"""Rows that kill, hang, leak or fork: each is its own failure alone, and nothing of it stays behind."""

import json
import os
from pathlib import Path

from tests.conftest import Lab

ROWS = int(os.environ.get("POISON_ROWS", "600"))

TOOLS = """
import ctypes
import os
import time
from pathlib import Path

HERE = Path(__file__).parent
LEAK = []


def work(n):
    if n == 13:
        ctypes.string_at(0)
    if n == 250:
        ctypes.PyDLL(None).sleep(600)
    if n == 400:
        for _ in range(3):
            if not os.fork():
                (HERE / f"child-{os.getpid()}").touch()
                time.sleep(600)
        time.sleep(600)
    if n % 50 == 7 and not os.fork():
        return {"n": -1}
    if n % 100 == 0:
        LEAK.append(bytearray(os.urandom(1)) * 300_000_000)
    return {"n": n, "pid": os.getpid()}
"""

WORKFLOW = """
workflow: poison
inputs: {n: int}
nodes:
  work: {tool: "tools.poison:work", with: {n: "{{ n }}"}, timeout_s: 2}
"""


def test_three_poison_rows_fail_and_every_other_row_has_its_own_result(lab: Lab):
    """A segfault, a hang that holds the GIL and a hang with children fail; copies that fork and return, and leaks, change no row."""
    lab.write("tools/poison.py", TOOLS)
    run = lab.run(WORKFLOW, [{"id": f"t{number}", "task_query": {"n": number}} for number in range(ROWS)], None)
    rows = {int(row["task_id"][1:]): row for row in run.steps().to_pylist()}
    said = {number: json.loads(row["output"]) for number, row in rows.items() if row["output"]}

    assert {number: row["error"] for number, row in rows.items() if row["outcome"] != "done"} == {
        13: "tools.poison:work: its process died (SIGSEGV)",
        250: "tools.poison:work took longer than 2 s and was killed",
        400: "tools.poison:work took longer than 2 s and was killed",
    }
    assert {number: output["n"] for number, output in said.items()} == {number: number for number in range(ROWS) if number not in (13, 250, 400)}
    assert not [pid for pid in children(lab.folder) | {output["pid"] for output in said.values()} if alive(pid)]
    # a child that leaked 300 MB twice has made room for another
    assert ROWS / 200 < len({output["pid"] for output in said.values()}) < ROWS / 20


def children(folder: Path) -> set[int]:
    """The processes that a tool started and left."""
    found = {int(path.name.removeprefix("child-")) for path in folder.glob("tools/child-*")}
    assert len(found) == 3
    return found


def alive(pid: int) -> bool:
    """Whether the process is there, and not only its name in the table."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
