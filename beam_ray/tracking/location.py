"""
Where MLflow's data lies: a server, or a database beside the store.
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
    The MLflow of the store at *store_uri*: ``MLFLOW_TRACKING_URI`` if that is set, else a database in the store's folder.

    Empty for a store on S3 without that variable: there is no disk for a database to lie on.
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
    """The file of an SQLite *uri*; none for any other."""
    if not uri.startswith(_SQLITE):
        return None
    return Path(uri.removeprefix(_SQLITE).partition("?")[0]).absolute()


def exists(uri: str) -> bool:
    """Whether there is anything at *uri* yet; of a server that is not asked."""
    file = database(uri)
    return file is None or file.exists()


def artifacts(uri: str) -> str:
    """
    Where the artifacts of the database at *uri* are kept: ``mlartifacts`` beside it.

    Raises:
        Unusable: it is a database on another machine, beside which nothing can lie.
    """
    file = database(uri)
    if file is None:
        raise Unusable(
            f"{shown(uri)} says nothing about where files are kept\n  start an MLflow server on it and set MLFLOW_TRACKING_URI to the server's address"
        )
    return str(file.parent / "mlartifacts")


def prepare(uri: str) -> None:
    """
    Make the folder of an SQLite *uri*, and let the database be read while it is written.

    The journal mode stays in the file. It cannot be changed while another process writes;
    then it is that process that sees to it.
    """
    file = database(uri)
    if file is None:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(file)) as connection, contextlib.suppress(sqlite3.OperationalError):
        connection.execute("pragma journal_mode=WAL")


def shown(uri: str) -> str:
    """*uri* without the password that may stand in it."""
    parts = urlsplit(uri)
    if "@" not in parts.netloc:
        return uri
    return parts._replace(netloc="…@" + parts.netloc.rpartition("@")[2]).geturl()


def page(uri: str, experiment_id: str) -> str:
    """The address of an experiment's page; for a database, the one at which ``beam-ray ui`` shows it."""
    base = shown(uri).rstrip("/") if is_server(uri) else f"http://{HOST}:{PORT}"
    return f"{base}/#/experiments/{experiment_id}/evaluation-runs"
