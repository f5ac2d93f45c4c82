"""`lcm-ml uplift`: what a campaign touch adds, user by user."""

from datetime import date, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lcm_ml.cli.console import (
    Advance,
    AsOfOption,
    JsonOption,
    command,
    emit,
    notify,
    out,
    progress,
    show_share,
    with_interval,
)

if TYPE_CHECKING:
    import polars as pl

    from lcm_ml.decisions.uplift.uplifting import Uplift

SHOWN = ("qini", "auuc", "gain_top_30", "gain_all", "calibration_slope")


class Outcome(StrEnum):
    """What a touch may add to."""

    purchase = "purchase"
    orders = "orders"
    spend = "spend"


class Controls(StrEnum):
    """Who says what would have been without a touch."""

    arm = "arm"
    untouched = "untouched"


def uplift(
    outcome: Annotated[Outcome, typer.Option(help="A purchase, the number of orders, or money.")] = Outcome.purchase,
    days: Annotated[int, typer.Option(help="Within so many days of the touch.", min=1, max=90)] = 14,
    controls: Annotated[
        Controls,
        typer.Option(help="The campaigns' control arms, or users they left alone: observational, overlap permitting."),
    ] = Controls.arm,
    min_effect: Annotated[
        float | None, typer.Option(help="Worth a touch, in the outcome's unit. Default: 2 % of its usual size.", min=0)
    ] = None,
    as_of: AsOfOption = None,
    seed: Annotated[int, typer.Option(help="Of folds, trees and resamples.", min=0)] = 0,
    as_json: JsonOption = False,
) -> None:
    """Tell who purchases because of a touch: persuadables, sure things, lost causes and do-not-disturbs.

    T-, X- and DR-learners are compared on earlier campaigns and measured on later ones. Without a control arm there is
    nothing to compare with: the command says so and writes no effects.

    Example: `lcm-ml uplift --outcome purchase --days 14`
    """
    with command(as_json):
        with progress("uplift", as_json) as advance:
            result = run_uplift(as_of, advance, outcome.value, days, controls.value, min_effect, seed)
        emit(result, as_json, _show)


def run_uplift(
    as_of: datetime | None,
    advance: Advance,
    outcome: str = "purchase",
    days: int = 14,
    controls: str = "arm",
    min_effect: float | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Read, check, estimate, write, tell.

    Raises:
        LcmError: when the marts cannot be read or the warehouse cannot be written.
    """
    from lcm_ml.decisions.uplift.uplifting import Wanted, uplift
    from lcm_ml.frames.frame import built_settings
    from lcm_ml.frames.touches import (
        rows_to_score,
        touches_before,
        touching_share,
        with_features,
        with_outcomes,
        with_untouched,
    )
    from lcm_ml.registry.runs import Run, run_capability

    asked = {"outcome": outcome, "days": days, "controls": controls, "min_effect": min_effect}
    run = Run("uplift", dict(asked), seed)

    def compute(con: Any, day: date) -> "tuple[dict[str, pl.DataFrame], tuple[Uplift, float]]":
        advance("reading", 0.0)
        share = touching_share(con, day, built_settings(con)["max_training_rows"])
        touched = touches_before(con, day, share)
        compared = with_untouched(con, touched, share) if controls == Controls.untouched else touched
        known = with_features(con, with_outcomes(con, compared, day, days))
        rows = rows_to_score(con, day)
        found = uplift(known, rows, Wanted(outcome, days, min_effect, seed), advance)
        advance("writing", 0.97)
        return _tables(found, outcome, days), (found, share)

    day, (found, share) = run_capability(run, as_of, compute, notify)
    segments = found.scores["uplift_segment"].value_counts() if found.scores.height else None
    return {
        "run_id": run.run_id,
        "as_of_date": day,
        **asked,
        "users_share": share,
        **found.about,
        "learner": found.learner,
        "metrics": found.metrics.to_dicts(),
        "segments": dict(sorted(segments.iter_rows())) if segments is not None else {},
        "scored": found.scores.height,
        "warnings": list(found.warnings),
        "note": found.note,
    }


def _tables(found: "Uplift", outcome: str, days: int) -> "dict[str, pl.DataFrame]":
    import polars as pl

    from lcm_ml.warehouse.contracts import tables

    same = {"outcome": outcome, "horizon_days": days, "design": found.about.get("design")}
    run = {"run_id", "as_of_date"}
    frames = {
        "uplift_metrics": found.metrics,
        "uplift_curves": found.curves,
        "uplift_overlap": found.overlap,
        "uplift_scores": found.scores,
    }
    made = {}
    for name, rows in frames.items():
        if rows.is_empty():
            made[name] = rows
            continue
        learner = {} if "learner" in rows.columns else {"learner": pl.lit(found.learner, pl.String)}
        stamped = rows.with_columns(**{key: pl.lit(value) for key, value in same.items()}, **learner)
        chosen = pl.col("learner").eq_missing(pl.lit(found.learner, pl.String)) & pl.col("learner").is_not_null()
        made[name] = stamped.with_columns(is_chosen=chosen).select(
            column for column in tables("ml")[name].column_names if column not in run
        )
    return made


def _show(result: dict[str, Any]) -> None:
    from rich.table import Table

    if result["note"]:
        out.print(f"no effects at {result['as_of_date']}: {result['note']}")
        return
    out.print(
        f"{result['design']} arms (AUC of telling them apart {result['auc']:.2f}); learned from {result['n_train']:,} "
        f"rows, measured on {result['n_test']:,}: {result['split']}",
    )
    show_share(result["users_share"])
    held_out = [row for row in result["metrics"] if row["part"] == "held_out"]
    table = Table("ranking", "Qini", "AUUC", "gain of the first 30 %", "gain of all", "calibration slope")
    for name in dict.fromkeys(row["learner"] for row in held_out):
        figures = {row["metric"]: row for row in held_out if row["learner"] == name}
        cells = [
            _cell(figures.get(metric)) for metric in ("qini", "auuc", "gain_top_30", "gain_all", "calibration_slope")
        ]
        table.add_row(("> " if name == result["learner"] else "  ") + name, *cells)
    out.print(table)
    out.print(f"gains: {result['outcome']} within {result['days']} days per user of all; 95 % intervals over users")
    for segment, count in result["segments"].items():
        out.print(f"{segment}: {count:,} ({count / result['scored']:.1%} of users and kinds)")
    for warning in result["warnings"]:
        out.print(f"note: {warning}", style="yellow")


def _cell(row: dict[str, Any] | None) -> str:
    small = row is not None and row["metric"] != "calibration_slope" and abs(row["value"] or 0) < 1
    return with_interval(row, ".4f" if small else ".2f")
