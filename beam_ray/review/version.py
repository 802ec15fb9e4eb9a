"""Which version of a criterion people answered, and which judge had answered it."""

from beam_ray.define.criterion import Criterion
from beam_ray.define.fingerprint import Json, digest
from beam_ray.define.workflow import Workflow
from beam_ray.evaluate.judge import judged_together
from beam_ray.run.context import criterion_parts
from beam_ray.store.run_record import RunRecord


def criterion_version(criterion: Criterion) -> str:
    """Identifies what must hold, whoever decides it: text, field, condition. Weight, id and what only the judge is shown do not matter."""
    return digest("criterion/1", criterion.kind, criterion.text, criterion.field, criterion.want, criterion.ignore)


def judge_version(record: RunRecord, node: str, criterion: Criterion) -> str:
    """
    Identifies who decided the criterion in the run: the judging models with their settings, and the criteria that they are asked together.

    The same sentence may be decided otherwise beside another one, so a judge is only the same where all of them are. A rule is itself.
    """
    workflow: Workflow = record.plan
    evaluate = workflow.nodes[node].evaluate
    for group in judged_together(evaluate.criteria if evaluate else ()):
        if any(each.id == criterion.id for each in group):
            asked: list[Json] = [criterion_parts(each) for each in group]
            return digest("judge/1", asked, [record.models.get(name, {}).get("identity") for name in workflow.judges_of(node)])
    return digest("rule/1", criterion_version(criterion))


def output_digest(output: str) -> str:
    """Identifies an output by its JSON text, as stored."""
    return digest("output/1", output)
