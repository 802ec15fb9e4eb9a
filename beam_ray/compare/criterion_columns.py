"""What each criterion says of each pair, on one side."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_ray.compare.pairs import Pairs, Side, numbers
from beam_ray.compare.statistics import Numbers


@dataclass(frozen=True)
class CriterionColumn:
    """One criterion of one node."""

    text: str
    met: np.ndarray[Any, np.dtype[np.int8]]
    """For each pair 1 where it is met, 0 where it is not, -1 where it is undecided or was not judged."""
    decided: int
    """Steps, paired or not."""
    undecided: int

    @property
    def values(self) -> Numbers:
        """For each pair 1 or 0, and NaN where it is undecided."""
        return np.where(self.met < 0, np.nan, self.met.astype(np.float64))


Columns = Mapping[str, CriterionColumn]
"""By ``node/criterion``, in order of first use."""


def criterion_columns(pairs: Pairs, side: Side) -> Columns:
    """The criteria of a side whose steps are placed."""
    found: dict[str, CriterionColumn] = {}
    for node, steps in side.by_node.items():
        lists = steps["criteria"].combine_chunks()
        flat, parents = pc.list_flatten(lists), numbers(pc.list_parent_indices(lists))
        coded = pc.struct_field(flat, "id").dictionary_encode()
        codes, texts = numbers(coded.indices), pc.struct_field(flat, "text")
        met = numbers(pc.fill_null(pc.struct_field(flat, "met").cast(pa.int8()), -1))
        rows = numbers(steps["pair"])[parents]
        for code, name in enumerate(coded.dictionary.to_pylist()):
            mine = np.flatnonzero(codes == code)
            said, places = met[mine], rows[mine]
            values = np.full(len(pairs), -1, np.int8)
            values[places[places >= 0]] = said[places >= 0]
            decided = int((said >= 0).sum())
            found[f"{node}/{name}"] = CriterionColumn(texts[int(mine[0])].as_py() or "", values, decided, len(mine) - decided)
    return found


def changed_criteria(before: Columns, after: Columns, count: int) -> pa.Array:
    """For each of the *count* pairs the criteria, as NODE/CRITERION, that are met on one side and not on the other; in order of their names."""
    names = sorted({*before} & {*after})
    changed = [np.flatnonzero((before[name].met != after[name].met) & (before[name].met >= 0) & (after[name].met >= 0)) for name in names]
    of_pair = np.concatenate([np.zeros(0, np.int64), *changed])
    codes = np.repeat(np.arange(len(names)), np.array([len(rows) for rows in changed], np.int64))
    order = np.argsort(of_pair, kind="stable")
    offsets = np.searchsorted(of_pair[order], np.arange(count + 1))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(names, pa.string()).take(pa.array(codes[order])))
