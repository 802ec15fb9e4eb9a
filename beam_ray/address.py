"""
One name for everything that happened: ``run/task/node/attempt``.

The same text stands in logs, on the command line, in MLflow tags and in the store:

    261123-a3f1                          a run
    261123-a3f1/inv-017                  a task in it
    261123-a3f1/inv-017#2/extract        the step 'extract' of that task's second trial
    261123-a3f1/inv-017/extract/3        its third attempt

Task ids are the user's own words, so whatever could be mistaken for a separator is
percent-encoded.
"""

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

from beam_ray.errors import Unusable

RUN_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
NODE_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


@dataclass(frozen=True)
class Address:
    """Where something happened; the parts on the right may be missing. Trials and attempts count from 1."""

    run: str
    task: str = ""
    trial: int = 1
    node: str = ""
    attempt: int = 0

    def __str__(self) -> str:
        text = self.run
        if self.task:
            text += "/" + quote(self.task, safe="-_.~ @:+=,") + (f"#{self.trial}" if self.trial > 1 else "")
        if self.node:
            text += f"/{self.node}"
        if self.attempt:
            text += f"/{self.attempt}"
        return text


def parse(text: str) -> Address:
    """
    The address that *text* names.

    Raises:
        Unusable: *text* is not an address.
    """
    run, *rest = text.split("/")
    if not RUN_ID.fullmatch(run) or len(rest) > 3:
        raise _not_an_address(text)
    task, trial, node, attempt = "", 1, "", 0
    if rest:
        name, _, number = rest[0].partition("#")
        task = unquote(name)
        if not task or (number and not number.isdecimal()):
            raise _not_an_address(text)
        trial = int(number or 1)
    if len(rest) > 1:
        node = rest[1]
        if not NODE_NAME.fullmatch(node):
            raise _not_an_address(text)
    if len(rest) > 2:
        if not rest[2].isdecimal():
            raise _not_an_address(text)
        attempt = int(rest[2])
    return Address(run, task, trial, node, attempt)


def _not_an_address(text: str) -> Unusable:
    return Unusable(f"{text!r} is not an address\n  an address is RUN, RUN/TASK, RUN/TASK/NODE or RUN/TASK/NODE/ATTEMPT")
