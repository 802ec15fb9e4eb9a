"""Prefect: four tasks mapped one after the other, results kept by their inputs, 64 threads, an ephemeral server."""

import json
import os
import sys
import time

url, (tasks, steps, concurrency), out = sys.argv[1], map(int, sys.argv[2:5]), sys.argv[5]
# read when it is imported
os.environ |= {
    "PREFECT_HOME": out,
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "ERROR",
    "DO_NOT_TRACK": "1",
}

from openai import OpenAI  # noqa: E402
from prefect import flow, task, unmapped  # noqa: E402
from prefect.cache_policies import INPUTS  # noqa: E402
from prefect.task_runners import ThreadPoolTaskRunner  # noqa: E402

client = OpenAI(base_url=f"{url}/v1", api_key="none")


@task(cache_policy=INPUTS, persist_result=True)
def ask(number: int, step: int, before: tuple[str, int]) -> tuple[str, int]:
    """One step of one task."""
    messages = [{"role": "user", "content": f"task {number} step {step} {before[0][:60]}"}]
    answer = client.chat.completions.create(model="x", messages=messages, temperature=0, max_tokens=64)
    text = answer.choices[0].message.content or ""
    return text, 100 if "ok" in text else 0


@flow(task_runner=ThreadPoolTaskRunner(max_workers=concurrency))
def main() -> float:
    """Seconds from the first task to the last result."""
    began = time.monotonic()
    before: object = unmapped(("", 0))
    for step in range(1, steps + 1):
        before = ask.map(range(tasks), unmapped(step), before)
    scores = [future.result()[1] for future in before]
    assert scores == [100] * tasks
    return time.monotonic() - began


if __name__ == "__main__":
    sys.stdout.write(json.dumps({"seconds": main()}) + "\n")
