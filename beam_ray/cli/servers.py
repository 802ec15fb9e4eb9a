"""ui and serve: the MLflow UI and the embedded model, on this machine."""

import click

from beam_ray.cli.screen import DEFAULT_STORE, say


@click.command()
@click.option("--store", envvar="BEAM_RAY_STORE", default=DEFAULT_STORE, show_default=True, metavar="URI", help="Whose MLflow database is shown.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=5000, show_default=True)
def ui(store: str, host: str, port: int) -> None:
    """Open the MLflow UI on this machine; Ctrl-C ends it."""
    from beam_ray.tracking import default_uri, serve

    say(f"MLflow:  http://{host}:{port}  (Ctrl-C ends it)")
    serve(default_uri(store), host=host, port=port)


@click.command()
@click.option("--port", default=8377, show_default=True)
def serve(port: int) -> None:
    """Serve the embedded model on loopback; Ctrl-C ends it."""
    from beam_ray.llm.local import serve as serve_model

    say(f"the embedded model:  http://127.0.0.1:{port}/v1  (Ctrl-C ends it)")
    serve_model(port)
