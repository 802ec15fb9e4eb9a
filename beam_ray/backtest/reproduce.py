"""
Computing a verdict again from stored rows, without a model.

First the runs must be those of the manifest, by sha256. Then comparison, verdict and the table
of pairs are computed as they were, and held against what is stored. Numbers are equal when
they agree to eight digits: sums on another processor may differ in the last ones. A key that
only a newer version writes is no difference.
"""

import functools
import hashlib
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from beam_ray.backtest.manifest import BacktestManifest, ComparedRuns, read_file, read_manifest, versions
from beam_ray.backtest.results import judged_candidates, read_verdict
from beam_ray.compare.candidates import overview
from beam_ray.compare.compare_runs import compare_done, with_repeats
from beam_ray.compare.comparison import Comparison
from beam_ray.compare.gate import Gate
from beam_ray.compare.grouping import By
from beam_ray.compare.multiplicity import correct
from beam_ray.compare.report import Result, document, table
from beam_ray.compare.verdict import judge
from beam_ray.compare.verdict_json import BacktestDocument
from beam_ray.define.fingerprint import Json
from beam_ray.errors import Damaged, Unusable
from beam_ray.store.objects import Objects
from beam_ray.store.runs import Run

PRECISION = 1e-8
"""Relative difference up to which two numbers are equal."""

ABSENT = "absent"


@dataclass(frozen=True)
class Difference:
    """The first thing that is not as recorded."""

    place: str
    """Such as ``candidates[v2].comparison.metrics[score].low``, or a file of the store."""
    recorded: Json
    here: Json


class DifferenceDocument(TypedDict):
    """A difference as JSON."""

    place: str
    recorded: Json
    here: Json


class ReproductionDocument(TypedDict):
    """The result of a reproduction as JSON."""

    backtest_id: str
    word: str
    reproduced: bool
    difference: DifferenceDocument | None
    gate: str
    runs: list[str]
    rows: int
    versions: dict[str, str]
    versions_here: dict[str, str]


@dataclass(frozen=True)
class Reproduction:
    """What came of computing a verdict again."""

    backtest_id: str
    word: str
    """The recorded verdict."""
    gate: str
    runs: tuple[str, ...]
    rows: int
    """Tasks and trials that were compared, over all candidates."""
    difference: Difference | None
    """None where everything is as recorded."""
    versions: Mapping[str, str]
    """With which the verdict was made."""
    versions_here: Mapping[str, str]

    def document(self) -> ReproductionDocument:
        """The result as a JSON document."""
        differs = self.difference
        return {
            "backtest_id": self.backtest_id,
            "word": self.word,
            "reproduced": differs is None,
            "difference": {"place": differs.place, "recorded": differs.recorded, "here": differs.here} if differs else None,
            "gate": self.gate,
            "runs": list(self.runs),
            "rows": self.rows,
            "versions": dict(self.versions),
            "versions_here": dict(self.versions_here),
        }


def reproduce(objects: Objects, backtest_id: str) -> Reproduction:
    """
    Compute comparison and verdict of a finished backtest again from the rows of its runs. No model is called and nothing is written.

    Raises:
        Unusable: there is no such backtest, it is unfinished, or it has no manifest.
        Damaged: a file is missing or is not what was written.
    """
    verdict = read_verdict(objects, backtest_id)
    manifest = read_manifest(objects, verdict)
    difference, rows = _runs(objects, manifest), sum(entry["comparison"]["pairs"] for entry in judged_candidates(verdict))
    if difference is None:
        difference = _computed(objects, manifest, verdict)
    return Reproduction(
        verdict["backtest_id"],
        verdict["word"],
        str(manifest["gate"]["name"]),
        tuple(manifest["runs"]),
        rows,
        difference,
        manifest["versions"],
        versions(),
    )


def _runs(objects: Objects, manifest: BacktestManifest) -> Difference | None:
    """The first run that is not the one that was judged."""
    for run_id, evidence in manifest["runs"].items():
        where = f"runs/{run_id}/manifest.json"
        here = hashlib.sha256(read_file(objects, where)).hexdigest()
        if here != evidence["manifest_sha256"]:
            return Difference(f"{where} (sha256)", evidence["manifest_sha256"], here)
    return None


def _computed(objects: Objects, manifest: BacktestManifest, verdict: BacktestDocument) -> Difference | None:
    gate = _gate(manifest)
    results = [_result(objects, manifest, compared, gate) for compared in manifest["comparisons"]]
    if manifest.get("correction") and not manifest["aa"]:
        results = correct(results, gate, functools.partial(_at_confidence, objects, manifest, gate))
    rerun = _result(objects, manifest, manifest["rerun"], gate, 1) if "rerun" in manifest else None
    here = document(results, rerun)
    # numbers first, and then what follows from them
    for recorded, computed in zip(verdict["candidates"], here["candidates"], strict=True):
        place = f"candidates[{recorded['name']}]"
        for found in (
            first_difference(recorded["comparison"], computed["comparison"], f"{place}.comparison"),
            first_difference(recorded["verdict"], computed["verdict"], f"{place}.verdict"),
        ):
            if found:
                return found
    if rerun and "rerun" in verdict:
        recorded = verdict["rerun"]["candidate"]
        found = first_difference(recorded["comparison"], rerun.comparison.document(), "rerun.comparison") or first_difference(
            recorded["verdict"], rerun.verdict.document(), "rerun.verdict"
        )
        if found:
            return found
    whole = {"best": (verdict["best"], here["best"]), "word": (verdict["word"], here["word"]), "exit_code": (verdict["exit_code"], here["exit_code"])}
    for name, (recorded_value, computed_value) in whole.items():
        if recorded_value != computed_value:
            return Difference(name, recorded_value, computed_value)
    several = overview(results)
    if "overview" in verdict and (found := first_difference(verdict["overview"], several.document() if several else None, "overview")):
        return found
    return _pairs(objects, verdict, table([*results, *([rerun] if rerun else [])]))


def _gate(manifest: BacktestManifest) -> Gate:
    try:
        return Gate.model_validate(manifest["gate"])
    except ValidationError:
        raise Unusable(
            f"the gate of backtest {manifest['backtest_id']} cannot be read by this version\n"
            f"  it was written by beam_ray {manifest['versions']['beam-ray']}: reproduce it with that version"
        ) from None


def _result(objects: Objects, manifest: BacktestManifest, compared: ComparedRuns, gate: Gate, family: int = 0) -> Result:
    before, after = Run(objects, compared["baseline_run"]), Run(objects, compared["candidate_run"])
    tasks = after.tasks()["task_id"].combine_chunks() if compared["planned"] or compared.get("own_tasks") else None
    by = By(manifest.get("cluster"), tuple(manifest.get("slices", ())))
    how: dict[str, Any] = {"family": family or len(manifest["comparisons"]), "planned": compared["planned"], "same": manifest["aa"]}
    found = compare_done(before, after, gate, (compared["baseline_name"], compared["candidate"]), tasks, by=by, **how)
    if compared["repeats"]:
        found = with_repeats(found, before.record.trials, [Run(objects, run_id) for run_id in compared["repeats"]])
    return Result(found, judge(found, gate))


def _at_confidence(objects: Objects, manifest: BacktestManifest, gate: Gate, index: int, confidence: float) -> Comparison:
    return _result(objects, manifest, manifest["comparisons"][index], gate.model_copy(update={"confidence": confidence})).comparison


def _pairs(objects: Objects, verdict: BacktestDocument, here: pa.Table) -> Difference | None:
    """The first cell of comparison.parquet that is not as computed."""
    where = f"backtests/{verdict['backtest_id']}/comparison.parquet"
    body = read_file(objects, where)
    if hashlib.sha256(body).hexdigest() != verdict["files"]["comparison.parquet"]:
        raise Damaged(f"{where} is damaged: its sha256 is not the one in the verdict")
    kept = pq.read_table(io.BytesIO(body), use_threads=False)
    if kept.num_rows != here.num_rows:
        return Difference(f"{where} (rows)", kept.num_rows, here.num_rows)
    for name in kept.column_names:
        recorded, computed = kept[name].to_pylist(), here[name].to_pylist() if name in here.column_names else []
        found = first_difference(recorded, computed, f"{where}: {name}")
        if found:
            return found
    return None


def first_difference(recorded: Any, here: Any, place: str) -> Difference | None:
    """The first thing in *recorded*, in its order, that is not so in *here*; keys that only *here* has do not count."""
    if isinstance(recorded, dict) and isinstance(here, dict):
        for key, value in recorded.items():
            found = first_difference(value, here[key], f"{place}.{key}") if key in here else Difference(f"{place}.{key}", value, ABSENT)
            if found:
                return found
        return None
    if isinstance(recorded, list) and isinstance(here, list):
        if place.endswith(".metrics"):
            # a newer version has more metrics
            names = {entry["name"] for entry in recorded}
            here = [entry for entry in here if entry["name"] in names]
        for index, (one, other) in enumerate(zip(recorded, here, strict=False)):
            name = next((one[key] for key in ("name", "rule", "task_id") if key in one), index) if isinstance(one, dict) else index
            found = first_difference(one, other, f"{place}[{name}]")
            if found:
                return found
        return None if len(recorded) == len(here) else Difference(f"{place} (entries)", len(recorded), len(here))
    if isinstance(recorded, float | int) and isinstance(here, float | int) and not isinstance(recorded, bool) and not isinstance(here, bool):
        return None if math.isclose(recorded, here, rel_tol=PRECISION, abs_tol=PRECISION) else Difference(place, recorded, here)
    return None if recorded == here else Difference(place, recorded, here)
