"""The Python packages that a workflow's tools need, as the lines of a file that pip reads."""

import re
from pathlib import Path

from beam_ray.define.yaml_file import display_path
from beam_ray.errors import Unusable

_ELSEWHERE = ("-r", "--requirement", "-c", "--constraint", "-e", "--editable")
_PASSWORD = re.compile(r"://[^/@\s]*@")


def read_requirements(written: str, folder: Path) -> list[str]:
    """
    The requirements in the file *written*, which is relative to *folder*; without comments and empty lines.

    Raises:
        Unusable: it cannot be read.
    """
    path = folder / written
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise Unusable(f"the requirements file {written!r} cannot be read in {display_path(folder)} ({error.strerror})") from None
    except UnicodeDecodeError:
        raise Unusable(f"the requirements file {written!r} is not UTF-8") from None
    lines = re.sub(r"\\\n", " ", text).splitlines()
    return [line for line in (re.sub(r"(^|\s)#.*", "", line).strip() for line in lines) if line]


def requirement_fault(line: str) -> str:
    """Why *line* cannot be a requirement of a workflow, or an empty string."""
    words = line.split()
    if not words or "\n" in line:
        return "a requirement must be one line, such as 'rapidfuzz==3.9'"
    if words[0].startswith(_ELSEWHERE) and not words[0].startswith("--extra-"):
        return f"the requirement {line!r} names another file, which a cluster does not have; write its lines here"
    if (found := _PASSWORD.search(line)) and "${" not in found[0]:
        return "a requirement must not contain a password; write ${NAME}, a variable in the environment of the cluster's nodes"
    return ""
