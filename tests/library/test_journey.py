"""The library on the way from a real run to the next one."""

import json
import subprocess
import sys

from beam_ray.store.libraries import library_versions, read_library
from beam_ray.store.runs import Run
from beam_ray.tasks.sources import read
from tests.conftest import Lab
from tests.library.conftest import ORDERS, orders, past_run


def answer(request):
    """An order's amount is what its text says; the rest is talk."""
    words = request.messages[-1]["content"].split()
    return json.dumps({"vendor": "Ace", "amount": int(words[-1])}) if len(words) > 1 else "done"


def test_what_a_real_run_did_is_saved_run_again_and_measured(ray_lab: Lab, cli):
    """The tasks of a run become a library, the library the source of a run, and that run tells what it covers."""
    first = ray_lab.run(
        ORDERS, [{"id": "small", "task_query": "order 5"}, {"id": "large", "task_query": "order 500"}, {"id": "bad", "task_query": "order -1"}], answer
    )
    cli("library", "add", "orders", "--from-run", first.run_id, "--status", "passed", "--expect-from-output", "--of", "extract")
    cli("library", "add", "orders", f"{first.run_id}/bad", "--with-label", "edge")
    tasks, name = read(ray_lab.objects, "library:orders")
    second = ray_lab.run(ray_lab.workflow(ORDERS), tasks, answer)
    told = cli("library", "check", "orders", "--workflow", "workflow.yaml", "--json").json

    assert name == "library:orders@2"
    assert [json.loads(text) if text else None for text in tasks["expected"].to_pylist()] == [
        {"vendor": "Ace", "amount": 5},
        {"vendor": "Ace", "amount": 500},
        None,
    ]
    assert Run(ray_lab.objects, second.run_id).tasks()["origin"].to_pylist() == [f"{first.run_id}/{task}" for task in ("small", "large", "bad")]
    assert (told["routes"]["covered"], told["criteria"]["not_covered"]) == ({"small order": ["small", "bad"], "large order": ["large"]}, [])
    assert told["decided"] == {"extract/positive": {"met": 2, "not_met": 1}, "extract/vendor": {"met": 2, "not_met": 0}}
    assert (told["failures"]["tasks"], told["successes"]["tasks"], [gap["kind"] for gap in told["gaps"]]) == (["bad"], ["small", "large"], ["size"])


def test_commands_at_the_same_time_lose_nothing_unsaid(lab: Lab):
    """Of processes that add at once each is in the newest version or was told, in one line, that it is not."""
    past_run(lab, "261001-aaaaaa", orders(3))
    command = [sys.executable, "-m", "beam_ray", "library", "add", "orders", "--store", str(lab.folder / "store"), "--json"]
    running = [subprocess.Popen([*command, f"o{number:02d}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for number in range(3)]
    ended = [(process.communicate(), process.returncode) for process in running]
    won = [f"o{number:02d}" for number, (_, code) in enumerate(ended) if code == 0]

    assert won
    assert sorted(read_library(lab.objects, "orders")[0]["task_id"].to_pylist()) == won
    assert library_versions(lab.objects, "orders") == list(range(1, len(won) + 1))
    assert {(code, said[1]) for said, code in ended if code} <= {
        (2, "the library 'orders' was changed by another process at the same time; run the same command again\n")
    }
