"""
The plain loop over another shape of work: asyncio over the openai client, a line of JSON per answer.

    python -m benchmarks.speed.shape_loop URL SHAPE OUT

Prints as JSON how many seconds it took from the first call to the last line.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, TextIO

from openai import AsyncOpenAI

from benchmarks.speed.shapes import CRITERIA, LONG_TEXT, SHAPES
from benchmarks.speed.work import CONCURRENCY

STEPS = range(1, 5)
NAMES = [f"criterion_{number}" for number in range(1, len(CRITERIA) + 1)]
ONE = {"type": "object", "properties": {"reason": {"type": "string"}, "met": {"type": "boolean"}}, "required": ["reason", "met"]}
VERDICT = {"type": "object", "properties": dict.fromkeys(NAMES, ONE), "required": NAMES}


class Asking:
    """Asks the model about a task, and writes what it says."""

    def __init__(self, url: str, out: TextIO):
        self.client, self.permits, self.out = AsyncOpenAI(base_url=f"{url}/v1", api_key="none"), asyncio.Semaphore(CONCURRENCY), out

    async def __call__(self, task: int, step: int, more: str = "", schema: dict[str, Any] | None = None) -> str:
        """The answer."""
        given: dict[str, Any] = {"response_format": {"type": "json_schema", "json_schema": {"name": "verdict", "schema": schema}}} if schema else {}
        async with self.permits:
            messages: Any = [{"role": "user", "content": f"task {task} step {step} {more}"}]
            answer = await self.client.chat.completions.create(model="x", messages=messages, temperature=0, max_tokens=64, **given)
        text = answer.choices[0].message.content or ""
        self.out.write(json.dumps({"task": task, "step": step, "text": text, "score": 100 if "ok" in text else 0}) + "\n")
        return text


async def branches(ask: Asking, task: int) -> None:
    """One of two branches, then a merge."""
    for step in (1, 2 + task % 2, 4):
        await ask(task, step)


async def parallel(ask: Asking, task: int) -> None:
    """Ten calls at once, then one."""
    await asyncio.gather(*(ask(task, step) for step in range(10)))
    await ask(task, 10)


async def judges(ask: Asking, task: int) -> None:
    """Four steps, each judged in one call."""
    for step in STEPS:
        output = await ask(task, step)
        json.loads(await ask(task, step, f"{output}\n" + "\n".join(CRITERIA), VERDICT))


async def reruns(ask: Asking, task: int) -> None:
    """Two steps, which are asked again when the answer is no."""
    for step in (1, 2):
        if "ok" not in await ask(task, step, "twice"):
            await ask(task, step, "twice")


async def chain(ask: Asking, task: int) -> None:
    """Four steps."""
    for step in STEPS:
        await ask(task, step)


async def long(ask: Asking, task: int) -> None:
    """Four steps with a long prompt."""
    for step in STEPS:
        await ask(task, step, LONG_TEXT)


LOOPS: dict[str, Callable[[Asking, int], Awaitable[None]]] = {
    "branches": branches,
    "parallel": parallel,
    "judges": judges,
    "reruns": reruns,
    "trials": chain,
    "long": long,
}
"""Those of the shapes that call models."""


async def main(url: str, name: str, path: str) -> float:
    """Seconds from the first call to the last line."""
    shape = SHAPES[name]
    with open(path, "w", encoding="utf-8") as out:
        ask, one = Asking(url, out), LOOPS[name]
        began = time.monotonic()
        await asyncio.gather(*(one(ask, task) for _ in range(shape.trials) for task in range(shape.tasks)))
        return time.monotonic() - began


if __name__ == "__main__":
    seconds = asyncio.run(main(*sys.argv[1:4]))
    sys.stdout.write(json.dumps({"seconds": seconds}) + "\n")
