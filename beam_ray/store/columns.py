"""Columns of the store's tables, each with its meaning."""

import pyarrow as pa

UTC = pa.timestamp("us", tz="UTC")


def column(name: str, kind: pa.DataType, meaning: str) -> pa.Field:
    """A nullable column that says what it means."""
    return pa.field(name, kind, metadata={"meaning": meaning})
