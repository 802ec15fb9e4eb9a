"""Comparing two runs of a store, as the command does."""

import subprocess
import sys

SLOW = ("ray.", "mlflow.", "openai.", "scipy.stats.", "matplotlib.", "boto3.")


def test_the_command_imports_nothing_that_is_slow_to_import(tmp_path):
    """
    ``beam-ray compare`` needs neither Ray nor MLflow, nor the parts of scipy that take longer than the comparison.
    """
    words = [sys.executable, "-X", "importtime", "-m", "beam_ray", "compare", "a", "b", "--store", str(tmp_path)]

    imported = {line.rpartition("|")[2].strip() for line in subprocess.run(words, capture_output=True, text=True).stderr.splitlines()}

    assert "beam_ray.compare.comparison" in imported
    assert not [name for name in imported if name.startswith(SLOW)]
