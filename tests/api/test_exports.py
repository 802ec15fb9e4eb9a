"""What ``import beam_ray`` gives: every export exists, none is missing, and nothing heavy is loaded."""

import subprocess
import sys
from pathlib import Path

import beam_ray


def test_every_export_exists() -> None:
    """
    Each name in ``__all__`` can be imported.
    """
    assert [name for name in beam_ray.__all__ if not hasattr(beam_ray, name)] == []


def test_exports_are_listed_once() -> None:
    """
    ``__all__`` names exactly what can be loaded, each once.
    """
    assert sorted(beam_ray.__all__) == sorted(beam_ray._MODULE_OF)


def test_exports_are_grouped_by_module() -> None:
    """
    Names stand under a comment with the module that they come from.
    """
    lines = Path(str(beam_ray.__file__)).read_text(encoding="utf-8").partition("__all__ = [")[2].partition("]\n")[0].splitlines()
    group, found = "", {}
    for line in (line.strip() for line in lines[1:]):
        if line.startswith("#"):
            group = line.removeprefix("# ")
        else:
            found[line.strip('",')] = group

    assert {name: module for name, module in beam_ray._MODULE_OF.items() if not module.removeprefix("beam_ray.").startswith(found[name])} == {}


def test_importing_is_light() -> None:
    """
    ``import beam_ray`` loads none of the packages that take long to import.
    """
    heavy = ("ray", "mlflow", "openai", "pyarrow", "numpy", "scipy", "pandas", "boto3", "pydantic", "click", "rich")
    code = f"import sys, beam_ray; print([name for name in {heavy!r} if name in sys.modules])"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
