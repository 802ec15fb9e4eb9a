"""What the console works with: the store, the models and what is known of them, versions, and what it may do."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from beam_ray.console.forms import Fields
from beam_ray.console.rendering import Page
from beam_ray.console.site import Site
from beam_ray.errors import BeamRayError

if TYPE_CHECKING:
    from beam_ray import ModelInfo

PACKAGES = ("beam-ray", "ray", "mlflow", "pyarrow", "openai", "starlette", "uvicorn")


def settings(site: Site, path: str, fields: Fields) -> Page:
    """The page."""
    fault = ""
    models: list[ModelInfo] = []
    try:
        models = site.store.list_models()
    except BeamRayError as error:
        fault = str(error)
    versions = {"Python": platform.python_version()} | {name: _version(name) for name in PACKAGES}
    options = site.options
    may = [
        ("Start, stop and change", "no: --read-only" if options.read_only else "yes"),
        ("Publish versions", "no: --read-only" if options.read_only else "no: --no-publish" if options.no_publish else "yes"),
        ("Spend per start", "no limit but the budget of a run" if options.max_usd is None else f"${options.max_usd:g} at most: --max-usd"),
        ("Reached as", ", ".join([f"{options.host}:{options.port}", *options.allow_hosts])),
        ("Commands run", site.commands.place_in_words),
    ]
    values: dict[str, Any] = {
        "models": [_model(each) for each in models],
        "models_file": str(site.store.models),
        "fault": fault,
        "versions": versions,
        "may": may,
        "counts": [
            ("Runs", len(site.store.run_ids())),
            ("Workflows", len(site.store.flows())),
            ("Libraries", len(site.store.libraries())),
            ("Backtests", len(site.reader.backtests())),
        ],
    }
    document = {
        "store": site.store.uri,
        "models_file": values["models_file"],
        "models": [{**each.document(), "base_url": _without_login(each.base_url), "keys": list(each.key_variables)} for each in models],
        "versions": versions,
        "may": dict(may),
        "problem": fault or None,
    }
    return Page("settings", "Settings", values, document, section="settings", command=f"beam-ray models{site.option}")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _model(found: ModelInfo) -> dict[str, Any]:
    return {
        "model": found,
        "address": _without_login(found.base_url),
        "variables": [(name, name in os.environ) for name in found.key_variables],
        "settings": [(name.replace("_", " "), value, found.sources.get(name, "")) for name, value in found.settings.items()],
    }


def _without_login(address: str) -> str:
    """An address without the user and password that it may have."""
    if address.startswith("${"):
        return address
    return re.sub(r"//[^/@]*@", "//", address) if "@" in urlsplit(address).netloc else address


LLMS = """# beam_ray console

> Runs, tasks and backtests of LLM workflows in the store {store}. Every page is also JSON (path + `.json`, the document
> that the command line prints with `--json`) and Markdown (path + `.md`). Changes are made by forms, or better by the
> command line: each page names its command.

Log in once with the address that `beam-ray console` printed: `curl -c jar 'http://HOST:PORT/?token=TOKEN'`, then `curl -b jar URL`.
{limits}
## Pages

- [Home](/home.md): what needs somebody, what runs, workflows, newest backtests and runs
- [Tasks](/tasks.md): the tasks of all runs. Query: status (failing, below, failed, review, running, passed), workflow, version, run, route, label, q, where, since, until, min_score, max_score, sort, after, limit
- Task: /tasks/RUN/TASK.md?step=NODE&tab=prompt (output, prompt, input, criteria, attempts, calls, record); trial=N for repeated runs
- [Runs](/runs.md), /runs/RUN.md: progress, nodes, failures, cost
- [Backtests](/backtests.md), /backtests/ID.md: the verdict with its gate, /backtests/ID/flips.md?group=…&at=N: pair after pair
- Compare two records: /compare.md?a=RUN/TASK&b=RUN/TASK
- [Flows](/flows.md), /flows/NAME.md: nodes with accuracy, branches, criteria; /health/NAME.md: warnings and what to do; /history/NAME.md: trend and ledger of reruns
- [Libraries](/libraries.md), /libraries/NAME.md: saved tasks; /libraries/NAME/coverage.md: coverage and gaps with the commands that fill them
- [Review](/review.md): outputs that wait for a person
- Plan of a rerun, with its cost, before anything starts: /rerun.md?task=RUN/TASK&from=NODE
- [Settings](/settings.md): store, models, limits
- /t/ANYTHING opens an address, a task id, a run, a backtest, or the beginning of one

## Notes

- An address is RUN/TASK, RUN/TASK#TRIAL or RUN/TASK/NODE, the same in the command line, in files and here.
- Lists are pages of 50; `next` in the JSON is the address of the next page.
- A query field that a page does not know is refused with those that it knows.
"""


def llms(site: Site) -> str:
    """The pages in short, for programs that read text."""
    options = site.options
    limits = ["This console is read-only."] if options.read_only else []
    limits += [f"A start may cost ${options.max_usd:g} at most."] if options.max_usd is not None and not options.read_only else []
    return LLMS.format(store=site.store.uri, limits="".join(f"\n{line}\n" for line in limits))
