"""Makes the sides importable however the tests are started, and compares with golden files."""

import sys
from pathlib import Path

import pytest

from tests.golden import check_golden

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def golden():
    """Assert that a text is the golden file of that name, word for word."""

    def same(name, text):
        check_golden(Path(__file__).parent / "golden", name, text, exact=True)

    return same
