"""
A library as an MLflow evaluation dataset.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import DatasetRecord, EvaluationDataset
from mlflow.exceptions import MlflowException
from mlflow.genai.datasets import get_dataset

from beam_ray.tracking.experiments import experiment_of
from beam_ray.tracking.location import page
from beam_ray.tracking.watchdog import Heartbeat
from beam_ray.tracking.worker_calls import DatasetChanges, DatasetRequest, DatasetResult, Refused, TaskRecord

EXPERIMENT = "beam_ray/libraries"
_LIBRARY, _VERSION, _TASK = "beam_ray.library", "beam_ray.version", "beam_ray.task"
_BATCH = 100
"""Records per request."""


def export_dataset(uri: str, request: DatasetRequest, beat: Heartbeat) -> DatasetResult | Refused:
    """
    Bring the dataset to the state of the library: records are added, changed and removed as needed, so repeating it changes nothing.

    Records that people added to the dataset stay.
    """
    client = MlflowClient(tracking_uri=uri)
    experiment_id = experiment_of(client, uri, EXPERIMENT)
    beat("experiment")
    tags = {_LIBRARY: request["library"], _VERSION: str(request["version"])}
    dataset = _dataset(client, request["dataset"]) or client.create_dataset(request["dataset"], [experiment_id], tags)
    other = (dataset.tags or {}).get(_LIBRARY)
    if other not in (None, request["library"]):
        return {"refused": f"the MLflow dataset {request['dataset']!r} holds the library {other!r}; choose another name"}
    beat("dataset")
    counts = _bring(dataset, list(_lines(Path(request["file"]))), beat)
    client.set_dataset_tags(dataset.dataset_id, tags)
    beat("tags")
    return {"dataset_id": dataset.dataset_id, "url": page(uri, experiment_id, "datasets"), **counts}


def _dataset(client: MlflowClient, name: str) -> EvaluationDataset | None:
    try:
        return client.get_dataset(get_dataset(name=name).dataset_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST" and "not found" not in str(error):
            raise
        return None


def _bring(dataset: EvaluationDataset, wanted: list[TaskRecord], beat: Heartbeat) -> DatasetChanges:
    known = {_key(record.inputs): record for record in dataset.records}
    beat("records")
    keys = {_key(record["inputs"]) for record in wanted}
    changed = {key for record in wanted if (key := _key(record["inputs"])) in known and not _is_same(known[key], record)}
    gone = {key for key, record in known.items() if key not in keys and _TASK in (record.tags or {})}
    # merging only adds fields to a record, so one that changed is written anew
    ids = [known[key].dataset_record_id for key in (*changed, *gone)]
    for start in range(0, len(ids), _BATCH):
        dataset.delete_records(ids[start : start + _BATCH])
        beat("delete")
    new = [record for record in wanted if _key(record["inputs"]) not in known or _key(record["inputs"]) in changed]
    for start in range(0, len(new), _BATCH):
        dataset.merge_records(new[start : start + _BATCH])
        beat("merge")
    return {"added": len(new) - len(changed), "changed": len(changed), "removed": len(gone), "unchanged": len(wanted) - len(new)}


def _is_same(record: DatasetRecord, wanted: TaskRecord) -> bool:
    ours = {name: value for name, value in (record.tags or {}).items() if not name.startswith("mlflow.")}
    return bool((record.expectations or {}) == wanted["expectations"] and ours == wanted["tags"])


def _key(inputs: Mapping[str, object]) -> str:
    return json.dumps(inputs, sort_keys=True)


def _lines(file: Path) -> Iterator[TaskRecord]:
    with file.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)
