"""Inspect AI: a sample per task, four solvers that each generate, one scorer with a value per step, an .eval log."""

import json
import sys
import time

from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.model import ChatMessageUser, GenerateConfig, get_model
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer
from inspect_ai.solver import Generate, Solver, TaskState, solver


@solver
def ask(step: int) -> Solver:
    """One step."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        before = state.store.get(f"s{step - 1}", "")[:60]
        state.messages = [ChatMessageUser(content=f"task {state.sample_id} step {step} {before}")]
        state = await generate(state)
        state.store.set(f"s{step}", state.output.completion)
        return state

    return solve


@scorer(metrics={"*": [mean()]})
def ok(steps: int) -> Scorer:
    """100 for each step that says ok."""

    async def score(state: TaskState, target: Target) -> Score:
        return Score(value={f"s{step}": 100 if "ok" in state.store.get(f"s{step}", "") else 0 for step in range(1, steps + 1)})

    return score


if __name__ == "__main__":
    url, (tasks, steps, concurrency), out = sys.argv[1], map(int, sys.argv[2:5]), sys.argv[5]
    # its default for this provider asks another API than chat completions
    model = get_model("openai/x", base_url=f"{url}/v1", api_key="none", responses_api=False, config=GenerateConfig(temperature=0, max_tokens=64))
    work = Task(
        dataset=[Sample(id=task, input=str(task), target="ok") for task in range(tasks)],
        solver=[ask(step) for step in range(1, steps + 1)],
        scorer=ok(steps),
    )
    began = time.monotonic()
    logs = eval(work, model=model, max_connections=concurrency, max_samples=tasks, log_dir=out, display="none", score_display=False)
    seconds = time.monotonic() - began
    assert logs[0].status == "success", logs[0].error
    sys.stdout.write(json.dumps({"seconds": seconds}) + "\n")
