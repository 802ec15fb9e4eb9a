"""What ``import beam_ray`` gives: every export exists, none is missing, and nothing heavy is loaded."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import beam_ray

OLD_STORE = Path(__file__).parents[1] / "stores" / "0.1"


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


@pytest.mark.parametrize(
    "command",
    [
        ["tasks"],
        ["show", "261123-921c01/n0"],
        ["history", "261123-921c01/n0"],
        ["check", "sums@1"],
        ["versions", "sums"],
        ["library", "list"],
        ["report", "sums-v2-fb1f2719"],
        ["repair", "261123-921c01", "--plan"],
        ["gc"],
    ],
    ids=lambda command: str(command[0]),
)
def test_reading_commands_are_light(command: list[str], tmp_path: Path) -> None:
    """
    A command that executes nothing and computes no statistics loads none of the packages for that.
    """
    shutil.copytree(OLD_STORE, tmp_path / "store")
    (tmp_path / "models.yaml").write_text("m: {base_url: 'http://127.0.0.1:9/v1', model: m}\n")
    heavy = ("ray", "mlflow", "openai", "scipy", "matplotlib", "gepa")
    code = f"""
import atexit, sys
from beam_ray.cli import main
atexit.register(lambda: print("loaded", [name for name in {heavy!r} if name in sys.modules]))
sys.argv[1:] = {command!r}
main()
"""
    environment = {**os.environ, "BEAM_RAY_STORE": str(tmp_path / "store"), "BEAM_RAY_MODELS": str(tmp_path / "models.yaml")}

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)

    assert done.stdout.splitlines()[-1] == "loaded []"
