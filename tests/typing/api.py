"""Uses the public API as its users do. Type-checked, never run: the signatures' own test."""

import pyarrow as pa

import beam_ray


def runs(store: beam_ray.Store, workflow: beam_ray.Workflow) -> float | None:
    plan: beam_ray.Plan = store.plan(workflow, [{"task_query": "x"}], trials=2)
    run: beam_ray.Run = store.run("tickets.yaml", beam_ray.Tasks("tasks.csv", columns={"task_query": "body"}), budget={"max_usd": 2}, progress=True)
    run = store.resume(run, progress=lambda progress: None)
    waiting: list[beam_ray.OpenBatch] = beam_ray.open("store", lane="batch").batches()
    assert all(each.max_usd is None or each.answered is None for each in waiting)
    table: pa.Table = run.tasks(status="below", labels=["scan"], where="score < 80")
    task: beam_ray.Task = store.task(f"{run.id}/{table['task_id'][0].as_py()}")
    attempt: beam_ray.Attempt = task.step("sort").attempts[0]
    return plan.max_usd if attempt.score is None else attempt.score


def backtests(store: beam_ray.Store) -> str:
    verdict: beam_ray.Verdict = store.backtest("spec.yaml", options=beam_ray.BacktestOptions(notify=("slack:${env:HOOK}",)))
    verdict.notify("https://example.com/hook")
    with store.connected() as connected:
        comparison: beam_ray.Comparison = connected.compare("last", "last", names=("old", "new"))
    found: beam_ray.Reproduction = store.reproduce(store.import_backtest("orders.zip"))
    trend: beam_ray.Trend = store.trend(verdict.workflow, since="2026-11-01")
    changed: tuple[beam_ray.CanarySet, ...] = trend.changed
    assert found.reproduced or not changed
    return verdict.word or comparison.word


def reviews(store: beam_ray.Store) -> float | None:
    queue: beam_ray.ReviewQueue = store.review_queue("tickets", "sort", sample=beam_ray.ReviewSample("balanced", count=20, seed=1))
    item: beam_ray.ReviewItem | None = queue.next("ann")
    if item:
        made: beam_ray.RecordedReviews = store.record_review(item, {"polite": True, "short": None}, reviewer="ann")
        store.record_review(item, {"polite": beam_ray.ReviewAnswer(False, "curt")}, reviewer="ann", hidden=bool(made.unchanged))
    store.import_reviews(queue.write("reviews.csv"))
    table: pa.Table = store.reviews("tickets")
    reports: list[beam_ray.JudgeReport] = store.review_agreement("tickets")
    plans: list[beam_ray.CriteriaPlan] = store.plan_criteria("tickets.yaml", repeats=2)
    variance: beam_ray.VarianceComponents | None = store.criteria("tickets.yaml", repeats=plans[0].repeats)[0].variance
    rates: tuple[beam_ray.CorrectedRate, ...] = store.verdict("x").corrected_rates()
    kappa = reports[0].errors.kappa if reports[0].errors and table.num_rows else None
    return kappa.low if kappa and rates and variance else None


def checks() -> str:
    return beam_ray.check(beam_ray.load("tickets.yaml")).workflow.name
