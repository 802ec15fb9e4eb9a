"""
Where MLflow's data is: on a server, or in a database in the store's folder.
"""

import contextlib
import os
import sqlite3
from pathlib import Path
from urllib.parse import urlsplit

from beam_ray.errors import Unusable

HOST, PORT = "127.0.0.1", 5000
_SQLITE = "sqlite:///"


def default_uri(store_uri: str) -> str:
    """
    MLflow's URI for the store at *store_uri*: ``MLFLOW_TRACKING_URI`` if set, otherwise a database in the store's folder.

    Empty for a store on S3 without that variable.
    """
    named = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    if named:
        return named
    if "://" in store_uri:
        return ""
    return f"{_SQLITE}{Path(store_uri).absolute() / 'mlflow.db'}"


def is_server(uri: str) -> bool:
    """Whether *uri* is the address of a server."""
    return urlsplit(uri).scheme in ("http", "https")


def database(uri: str) -> Path | None:
    """The file of an SQLite *uri*; None for any other."""
    if not uri.startswith(_SQLITE):
        return None
    return Path(uri.removeprefix(_SQLITE).partition("?")[0]).absolute()


def exists(uri: str) -> bool:
    """Whether the database at *uri* exists; always true for a server, which is not asked."""
    file = database(uri)
    return file is None or file.exists()


def artifacts(uri: str) -> str:
    """
    The artifacts folder of the database at *uri*: ``mlartifacts`` beside it.

    Raises:
        Unusable: *uri* is not a local SQLite database.
    """
    file = database(uri)
    if file is None:
        raise Unusable(
            f"{shown(uri)} is not a local SQLite database, so there is no folder for artifacts\n  start an MLflow server on it and set MLFLOW_TRACKING_URI to the server's address"
        )
    return str(file.parent / "mlartifacts")


def prepare(uri: str) -> None:
    """
    Create the folder of an SQLite *uri* and switch the database to WAL mode, so that it can be read while it is written.

    The mode is stored in the file. It cannot be changed while another process writes; that
    process has set it then.
    """
    file = database(uri)
    if file is None:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(file)) as connection, contextlib.suppress(sqlite3.OperationalError):
        connection.execute("pragma journal_mode=WAL")


def shown(uri: str) -> str:
    """*uri* without credentials."""
    parts = urlsplit(uri)
    if "@" not in parts.netloc:
        return uri
    return parts._replace(netloc="…@" + parts.netloc.rpartition("@")[2]).geturl()


def page(uri: str, experiment_id: str, tab: str = "evaluation-runs") -> str:
    """URL of a tab of an experiment's page; for a local database, the one that ``beam-ray ui`` serves."""
    base = shown(uri).rstrip("/") if is_server(uri) else f"http://{HOST}:{PORT}"
    return f"{base}/#/experiments/{experiment_id}/{tab}"
