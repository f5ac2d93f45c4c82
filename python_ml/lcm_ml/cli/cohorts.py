"""`lcm-ml cohorts`: how long users stay, by month and by channel, and when a silence means that they are gone."""

from datetime import date, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lcm_ml.cli.console import Advance, AsOfOption, JsonOption, command, emit, notify, out, progress, with_interval

if TYPE_CHECKING:
    import duckdb
    import polars as pl

    Tables = dict[str, pl.DataFrame]
    Facts = dict[str, int]

SHOWN_DAYS = (28, 84, 182, 364)
SHOWN_SILENCES = (1, 7, 14, 28, 57, 85)
SHOWN_TESTS = 5


def cohorts(
    as_of: AsOfOption = None,
    seed: Annotated[int, typer.Option(help="Of the resamples behind the hazard's intervals.", min=0)] = 0,
    as_json: JsonOption = False,
) -> None:
    """Kaplan-Meier curves of churn and of the second purchase, and the chance of a purchase by days of silence.

    Curves are for all users, by month of the first purchase and by acquisition channel, with log-rank tests between
    channels. Retention by the same cohorts is marts.cohort_retention.

    Example: `lcm-ml cohorts`
    """
    with command(as_json):
        with progress("cohorts", as_json) as advance:
            result = run_cohorts(as_of, advance, seed)
        emit(result, as_json, _show)


def run_cohorts(as_of: datetime | None, advance: Advance, seed: int = 0) -> dict[str, Any]:
    """Read, compute, write, tell.

    Raises:
        LcmError: when the marts cannot be read or the warehouse cannot be written.
    """
    from lcm_ml.frames.frame import built_settings
    from lcm_ml.frames.purchases import buyers_at, purchase_days_before
    from lcm_ml.insights.silences import hazards, silences
    from lcm_ml.insights.survival import durations, survival_curves, survival_tests
    from lcm_ml.registry.runs import Run, run_capability

    run = Run("cohorts", {}, seed)

    def compute(con: "duckdb.DuckDBPyConnection", day: date) -> "tuple[Tables, tuple[Tables, Facts]]":
        import polars as pl

        advance("reading", 0.0)
        known = built_settings(con)
        smallest, horizon = int(known["min_group_size"]), int(known["churn_horizon_days"])
        quiet, users = silences(purchase_days_before(con, day), day), buyers_at(con, day)
        facts = {"users": users.height, "horizon_days": horizon, "min_group_size": smallest}
        advance("hazards", 0.3)
        hazard = hazards(quiet, horizon, smallest, seed).with_columns(horizon_days=pl.lit(horizon, pl.Int32))
        advance("curves", 0.6)
        found = durations(quiet, users, day)
        tables = {
            "survival_curves": survival_curves(found, smallest),
            "survival_tests": survival_tests(found, smallest),
            "purchase_hazards": hazard,
        }
        advance("writing", 0.95)
        return tables, (tables, facts)

    day, (tables, facts) = run_capability(run, as_of, compute, notify)
    curves, hazard = tables["survival_curves"], tables["purchase_hazards"]
    return {
        "run_id": run.run_id,
        "as_of_date": day,
        **facts,
        "curves": _told(curves),
        "tests": tables["survival_tests"].to_dicts(),
        "hazards": hazard.to_dicts(),
        "rows": {name: rows.height for name, rows in tables.items()},
        "note": None if facts["users"] else "nobody had purchased before this date: the tables are empty for it",
    }


def _told(curves: "pl.DataFrame") -> list[dict[str, Any]]:
    """Each curve at SHOWN_DAYS, as far as it goes."""
    import polars as pl

    rows = curves.filter(pl.col("days").is_in(SHOWN_DAYS)).select(
        "curve", "dimension", "level", "days", "at_risk", "survival", "ci_low", "ci_high"
    )
    return rows.to_dicts()


def _show(result: dict[str, Any]) -> None:
    from rich.table import Table

    out.print(f"cohorts at {result['as_of_date']}: {result['users']:,} users who have purchased")
    if result["note"]:
        out.print(result["note"])
        return
    for curve, title in (("second_purchase", "without a second purchase"), ("churn", "not churned")):
        table = Table(title=f"{title}, by days since the first purchase", title_justify="left")
        table.add_column("users")
        for days in SHOWN_DAYS:
            table.add_column(f"{days} days", justify="right")
        rows = [row for row in result["curves"] if row["curve"] == curve and row["dimension"] != "cohort_month"]
        for level in dict.fromkeys(row["level"] for row in rows):
            cells = {row["days"]: with_interval(row, ".1%", "survival") for row in rows if row["level"] == level}
            table.add_row(level, *(cells.get(days, "-") for days in SHOWN_DAYS))
        out.print(table)
    table = Table(title="chance of a purchase by days since the last one", title_justify="left")
    for header in ("days", "on that day", f"within {result['horizon_days']} days", "silences"):
        table.add_column(header, justify="right")
    for row in result["hazards"]:
        if row["days_since_last_purchase"] in SHOWN_SILENCES:
            back = {"value": row["probability_back"], "ci_low": row["back_ci_low"], "ci_high": row["back_ci_high"]}
            table.add_row(
                str(row["days_since_last_purchase"]),
                with_interval(row, ".1%", "hazard"),
                with_interval(back, ".1%"),
                f"{row['at_risk']:,}",
            )
    out.print(table)
    tested = [row for row in result["tests"] if row["p_value"] is not None]
    for row in sorted(tested, key=lambda row: row["p_value_adjusted"])[:SHOWN_TESTS]:
        out.print(
            f"{row['curve']}: {row['level']} against {row['other_level']}: log-rank p {row['p_value']:.3f}, adjusted "
            f"for all pairs {row['p_value_adjusted']:.3f}"
        )
    out.print("retention by month and channel: marts.cohort_retention; the charts: `lcm-ml report`")
