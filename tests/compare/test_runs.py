"""Comparing two runs of a store, as the command does."""

import subprocess
import sys

from beam_ray.compare.compare_runs import compare_runs
from beam_ray.llm.request import Answer
from tests.conftest import Lab

SLOW = ("ray.", "mlflow.", "openai.", "scipy.stats.", "matplotlib.", "boto3.")


def test_the_command_imports_nothing_that_is_slow_to_import(tmp_path):
    """
    ``beam-ray compare`` needs neither Ray nor MLflow, nor the parts of scipy that take longer than the comparison.
    """
    words = [sys.executable, "-X", "importtime", "-m", "beam_ray", "compare", "a", "b", "--store", str(tmp_path)]

    imported = {line.rpartition("|")[2].strip() for line in subprocess.run(words, capture_output=True, text=True).stderr.splitlines()}

    assert "beam_ray.compare.comparison" in imported
    assert not [name for name in imported if name.startswith(SLOW)]


def test_reports_say_what_was_cached_and_what_is_an_estimate(lab: Lab):
    """The share of input tokens from the cache on both sides, and the calls whose tokens were not reported."""
    text = "workflow: w\nmodel: m\nnodes: {a: {llm: {prompt: '{{ task_query }}'}}}"
    before = lab.run(text, ["x", "y"], lambda request: Answer("a", input_tokens=100, cached_tokens=10, output_tokens=1))
    after = lab.run(text, ["x", "y"], lambda request: Answer("b", input_tokens=100, cached_tokens=80, output_tokens=1, reported=request.task_id == "t0"))

    notes = compare_runs(before, after, names=("v1", "v2")).cost_notes

    assert notes[0] == "Input tokens that the runs read from the provider's cache: v1 10%, v2 80%."
    assert notes[1] == "v2: 1 of 2 calls reported no usage, so their tokens and cost are estimates."
