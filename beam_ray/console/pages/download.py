"""Files to save: the output of a step, an attachment of a task."""

import json

from beam_ray.console.forms import Fields, one
from beam_ray.console.rendering import Download
from beam_ray.console.site import Site
from beam_ray.errors import Unusable

FIELDS = ("task", "step", "attachment")


def download(site: Site, path: str, fields: Fields) -> Download:
    """The file that the address names."""
    word, node, number = one(fields, "task"), one(fields, "step"), one(fields, "attachment")
    if not word or bool(node) == bool(number):
        raise Unusable("a file is the output of a step or an attachment\n  the address is /download?task=RUN/TASK&step=NODE, or &attachment=1")
    task = site.store.task(word)
    if number:
        if not number.isdecimal():
            raise Unusable(f"attachment: {number[:20]!r} is not a number")
        body = task.attachment(int(number))
        return Download((task.given["attachments"] or [])[int(number) - 1]["name"], body)
    output = task.step(node).output
    if output is None:
        raise Unusable(f"the step {task.address}/{node} has no output")
    if isinstance(output, dict) and list(output) == ["text"] and isinstance(output["text"], str):
        return Download(f"{task.id}-{node}.txt", output["text"].encode("utf-8", "replace"))
    return Download(f"{task.id}-{node}.json", (json.dumps(output, ensure_ascii=False, indent=2) + "\n").encode("utf-8", "replace"))
