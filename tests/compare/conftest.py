"""Makes the sides importable however the tests are started, and compares with golden files."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def golden():
    """Assert that a text is the golden file of that name; with BEAM_RAY_WRITE_GOLDEN=1 write the file instead."""

    def same(name, text):
        path = Path(__file__).parent / "golden" / name
        if os.environ.get("BEAM_RAY_WRITE_GOLDEN"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        assert path.read_text() == text

    return same
