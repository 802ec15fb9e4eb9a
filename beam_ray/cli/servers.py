"""ui and serve: the MLflow UI and the embedded model, on this machine."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

import click

import beam_ray
from beam_ray.cli.screen import say


@click.command()
@click.option(
    "--store", envvar="BEAM_RAY_STORE", default=beam_ray.DEFAULT_STORE, show_default=True, metavar="URI", help="Store whose MLflow database is shown."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=5000, show_default=True, help="Port to listen on.")
def ui(store: str, host: str, port: int) -> None:
    """Open the MLflow UI on this machine; Ctrl-C ends it."""
    say(f"MLflow:  http://{host}:{port}  (Ctrl-C ends it)")
    beam_ray.serve_mlflow(beam_ray.open(store), host, port)


@click.command()
@click.option("--port", default=8377, show_default=True, help="Port to listen on.")
def serve(port: int) -> None:
    """Serve the embedded model on loopback; Ctrl-C ends it."""
    say(f"embedded model:  http://127.0.0.1:{port}/v1  (Ctrl-C ends it)")
    beam_ray.serve_model(port)
