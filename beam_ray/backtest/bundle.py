"""
A finished backtest in one file: a zip of the store's own files, under their keys.

    bundle.json                 which backtest it is, and each file's size and sha256; sealed
    backtests/<backtest>/…      verdict, manifest, reports and sides
    runs/<run>/…                the runs that the manifest names, with tasks and definition
    attachments/<sha256>        what their tasks bring, and large requests and replies of their calls

A bundle comes from anywhere. It is read to its end and checked before anything is written:
only keys of these forms, sizes as stated and bounded, sha256 of each file, and nothing that is
in the store already with other content. It is not signed: that a verdict follows from its rows
does not show that the rows are true.
"""

import hashlib
import os
import re
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TypedDict, cast

from beam_ray.backtest.manifest import BacktestManifest, read_file, read_manifest
from beam_ray.backtest.results import read_verdict
from beam_ray.define.fingerprint import JsonObject
from beam_ray.errors import Damaged, Unusable
from beam_ray.store.checksummed_json import seal, unseal
from beam_ray.store.objects import NotThere, Objects
from beam_ray.store.runs import Run

MAX_FILE = 1_000_000_000
"""Bytes of one file."""
MAX_TOTAL = 8_000_000_000
"""Bytes of all files together."""
MAX_FILES = 50_000
MAX_INDEX = 20_000_000
"""Bytes of bundle.json."""

INDEX = "bundle.json"
_ID = r"[a-z0-9][a-z0-9_-]{0,99}"
_RUN_FILE = r"run\.json|tasks\.parquet|cut\.json|manifest\.json|outcome(?:-\d{3,6})?\.parquet|(?:steps|calls)/[a-z][a-z0-9_]{0,63}-\d{3,6}\.parquet"
_BACKTEST_FILE = rf"report\.html|report\.md|report\.txt|junit\.xml|comparison\.parquet|manifest\.json|verdict\.json|sides/{_ID}\.json"
_KEY = re.compile(rf"backtests/(?P<backtest>{_ID})/(?:{_BACKTEST_FILE})|runs/(?P<run>{_ID})/(?:{_RUN_FILE})|attachments/(?P<attachment>[0-9a-f]{{64}})")
_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError, struct.error, KeyError)
"""What Python's zip reader raises for a file that is damaged, encrypted or compressed in a way it does not know."""


class BundledFile(TypedDict):
    """What bundle.json says of a file."""

    bytes: int
    sha256: str


class BundleIndex(TypedDict):
    """The content of bundle.json."""

    format: int
    backtest_id: str
    files: dict[str, BundledFile]
    """By key, in the order in which they are written to a store."""


def pack(objects: Objects, backtest_id: str, file: Path) -> BundleIndex:
    """
    Write the finished backtest as the bundle *file*, which appears at once and whole.

    Raises:
        Unusable: there is no such backtest, it is too large for a bundle, or the file cannot be written.
        Damaged: a file of it is missing or is not what was written.
    """
    verdict = read_verdict(objects, backtest_id)
    manifest = read_manifest(objects, verdict)
    index: BundleIndex = {"format": 1, "backtest_id": verdict["backtest_id"], "files": {}}
    keys = list(_keys(objects, manifest))
    total = 0
    for key in keys:
        body = read_file(objects, key)
        index["files"][key] = {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
        total += len(body)
        if len(body) > MAX_FILE or total > MAX_TOTAL or len(keys) > MAX_FILES:
            limits = f"at most {MAX_FILES:,} files, {MAX_FILE:,} bytes each and {MAX_TOTAL:,} in all"
            raise Unusable(f"the backtest {verdict['backtest_id']} is too large for a bundle ({limits})\n  copy the store instead")
    part = file.with_name(f"{file.name}.part")
    try:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as bundle:
            bundle.writestr(_entry(INDEX), seal(index))
            for key, about in index["files"].items():
                body = read_file(objects, key)
                if hashlib.sha256(body).hexdigest() != about["sha256"]:
                    raise Damaged(f"{key} was changed while it was read")
                bundle.writestr(_entry(key), body)
        os.replace(part, file)
    except OSError as error:
        raise Unusable(f"{file}: cannot be written ({error.strerror or error})") from None
    finally:
        part.unlink(missing_ok=True)
    return index


def unpack(objects: Objects, file: Path) -> BundleIndex:
    """
    Put the backtest in the bundle *file* into the store; what is there already and equal stays.

    Raises:
        Unusable: it is no bundle, has something else in it, or differs from what is in the store; nothing was written.
        Damaged: a file in it is not what was packed; nothing was written.
    """
    try:
        bundle = zipfile.ZipFile(file)
    except FileNotFoundError:
        raise Unusable(f"{file}: there is no such file") from None
    except _UNREADABLE as error:
        raise Unusable(f"{file}: not a bundle of a backtest ({error})\n  beam-ray reproduce BACKTEST --bundle FILE  makes one") from None
    with bundle:
        index = _index(bundle, file)
        _check(bundle, file, index, objects)
        for key, about in index["files"].items():
            try:
                body = objects.read(key)
            except NotThere:
                body = _read(bundle, file, key, about["bytes"])
                _require_same(body, about, f"{file}: {key} is damaged: its sha256 is not the one in {INDEX}")
                if objects.create(key, body):
                    continue
                body = objects.read(key)
            _require_same(body, about, f"{key} was written with other content in the meantime")
    return index


def _entry(key: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(key)  # dated 1980, so that equal backtests make equal bundles
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry


def _keys(objects: Objects, manifest: BacktestManifest) -> Iterator[str]:
    """The keys of the backtest's files, each file after what it stands on: a run is finished, and a backtest has its verdict, when all else is there."""
    attachments = set[str]()
    for run_id in manifest["runs"]:
        for row in Run(objects, run_id).tasks()["attachments"].to_pylist():
            attachments |= {entry["sha256"] for entry in row or ()}
        attachments |= Run(objects, run_id).attachments_of_calls()
    yield from (f"attachments/{sha256}" for sha256 in sorted(attachments))
    for run_id in manifest["runs"]:
        run = Run(objects, run_id)
        if run.manifest is None:
            raise Damaged(f"{run.prefix}/manifest.json is missing")
        yield f"{run.prefix}/run.json"
        if run.record.cut_from:
            yield f"{run.prefix}/cut.json"
        yield from (f"{run.prefix}/{entry['name']}" for entry in run.manifest["files"])
        yield f"{run.prefix}/manifest.json"
    prefix = f"backtests/{manifest['backtest_id']}"
    keys = [key for key, _ in objects.keys(f"{prefix}/") if _KEY.fullmatch(key)]
    yield from sorted(keys, key=lambda key: key.endswith("/verdict.json"))


def _index(bundle: zipfile.ZipFile, file: Path) -> BundleIndex:
    names = [entry.filename for entry in bundle.infolist()]
    if len(names) > MAX_FILES + 1:
        raise Unusable(f"{file}: it has {len(names):,} files; a bundle has at most {MAX_FILES:,}")
    if INDEX not in names:
        raise Unusable(f"{file}: not a bundle of a backtest: it has no {INDEX}")
    document = unseal(_read(bundle, file, INDEX, MAX_INDEX), f"{file}: {INDEX}")
    if document.get("format") != 1:
        raise Unusable(f"{file}: the bundle has format {document.get('format')!r}; this version of beam_ray reads 1")
    if not _is_index(document):
        raise Unusable(f"{file}: {INDEX} is not what beam_ray writes")
    index = cast(BundleIndex, document)
    strange = sorted({name for name in names if name != INDEX} ^ set(index["files"])) + sorted(name for name, count in Counter(names).items() if count > 1)
    if strange:
        raise Unusable(f"{file}: {strange[0]!r} is in the bundle or in its {INDEX}, and not once in both")
    return index


def _is_index(document: JsonObject) -> bool:
    files = document.get("files")
    return (
        isinstance(document.get("backtest_id"), str)
        and isinstance(files, dict)
        and all(isinstance(about, dict) and type(about.get("bytes")) is int and isinstance(about.get("sha256"), str) for about in files.values())
    )


def _check(bundle: zipfile.ZipFile, file: Path, index: BundleIndex, objects: Objects) -> None:
    """Read the whole bundle and hold it against its index, its manifest and the store."""
    sizes = {entry.filename: entry.file_size for entry in bundle.infolist()}
    for key, about in index["files"].items():
        match = _KEY.fullmatch(key)
        if not match or match["backtest"] not in (None, index["backtest_id"]) or match["attachment"] not in (None, about["sha256"]):
            raise Unusable(f"{file}: {key!r} is no file of the backtest {index['backtest_id']!r}")
        if not 0 <= about["bytes"] <= MAX_FILE or sizes[key] != about["bytes"]:
            raise Unusable(f"{file}: {key} has {sizes[key]:,} bytes; {INDEX} says {about['bytes']:,}, and at most {MAX_FILE:,} are allowed")
    if sum(about["bytes"] for about in index["files"].values()) > MAX_TOTAL:
        raise Unusable(f"{file}: it has more than {MAX_TOTAL:,} bytes")
    damaged = [key for key, about in index["files"].items() if _sha256(bundle, key, about["bytes"]) != about["sha256"]]
    if damaged:
        raise Damaged("\n  ".join([f"{file}: {len(damaged)} of {len(index['files'])} files are damaged; nothing was imported", *damaged[:20]]))
    _require_runs(bundle, file, index)
    differing = [key for key, about in index["files"].items() if _differs(objects, key, about)]
    if differing:
        raise Unusable("\n  ".join([f"{file}: the store has other content under {len(differing)} keys; nothing was imported", *differing[:20]]))


def _require_runs(bundle: zipfile.ZipFile, file: Path, index: BundleIndex) -> None:
    """Require that the runs in the bundle are those of the backtest's manifest, no more and no less."""
    key = f"backtests/{index['backtest_id']}/manifest.json"
    for needed in (key, f"backtests/{index['backtest_id']}/verdict.json"):
        if needed not in index["files"]:
            raise Unusable(f"{file}: it has no {needed}")
    manifest = cast(BacktestManifest, unseal(_read(bundle, file, key, MAX_INDEX), f"{file}: {key}"))
    runs = {match["run"] for name in index["files"] if (match := _KEY.fullmatch(name)) and match["run"]}
    named = manifest.get("runs")
    if not isinstance(named, dict) or set(named) != runs:
        raise Unusable(f"{file}: its runs are not those that {key} names")


def _differs(objects: Objects, key: str, about: BundledFile) -> bool:
    try:
        return hashlib.sha256(objects.read(key)).hexdigest() != about["sha256"]
    except NotThere:
        return False


def _require_same(body: bytes, about: BundledFile, complaint: str) -> None:
    if hashlib.sha256(body).hexdigest() != about["sha256"]:
        raise Damaged(complaint)


def _sha256(bundle: zipfile.ZipFile, key: str, size: int) -> str:
    """The sha256 of a file in the bundle; empty where it cannot be read or is longer than *size*."""
    found, left = hashlib.sha256(), size
    try:
        with bundle.open(key) as stream:
            while chunk := stream.read(1_000_000):
                left -= len(chunk)
                if left < 0:
                    return ""
                found.update(chunk)
    except _UNREADABLE:
        return ""
    return found.hexdigest()


def _read(bundle: zipfile.ZipFile, file: Path, key: str, most: int) -> bytes:
    try:
        stream: IO[bytes]
        with bundle.open(key) as stream:
            body = stream.read(most + 1)
    except _UNREADABLE as error:
        raise Damaged(f"{file}: {key} cannot be read ({error})") from None
    if len(body) > most:
        raise Unusable(f"{file}: {key} is longer than {most:,} bytes")
    return body
