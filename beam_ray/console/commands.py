"""
Commands that the console starts: each an ordinary ``beam-ray`` command in a process of its own.

The process has a session of its own, so that neither Ctrl-C nor the end of the console reaches it: what
it does is in the store, where another console or the command line sees it and resumes it.
"""

from __future__ import annotations  # a type of the API is not loaded for its name alone

import json
import math
import os
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import beam_ray
from beam_ray.errors import BeamRayError, Unusable

MAX_STARTED = 200
"""Commands that are remembered."""
TAIL = 20_000
"""Characters of a command's messages that are shown."""


def budget_words(budget: Mapping[str, float]) -> list[str]:
    """The options of a command that set these limits, as a person gave them."""
    return [word for name, value in budget.items() for word in ("--budget", f"{name}={value:.12g}")]


@dataclass
class Started:
    """A command that was started here."""

    id: str
    words: tuple[str, ...]
    """The command line without ``beam-ray`` and without what only this console needs."""
    about: str
    """What it does, in words."""
    folder: Path
    process: subprocess.Popen[bytes]
    plans: tuple[beam_ray.Plan, ...] = ()
    """What it was said to do."""
    subject: str = ""
    """Address of the task that it was started from."""
    runs: dict[str, None] = field(default_factory=dict)
    """Ids of its runs, as far as they are known."""
    text: str = ""
    """What it reads on standard input."""
    backtest: str = ""
    """Id of the backtest that it is."""

    @property
    def line(self) -> str:
        """The command line as it is typed."""
        return f"beam-ray {shlex.join(self.words)}" + (here_document(self.text) if self.text else "")

    @property
    def command(self) -> str:
        """The command's name, also where it is submitted as a Ray job."""
        return self.words[3] if self.words[0] == "submit" else self.words[0]

    @property
    def code(self) -> int | None:
        """Its exit code; None while it goes on."""
        return self.process.poll()

    @property
    def messages(self) -> str:
        """What it said for people."""
        return (self.folder / "messages").read_text(encoding="utf-8", errors="replace")[-TAIL:]

    @property
    def result(self) -> Any:
        """The JSON document that it printed; None without one."""
        try:
            return json.loads((self.folder / "result").read_text(encoding="utf-8", errors="replace"))
        except ValueError:
            return None

    @property
    def documents(self) -> list[dict[str, Any]]:
        """The objects that it printed."""
        result = self.result
        return [each for each in (result if isinstance(result, list) else [result]) if isinstance(each, dict)]

    def find_runs(self, store: beam_ray.Store) -> list[str]:
        """The ids of the runs that it has begun so far."""
        if self.backtest:
            return list(dict.fromkeys(store.backtest_runs(self.backtest).values()))
        for document in self.documents:
            # a Ray job says which runs it drove
            for run_id in (document.get("run_id"), *document.get("runs", ())):
                if isinstance(run_id, str):
                    self.runs[run_id] = None
        if self.code is None and len(self.runs) < len(self.plans):
            for plan in self.plans:
                run = store.begun(plan)
                if run is not None:
                    self.runs[run.id] = None
        return list(self.runs)


class Commands:
    """What was started here. A form's key starts one command, however often the form is sent."""

    def __init__(self, store: beam_ray.Store, max_usd: float | None = None):
        """
        Raises:
            Unusable: commands are to be Ray jobs, and these cannot use the store or the models file.
        """
        self.store, self.max_usd = store, max_usd
        self.dashboard = store.address if store.address and store.address.startswith(("http://", "https://")) else ""
        """Address of the dashboard to which commands that ask models are submitted as Ray jobs; empty where they run here."""
        self._models = store.models_for_jobs() if self.dashboard else str(store.models)
        self._started: dict[str, Started] = {}
        self._folder = Path(tempfile.mkdtemp(prefix="beam-ray-console-"))
        self._lock = threading.Lock()

    def start(
        self, key: str, words: Sequence[str], about: str, *, plans: Sequence[beam_ray.Plan] = (), subject: str = "", text: str = "", backtest: str = ""
    ) -> Started:
        """
        Start ``beam-ray WORDS``; where the form with this key has started it already, that command.

        Args:
            key: The form's.
            words: The command line.
            about: What it does, in words.
            plans: What it was said to do.
            subject: Address of the task that it was started from.
            text: What it reads on standard input.
            backtest: Id of the backtest that it is.

        Raises:
            Unusable: it may cost more than this console may spend.
        """
        self.started_by(key)
        with self._lock:
            if key in self._started:
                return self._started[key]
            self.require_within(plans)
            folder = self._folder / key
            folder.mkdir(mode=0o700)
            limit = ["--budget", f"max_usd={self.max_usd:g}"] if self.max_usd is not None and plans else []
            (folder / "input").write_text(text, encoding="utf-8")
            words = [*self._submitting(words[0]), *words, *limit]
            command = [sys.executable, "-m", "beam_ray", *self._with_place(words)]
            with (folder / "input").open("rb") as given, (folder / "result").open("wb") as out, (folder / "messages").open("wb") as err:
                where = self._place_of(words, folder)
                process = subprocess.Popen(command, stdin=given, stdout=out, stderr=err, cwd=where, start_new_session=True, env=self._environment())
            started = Started(key, tuple(words), about, folder, process, tuple(plans), subject, text=text, backtest=backtest)
            self._started[key] = started
            while len(self._started) > MAX_STARTED:
                self._started.pop(next(iter(self._started)))
            return started

    def _place_of(self, words: Sequence[str], folder: Path) -> Path | None:
        """The folder in which a command works; None for that of the console."""
        if words[0] != "library":
            return None
        # tasks that a visitor pastes name no file of this machine
        empty = folder / "empty"
        empty.mkdir()
        return empty

    def require_within(self, plans: Sequence[beam_ray.Plan], further: float | None = 0.0) -> None:
        """
        Check that what is planned, with what may come on top of it, costs no more than this console may spend.

        Raises:
            Unusable: it may cost more, or nobody knows what it costs.
        """
        if self.max_usd is None:
            return
        costs = [further, *(plan.max_usd for plan in plans)]
        self.require_usd(None if None in costs else sum(cost or 0.0 for cost in costs))

    def require_usd(self, usd: float | None) -> None:
        """
        Check that so many US dollars are no more than this console may spend per start; None is a model without a price.

        Raises:
            Unusable: they are more.
        """
        if self.max_usd is None:
            return
        if usd is None:
            raise Unusable(f"a model has no price, and this console may spend ${self.max_usd:g} per start")
        if usd > self.max_usd:
            raise Unusable(f"this may cost ${usd:,.4f}, and this console may spend ${self.max_usd:g} per start")

    def within(self, budget: Mapping[str, float], spent: float | None) -> list[str]:
        """
        The options with which a run goes on and spends no more than this console may.

        Args:
            budget: The run's own.
            spent: US dollars that it has spent of it already; None where a model has no price.

        Raises:
            Unusable: nobody knows what it costs.
        """
        if self.max_usd is None:
            return []
        if spent is None:
            self.require_usd(None)
        most = min((spent or 0.0) + self.max_usd, budget.get("max_usd", math.inf))
        return [word for name, value in {**budget, "max_usd": round(most, 6)}.items() for word in ("--budget", f"{name}={value}")]

    def of(self, *words: str) -> list[Started]:
        """The commands whose line begins with these words, the newest first."""
        return [each for each in self.all() if each.words[: len(words)] == words]

    def started_by(self, key: str) -> Started | None:
        """
        The command that the form with this key has started already; a form that also saves something asks first.

        Raises:
            Unusable: it is no key.
        """
        if not key.isalnum() or len(key) > 64:
            raise Unusable("the form has no key; reload the page and send it again")
        return self._started.get(key)

    def get(self, key: str) -> Started:
        """
        The command that the form with this key has started.

        Raises:
            Unusable: this console has started none.
        """
        try:
            return self._started[key]
        except KeyError:
            raise Unusable(f"this console has started no command {key[:64]!r}; its runs are listed under Runs") from None

    def all(self) -> list[Started]:
        """All of them, the newest first."""
        return list(reversed(self._started.values()))

    @property
    def place_in_words(self) -> str:
        """Where commands run."""
        if self.dashboard:
            return f"as Ray jobs on {self.dashboard}"
        return f"here, on the Ray cluster {self.store.address}" if self.store.address else "here, on a local Ray"

    def close(self) -> None:
        """Forget what has ended; what goes on keeps its files."""
        for started in self._started.values():
            if started.code is not None:
                shutil.rmtree(started.folder, ignore_errors=True)
        if not any(self._folder.iterdir()):
            self._folder.rmdir()

    def _submitting(self, command: str) -> list[str]:
        """The words in front of a command that becomes a Ray job."""
        return ["submit", "--address", self.dashboard] if self.dashboard and command in beam_ray.JOB_KINDS else []

    def _with_place(self, words: Sequence[str]) -> list[str]:
        """The command with the options by which it finds the store, the models and the cluster of this console."""
        job = words[0] == "submit"
        command = words[3] if job else words[0]
        uri = self.store.uri
        # commands of libraries work in another folder
        place = ["--store", os.path.abspath(uri) if command == "library" and "://" not in uri else uri]
        if command not in ("library", "stop"):
            place += ["--models", self._models]
            if self.store.address and not self.dashboard:
                place += ["--address", self.store.address]
        return [*words[:1], "--json", *words[1:], *place] if job else [*words, *place, "--json"]

    def _environment(self) -> dict[str, str]:
        return {name: value for name, value in os.environ.items() if name not in ("BEAM_RAY_STORE", "BEAM_RAY_MODELS", "RAY_ADDRESS")}


def here_document(text: str) -> str:
    """What gives *text* to a command that is typed, ended by a word that is no line of it."""
    lines = text.splitlines()
    word = next(word for word in ("SPEC" + "_" * count for count in range(len(lines) + 1)) if word not in lines)
    return f" <<'{word}'\n{text}{'' if text.endswith(chr(10)) else chr(10)}{word}"


def new_key() -> str:
    """A key for a form."""
    return secrets.token_hex(16)


def words_of(error: BeamRayError) -> str:
    """An error as the command line says it."""
    return "\n".join([str(error), *(f"  {note}" for note in getattr(error, "__notes__", ()))])
