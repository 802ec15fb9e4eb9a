"""
Whether the modules of a workflow's tools can be imported, and the programs of its commands are there, tried before any row is given out.

A module is imported in a child process with the environment that tools see, so that nothing of it
stays behind. Only a missing module is a fault: whatever else happens at an import may depend on
the process, and is the error of the rows that need it.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from beam_ray.define.fingerprint import JsonObject
from beam_ray.define.workflow import Workflow
from beam_ray.run.tools import command_environment, tool_environment

PATIENCE_S = 60.0
"""Seconds for all imports of a workflow; what takes longer is left to its rows."""

DISTRIBUTIONS = {
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python-headless",
    "dateutil": "python-dateutil",
    "docx": "python-docx",
    "dotenv": "python-dotenv",
    "fitz": "PyMuPDF",
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "yaml": "PyYAML",
}
"""Modules whose packages have other names."""


@dataclass(frozen=True)
class MissingModule:
    """A module that a node's function needs and that is not installed."""

    node: str
    function: str
    """``module:function``, as the workflow names it."""
    name: str

    @property
    def package(self) -> str:
        """The name of the package that has the module, as far as is known."""
        top = self.name.partition(".")[0]
        return DISTRIBUTIONS.get(top, top)


@dataclass(frozen=True)
class MissingCommand:
    """A program that a node's command starts, and that is not there."""

    node: str
    program: str


def functions(workflow: Workflow, nodes: Iterable[str]) -> dict[str, str]:
    """``module:function`` of every tool and every ``python`` criterion of the nodes, each with the first node that has it."""
    found: dict[str, str] = {}
    for name in nodes:
        node = workflow.nodes[name]
        criteria = node.evaluate.criteria if node.evaluate else ()
        of_agent = [reference for entry in (node.agent.functions if node.agent else ()) for reference in (entry.tool, entry.key) if reference]
        for reference in [*([node.tool] if node.tool else []), *of_agent, *(item.want for item in criteria if item.kind == "python")]:
            found.setdefault(reference, name)
    return found


def missing_commands(workflow: Workflow, nodes: Iterable[str], project: Path) -> list[MissingCommand]:
    """The commands of the *nodes* whose program this machine does not have; *project* is the folder that they start in."""
    path = command_environment()["PATH"]
    found = []
    for name in nodes:
        command = workflow.nodes[name].command
        if command and shutil.which(command[0] if os.sep not in command[0] else str(project / command[0]), path=path) is None:
            found.append(MissingCommand(name, command[0]))
    return found


def missing_modules(wanted: dict[str, str], folders: Iterable[Path]) -> list[MissingModule]:
    """What the functions *wanted*, each with its node, need and do not find; *folders* are those of the tools."""
    questions: list[JsonObject] = [{"module": reference.partition(":")[0], "function": None, "arguments": {}, "memory": None} for reference in wanted]
    replies = ask_worker("tool_worker.py", questions, folders)
    return [MissingModule(node, reference, reply["missing"]) for (reference, node), reply in zip(wanted.items(), replies, strict=False) if reply.get("missing")]


def ask_worker(script: str, questions: Sequence[JsonObject], folders: Iterable[Path]) -> list[JsonObject]:
    """The replies of a child process to *questions*; fewer where it took too long or an import ended it."""
    if not questions:
        return []
    worker = str(Path(__file__).with_name(script))
    command = [sys.executable, "-P", worker, *(str(folder) for folder in folders)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=tool_environment(), text=True, start_new_session=True
    )
    with process, _killed_after(PATIENCE_S, process):
        assert process.stdin and process.stdout
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write("".join(f"{json.dumps(question)}\n" for question in questions))
            process.stdin.flush()
        # a module that ends its process takes the replies for those after it along
        return [json.loads(reply) for _ in questions if (reply := process.stdout.readline()).endswith("\n")]


@contextlib.contextmanager
def _killed_after(seconds: float, process: "subprocess.Popen[str]") -> Iterator[None]:
    """Kill the process, and everything that it started, at the end of the block or when the time is up."""

    def kill() -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)

    timer = threading.Timer(seconds, kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        kill()


def remedy(workflow: Workflow, missing: MissingModule | MissingCommand, *, local: bool) -> str:
    """What is missing and what to do, in one line; *local* where the packages are those of this Python."""
    if isinstance(missing, MissingCommand):
        where = "here" if local else "on a machine of the cluster"
        return f"workflow {workflow.name}, node {missing.node}: the program {missing.program!r} is not installed {where} (PATH has no such program)"
    package = missing.package
    named = any(re.match(rf"{re.escape(package)}(?![\w.-])", line, re.IGNORECASE) for line in workflow.requirements)
    where = "here" if local else "on the cluster"
    what = f"workflow {workflow.name}, node {missing.node}: {missing.function} needs the module {missing.name!r}, which is not installed {where}"
    if named:
        return f"{what}; its requirements name {package}, so  pip install {package}" if local else f"{what}, although its requirements name {package}"
    add = (
        f"the line  {package}  to its requirements" if workflow.requirements else f"requirements: requirements.txt to it, and the line  {package}  to that file"
    )
    return f"{what}; add {add}{f', and  pip install {package}' if local else ''}"
