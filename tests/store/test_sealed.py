"""Sealed documents: what was changed is never believed."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_ray.errors import Damaged
from beam_ray.store.checksummed_json import seal, unseal

JSON = st.recursive(st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(), st.lists)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text().filter(lambda name: name != "seal"), JSON))
def test_what_was_sealed_is_what_is_read(document):
    """Any JSON document comes back as it was."""
    assert unseal(seal(document), "x") == document


def test_each_flipped_bit_is_noticed_or_changes_nothing():
    """Every single bit of a document."""
    document = {"run_id": "261123-a3f1", "usd": 1.25, "tasks": 100, "changed": ["a", "b"]}
    body = seal(document)
    for place in range(len(body) * 8):
        flipped = bytearray(body)
        flipped[place // 8] ^= 1 << place % 8
        try:
            assert unseal(bytes(flipped), "x") == document
        except Damaged:
            continue


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"run_id": "x"}', b'{"seal": 3}', b'{"seal": "' + b"0" * 32 + b'"}', random.Random(3).randbytes(100)])
def test_a_document_without_its_seal_is_damaged(body):
    """A seal that is gone is as bad as one that does not fit; the place is said."""
    with pytest.raises(Damaged, match=r"^runs/x/run\.json is damaged"):
        unseal(body, "runs/x/run.json")
