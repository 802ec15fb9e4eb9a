"""
manifest.json of a finished backtest: everything that its verdict follows from.

With the runs that it names, comparison and verdict can be computed again anywhere, without
a model: see ``reproduce``. It has no time in it, so that drivers that conclude the same
backtest write the same bytes.
"""

import hashlib
import platform
from collections.abc import Sequence
from importlib.metadata import version
from typing import NotRequired, TypedDict

from beam_ray.compare.gate import Gate
from beam_ray.compare.grouping import NOTHING, By
from beam_ray.compare.multiplicity import HOLM
from beam_ray.compare.verdict_json import BacktestDocument
from beam_ray.define.fingerprint import JsonObject, digest
from beam_ray.define.workflow import Workflow
from beam_ray.errors import Damaged, Unusable
from beam_ray.store.checksummed_json import unseal
from beam_ray.store.objects import NotThere, Objects
from beam_ray.store.runs import Run

PACKAGES = ("beam-ray", "numpy", "scipy", "pyarrow")
"""What computes a verdict."""


class ComparedRuns(TypedDict):
    """Which runs one candidate's comparison was made of."""

    candidate: str
    baseline_name: str
    """The baseline's name in reports."""
    baseline_run: str
    candidate_run: str
    repeats: list[str]
    """Runs that repeat newly failing tasks, the baseline's first, then those that repeat suspected ones again; empty where none was repeated."""
    own_tasks: NotRequired[bool]
    """Whether only the candidate's tasks are compared, where the baseline is a run over more."""
    planned: int
    """Tasks that were planned, in a backtest that may stop early; otherwise 0."""


class RunEvidence(TypedDict):
    """A run that the verdict follows from."""

    manifest_sha256: str
    """Of the run's manifest.json, which has the sha256 of each of its files."""
    definition_digest: str
    criteria_digest: str
    """Of the criteria, with the models that judge."""
    sample: int
    """Enters the seed of every model call: runs of one definition with other numbers are independent samples."""


class BacktestManifest(TypedDict):
    """The content of backtests/<backtest>/manifest.json."""

    format: int
    backtest_id: str
    aa: bool
    gate: JsonObject
    """The limits in force, whatever the gate's file says today."""
    correction: NotRequired[str]
    """How PASS was corrected for the number of candidates; not in manifests of before it was."""
    comparisons: list[ComparedRuns]
    cluster: NotRequired[str]
    """The field whose values are clusters of tasks, where there is one."""
    slices: NotRequired[list[str]]
    """The fields that tasks are sliced by, where there are any."""
    rerun: NotRequired[ComparedRuns]
    """The best candidate, run again on fresh tasks."""
    runs: dict[str, RunEvidence]
    versions: dict[str, str]
    """Of Python and of the packages that computed the verdict."""


def make_manifest(
    objects: Objects,
    backtest_id: str,
    gate: Gate,
    compared: Sequence[ComparedRuns],
    baselines: Sequence[str],
    *,
    rerun: ComparedRuns | None = None,
    aa: bool,
    by: By = NOTHING,
) -> BacktestManifest:
    """The manifest of a backtest whose runs are all finished; *baselines* are the ids of its baseline's runs."""
    every = [*compared, *([rerun] if rerun else [])]
    ids = dict.fromkeys([*baselines, *(run for each in every for run in (each["baseline_run"], each["candidate_run"], *each["repeats"]))])
    made: BacktestManifest = {
        "format": 1,
        "backtest_id": backtest_id,
        "aa": aa,
        "gate": gate.document(),
        "correction": HOLM,
        "comparisons": list(compared),
        "runs": {run_id: _evidence(Run(objects, run_id)) for run_id in ids},
        "versions": versions(),
    }
    if rerun:
        made["rerun"] = rerun
    if by.cluster is not None:
        made["cluster"] = by.cluster
    if by.slices:
        made["slices"] = list(by.slices)
    return made


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that compute a verdict, as installed here."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def read_manifest(objects: Objects, verdict: BacktestDocument) -> BacktestManifest:
    """
    The manifest of a finished backtest.

    Raises:
        Unusable: the backtest was made before manifests were kept.
        Damaged: the manifest is missing or is not the one that the verdict names.
    """
    where = f"backtests/{verdict['backtest_id']}/manifest.json"
    sha256 = verdict["files"].get("manifest.json")
    if sha256 is None:
        raise Unusable(
            f"the backtest {verdict['backtest_id']} has no manifest: it was finished by a version of beam_ray that kept none\n"
            "  run it with --again to have one; unchanged steps are borrowed"
        )
    body = read_file(objects, where)
    if hashlib.sha256(body).hexdigest() != sha256:
        raise Damaged(f"{where} is damaged: its sha256 is not the one in the verdict")
    found: BacktestManifest = unseal(body, where)  # type: ignore[assignment]  # the seal and the verdict vouch for its shape
    return found


def read_file(objects: Objects, key: str) -> bytes:
    """The bytes of a file that must be in the store; raises Damaged where it is missing."""
    try:
        return objects.read(key)
    except NotThere:
        raise Damaged(f"{key} is missing") from None


def _evidence(run: Run) -> RunEvidence:
    record = run.record
    return {
        "manifest_sha256": hashlib.sha256(run.objects.read(f"{run.prefix}/manifest.json")).hexdigest(),
        "definition_digest": record.definition_digest,
        "criteria_digest": _criteria(record.plan),
        "sample": record.sample,
    }


def _criteria(workflow: Workflow) -> str:
    judged = {name: (node.evaluate.identity(), workflow.judge_of(name)) for name, node in workflow.nodes.items() if node.evaluate}
    return digest("criteria/1", judged)
