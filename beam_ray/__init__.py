"""
Rerun and backtest LLM workflows on a Ray cluster.

Everything public is imported from here, and loaded when it is first used, so that
``import beam_ray`` is quick. Errors are in ``beam_ray.errors``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from beam_ray.address import Address
    from beam_ray.api.backtest_progress import BacktestProgress
    from beam_ray.api.backtests import Backtest, BacktestOptions, BacktestPlan, SidePlan
    from beam_ray.api.batches import OpenBatch
    from beam_ray.api.calls import Call, ToolRequest
    from beam_ray.api.comparisons import Comparison, Metric
    from beam_ray.api.criteria import CriteriaCheck, CriteriaDraft, CriteriaProposal, CriterionCheck, Outputs
    from beam_ray.api.criteria_plan import CriteriaPlan, CriteriaProposalPlan
    from beam_ray.api.detection import Detectable, Detection, DetectionOption
    from beam_ray.api.draft_nodes import DraftNode, FieldProblem, NodeValues, WrittenCriterion, WrittenTurn
    from beam_ray.api.drafts import Draft, DraftEdit
    from beam_ray.api.flips import FlipGroup, Pairs, ScoreBin
    from beam_ray.api.flow import Flow, FlowNode
    from beam_ray.api.flow_list import FlowSummary
    from beam_ray.api.flow_numbers import FlowCriterion, FlowEdge, FlowNumbers, NodeNumbers
    from beam_ray.api.health import Health, Sign
    from beam_ray.api.history import TaskHistory
    from beam_ray.api.jobs import JOB_KINDS, CurrentJob, Job, JobResult, current_job
    from beam_ray.api.ledger import Ledger
    from beam_ray.api.libraries import Library, LibraryCheck
    from beam_ray.api.library_changes import LibraryChange, LibraryDiff, LibraryVersion, SavedTasks, TaskEdit
    from beam_ray.api.library_coverage import CoverageCell, CoverageGrid
    from beam_ray.api.local_models import embedded_model, serve_mlflow, serve_model
    from beam_ray.api.local_ray import DEFAULT_KEEP, LocalRay, start_local_ray, stop_local_ray
    from beam_ray.api.location import DEFAULT_MODELS, DEFAULT_STORE
    from beam_ray.api.maintenance import DamagedFile, Diagnosis, Garbage, GarbageReport, NodeRepair, Repair
    from beam_ray.api.marks import PAIR_MARKS, PairMark
    from beam_ray.api.mlflow import MlflowLog
    from beam_ray.api.models import ModelCheckResult, ModelInfo
    from beam_ray.api.optimise import AppliedProposal, DraftFile, ModelTry, PromptProposal
    from beam_ray.api.optimise_plan import OptimisePlan
    from beam_ray.api.pins import Pin, PinnedView
    from beam_ray.api.plans import NodePlan, Plan
    from beam_ray.api.projects import Project, init
    from beam_ray.api.prompt_search import PromptSearch, SearchOptions
    from beam_ray.api.prompt_tries import PairedResult, PromptTry
    from beam_ray.api.prompts import PromptTurn, SentPrompt, TemplatePart, TemplateTurn
    from beam_ray.api.proofs import Experiment, FlippedTasks, Proof, ProofPlan, ProofTask
    from beam_ray.api.repeats import RepeatsPlan
    from beam_ray.api.reproductions import Reproduction
    from beam_ray.api.reruns import Rerun, Selection
    from beam_ray.api.reviews import RecordedReviews, ReviewQueue, ReviewSample
    from beam_ray.api.run_nodes import RunNode
    from beam_ray.api.run_progress import RunProgress
    from beam_ray.api.runs import Run
    from beam_ray.api.steps import Attempt, CriterionResult, JudgeVerdict, Step
    from beam_ray.api.store import Store, open
    from beam_ray.api.task_address import TASK_FILTERS, task_query
    from beam_ray.api.task_list import TaskList, TaskQuery
    from beam_ray.api.tasks import Task
    from beam_ray.api.traces import TraceImport, TraceOptions
    from beam_ray.api.trend import Trend
    from beam_ray.api.verdicts import Candidate, GateLine, Verdict
    from beam_ray.api.versions import Evidence, Version
    from beam_ray.api.workflows import CheckResult, check, load
    from beam_ray.backtest.spec import is_backtest_spec, spec_name
    from beam_ray.define.agent import Agent, AgentTool
    from beam_ray.define.criterion import Criterion
    from beam_ray.define.diff import Change
    from beam_ray.define.llm_call import LlmCall
    from beam_ray.define.mcp_server import McpServer
    from beam_ray.define.workflow import AutoRerun, Evaluation, Node, Resources, Workflow
    from beam_ray.improve.trend import CanarySet, TrendPoint
    from beam_ray.llm.request import Answer, Request
    from beam_ray.llm.scripted import ScriptedModel
    from beam_ray.llm.settings import ModelSettings
    from beam_ray.program_tools import recorded_tool
    from beam_ray.review.corrected_rates import CorrectedRate
    from beam_ray.review.correction import Figure, JudgeErrors
    from beam_ray.review.judge_report import JudgePrecision, JudgeReport
    from beam_ray.review.queue import ReviewAnswer, ReviewItem, ReviewQuestion, reviewer_of
    from beam_ray.review.variance import VarianceComponents
    from beam_ray.review.waiting import ReviewSource
    from beam_ray.run.progress import Progress
    from beam_ray.store.lookup import status_of
    from beam_ray.tasks.sources import Tasks
    from beam_ray.tracking.worker_calls import ExportedDataset

__all__ = [  # noqa: RUF022 (grouped by source, so that the list reads as a map)
    # address
    "Address",
    # api.backtest_progress
    "BacktestProgress",
    # api.backtests
    "Backtest",
    "BacktestOptions",
    "BacktestPlan",
    "SidePlan",
    # api.batches
    "OpenBatch",
    # api.calls
    "Call",
    "ToolRequest",
    # api.comparisons
    "Comparison",
    "Metric",
    # api.criteria
    "CriteriaCheck",
    "CriteriaDraft",
    "CriteriaProposal",
    "CriterionCheck",
    "Outputs",
    # api.criteria_plan
    "CriteriaPlan",
    "CriteriaProposalPlan",
    # api.detection
    "Detectable",
    "Detection",
    "DetectionOption",
    # api.draft_nodes
    "DraftNode",
    "FieldProblem",
    "NodeValues",
    "WrittenCriterion",
    "WrittenTurn",
    # api.drafts
    "Draft",
    "DraftEdit",
    # api.flips
    "FlipGroup",
    "Pairs",
    "ScoreBin",
    # api.flow
    "Flow",
    "FlowNode",
    # api.flow_list
    "FlowSummary",
    # api.flow_numbers
    "FlowCriterion",
    "FlowEdge",
    "FlowNumbers",
    "NodeNumbers",
    # api.health
    "Health",
    "Sign",
    # api.history
    "TaskHistory",
    # api.jobs
    "JOB_KINDS",
    "CurrentJob",
    "Job",
    "JobResult",
    "current_job",
    # api.ledger
    "Ledger",
    # api.libraries
    "Library",
    "LibraryCheck",
    # api.library_changes
    "LibraryChange",
    "LibraryDiff",
    "LibraryVersion",
    "SavedTasks",
    "TaskEdit",
    # api.library_coverage
    "CoverageCell",
    "CoverageGrid",
    # api.local_models
    "embedded_model",
    "serve_mlflow",
    "serve_model",
    # api.local_ray
    "DEFAULT_KEEP",
    "LocalRay",
    "start_local_ray",
    "stop_local_ray",
    # api.location
    "DEFAULT_MODELS",
    "DEFAULT_STORE",
    # api.maintenance
    "DamagedFile",
    "Diagnosis",
    "Garbage",
    "GarbageReport",
    "NodeRepair",
    "Repair",
    # api.marks
    "PAIR_MARKS",
    "PairMark",
    # api.mlflow
    "MlflowLog",
    # api.models
    "ModelCheckResult",
    "ModelInfo",
    # api.optimise
    "AppliedProposal",
    "DraftFile",
    "ModelTry",
    "PromptProposal",
    # api.optimise_plan
    "OptimisePlan",
    # api.pins
    "Pin",
    "PinnedView",
    # api.plans
    "NodePlan",
    "Plan",
    # api.projects
    "Project",
    "init",
    # api.prompt_search
    "PromptSearch",
    "SearchOptions",
    # api.prompt_tries
    "PairedResult",
    "PromptTry",
    # api.prompts
    "PromptTurn",
    "SentPrompt",
    "TemplatePart",
    "TemplateTurn",
    # api.proofs
    "Experiment",
    "FlippedTasks",
    "Proof",
    "ProofPlan",
    "ProofTask",
    # api.repeats
    "RepeatsPlan",
    # api.reproductions
    "Reproduction",
    # api.reruns
    "Rerun",
    "Selection",
    # api.reviews
    "RecordedReviews",
    "ReviewQueue",
    "ReviewSample",
    # api.run_nodes
    "RunNode",
    # api.run_progress
    "RunProgress",
    # api.runs
    "Run",
    # api.steps
    "Attempt",
    "CriterionResult",
    "JudgeVerdict",
    "Step",
    # api.store
    "Store",
    "open",
    # api.task_address
    "TASK_FILTERS",
    "task_query",
    # api.task_list
    "TaskList",
    "TaskQuery",
    # api.tasks
    "Task",
    # api.traces
    "TraceImport",
    "TraceOptions",
    # api.trend
    "Trend",
    # api.verdicts
    "Candidate",
    "GateLine",
    "Verdict",
    # api.versions
    "Evidence",
    "Version",
    # api.workflows
    "CheckResult",
    "check",
    "load",
    # backtest.spec
    "is_backtest_spec",
    "spec_name",
    # define
    "Agent",
    "AgentTool",
    "AutoRerun",
    "Change",
    "Criterion",
    "Evaluation",
    "LlmCall",
    "McpServer",
    "Node",
    "Resources",
    "Workflow",
    # improve.trend
    "CanarySet",
    "TrendPoint",
    # llm
    "Answer",
    "ModelSettings",
    "Request",
    "ScriptedModel",
    # program_tools
    "recorded_tool",
    # review
    "CorrectedRate",
    "Figure",
    "JudgeErrors",
    "JudgePrecision",
    "JudgeReport",
    "ReviewAnswer",
    "ReviewItem",
    "ReviewQuestion",
    "ReviewSource",
    "VarianceComponents",
    "reviewer_of",
    # run
    "Progress",
    # store
    "status_of",
    # tasks
    "Tasks",
    # tracking
    "ExportedDataset",
]

_SOURCES = {
    "beam_ray.address": ("Address",),
    "beam_ray.api.backtest_progress": ("BacktestProgress",),
    "beam_ray.api.backtests": ("Backtest", "BacktestOptions", "BacktestPlan", "SidePlan"),
    "beam_ray.api.batches": ("OpenBatch",),
    "beam_ray.api.calls": ("Call", "ToolRequest"),
    "beam_ray.api.comparisons": ("Comparison", "Metric"),
    "beam_ray.api.criteria": ("CriteriaCheck", "CriteriaDraft", "CriteriaProposal", "CriterionCheck", "Outputs"),
    "beam_ray.api.criteria_plan": ("CriteriaPlan", "CriteriaProposalPlan"),
    "beam_ray.api.detection": ("Detectable", "Detection", "DetectionOption"),
    "beam_ray.api.draft_nodes": ("DraftNode", "FieldProblem", "NodeValues", "WrittenCriterion", "WrittenTurn"),
    "beam_ray.api.drafts": ("Draft", "DraftEdit"),
    "beam_ray.api.flips": ("FlipGroup", "Pairs", "ScoreBin"),
    "beam_ray.api.flow": ("Flow", "FlowNode"),
    "beam_ray.api.flow_list": ("FlowSummary",),
    "beam_ray.api.flow_numbers": ("FlowCriterion", "FlowEdge", "FlowNumbers", "NodeNumbers"),
    "beam_ray.api.health": ("Health", "Sign"),
    "beam_ray.api.history": ("TaskHistory",),
    "beam_ray.api.jobs": ("JOB_KINDS", "CurrentJob", "Job", "JobResult", "current_job"),
    "beam_ray.api.ledger": ("Ledger",),
    "beam_ray.api.libraries": ("Library", "LibraryCheck"),
    "beam_ray.api.library_changes": ("LibraryChange", "LibraryDiff", "LibraryVersion", "SavedTasks", "TaskEdit"),
    "beam_ray.api.library_coverage": ("CoverageCell", "CoverageGrid"),
    "beam_ray.api.local_models": ("embedded_model", "serve_mlflow", "serve_model"),
    "beam_ray.api.local_ray": ("DEFAULT_KEEP", "LocalRay", "start_local_ray", "stop_local_ray"),
    "beam_ray.api.location": ("DEFAULT_MODELS", "DEFAULT_STORE"),
    "beam_ray.api.maintenance": ("DamagedFile", "Diagnosis", "Garbage", "GarbageReport", "NodeRepair", "Repair"),
    "beam_ray.api.marks": ("PAIR_MARKS", "PairMark"),
    "beam_ray.api.mlflow": ("MlflowLog",),
    "beam_ray.api.models": ("ModelCheckResult", "ModelInfo"),
    "beam_ray.api.optimise": ("AppliedProposal", "DraftFile", "ModelTry", "PromptProposal"),
    "beam_ray.api.optimise_plan": ("OptimisePlan",),
    "beam_ray.api.pins": ("Pin", "PinnedView"),
    "beam_ray.api.plans": ("NodePlan", "Plan"),
    "beam_ray.api.projects": ("Project", "init"),
    "beam_ray.api.prompt_search": ("PromptSearch", "SearchOptions"),
    "beam_ray.api.prompt_tries": ("PairedResult", "PromptTry"),
    "beam_ray.api.prompts": ("PromptTurn", "SentPrompt", "TemplatePart", "TemplateTurn"),
    "beam_ray.api.proofs": ("Experiment", "FlippedTasks", "Proof", "ProofPlan", "ProofTask"),
    "beam_ray.api.repeats": ("RepeatsPlan",),
    "beam_ray.api.reproductions": ("Reproduction",),
    "beam_ray.api.reruns": ("Rerun", "Selection"),
    "beam_ray.api.reviews": ("RecordedReviews", "ReviewQueue", "ReviewSample"),
    "beam_ray.api.run_nodes": ("RunNode",),
    "beam_ray.api.run_progress": ("RunProgress",),
    "beam_ray.api.runs": ("Run",),
    "beam_ray.api.steps": ("Attempt", "CriterionResult", "JudgeVerdict", "Step"),
    "beam_ray.api.store": ("Store", "open"),
    "beam_ray.api.task_address": ("TASK_FILTERS", "task_query"),
    "beam_ray.api.task_list": ("TaskList", "TaskQuery"),
    "beam_ray.api.tasks": ("Task",),
    "beam_ray.api.traces": ("TraceImport", "TraceOptions"),
    "beam_ray.api.trend": ("Trend",),
    "beam_ray.api.verdicts": ("Candidate", "GateLine", "Verdict"),
    "beam_ray.api.versions": ("Evidence", "Version"),
    "beam_ray.api.workflows": ("CheckResult", "check", "load"),
    "beam_ray.backtest.spec": ("is_backtest_spec", "spec_name"),
    "beam_ray.define.agent": ("Agent", "AgentTool"),
    "beam_ray.define.criterion": ("Criterion",),
    "beam_ray.define.diff": ("Change",),
    "beam_ray.define.llm_call": ("LlmCall",),
    "beam_ray.define.mcp_server": ("McpServer",),
    "beam_ray.define.workflow": ("AutoRerun", "Evaluation", "Node", "Resources", "Workflow"),
    "beam_ray.improve.trend": ("CanarySet", "TrendPoint"),
    "beam_ray.llm.request": ("Answer", "Request"),
    "beam_ray.llm.scripted": ("ScriptedModel",),
    "beam_ray.llm.settings": ("ModelSettings",),
    "beam_ray.program_tools": ("recorded_tool",),
    "beam_ray.review.corrected_rates": ("CorrectedRate",),
    "beam_ray.review.correction": ("Figure", "JudgeErrors"),
    "beam_ray.review.judge_report": ("JudgePrecision", "JudgeReport"),
    "beam_ray.review.queue": ("ReviewAnswer", "ReviewItem", "ReviewQuestion", "reviewer_of"),
    "beam_ray.review.variance": ("VarianceComponents",),
    "beam_ray.review.waiting": ("ReviewSource",),
    "beam_ray.run.progress": ("Progress",),
    "beam_ray.store.lookup": ("status_of",),
    "beam_ray.tasks.sources": ("Tasks",),
    "beam_ray.tracking.worker_calls": ("ExportedDataset",),
}
_MODULE_OF = {name: module for module, names in _SOURCES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("beam-ray")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'beam_ray' has no attribute {name!r}")
    value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
