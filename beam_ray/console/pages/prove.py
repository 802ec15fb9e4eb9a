"""Proving which node made tasks flip: what it costs, the start, how far it is, and what it has shown."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

import shlex
from typing import Any

import beam_ray
from beam_ray.console.commands import Started, new_key
from beam_ray.console.forms import Fields, one
from beam_ray.console.links import backtest_path, prove_path
from beam_ray.console.rendering import Page
from beam_ray.console.site import Site
from beam_ray.errors import BeamRayError, Unusable

FIELDS = ("candidate", "group", "node", "task", "control")
SHOWN = 200


def _wanted(fields: Fields) -> beam_ray.FlippedTasks:
    """Which tasks the fields name."""
    tasks = tuple(dict.fromkeys(fields.get("task", ())))
    group = one(fields, "group", "newly-failing").replace(" ", "-")
    if group.startswith("-") or any(task.startswith("-") for task in tasks):
        raise Unusable("a group or a task does not begin with a dash")
    return beam_ray.FlippedTasks(one(fields, "candidate") or None, group, one(fields, "node") or None, tasks)


def _words(verdict: beam_ray.Verdict, of: beam_ray.FlippedTasks, control: bool) -> list[str]:
    words = ["prove", verdict.id]
    words += ["--candidate", of.candidate] if of.candidate and len(verdict.candidates) > 1 else []
    words += ["--group", of.group] if of.group != "newly-failing" else []
    words += ["--node", of.node] if of.node else []
    words += [word for task in of.tasks for word in ("--task", task)]
    return [*words, "--control"] if control else words


def prove(site: Site, path: str, fields: Fields) -> Page:
    """The page."""
    verdict, of, control = site.reader.backtest(path.split("/")[2]), _wanted(fields), one(fields, "control") == "yes"
    commands = [each for each in site.commands.all() if each.words[:2] == ("prove", verdict.id)]
    running = [each for each in commands if each.code is None]  # before the store is read: what one leaves as it ends is then either read or waited for
    pairs = site.reader.pairs(verdict, of.candidate or "")
    proof = pairs.proof(of)
    plan, fault = None, ""
    try:
        plan = pairs.plan_prove(of, control=control)
        site.commands.require_within([each.plan for each in plan.experiments])
    except BeamRayError as error:
        fault = str(error)
    words = _words(verdict, of, control)
    command = f"beam-ray {shlex.join(words)}{site.option}"
    fields_of = {"candidate": of.candidate, "group": of.group, "node": of.node, "task": list(of.tasks)}
    values: dict[str, Any] = {
        "verdict": verdict,
        "of": of,
        "control": control,
        "proof": proof,
        "shown": proof.tasks[:SHOWN],
        "more": max(0, len(proof.tasks) - SHOWN),
        "plan": plan,
        "fault": fault,
        "progress": [site.store.progress(run_id) for run_id in site.store.proof_runs(verdict.id)],
        "running": running,
        "failed": _failed(commands),
        "key": new_key(),
        "form": [(name, value) for name, value in [*((k, v) for k, v in fields_of.items() if k != "task"), *(("task", task) for task in of.tasks)] if value],
        "with_control": prove_path(verdict.id, **fields_of, control="" if control else "yes"),
        "up": backtest_path(verdict.id, candidate=of.candidate if len(verdict.candidates) > 1 else ""),
        "command": command,
    }
    document = {**proof.document(), "plan": plan.document() if plan else None, "refused": fault or None, "running": bool(running)}
    live = bool(running or any(each.state == "running" for each in values["progress"]))
    return Page("prove", f"Prove it: {verdict.document()['name']}", values, document, section="backtests", command=command, live=live)


def _failed(commands: list[Started]) -> str:
    """What the last command said, where it did not end well."""
    last = commands[0] if commands else None
    return last.messages if last is not None and last.code not in (None, 0) else ""


def start(site: Site, path: str, fields: Fields) -> str:
    """Start the command; the page, which follows it."""
    wanted = {name: values for name, values in fields.items() if name in FIELDS}
    verdict, of, control = site.reader.backtest(path.split("/")[2]), _wanted(wanted), one(wanted, "control") == "yes"
    plan = site.store.plan_prove(verdict.id, of, control=control)
    about = f"Prove which node made {plan.tasks:,} task{'s' if plan.tasks != 1 else ''} of {verdict.document()['name']} flip"
    site.commands.start(one(fields, "key"), _words(verdict, of, control), about, plans=[each.plan for each in plan.experiments])
    return prove_path(verdict.id, candidate=of.candidate, group=of.group, node=of.node, task=list(of.tasks), control="yes" if control else "")
