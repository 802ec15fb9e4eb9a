"""A workflow whose answers a judge decides about, and runs of it whose truth is known."""

import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import beam_ray
from beam_ray.llm import Request
from beam_ray.store.runs import Run
from tests.conftest import Lab

POLITE = """
workflow: replies
model: m
judge: {judge}
nodes:
  reply:
    llm: {{prompt: "{prompt} {{{{ task_query }}}}"}}
    evaluate:
      threshold: 100
      criteria:
        - id: polite
          text: The reply is polite.
        - check: reply.text != ''
"""


def workflow(judge: str = "m", prompt: str = "reply to") -> str:
    """The text of the workflow."""
    return POLITE.format(judge=judge, prompt=prompt)


def asked_output(request: Request) -> str:
    """The output that a judge is shown."""
    said = str(request.messages[-1]["content"])
    return str(json.loads(said[said.index("-output>\n") + 9 : said.rindex("</", 0, said.index("The criteria:"))])["text"])


def verdict(request: Request, met: bool, reason: str = "so it is") -> dict[str, Any]:
    """A judge's answer: the same about every criterion."""
    assert request.schema is not None
    return {name: {"reason": reason, "met": met} for name in request.schema["properties"]}


def model(says: Callable[[int], bool], *, replies: Callable[[int], str] = lambda number: f"reply {number}") -> Callable[[Request], Any]:
    """Replies to the task ``tN``, and judges the reply by *says*."""

    def answer(request: Request) -> Any:
        number = int(request.task_id[1:])
        return verdict(request, says(number)) if request.judges else replies(number)

    return answer


def judged_run(lab: Lab, count: int, says: Callable[[int], bool], **how: Any) -> Run:
    """A finished run of so many tasks, t0 and so on."""
    return lab.run(lab.workflow(workflow()), [f"question {number}" for number in range(count)], model(says), **how)


def opened(lab: Lab) -> beam_ray.Store:
    """The lab's store."""
    return beam_ray.open(lab.objects.uri, models={})


def answer_all(store: beam_ray.Store, folder: Path, queue: beam_ray.ReviewQueue, says: Callable[[int], bool | None], reviewer: str = "ann") -> None:
    """Answer every item of the queue in one file; *says* is what the reviewer says of ``tN``, None for "cannot tell"."""
    rows = []
    for line in queue.write(folder / f"{secrets.token_hex(4)}.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        met = says(int(row["address"].split("/")[1][1:]))
        judged = next(item for item in queue.items if item.address == row["address"]).question(row["criterion"]).judge_met
        rows.append({**row, "met": "?" if met is None else met, "comment": "" if met in (None, judged) else "look again"})
    path = folder / f"{secrets.token_hex(4)}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    store.import_reviews(path, reviewer=reviewer)
