"""Pairs of a backtest: which tasks flipped, grouped by where and why the sides part, and their scores as a picture of 20 by 20 bins."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import pyarrow as pa
import pyarrow.compute as pc

from beam_ray.api.display import Display, Displayed
from beam_ray.api.verdicts import Candidate, Verdict
from beam_ray.compare.flips import NEWLY_FAILING, NEWLY_PASSING, WORDS
from beam_ray.define.fingerprint import digest
from beam_ray.errors import Unusable, did_you_mean

if TYPE_CHECKING:
    from beam_ray.api.marks import PairMark
    from beam_ray.api.proofs import FlippedTasks, Proof, ProofPlan, ProofTask
    from beam_ray.backtest.proof import Pin
    from beam_ray.llm.scripted import Models
    from beam_ray.run.plan import Plan

FLIPS = (NEWLY_FAILING, NEWLY_PASSING)
SEPARATOR = "\x1f"
"""Between the parts of a list that is a key."""
BINS = 20
"""Bins of the score scatter along each side; the last one has 100 in it."""
COLUMNS = ("task_id", "trial", "flip", "before_passed", "after_passed", "before_score", "after_score", "before_routes", "after_routes", "diverges_at")
"""Columns that pages and groups need; texts are read for the pairs that are shown."""


class FlipGroupDocument(TypedDict):
    """A group of flipped pairs as ``--json`` prints it."""

    id: str
    flip: str
    diverges_at: str | None
    changed_criteria: list[str] | None
    routes: list[list[str]] | None
    pairs: int
    tasks: list[str]
    marks: NotRequired[dict[str, int]]
    """What people marked, with how many of the pairs; see ``Store.mark_pair``."""


@dataclass(frozen=True, repr=False)
class FlipGroup(Displayed):
    """Flipped pairs that part at the same node, by the same criteria, with the same change of route."""

    id: str
    """Names the group on the command line and in addresses; the same pairs have the same id in every backtest."""
    flip: str
    """newly failing or newly passing"""
    node: str | None
    """The first node whose output differs; None where none does, and only scores differ."""
    criteria: tuple[str, ...] | None
    """NODE/CRITERION of each criterion that is met on one side only; None where the backtest is of a version that did not record them."""
    routes: tuple[tuple[str, ...], tuple[str, ...]] | None
    """The routes taken on the baseline and on the candidate, where they differ; None where they are the same."""
    pairs: int
    tasks: tuple[str, ...]
    """Ids of the tasks, in the order of the comparison."""

    def display(self) -> Display:
        facts = (("flip", self.flip), ("parts at", self.node or "no node"), ("pairs", self.pairs))
        return Display(self.id, facts, ("task",), [(task,) for task in self.tasks])

    def document(self) -> FlipGroupDocument:
        """The group as a JSON document."""
        return {
            "id": self.id,
            "flip": self.flip,
            "diverges_at": self.node,
            "changed_criteria": None if self.criteria is None else list(self.criteria),
            "routes": None if self.routes is None else [list(side) for side in self.routes],
            "pairs": self.pairs,
            "tasks": list(self.tasks),
        }


@dataclass(frozen=True)
class ScoreBin:
    """Pairs whose scores lie in one of the 20 by 20 bins."""

    before: int
    """The bin of the baseline's score: 0 for 0 to below 5, …, 19 for 95 to 100."""
    after: int
    """The bin of the candidate's score."""
    pairs: int
    newly_failing: int
    newly_passing: int

    @property
    def before_range(self) -> tuple[float, float]:
        """The baseline's scores in this bin, from and to."""
        return self.before * 100 / BINS, (self.before + 1) * 100 / BINS

    @property
    def after_range(self) -> tuple[float, float]:
        """The candidate's scores in this bin, from and to."""
        return self.after * 100 / BINS, (self.after + 1) * 100 / BINS


@dataclass(frozen=True)
class Pairs:
    """The pairs of one candidate, of which only the columns that are asked for are read."""

    verdict: Verdict
    candidate: Candidate

    @cached_property
    def table(self) -> pa.Table:
        """COLUMNS and, where they are recorded, the changed criteria; one row per task and trial."""
        table = self.verdict.pair_columns((*COLUMNS, "changed_criteria", "candidate"))
        return self._own(table)

    def _own(self, table: pa.Table) -> pa.Table:
        return table.filter(pc.equal(table["candidate"], self.candidate.name)) if "candidate" in table.schema.names else table

    @cached_property
    def counts(self) -> dict[str, int]:
        """Each kind of pair with how many tasks are of it."""
        found = {}
        for word in WORDS:
            mine = self.table.filter(pc.equal(self.table["flip"], word))
            found[word] = int(pc.count_distinct(mine["task_id"]).as_py())
        return found

    @cached_property
    def groups(self) -> tuple[FlipGroup, ...]:
        """The flipped pairs by first diverging node, changed criteria and change of route: newly failing before newly passing, the largest first."""
        return tuple(group for group, _ in self._grouped.values())

    @cached_property
    def _grouped(self) -> dict[str, tuple[FlipGroup, pa.Array]]:
        """Each group by its id, with the places of its pairs in ``table``."""
        table = self.table
        keys = {"flip": table["flip"], "node": table["diverges_at"], "before": _joined(table["before_routes"]), "after": _joined(table["after_routes"])}
        recorded = "changed_criteria" in table.schema.names
        keys["criteria"] = pc.binary_join(table["changed_criteria"], SEPARATOR) if recorded else pa.nulls(table.num_rows, pa.string())
        same = pc.equal(keys["before"], keys["after"])
        # where the routes are the same they put nothing into a group
        keys |= {side: pc.if_else(same, pa.scalar(None, pa.string()), keys[side]) for side in ("before", "after")}
        every = pa.table({**keys, "place": pa.array(range(table.num_rows), pa.int64())})
        flipped = every.filter(pc.is_in(every["flip"], value_set=pa.array(FLIPS)))
        found = flipped.group_by(list(keys), use_threads=False).aggregate([("place", "list")])
        made = [self._group(row) for row in found.to_pylist()]
        made.sort(key=lambda each: (FLIPS.index(each[0].flip), -each[0].pairs, each[0].node or "~", each[0].id))
        return {group.id: (group, places) for group, places in made}

    def _group(self, row: dict[str, Any]) -> tuple[FlipGroup, pa.Array]:
        places = pa.array(row["place_list"], pa.int64())
        tasks = tuple(dict.fromkeys(self.table["task_id"].take(places).to_pylist()))
        criteria = None if row["criteria"] is None else _parts(row["criteria"])
        routes = None if row["before"] is None else (_parts(row["before"]), _parts(row["after"]))
        written = None if routes is None else [list(side) for side in routes]
        name = digest("flip-group/1", row["flip"], row["node"], None if criteria is None else list(criteria), written)
        return FlipGroup(f"f{name[:6]}", row["flip"], row["node"], criteria, routes, len(places), tasks), places

    def select(
        self,
        group: str | None = None,
        node: str | None = None,
        scores: tuple[int, int] | None = None,
        *,
        mark: str | None = None,
        route: str | None = None,
    ) -> pa.Table:
        """
        Rows of ``table``.

        Args:
            group: newly failing, newly passing, both failing, both passing, not judged, or the id of a flip group.
            node: The first node whose output differs; ``none`` where none does.
            scores: The bin of the baseline's and of the candidate's score.
            mark: real, noise, judge or expected: pairs that somebody has marked so.
            route: A route that both sides took, of pairs that are scored on both.

        Raises:
            Unusable: there is no such group.
        """
        chosen = self.table
        if group:
            words = {word.replace(" ", "-"): word for word in WORDS}
            word = words.get(group.replace(" ", "-"))
            chosen = chosen.filter(pc.equal(chosen["flip"], word)) if word else self._of_group(group)
        if node:
            chosen = chosen.filter(pc.equal(pc.fill_null(chosen["diverges_at"], "none"), node))
        if scores is not None:
            before, after = (_bins(chosen[f"{side}_score"]) for side in ("before", "after"))
            chosen = chosen.filter(pc.fill_null(pc.and_(pc.equal(before, scores[0]), pc.equal(after, scores[1])), False))
        if route:
            columns = ("before_routes", "after_routes", "before_score", "after_score")
            rows = zip(*(chosen[name].to_pylist() for name in columns), strict=True)
            took = [route in (was or ()) and route in (now or ()) and None not in scored for was, now, *scored in rows]
            chosen = chosen.filter(pa.array(took, pa.bool_()))
        if mark:
            marked = {pair for pair, marks in self.marks.items() if any(each.mark == mark for each in marks)}
            chosen = chosen.filter(pa.array([pair in marked for pair in _names(chosen)], pa.bool_()))
        return chosen

    def _of_group(self, group_id: str) -> pa.Table:
        self.group(group_id)
        return self.table.take(self._grouped[group_id][1])

    @property
    def proven(self) -> "dict[str, ProofTask]":
        """What ``Store.prove`` has found so far, by task. No model is called."""
        from beam_ray.api.prove import proven

        return proven(self.verdict.store, self)

    def proof(self, of: "FlippedTasks | None" = None) -> "Proof":
        """What ``Store.proof`` gives for tasks of this candidate; where they are pinned is found once."""
        from beam_ray.api.prove import proof_of

        return proof_of(self, of)

    def plan_prove(self, of: "FlippedTasks | None" = None, *, control: bool = False) -> "ProofPlan":
        """What ``Store.plan_prove`` gives for tasks of this candidate."""
        from beam_ray.api.prove import plan_of_proof

        return plan_of_proof(self, of, control=control)

    @cached_property
    def pins(self) -> "dict[FlippedTasks, list[Pin]]":
        """Where tasks are pinned, as far as a proof has asked: neither the pairs nor the runs change any more."""
        return {}

    @cached_property
    def plans(self) -> "dict[tuple[str, str, tuple[str, ...]], tuple[Models, Plan]]":
        """Node, arm and tasks of an experiment to its plan, with the models that it was made for."""
        return {}

    @property
    def marks(self) -> "dict[tuple[str, int], tuple[PairMark, ...]]":
        """What people say of these pairs, by task and trial; of each person the newest mark."""
        from beam_ray.api.marks import marks_of

        return marks_of(self)

    @property
    def marks_counted(self) -> dict[str, int]:
        """Each mark with how many pairs somebody has marked so."""
        from beam_ray.api.marks import marks_counted

        return marks_counted(self.marks)

    def marks_by_group(self) -> dict[str, dict[str, int]]:
        """The id of each flip group with marked pairs, to each mark with how many of its pairs have it."""
        from beam_ray.api.marks import marks_counted

        marks = self.marks
        counted = {name: marks_counted(marks, _names(self.table.take(places))) for name, (_, places) in self._grouped.items()} if marks else {}
        return {name: counts for name, counts in counted.items() if counts}

    def group_documents(self) -> list[FlipGroupDocument]:
        """The flip groups as JSON documents, each with what people marked."""
        marks = self.marks_by_group()
        return [{**group.document(), "marks": marks.get(group.id, {})} for group in self.groups]

    def group(self, group_id: str) -> FlipGroup:
        """
        The flip group of that id.

        Raises:
            Unusable: there is none.
        """
        if group_id not in self._grouped:
            known = list(self._grouped)
            raise Unusable(
                "\n  ".join(
                    [
                        f"the backtest {self.verdict.id} has no flip group {group_id!r}",
                        f"groups are: {', '.join(word.replace(' ', '-') for word in WORDS)}{''.join(f', {each}' for each in known[:8])}",
                        *did_you_mean(group_id, known),
                    ]
                )
            )
        return self._grouped[group_id][0]

    @cached_property
    def scores(self) -> tuple[ScoreBin, ...]:
        """The pairs by the scores of both sides, in 20 by 20 bins; pairs of which a side is unscored are left out, and bins without pairs too."""
        columns = {"before": _bins(self.table["before_score"]), "after": _bins(self.table["after_score"])}
        for name, word in (("failing", NEWLY_FAILING), ("passing", NEWLY_PASSING)):
            columns[name] = pc.cast(pc.equal(self.table["flip"], word), pa.int64())
        binned = pa.table(columns).drop_null().group_by(["before", "after"]).aggregate([("failing", "sum"), ("passing", "sum"), ("failing", "count")])
        rows = [ScoreBin(row["before"], row["after"], row["failing_count"], row["failing_sum"], row["passing_sum"]) for row in binned.to_pylist()]
        return tuple(sorted(rows, key=lambda each: (each.before, each.after)))


def _names(table: pa.Table) -> list[tuple[str, int]]:
    """Task and trial of each row."""
    return list(zip(table["task_id"].to_pylist(), table["trial"].to_pylist(), strict=True))


def _bins(scores: pa.ChunkedArray) -> pa.ChunkedArray:
    """The bin of each score, 100 in the last one; null for unscored."""
    return pc.cast(pc.min_element_wise(pc.floor(pc.divide(scores, 100 / BINS)), float(BINS - 1), skip_nulls=False), pa.int64())


def _joined(lists: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.fill_null(pc.binary_join(lists, SEPARATOR), "")


def _parts(joined: str) -> tuple[str, ...]:
    return tuple(joined.split(SEPARATOR)) if joined else ()


def candidate_of(verdict: Verdict, name: str | None) -> Candidate:
    """
    A candidate by its name; None for the best one.

    Raises:
        Unusable: there is no such candidate.
    """
    if not name:
        return verdict.best
    names = [each.name for each in verdict.candidates]
    if name not in names:
        raise Unusable("\n  ".join([f"the backtest {verdict.id} has no candidate {name[:60]!r}", f"it has: {', '.join(names)}", *did_you_mean(name, names)]))
    return verdict.candidates[names.index(name)]
