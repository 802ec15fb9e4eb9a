"""LangGraph: a graph of four nodes, ChatOpenAI, every state kept in SQLite, all tasks in one abatch."""

import asyncio
import itertools
import json
import operator
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, TypedDict

from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph


class State(TypedDict):
    """A task on its way."""

    task: int
    texts: Annotated[list[str], operator.add]
    scores: Annotated[list[int], operator.add]


def ask(model: ChatOpenAI, step: int) -> Callable[[State], Awaitable[dict[str, list]]]:
    """One step."""

    async def node(state: State) -> dict[str, list]:
        before = state["texts"][-1][:60] if step > 1 else ""
        answer = await model.ainvoke([HumanMessage(f"task {state['task']} step {step} {before}")])
        text = str(answer.content)
        return {"texts": [text], "scores": [100 if "ok" in text else 0]}

    return node


async def main(url: str, tasks: int, steps: int, concurrency: int, out: str) -> float:
    """Seconds from the first task to the last state."""
    model = ChatOpenAI(base_url=f"{url}/v1", api_key="none", model="x", temperature=0, max_tokens=64)
    graph = StateGraph(State)
    names = [START, *(f"s{step}" for step in range(1, steps + 1)), END]
    for step, name in enumerate(names[1:-1], 1):
        graph.add_node(name, ask(model, step))
    for before, after in itertools.pairwise(names):
        graph.add_edge(before, after)
    async with AsyncSqliteSaver.from_conn_string(out) as saver:
        runnable = graph.compile(checkpointer=saver)
        inputs = [{"task": task, "texts": [], "scores": []} for task in range(tasks)]
        configs = [{"configurable": {"thread_id": str(task)}, "max_concurrency": concurrency} for task in range(tasks)]
        began = time.monotonic()
        states = await runnable.abatch(inputs, configs)
        seconds = time.monotonic() - began
    assert all(state["scores"] == [100] * steps for state in states)
    return seconds


if __name__ == "__main__":
    seconds = asyncio.run(main(sys.argv[1], *map(int, sys.argv[2:5]), sys.argv[5]))
    sys.stdout.write(json.dumps({"seconds": seconds}) + "\n")
