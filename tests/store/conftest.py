"""The stores that the same tests run on: a disk, and a real S3 server."""

from pathlib import Path

import pytest


@pytest.fixture(params=["disk", "s3", "s3 with 10 % faults", "s3 with 50 % faults", "s3 with 90 % faults"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new store's address, once on each kind of store; the faults come from a proxy."""
    if request.param == "disk":
        return str(tmp_path / "store")
    found = str(request.getfixturevalue("s3_uri"))
    if "%" in request.param:
        request.getfixturevalue("s3_proxy").rate = int(request.param.split()[2]) / 100
    return found
