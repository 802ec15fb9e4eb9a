"""Run commands of the command line in this process, and keep what they print."""

import json
from dataclasses import dataclass
from typing import Any

import pytest

from beam_ray.cli import main


@dataclass
class CommandResult:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as the one JSON document that it must be."""
        assert self.out, self.err
        return json.loads(self.out)


def run_command(capsys: pytest.CaptureFixture[str], *words: object) -> CommandResult:
    """Run ``beam-ray`` with these words."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    out, err = capsys.readouterr()
    return CommandResult(int(left.value.code or 0), out, err)
