"""The workflow that tests of the API and of the commands share: its tasks, and what its model answers."""

from typing import Any

WORKFLOW = """
workflow: sums
model: m
nodes:
  read:
    llm: {prompt: "read {{ task_query }}", returns: {n: int}}
    evaluate: {criteria: [{equals: {n: expected.n}}]}
  say:
    after: read
    llm: {prompt: "say {{ read.n }}"}
"""


def numbers(count: int) -> list[dict[str, Any]]:
    """Tasks whose query is a number; every second one has a label."""
    return [
        {"id": f"n{number}", "task_query": str(number), "expected": {"n": number}, "labels": ["even"] if number % 2 == 0 else []} for number in range(count)
    ]


def reply(prompt: str) -> Any:
    """Reads every third number correctly, and all of them with a better prompt."""
    word, number = prompt.split()[:2]
    if word == "say":
        return f"it is {number}"
    return {"n": int(number) if word == "better" or int(number) % 3 == 0 else -1}
