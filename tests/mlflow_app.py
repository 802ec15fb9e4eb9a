"""
An application in production, as far as MLflow sees it: it sorts messages, and sometimes fails.

Run in a process of its own, because mlflow's tracing changes the environment of the process that uses it:
``python -m tests.mlflow_app FOLDER COUNT WRONG_EVERY ASSESSED``.
"""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

EXPERIMENT = "support"
FEEDBACK = 3
TEAMS = ("billing", "delivery", "technical")
WORDS = ("charged twice", "arrived broken", "cannot log in")


def message(number: int) -> str:
    """The *number*th message; each is about another order, and no two are near duplicates."""
    return f"Order {number * 7919 % 100_003}: {WORDS[number % 3]}, since day {number * 31 % 365} of case {number * 104_729 % 99_991}"


def produce(folder: Path, count: int, *, wrong_every: int, assessed: int = 0) -> str:
    """
    URI of an MLflow database in *folder* with *count* traces.

    Every *wrong_every*th message is sorted wrongly. The first *assessed* traces have an expectation,
    and the first few of them a person's feedback and a judge's.
    """
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    words = [sys.executable, "-m", "tests.mlflow_app", str(folder), str(count), str(wrong_every), str(assessed)]
    subprocess.run(words, check=True, env=environment, cwd=Path(__file__).parent.parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return _uri(folder)


def _uri(folder: Path) -> str:
    return f"sqlite:///{folder / 'production.db'}"


def _main(folder: Path, count: int, wrong_every: int, assessed: int) -> None:
    import mlflow
    from mlflow.entities import AssessmentSource

    def application(number: int) -> None:
        @mlflow.trace(name="sort")
        def sort(question: str) -> str:
            mlflow.update_current_trace(tags={"customer": "acme" if number % 4 else "zenith"}, metadata={"mlflow.trace.session": f"s{number}"})
            if number % 50 == 7:
                raise RuntimeError("no answer")
            if number % 40 == 3:
                with mlflow.start_span("find_order", span_type="TOOL") as span:
                    span.set_outputs({"found": True})
            return TEAMS[(number + (number % wrong_every == 0)) % 3]

        with suppress(RuntimeError):
            sort(message(number))

    mlflow.set_tracking_uri(_uri(folder))
    # without a place of its own an experiment's artifacts go to the working folder
    mlflow.set_experiment(experiment_id=mlflow.create_experiment(EXPERIMENT, artifact_location=(folder / "artifacts").as_uri()))
    ids = []
    for number in range(count):
        application(number)
        ids.append(str(mlflow.get_last_active_trace_id()))
        if number % 100 == 99:
            mlflow.flush_trace_async_logging()  # a full queue drops traces
    mlflow.flush_trace_async_logging()
    person, judge = AssessmentSource("HUMAN", "eva"), AssessmentSource("LLM_JUDGE", "judge")
    for number, trace_id in enumerate(ids[:assessed]):
        mlflow.log_expectation(trace_id=trace_id, name="text", value=TEAMS[number % 3], source=person)
        if number < FEEDBACK:
            mlflow.log_feedback(trace_id=trace_id, name="correct", value=number % wrong_every > 0, rationale="seen", source=person)
            mlflow.log_feedback(trace_id=trace_id, name="safe", value="yes", source=judge)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
