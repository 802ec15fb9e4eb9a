"""MLflow: genai.evaluate over a traced function with four calls, four scorers, traces in SQLite."""

import json
import os
import sys
import time
from pathlib import Path

url, (tasks, steps, concurrency), out = sys.argv[1], map(int, sys.argv[2:5]), sys.argv[5]
# read when it is imported; its own default begins with ten tasks a second
os.environ |= {
    "MLFLOW_GENAI_EVAL_MAX_WORKERS": str(concurrency),
    "MLFLOW_GENAI_EVAL_PREDICT_RATE_LIMIT": "0",
    # else the first task is asked twice, to see whether it is traced
    "MLFLOW_GENAI_EVAL_SKIP_TRACE_VALIDATION": "true",
    "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "128",
    "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW": "64",
    "MLFLOW_TRACKING_URI": f"sqlite:///{out}.db",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
}

import mlflow  # noqa: E402
from mlflow.genai.scorers import scorer  # noqa: E402
from openai import OpenAI  # noqa: E402

client = OpenAI(base_url=f"{url}/v1", api_key="none")


@mlflow.trace
def predict(number: int) -> dict[str, str]:
    """The four steps of one task."""
    texts = {"s0": ""}
    for step in range(1, steps + 1):
        messages = [{"role": "user", "content": f"task {number} step {step} {texts[f's{step - 1}'][:60]}"}]
        answer = client.chat.completions.create(model="x", messages=messages, temperature=0, max_tokens=64)
        texts[f"s{step}"] = answer.choices[0].message.content or ""
    return texts


def says_ok(step: int) -> object:
    """100 where the step says ok."""

    @scorer(name=f"s{step}")
    def score(outputs: dict[str, str]) -> int:
        return 100 if "ok" in outputs[f"s{step}"] else 0

    return score


if __name__ == "__main__":
    mlflow.openai.autolog()
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    mlflow.set_experiment("speed")
    data = [{"inputs": {"number": number}} for number in range(tasks)]
    began = time.monotonic()
    found = mlflow.genai.evaluate(data=data, predict_fn=predict, scorers=[says_ok(step) for step in range(1, steps + 1)])
    seconds = time.monotonic() - began
    sys.stdout.write("\n" + json.dumps({"seconds": seconds, "rows": len(found.result_df)}) + "\n")
