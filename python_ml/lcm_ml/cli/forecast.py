"""`lcm-ml forecast`: what to expect of revenue, orders, users and stages, and whether the newest days were unusual."""

from datetime import date, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lcm_ml.cli.console import AsOfOption, JsonOption, command, emit, notify, out, progress, with_interval

if TYPE_CHECKING:
    import polars as pl

    from lcm_ml.decisions.forecasting import Forecast
    from lcm_ml.decisions.series import Series


class Wanted(StrEnum):
    """What can be forecast."""

    revenue = "revenue"
    orders = "orders"
    active_users = "active_users"
    stages = "stages"


WORSE = 0.005
"""Of MASE: smaller differences from the seasonal naive are not told."""
DAYS = 28
NO_LIBRARY = "statsforecast is not installed, so that only plain models stand in: pip install 'lcm-ml[forecast]'"


def forecast(
    days: Annotated[int, typer.Option(help="Days ahead; whole weeks for weekly series.", min=7, max=182)] = DAYS,
    series: Annotated[
        list[Wanted] | None, typer.Option(help="Again for several. Default: all. What was written of others stays.")
    ] = None,
    as_of: AsOfOption = None,
    as_json: JsonOption = False,
) -> None:
    """Forecast revenue, orders and active users by day and week, and lifecycle stages by week, with intervals.

    Which model serves a series is chosen on past origins; how good it was is measured on later ones. Days that were far
    from what was expected are kept for `lcm-ml monitor`, which raises alerts of them.

    Example: `lcm-ml forecast --days 28 --series revenue`
    """
    with command(as_json):
        with progress("forecast", as_json) as advance:
            result = run_forecast(as_of, advance, days, tuple(series or ()))
        emit(result, as_json, _show)


def run_forecast(
    as_of: datetime | None, advance: Any, days: int = DAYS, series: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Read, forecast, measure, look for anomalies, write.

    Args:
        as_of: one of marts.as_of_dates; the end of the data where None.
        advance: told what is under way.
        days: of the horizon.
        series: names of Wanted; all where empty.

    Raises:
        LcmError: when the marts cannot be read or the warehouse cannot be written.
    """
    import polars as pl

    from lcm_ml.decisions.anomalies import anomalies
    from lcm_ml.decisions.forecast_models import is_installed
    from lcm_ml.decisions.forecasting import forecast_all
    from lcm_ml.decisions.series import shop_series
    from lcm_ml.frames.frame import built_settings
    from lcm_ml.frames.sales import sales_before, stages_before
    from lcm_ml.registry.runs import Run, run_capability

    run = Run("forecast", {"days": days, "series": list(series)})

    def compute(con: Any, day: date) -> tuple[dict[str, pl.DataFrame], dict[str, Any]]:
        advance("reading", 0.0)
        settling = int(built_settings(con)["churned_min_days"])
        known = shop_series(sales_before(con, day), stages_before(con, day, settling), day)
        chosen = [each for each in known if not series or _wanted(each.name) in series]
        made, short = forecast_all(chosen, days, lambda what, share: advance(what, 0.1 + 0.8 * share))
        unusual = [anomalies(each) for each in chosen if _wanted(each.name) != Wanted.stages]
        advance("writing", 0.95)
        parts = {
            "forecasts": [_named(each, each.rows) for each in made],
            "forecast_metrics": [_named(each, each.metrics) for each in made],
            "forecast_anomalies": unusual,
        }
        found = {name: _stacked(rows) for name, rows in parts.items()}
        told = {
            "days": days,
            "series": [_told(each) for each in made],
            "anomalies": found["forecast_anomalies"].to_dicts(),
            "notes": _notes(made, short, is_installed()),
        }
        this_run = {"run_id": run.run_id, "as_of_date": day}
        return {name: _with_others(con, name, rows, this_run, series) for name, rows in found.items()}, told

    day, told = run_capability(run, as_of, compute, notify)
    return {"run_id": run.run_id, "as_of_date": day, **told}


def _wanted(name: str) -> str:
    return Wanted.stages if name.startswith("stage_") else name


def _named(found: "Forecast", rows: "pl.DataFrame") -> "pl.DataFrame":
    import polars as pl

    return rows.with_columns(series=pl.lit(found.series.name), grain=pl.lit(found.series.grain))


def _stacked(parts: "list[pl.DataFrame]") -> "pl.DataFrame":
    import polars as pl

    full = [part for part in parts if part.height]
    return pl.concat(full, how="vertical_relaxed") if full else pl.DataFrame()


def _with_others(
    con: Any, table: str, rows: "pl.DataFrame", this_run: dict[str, Any], series: tuple[str, ...]
) -> "pl.DataFrame":
    """The rows, and where not all series were asked for, what there is of the others: a date is written whole."""
    import polars as pl

    from lcm_ml.frames.frame import read
    from lcm_ml.warehouse.connection import table_exists

    if not series or not table_exists(con, "ml", table):
        return rows
    before = read(con, f"select * from ml.{table} where as_of_date = $day", {"day": this_run["as_of_date"]})
    kind = pl.when(pl.col("series").str.starts_with("stage_")).then(pl.lit(Wanted.stages.value)).otherwise("series")
    others = before.filter(~kind.is_in(list(series)))
    if rows.is_empty() or others.is_empty():
        return others if rows.is_empty() else rows
    own = rows.with_columns(pl.lit(value).alias(name) for name, value in this_run.items())
    return pl.concat([others, own.select(others.columns)], how="vertical_relaxed")


def _told(found: "Forecast") -> dict[str, Any]:
    figures: dict[str, dict[str, Any]] = {}
    for row in found.metrics.filter(found.metrics["horizon"] == "all").to_dicts():
        interval = {key: row[key] for key in ("value", "ci_low", "ci_high")}
        figures.setdefault(row["model_name"], {})[row["metric"]] = interval
    return {
        "series": found.series.name,
        "grain": found.series.grain,
        "served": found.served,
        "n_origins": found.metrics.item(0, "n_origins"),
        "figures": figures,
        "forecast": found.rows.drop("model_name").to_dicts(),
    }


def _notes(made: "list[Forecast]", short: "list[Series]", has_library: bool) -> list[str]:
    from lcm_ml.decisions.forecast_models import NAIVE

    notes = [] if has_library else [NO_LIBRARY]
    if short:
        names = ", ".join(sorted({each.name for each in short}))
        notes.append(f"too short a history to forecast and to measure: {names}; about half a year is needed")
    if not made and not short:
        notes.append("nothing was purchased before this date")
    for each in made:
        differences = each.metrics.filter(each.metrics["is_served"] & (each.metrics["metric"] == "mase_less_naive"))
        if each.served != NAIVE and differences.height and differences.item(0, "value") >= WORSE:
            notes.append(
                f"{each.series.name} by {each.series.grain}: seasonal naive was better than {each.served} on the later "
                f"origins (MASE {differences.item(0, 'value'):+.3f} for {each.served})"
            )
    return notes


def _show(result: dict[str, Any]) -> None:
    from rich.table import Table

    from lcm_ml.decisions.forecast_models import NAIVE

    out.print(f"forecast of {result['days']} days from {result['as_of_date']} on")
    if result["series"]:
        table = Table()
        for title in ("series", "by", "model", "expected"):
            table.add_column(title, no_wrap=True)
        for title in ("MASE", "of the naive", "inside 80 %", "inside 95 %"):
            table.add_column(title)
        for each in result["series"]:
            own, naive = each["figures"][each["served"]], each["figures"][NAIVE]
            values = [row["value"] for row in each["forecast"]]
            is_count_of_users = each["series"] not in ("revenue", "orders")
            total = f"{values[-1]:,.0f} at the end" if is_count_of_users else f"{sum(values):,.0f}"
            table.add_row(
                each["series"],
                each["grain"],
                each["served"],
                total,
                with_interval(own["mase"], ".2f"),
                with_interval(naive["mase"], ".2f"),
                with_interval(own["coverage_80"], ".0%"),
                with_interval(own["coverage_95"], ".0%"),
            )
        out.print(table)
        out.print("MASE and coverage: on the newest past origins, which had no part in choosing the model")
    for row in result["anomalies"]:
        out.print(
            f"unusual: {row['series']} of the {row['grain']} {row['date']} was {row['value']:,.0f}; expected "
            f"{row['expected']:,.0f}, 99 % within {row['low']:,.0f} to {row['high']:,.0f}",
            style="yellow",
        )
    if result["anomalies"]:
        out.print("next: lcm-ml monitor raises alerts of them")
    for note in result["notes"]:
        out.print(f"note: {note}")
