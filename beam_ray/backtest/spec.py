"""
The backtest spec: what is compared with what, over which tasks, and what is allowed.

    backtest: extract-prompt-v8
    workflow: purchase-orders             # a published name, or a file
    tasks: library:orders@3               # or a file, a folder, run:ID; or a list of these
    baseline: published                   # or a version number, a file, run:ID; recorded: what production answered
    candidates:
      v8: {nodes.extract.llm.prompt: prompts/extract-v8.md}     # overrides, a file, or a draft such as purchase-orders@shorter
    matrix: {model: [remote/small, remote/large]}               # more candidates, one for every combination
    trials: 1
    confirm: 2
    models: {remote/large: local/small}   # on every side, ask another model
    tools: {find: {when: {po_number: PO-1}, answer: {found: true}}}     # static answers, see tool_answers
    gate: no-harm                         # or improve, cheaper, none, or a gate file
    budget: {max_usd: 5}
    stop: early                           # end as soon as more tasks would not change the verdict
    fresh: false
    rerun: fresh                          # run the best candidate again, on tasks that the comparison did not use
    cluster: variables.customer           # tasks of one customer count together
    lane: batch                           # ask models through their batch endpoints, at half the price
    notify: slack:${env:SLACK_WEBHOOK}    # where the verdict is sent; a URL or several
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field, StrictFloat, field_validator, model_validator

from beam_ray.address import NAME
from beam_ray.backtest.matrix import cells, placed, without_repeats
from beam_ray.backtest.overrides import overridden, with_changes
from beam_ray.backtest.tool_answers import ToolAnswer, as_cases, require_tools
from beam_ray.compare.grouping import By, ClusterField, SliceField
from beam_ray.define.check import check
from beam_ray.define.fingerprint import Json, JsonObject
from beam_ray.define.frozen import Frozen
from beam_ray.define.load import load
from beam_ray.define.returns import Faults
from beam_ray.define.validation import as_written, validation_problems
from beam_ray.define.workflow import Workflow
from beam_ray.define.yaml_file import Source, read_yaml
from beam_ray.errors import BadDefinition, Problem, Unusable, did_you_mean
from beam_ray.publish import load_definition, read_version
from beam_ray.run.tools import tool_folders
from beam_ray.store.lookup import resolve
from beam_ray.store.objects import Objects
from beam_ray.store.runs import Run

RECORDED = "recorded"
"""The baseline that is what production answered."""


class First(Frozen):
    """So many tasks from the beginning of their source."""

    first: int = Field(ge=1)


class Spec(Frozen):
    """A backtest as written."""

    name: str = Field(alias="backtest", pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")
    workflow: str
    tasks: str | Annotated[list[str], Field(min_length=1)]
    """A file, a folder, a pattern, an s3:// address, library:NAME[@V] or run:ID; or several of these in a list."""
    baseline: str | int = Field(default="published", description="published, a version's number, a file, run:ID or recorded")
    candidates: dict[str, str | JsonObject] = Field(
        default={}, description="a file, a draft NAME@DRAFT, or a mapping of overrides such as {nodes.NODE.llm.prompt: FILE}"
    )
    """Files, drafts such as ``orders@shorter``, or overrides of the baseline's definition."""
    matrix: dict[str, Any] = Field(default={}, description="a mapping from overrides to lists of values")
    """More candidates, one for every combination of values: see ``matrix``."""
    models: dict[str, str] = {}
    """Models to ask instead, on every side: as workflows name them, and what to ask."""
    tools: dict[str, Annotated[tuple[ToolAnswer, ...], Field(min_length=1)]] = Field(default={}, description="{TOOL: {when: {ARGUMENT: VALUE}, answer: VALUE}}")
    """Static answers of agents' tools, on every side; the first case that fits answers a call."""
    aa: bool = False
    """Compare the baseline with a second sample of itself: what differs then is noise."""
    trials: int = Field(default=1, ge=1, le=100)
    confirm: Annotated[int, Field(ge=0, le=20)] | Literal["auto"] = Field(default=0, description="a number of repeats from 0 to 20, or auto")
    """How often each newly failing task is repeated on both sides before it counts."""
    gate: str | None = Field(default=None, description="no-harm, improve, cheaper, none, or a gate file")
    stop: Literal["early"] | None = None
    """Whether the backtest ends at the first look that settles its verdict."""
    budget: dict[str, Annotated[StrictFloat, Field(ge=0)]] = {}
    fresh: bool = False
    """Borrow nothing: every step of every side is executed."""
    lane: Literal["interactive", "batch"] | None = None
    """How models are asked whose settings leave it open; --lane has precedence."""
    rerun: Literal["fresh"] | None = None
    """Run the best candidate again, on tasks that the comparison did not use; the verdict is then that of the rerun."""
    limit: int | First | None = Field(default=None, description="a number of tasks drawn at random, or {first: N}")
    """Only so many tasks: a random sample that is the same for the same tasks, or the first ones."""
    cluster: ClusterField | None = Field(default=None, description="a field of tasks such as variables.customer")
    """Tasks that have the same value there are drawn, and count, together."""
    slices: tuple[SliceField, ...] = Field(default=(), description="fields of tasks such as variables.country, or labels")
    """By which fields the comparison is shown in parts."""
    notify: tuple[str, ...] = Field(default=(), description="URL or slack:URL, or a list of them")
    """Webhooks that the verdict is sent to; ``${env:NAME}`` stands for an environment variable."""

    @field_validator("matrix")
    @classmethod
    def _combined(cls, written: dict[str, Any]) -> dict[str, Any]:
        if written:
            cells(written)
        return written

    @field_validator("tools", mode="before")
    @classmethod
    def _cases(cls, written: Any) -> Any:
        return as_cases(written)

    @property
    def by(self) -> By:
        """The fields that tasks are grouped by."""
        return By(self.cluster, self.slices)

    @field_validator("slices", mode="before")
    @classmethod
    def _listed(cls, written: Any) -> Any:
        return [part.strip() for part in written.split(",")] if isinstance(written, str) else written

    @model_validator(mode="after")
    def _once(self) -> "Spec":
        if self.cluster is not None and self.stop == "early":
            raise ValueError("'cluster' and 'stop: early' exclude each other: interim analyses have a boundary for independent tasks only")
        return self

    @field_validator("notify", mode="before")
    @classmethod
    def _several(cls, written: Any) -> Any:
        return [written] if isinstance(written, str) else written

    @field_validator("limit", mode="before")
    @classmethod
    def _limited(cls, written: Any) -> Any:
        number = written["first"] if isinstance(written, Mapping) and set(written) == {"first"} else written
        if number is not None and (not isinstance(number, int) or isinstance(number, bool) or number < 1):
            raise ValueError(f"'limit' must be a number of tasks, 1 or more, which are drawn at random, or {{first: N}}, not {as_written(written)}")
        return written

    @property
    def tool_answers(self) -> dict[str, list[JsonObject]]:
        """The static answers as a run record has them."""
        return {tool: [each.case() for each in cases] for tool, cases in self.tools.items()}

    @field_validator("budget", mode="before")
    @classmethod
    def _limits(cls, written: Any) -> Any:
        known = ("max_usd", "max_tokens", "max_calls", "max_minutes")
        unknown = [name for name in written if name not in known] if isinstance(written, Mapping) else []
        if unknown:
            raise Faults([(name, f"the budget has no {name!r}; it has {', '.join(known)}") for name in unknown])
        return written


@dataclass(frozen=True)
class Side:
    """One side's definition."""

    name: str
    workflow: Workflow
    version: int | None = None
    run_id: str | None = None
    """A finished run that is the side, instead of one to be made."""
    recorded: bool = False
    """What production answered is the side: no step is executed for it."""


@dataclass(frozen=True)
class Resolved:
    """A spec with everything in it looked up."""

    spec: Spec
    folder: Path
    baseline: Side
    candidates: tuple[Side, ...]
    warnings: tuple[Problem, ...] = ()

    def find(self, written: str) -> Path:
        """The file that the spec names: beside the spec, or from where the command runs."""
        return _beside(self.folder, written)


def is_backtest_spec(path: str | Path) -> bool:
    """Whether the file is a backtest spec: a YAML file with the key ``backtest``."""
    file = Path(path)
    if not file.is_file():
        return False
    data = read_yaml(file).data
    return isinstance(data, Mapping) and "backtest" in data


def spec_name(path: str | Path, text: str | None = None) -> str:
    """The name of the backtest in a spec file, or in the spec's *text*, of which *path* only says where it is from."""
    return parse_spec(read_yaml(Path(path), text))[0].name


def load_spec(path: Path, changes: Mapping[str, Json] | None = None) -> tuple[Spec, Source]:
    """
    The spec in the file, with *changes* from the command line.

    Raises:
        BadDefinition: with every problem found.
    """
    return parse_spec(read_yaml(path), changes)


def parse_spec(source: Source, changes: Mapping[str, Json] | None = None) -> tuple[Spec, Source]:
    """The spec in the data of *source*, as for ``load_spec``."""
    if not isinstance(source.data, Mapping):
        raise BadDefinition(problems=[source.problem((), "a backtest spec begins with 'backtest: NAME'")])
    try:
        spec = Spec.model_validate(with_changes(source.data, changes or {}))
        wrong = [name for name in spec.candidates if not NAME.fullmatch(name)]
        if wrong:
            what = "a candidate's name has 1 to 64 lower-case letters, digits, _ or -"
            raise BadDefinition(problems=[source.problem(("candidates", name), f"{what}, which {name!r} is not") for name in wrong])
        if not spec.candidates and not spec.matrix and not spec.aa:
            raise BadDefinition(
                problems=[source.problem((), "there is no candidate", "candidates: {NAME: FILE}  names one; --aa compares the baseline with itself")]
            )
        return spec, source
    except pydantic.ValidationError as error:
        raise BadDefinition(problems=validation_problems(error, source, Spec)) from None


def resolve_spec(objects: Objects, path: Path, changes: Mapping[str, Json] | None = None) -> Resolved:
    """The spec in the file, as for ``resolve_source``."""
    return resolve_source(objects, read_yaml(path), path.parent, changes)


def resolve_source(objects: Objects, document: Source, folder: Path, changes: Mapping[str, Json] | None = None) -> Resolved:
    """
    A spec with its definitions looked up and checked; files that it names are relative to *folder*.

    Raises:
        Unusable: a definition is not there, or is not sound.
    """
    spec, source = parse_spec(document, changes)
    baseline = _baseline(objects, spec, folder, source)
    if spec.aa:
        if baseline.recorded:
            raise BadDefinition(problems=[source.problem(("baseline",), f"an A/A test runs the baseline twice, and {RECORDED} outputs cannot be run again")])
        baseline = _asking(baseline, spec.models, source)
        require_tools(spec.tools, [baseline.workflow], source)
        return Resolved(spec, folder, baseline, (Side("again", baseline.workflow, baseline.version),))
    candidates = list[Side]()
    problems, warnings = list[Problem](), list[Problem]()
    made = cells(spec.matrix, spec.candidates) if spec.matrix else []
    source = placed(source, made)
    for name, written in [*spec.candidates.items(), *((cell.name, cell.overrides) for cell in made)]:
        try:
            side, advice = _candidate(objects, name, written, baseline.workflow, folder, source)
            candidates.append(side)
            warnings += advice
        except BadDefinition as error:
            problems += error.problems
    if problems:
        raise BadDefinition(problems=list(dict.fromkeys(problems)))
    sides = [_asking(side, spec.models, source, among=(baseline, *candidates)) for side in (baseline, *candidates)]
    kept, advice = without_repeats(sides[0], sides[1:], {cell.name for cell in made}, source)
    require_tools(spec.tools, [side.workflow for side in sides], source)
    return Resolved(spec, folder, as_judged(sides[0], kept[0]), tuple(kept), tuple(dict.fromkeys([*warnings, *advice])))


def as_judged(baseline: Side, candidate: Side) -> Side:
    """The baseline; where it is what production answered, with the definition whose last node and criteria judge it: the first candidate's."""
    return Side("baseline", candidate.workflow, recorded=True) if baseline.recorded else baseline


def _baseline(objects: Objects, spec: Spec, folder: Path, source: Source) -> Side:
    written = str(spec.baseline)
    if written.startswith("run:"):
        record = Run(objects, resolve(objects, written.removeprefix("run:"))).record
        if not Run(objects, record.run_id).finished:
            raise Unusable(f"the baseline {record.run_id} is not finished\n  beam-ray resume {record.run_id}  resumes it")
        return Side("baseline", record.plan, record.version, record.run_id)
    try:
        if written == RECORDED:
            return replace(_definition(objects, spec.workflow, folder), version=None, recorded=True)
        if written == "published" and spec.workflow.endswith((".yaml", ".yml")):
            # the file names the workflow; what counts is its published version
            workflow, _ = load(_beside(folder, spec.workflow))
            version = read_version(objects, workflow.name)
            return Side("baseline", version.plan, version.version)
        target = spec.workflow if written == "published" else written
        if written.isdecimal():
            target = f"{spec.workflow.partition('@')[0]}@{written}"
        return _definition(objects, target, folder)
    except BadDefinition:
        raise
    except Unusable as error:
        raise BadDefinition(problems=[source.problem(("baseline",) if "baseline" in (source.data or {}) else ("workflow",), str(error))]) from None


def _definition(objects: Objects, target: str, folder: Path) -> Side:
    """The baseline that is a file or a published version."""
    near = _beside(folder, target) if target.endswith((".yaml", ".yml")) else folder
    found = load_definition(objects, str(near) if near != folder else target)
    return Side("baseline", found.workflow, found.version)


def _candidate(objects: Objects, name: str, written: str | JsonObject, baseline: Workflow, folder: Path, source: Source) -> tuple[Side, list[Problem]]:
    if isinstance(written, str):
        path = _beside(folder, written)
        if "@" in written and not path.is_file():
            try:
                named = load_definition(objects, written)
            except BadDefinition:
                raise
            except Unusable as error:
                raise BadDefinition(problems=[source.problem(("candidates", name), str(error))]) from None
            return Side(name, named.workflow, named.version), list(named.warnings)
        if not path.is_file():
            raise BadDefinition(problems=[source.problem(("candidates", name), f"the candidate's file {written!r} is not there")])
        workflow, found = load(path)
        return Side(name, workflow), check(workflow, found, folders=tool_folders(workflow))
    return override(name, written, baseline, folder, source)


def override(name: str, written: Mapping[str, Json], baseline: Workflow, folder: Path, source: Source) -> tuple[Side, list[Problem]]:
    """The candidate that *written* makes of the baseline: see ``overridden``."""
    workflow, advice = overridden(name, written, baseline, folder, source)
    return Side(name, workflow), advice


def _asking(side: Side, models: Mapping[str, str], source: Source, among: tuple[Side, ...] = ()) -> Side:
    """The side with other models in place of those that the spec replaces."""
    asked = {name for each in among or (side,) for name in each.workflow.models}
    for name in models:
        if name not in asked:
            notes = [f"they ask: {', '.join(sorted(asked)) or 'none'}", *did_you_mean(name, asked)]
            raise BadDefinition(problems=[source.problem(("models", name), f"no side uses the model {name!r}", *notes)])
    if not models or not set(models) & set(side.workflow.models):
        return side
    if side.run_id:
        raise BadDefinition(
            problems=[source.problem(("models",), f"the baseline is the run {side.run_id}, whose models cannot be replaced; name a version or a file instead")]
        )
    document = side.workflow.document()
    for place in (document, *(node[part] for node in document["nodes"].values() for part in ("llm", "agent", "evaluate") if part in node)):
        if place.get("model") in models:
            place["model"] = models[place["model"]]
        judge = place.get("judge")
        if judge:
            place["judge"] = [models.get(name, name) for name in judge] if isinstance(judge, list) else models.get(judge, judge)
            twice = next((name for name in place["judge"] if place["judge"].count(name) > 1), None) if isinstance(judge, list) else None
            if twice:
                raise BadDefinition(
                    problems=[
                        source.problem(("models",), f"with these models the panel of judges ({', '.join(judge)}) names {twice!r} twice; a model has one vote")
                    ]
                )
    return Side(side.name, Workflow.model_validate(document))


def _beside(folder: Path, written: str) -> Path:
    return next((path for path in (folder / written, Path.cwd() / written) if path.is_file()), folder / written)
