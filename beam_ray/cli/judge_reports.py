"""How a judge beside people is shown."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

import beam_ray
from beam_ray.cli.screen import plural, show, table

_ADVICE = {"tasks": "Buy more tasks first", "trials": "Buy more trials first", "judge repeats": "Buy more judgements per output first: a panel"}

SHOWN = 20
"""Disagreements of one kind that are listed."""


def show_judge_report(report: beam_ray.JudgeReport) -> None:
    """A judge's figures, with every disagreement one by one."""
    by = f"judged by {report.judge}" if report.judge else "a rule"
    show(f"{report.node}/{report.criterion}: {report.text}")
    people = ", ".join(f"{name} {count}" for name, count in report.reviewers)
    show(f"  {by} · {plural(report.outputs, 'output')} reviewed, {report.drawn} of them drawn at random · version {report.version[:8]} · answers: {people}")
    for sample in report.samples:
        of = (
            f", {sample.reviewed} of a sample of {sample.sample:,} out of {sample.population:,}"
            if sample.sample and sample.population
            else f", {sample.reviewed}"
        )
        show(f"  run {sample.run_id}: {sample.how}{of}")
    left_out = [(report.unsure, "nobody could tell"), (report.tied, "reviewers tie"), (report.undecided, "the judge could not decide")]
    if any(count for count, _ in left_out):
        show(f"  left out: {', '.join(f'{count} where {why}' for count, why in left_out if count)}")
    if report.hidden < report.answers:
        show(f"  {report.answers - report.hidden} of {report.answers} answers were given with the judge's verdict in sight")
    if report.errors:
        _show_errors(report, report.errors)
    else:
        show("  nothing was drawn at random, so no rates can be given: beam-ray review start draws a sample")
    for title, found in (("false pass", report.false_passes), ("false failure", report.false_failures)):
        if found:
            show(f"  {plural(len(found), title, f'{title}s' if title.endswith('e') else f'{title}es')}:")
            for each in found[:SHOWN]:
                show(
                    f"    {each.address}  {', '.join(each.reviewers)}{f': {each.comment}' if each.comment else ''}{'' if each.drawn else '  (not drawn at random)'}"
                )
            if len(found) > SHOWN:
                show(f"    … and {len(found) - SHOWN} more: --json lists all")
    for pair in report.between:
        kappa = f", kappa {shown_figure(pair.kappa, 1, 2)}" if pair.kappa else ""
        show(f"  {pair.one} and {pair.other} say the same of {pair.same} of {pair.outputs} outputs{kappa}")


def _show_errors(report: beam_ray.JudgeReport, errors: beam_ray.JudgeErrors) -> None:
    right, false_pass, false_failure, unmet = report.counts
    rows = [
        ["agreement", shown_figure(errors.agreement), f"{right + unmet} of {report.drawn}; always the same verdict would reach {100 * errors.constant:.1f}%"],
        ["kappa", shown_figure(errors.kappa, 1, 2) if errors.kappa else "-", "agreement beyond chance: 1 is perfect, 0 is chance"],
        ["sensitivity", shown_figure(errors.sensitivity), f"{right} of {right + false_failure} outputs that people pass are passed"],
        ["specificity", shown_figure(errors.specificity), f"{unmet} of {unmet + false_pass} outputs that people fail are failed"],
    ]
    if report.judged_rate and report.corrected_rate:
        rows.append(["met, as judged", shown_figure(report.judged_rate), "of all outputs of the reviewed runs"])
        rows.append(["met, corrected", shown_figure(report.corrected_rate), "for the judge's errors"])
    show(table(["", "estimate (95% interval)", ""], rows, width=90))
    if report.precision:
        show(f"  {report.precision.words(report.drawn)}")


def shown_figure(figure: beam_ray.Figure | None, factor: float = 100, digits: int = 1, sign: str = "") -> str:
    """An estimate with its interval; a share in percent, a change of shares (with a sign) in points."""
    if figure is None:
        return "-"
    unit = "%" if factor == 100 and not sign else ""
    return f"{factor * figure.value:{sign}.{digits}f}{unit} ({factor * figure.low:{sign}.{digits}f} … {factor * figure.high:{sign}.{digits}f})"


def show_variance(found: beam_ray.VarianceComponents) -> None:
    """Where the scatter of a node's scores comes from, and what to buy more of."""
    parts = [
        (found.between_tasks, "between tasks"),
        (found.between_trials, "between trials of a task"),
        (found.between_judgements, "between judgements of an output"),
    ]
    known = [f"{value:.1f} {what}" for value, what in parts if value is not None]
    show(f"  score of {found.node}, standard deviations in points: {', '.join(known)}")
    unknown = [what for value, what in parts if value is None]
    if unknown:
        show(f"  not measured: {' and '.join(unknown)}")
    change = f"; {found.error_of_change:.1f} for a change over the same tasks, from trials and judge alone" if found.error_of_change is not None else ""
    trials = f", {plural(found.trials, 'trial')} each" if found.trials > 1 else ""
    show(f"  standard error of the mean of the run's {plural(found.tasks, 'task')}{trials}: {found.error:.1f} points{change}")
    bought = [f"{what} {error:.2f}" for what, error in found.purchases()]
    price = "" if found.priced else ", with an output priced like a judgement"
    show(f"  standard error after a tenth more is spent on: {', '.join(bought)}{price}. {_ADVICE[found.purchases()[0][0]]}")
