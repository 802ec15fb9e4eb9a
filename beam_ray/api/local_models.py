"""The embedded model: a small language model served on this machine."""

import atexit
import contextlib
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

from beam_ray.api.location import Location
from beam_ray.errors import Unusable
from beam_ray.llm.settings import ModelSettings


@contextlib.contextmanager
def embedded_model(store: Location, name: str = "local/small") -> Iterator[bool]:
    """
    Serve the embedded model while the block runs, at the address that the store's models file has for *name*.

    Yields whether it was started; a server that answers there already is used and left running.

    Raises:
        Unusable: the models file has no such model, or the extra ``local`` is not installed.
    """
    from beam_ray.llm.local import running

    written = store.known_models.get(name)
    if not isinstance(written, ModelSettings):
        raise Unusable(f"the models file has no {name!r}\n  it has: {', '.join(store.known_models)}")
    if _answers(written):
        yield False
        return
    with running(_address(written)[1]):
        yield True


_kept = contextlib.ExitStack()
"""The embedded model that this process started for its runs."""


def start_if_embedded(store: Location, settings: ModelSettings) -> None:
    """Start the embedded model where *settings* name it and nothing answers there; it ends with this process."""
    from beam_ray.llm.local import MODEL, installed, running

    host, port = _address(settings)
    # workers of a cluster would look for it on their own machines
    if settings.model != MODEL or host not in ("127.0.0.1", "localhost") or store.address or not installed() or _answers(settings):
        return
    atexit.register(_kept.close)
    _kept.enter_context(running(port))


def _address(settings: ModelSettings) -> tuple[str, int]:
    address = urlsplit(settings.url)
    return str(address.hostname), int(address.port or 80)


def _answers(settings: ModelSettings) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(_address(settings)) == 0


def serve_model(port: int = 8377) -> None:
    """Serve the embedded model on loopback until interrupted."""
    from beam_ray.llm.local import serve

    serve(port)


def serve_mlflow(store: Location, host: str = "127.0.0.1", port: int = 5000) -> None:
    """Serve MLflow's pages over the store's MLflow database until interrupted."""
    from beam_ray.tracking import default_uri, serve

    serve(default_uri(store.uri), host=host, port=port)
