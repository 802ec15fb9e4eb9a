"""Which candidates of a backtest with ``rerun: fresh`` count as tried on held-out tasks."""

import beam_ray
from beam_ray.api.backtests import BacktestOptions, _note_use, _prepared
from beam_ray.backtest.conclude import conclude
from beam_ray.improve.exposure import count_drafts
from beam_ray.improve.holdout import split
from beam_ray.llm import ScriptedModel
from beam_ray.store.libraries import library_at, write_library
from tests.conftest import Lab
from tests.improve.scripted import here
from tests.sums import WORKFLOW, numbers, reply

SPEC = """
backtest: sums
workflow: sums.yaml
tasks: library:sums
baseline: sums.yaml
candidates:
  better: {nodes.read.llm.prompt: "better {{ task_query }}"}
  same: {nodes.say.llm.prompt: "say it is {{ read.n }}"}
gate: none
rerun: fresh
"""


def test_all_count_where_they_are_compared_and_the_best_one_where_it_is_run_again(lab: Lab) -> None:
    """
    Both candidates count as tried on the held-out tasks that are compared, and the best one alone on those that are kept back for it.
    """
    lab.write("sums.yaml", WORKFLOW)
    lab.write("spec.yaml", SPEC)
    write_library(lab.objects, "sums", lab.tasks(numbers(60)), 0)
    store = beam_ray.open(lab.folder / "store", models={"m": ScriptedModel(lambda request: reply(str(request.messages[-1]["content"])))})
    held = set(split(lab.objects, library_at(lab.objects, "sums@1")).held["inputs"].to_pylist())
    engine = _prepared(store, lab.folder / "spec.yaml", BacktestOptions())
    engine.execute = here
    said: list[str] = []
    engine.progress = lambda progress: said.append(progress.message) if progress.message else None
    _note_use(engine, engine.tasks, engine.resolved.candidates)
    engine.before_rerun = lambda side: _note_use(engine, engine.fresh_tasks, (side,))
    conclude(engine)
    compared, fresh = (held & set(table["inputs"].to_pylist()) for table in (engine.tasks, engine.fresh_tasks))

    assert compared and fresh
    assert (count_drafts(lab.objects, compared), count_drafts(lab.objects, fresh)) == (2, 1)
    assert any("these 2 drafts count" in line for line in said) and any("this draft counts" in line for line in said)
