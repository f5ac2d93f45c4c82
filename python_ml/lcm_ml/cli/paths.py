"""`lcm-ml paths`: ways through the shop, and the steps that come before churn or a second purchase."""

from datetime import date, datetime, timedelta
from typing import Annotated, Any

import typer

from lcm_ml.cli.console import AsOfOption, JsonOption, command, emit, notify, out, progress

SHOWN, SHOWN_OF_KIND = 8, 4
OUTCOMES = {"churn": "churned", "second_purchase": "bought again"}


def paths(
    as_of: AsOfOption = None,
    days: Annotated[
        int | None, typer.Option(help="Days before it to look at. Default: the var active_window_days.", min=1)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show funnels, the most frequent paths, what follows what, and which steps come before churn or a second purchase.

    Example: `lcm-ml paths --days 28`
    """
    with command(as_json):
        with progress("paths", as_json) as advance:
            result = run_paths(as_of, advance, days)
        emit(result, as_json, _show)


def run_paths(as_of: datetime | None, advance: Any, days: int | None = None) -> dict[str, Any]:
    """Read, count, compare, write.

    Raises:
        LcmError: when the marts cannot be read or the warehouse cannot be written.
    """
    import polars as pl

    from lcm_ml.frames.frame import built_settings
    from lcm_ml.frames.steps import gap_steps, session_steps
    from lcm_ml.insights.paths import frequent_paths, funnels, has_clicks, transitions
    from lcm_ml.registry.runs import Run, run_capability

    run = Run("paths", {"days": days})

    def compute(con: Any, day: date) -> tuple[dict[str, pl.DataFrame], dict[str, Any]]:
        settings = built_settings(con)
        window = int(settings["active_window_days"]) if days is None else days
        since = day - timedelta(days=window)
        advance("reading", 0.0)
        steps = session_steps(con, day, since)
        clicks = has_clicks(steps)
        advance("paths", 0.4)
        # In a shop that records purchases alone, a session is one step: what there is to follow is the rhythm.
        funnel = funnels(steps if clicks else steps.clear())
        steps = steps if clicks else gap_steps(con, day, since)
        found, follows = frequent_paths(steps, purchases=clicks), transitions(steps)
        lifts, cohorts = _lifts(con, day, window, int(settings["churn_horizon_days"]), clicks, advance)
        unit, length = pl.lit("session" if clicks else "user").alias("unit"), pl.lit(window, pl.Int32).alias("days")
        told = {
            "days": window,
            "unit": "session" if clicks else "user",
            "trails": steps["trail"].n_unique(),
            "funnel": funnel.to_dicts(),
            "paths": found.head(SHOWN).to_dicts(),
            "transitions": follows.height,
            "outcomes": [
                {**cohort, "top": _top(lifts.filter(outcome=name, is_significant=True))}
                for name, cohort in cohorts.items()
            ],
            "note": None if clicks else _no_clicks(steps.height),
        }
        advance("writing", 0.95)
        tables = {
            "session_funnels": funnel.with_columns(length),
            "frequent_paths": found.with_columns(unit, length),
            "path_transitions": follows.with_columns(unit, length),
            "sequence_lifts": lifts.with_columns(length),
        }
        return tables, told

    day, told = run_capability(run, as_of, compute, notify)
    return {"run_id": run.run_id, "as_of_date": day, **told}


def _lifts(con: Any, day: Any, window: int, horizon: int, clicks: bool, advance: Any) -> Any:
    """Lifts of both outcomes, and what is to be told of the users behind them."""
    import polars as pl

    from lcm_ml.frames.steps import churn_cohort, second_purchase_cohort, steps_before
    from lcm_ml.insights.sequences import rank_lifts, sequence_lifts

    kinds = ("event", "category", "gap") if clicks else ("category", "gap")
    frames, cohorts = [], {}
    for name, read_cohort, start in (("churn", churn_cohort, 0.5), ("second_purchase", second_purchase_cohort, 0.75)):
        advance(name.replace("_", " "), start)
        cohort = read_cohort(con, day, window, horizon)
        # Someone who bought once has no gap between purchases.
        used = [kind for kind in kinds if name == "churn" or kind != "gap"]
        ranked = rank_lifts({kind: sequence_lifts(steps_before(con, cohort, kind), cohort) for kind in used})
        frames.append(ranked.with_columns(outcome=pl.lit(name)))
        cohorts[name] = {
            "outcome": name,
            "users": cohort.height,
            "with_outcome": int(cohort["outcome"].sum()),
            "sequences": ranked.height,
            "significant": int(ranked["is_significant"].sum()),
        }
    return pl.concat(frames), cohorts


def _top(lifts: Any) -> list[dict[str, Any]]:
    """The surest sequences, of each kind of steps as many."""
    import polars as pl

    top: list[dict[str, Any]] = lifts.filter(pl.int_range(pl.len()).over("step_kind") < SHOWN_OF_KIND).to_dicts()
    return top


def _no_clicks(steps: int) -> str:
    if not steps:
        return "no event of this window follows another one: there is no path to show"
    return "sessions hold purchases alone: there is no funnel, and paths are gaps between days of purchase, by user"


def _show(result: dict[str, Any]) -> None:
    from lcm_ml.insights.paths import EVERYWHERE

    out.print(
        f"{result['days']} days before {result['as_of_date']}: {result['trails']:,} {result['unit']}s with a path, "
        f"{result['transitions']:,} transitions"
    )
    if result["note"]:
        out.print(result["note"])
    for step in result["funnel"]:
        if step["channel"] == EVERYWHERE:
            out.print(
                f"  {step['event_type']:<9} {step['sessions']:>10,} sessions, {step['users']:,} users{_from(step)}"
            )
    for path in result["paths"]:
        out.print(f"  {path['share']:6.1%}  {path['path']}")
    for outcome in result["outcomes"]:
        what = OUTCOMES[outcome["outcome"]]
        out.print(
            f"{outcome['users']:,} users, of whom {outcome['with_outcome']:,} {what}: {outcome['significant']:,} of "
            f"{outcome['sequences']:,} sequences make a difference that chance does not"
        )
        for found in outcome["top"]:
            times = "only they" if found["lift"] is None else f"{found['lift']:.2f} times"
            out.print(f"  {found['sequence']}", style="bold")
            out.print(
                f"    {found['rate_with']:.1%} of {found['users_with']:,} {what}, {found['rate_without']:.1%} of the "
                f"others: {times} ({found['ci_low']:.2f} to {found['ci_high']:.2f})"
            )


def _from(step: dict[str, Any]) -> str:
    if step["share_of_previous"] is None:
        return ""
    after = "" if step["median_seconds"] is None else f", after {step['median_seconds']:,.0f} s (median)"
    return (
        f"; {step['share_of_previous']:.1%} ({step['ci_low']:.1%} to {step['ci_high']:.1%}) of the step before{after}"
    )
