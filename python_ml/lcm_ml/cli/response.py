"""`lcm-ml response`: who will respond to a campaign, and what touched users will spend."""

from datetime import date, datetime
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

    from lcm_ml.decisions.response import Responses

HEADERS = {
    "response": ("auc", "average_precision", "log_loss", "brier"),
    "spend": ("mae", "rmse", "rank_correlation", "bias"),
}


def response(
    days: Annotated[
        int, typer.Option(help="Responses and spend within so many days of the touch.", min=1, max=90)
    ] = 28,
    as_of: AsOfOption = None,
    seed: Annotated[int, typer.Option(help="Of models and resamples.", min=0)] = 0,
    as_json: JsonOption = False,
) -> None:
    """Score every user's response to each kind of campaign, and its spend, with the best of four models.

    The models learn from earlier campaigns and are measured on later ones, beside the user's own past rate. A response
    is no effect: who responds may have purchased anyway; `lcm-ml uplift` tells these apart.

    Example: `lcm-ml response --days 28`
    """
    with command(as_json):
        with progress("response", as_json) as advance:
            result = run_response(as_of, advance, days, seed)
        emit(result, as_json, _show)


def run_response(as_of: datetime | None, advance: Advance, days: int = 28, seed: int = 0) -> dict[str, Any]:
    """Read, compare, score, write, tell.

    Raises:
        LcmError: when the marts cannot be read or the warehouse cannot be written.
    """
    import polars as pl

    from lcm_ml.decisions.response import respond
    from lcm_ml.frames.frame import built_settings
    from lcm_ml.frames.touches import (
        CONTROL,
        rows_to_score,
        touches_before,
        touching_share,
        with_features,
        with_outcomes,
    )
    from lcm_ml.registry.runs import Run, run_capability

    run = Run("response", {"days": days}, seed)

    def compute(con: Any, day: date) -> "tuple[dict[str, pl.DataFrame], tuple[Responses, float]]":
        advance("reading", 0.0)
        share = touching_share(con, day, built_settings(con)["max_training_rows"])
        touched = touches_before(con, day, share).filter(pl.col("arm") != CONTROL)
        known = with_features(con, with_outcomes(con, touched, day, days))
        rows = rows_to_score(con, day)
        found = respond(known, rows, days, seed, lambda what, done: advance(what, 0.1 + 0.85 * done))
        return _tables(found, days), (found, share)

    day, (found, share) = run_capability(run, as_of, compute, notify)
    return {
        "run_id": run.run_id,
        "as_of_date": day,
        "days": days,
        "users_share": share,
        **found.about,
        "chosen": found.chosen,
        "metrics": found.metrics.to_dicts(),
        "scored": found.scores.height,
        "note": found.note,
    }


def _tables(found: "Responses", days: int) -> "dict[str, pl.DataFrame]":
    import polars as pl

    if found.note:
        return {"response_metrics": pl.DataFrame(), "response_scores": pl.DataFrame()}
    models = {"model_name": found.chosen["response"], "spend_model_name": found.chosen["spend"]}
    named = [pl.lit(value).alias(name) for name, value in models.items()]
    horizon = pl.lit(days).alias("horizon_days")
    return {
        "response_metrics": found.metrics.with_columns(horizon),
        "response_scores": found.scores.with_columns(horizon, *named),
    }


def _show(result: dict[str, Any]) -> None:
    from rich.table import Table

    if result["note"]:
        out.print(f"no response scores at {result['as_of_date']}: {result['note']}")
        return
    out.print(
        f"learned from {result['n_train']:,} touches, measured on {result['n_test']:,} of {result['n_campaigns']} "
        f"campaigns from {result['cut']} on, of which {result['base_rate']:.1%} had a response within "
        f"{result['days']} days"
    )
    show_share(result["users_share"])
    for target, metrics in HEADERS.items():
        rows = [row for row in result["metrics"] if row["target"] == target]
        table = Table(target, *(metric.replace("_", " ") for metric in metrics))
        for name in dict.fromkeys(row["model_name"] for row in rows):
            figures = {row["metric"]: row for row in rows if row["model_name"] == name}
            chosen = "> " if name == result["chosen"][target] else "  "
            table.add_row(chosen + name, *(_cell(figures[metric]) for metric in metrics))
        out.print(table)
    out.print(f"> scores: {result['scored']:,} rows of users and kinds of campaigns at {result['as_of_date']}")


def _cell(row: dict[str, Any]) -> str:
    return with_interval(row, ".3f" if abs(row["value"] or 0) < 10 else ".1f")
