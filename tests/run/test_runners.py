"""Processes of runners on Ray, which serve one run after the other."""

import dataclasses

import beam_ray
from beam_ray.run.connection import Connection
from tests.conftest import Lab
from tests.endpoint import endpoint

WORKFLOW = "workflow: w\nmodel: m\nnodes: {a: {llm: {prompt: '{{ task_query }}'}}}"


def test_a_run_uses_the_connections_of_the_run_before(ray_lab: Lab) -> None:
    """An endpoint with TLS is greeted once, not once per side of a backtest."""
    ray_lab.write("w.yaml", WORKFLOW)
    with endpoint(lambda body: "ok", latency_s=0.1) as model:
        ray_lab.write("models.yaml", f"m: {{base_url: '{model.url}', model: x, concurrency: 8}}\n")
        opened = beam_ray.open(ray_lab.folder / "store", models=ray_lab.folder / "models.yaml")
        store = dataclasses.replace(opened, connection=Connection(cluster=ray_lab.cluster))
        ports = []
        for run in range(2):
            store.run(ray_lab.folder / "w.yaml", [{"id": f"{run}-{number}", "task_query": f"{run} {number}"} for number in range(16)])
            ports.append({call.port for call in model.journal if call.said.startswith(f"{run} ")})

    assert ports[0] & ports[1]
