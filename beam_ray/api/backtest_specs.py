"""Where the spec of a backtest comes from: a file, standard input, a mapping, or a backtest that was begun; and what was begun."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from beam_ray.api.location import Location
from beam_ray.backtest.kept_spec import read_spec
from beam_ray.define.fingerprint import Json, JsonObject
from beam_ray.define.yaml_file import NoFile, Source, read_yaml
from beam_ray.errors import Unusable
from beam_ray.store.checksummed_json import RunMark, read_document

STANDARD_INPUT = "-"
SpecOption = str | Path | Mapping[str, Json]
"""The path of a spec file, ``-`` for standard input, the id of a backtest that was begun in this store, or a file's content as a mapping."""


class WrittenSpec(NamedTuple):
    """A spec as written."""

    source: Source
    folder: Path
    """What its files are relative to."""
    labels: tuple[str, ...] = ()
    """The labels that its tasks must have, of one that was begun with such."""


def written_spec(store: Location, spec: SpecOption) -> WrittenSpec:
    """
    The spec as written.

    Raises:
        BadDefinition: it is not YAML.
        Unusable: there is none.
    """
    if isinstance(spec, Mapping):
        source: Source = NoFile("spec")
        source.data = dict(spec)
        return WrittenSpec(source, Path())
    if str(spec) == STANDARD_INPUT:
        return WrittenSpec(read_yaml(Path("standard input"), sys.stdin.read()), Path())
    path = Path(spec)
    if path.suffix in (".yaml", ".yml") or path.is_file() or not store.exists:
        return WrittenSpec(read_yaml(path), path.parent)
    kept = read_spec(store.objects, str(spec))
    if kept is None:
        raise Unusable(f"{spec}: there is no such file, and no backtest with this id whose spec is kept")
    source = NoFile(f"backtest {spec}")
    source.data = kept["spec"]
    return WrittenSpec(source, Path(), tuple(kept["labels"]))


def resume_command(store: Location, spec: SpecOption, backtest: str) -> str:
    """The command that resumes a backtest."""
    named = spec if isinstance(spec, str | Path) and str(spec) != STANDARD_INPUT else backtest
    return f"beam-ray backtest {named}{f' --lane {store.lane}' if store.lane else ''}{store.option}"


def backtest_spec(store: Location, backtest: str) -> JsonObject | None:
    """See ``Store.backtest_spec``."""
    kept = read_spec(store.existing(), backtest)
    return kept["spec"] if kept else None


def backtest_runs(store: Location, backtest: str) -> dict[str, str]:
    """See ``Store.backtest_runs``."""
    objects = store.existing()
    prefix = f"backtests/{backtest}/sides/"
    marks = {key.removeprefix(prefix).removesuffix(".json"): key for key, _ in objects.keys(prefix)}
    order = sorted(marks, key=lambda name: (name != "baseline", name))
    return {name: read_document(objects, marks[name], RunMark)["run_id"] for name in order}
