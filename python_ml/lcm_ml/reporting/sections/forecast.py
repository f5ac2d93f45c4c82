"""What is to come: sales by day, lifecycle stages by week, and how good such forecasts were."""

from datetime import date, timedelta
from typing import Any

import duckdb
import polars as pl

from lcm_ml.frames.sales import sales_before, stages_before
from lcm_ml.reporting import charts
from lcm_ml.reporting.charts_forecast import fan
from lcm_ml.reporting.section import (
    Figure,
    MakeSection,
    Section,
    Table,
    cell,
    count,
    listed,
    newest_date,
    number,
    plural,
    rows_of,
    share,
)

FORECAST = "lcm-ml forecast"
ONCE = "there is about half a year of history"
HISTORY_DAYS = {"day": 84, "week": 182}
NAIVE = "seasonal_naive"
TITLES = {"revenue": "Revenue", "orders": "Orders", "active_users": "Active users"}


def _title(series: str) -> str:
    return TITLES.get(series, f"Stage {series.removeprefix('stage_')}")


def _label(series: str, grain: str) -> str:
    return f"{_title(series)} by {grain}" if series in TITLES else _title(series)


def _ahead(con: duckdb.DuckDBPyConnection, grain: str, *, stages: bool) -> pl.DataFrame:
    rows = rows_of(
        con,
        "serving.forecasts_latest",
        "select * from serving.forecasts_latest where grain = $grain order by series, date",
        grain=grain,
    )
    return rows.filter(pl.col("series").str.starts_with("stage_") == stages) if rows.height else rows


def _figure(history: pl.DataFrame, ahead: pl.DataFrame, grain: str, *, is_sum: bool) -> Figure:
    first, last = ahead.row(0, named=True), ahead.row(-1, named=True)
    series = str(first["series"])
    span = f"from {first['date']} to {last['date']}"
    # A sum of intervals would be no interval of the sum: the ends are told of one step.
    values: list[float] = ahead["value"].to_list()
    usual = count(sum(values) / len(values))
    expected = f"{count(sum(values))} in all {span}, {usual} by {grain}" if is_sum else f"{usual} by {grain} {span}"
    says = (
        f"Expected {expected} ({first['model_name']}); for {last['date']} {count(last['value'])}, with 80 % "
        f"{count(last['low_80'])} to {count(last['high_80'])} and with 95 % {count(last['low_95'])} to "
        f"{count(last['high_95'])}."
    )
    table = Table(
        f"{_title(series)} to come",
        (grain, "expected", "80 %", "95 %"),
        tuple(
            (
                str(row["date"]),
                count(row["value"]),
                *(f"{count(row[f'low_{level}'])} to {count(row[f'high_{level}'])}" for level in (80, 95)),
            )
            for row in ahead.to_dicts()
        ),
    )
    return Figure(fan(history.select("date", "value"), ahead, f"by {grain}"), says, table, _title(series))


def _figures(ahead: pl.DataFrame, grain: str, history: pl.DataFrame) -> list[Figure]:
    as_of: date = ahead.item(0, "as_of_date")
    since = as_of - timedelta(days=HISTORY_DAYS[grain])
    shown = history.filter(pl.col("grain") == grain, pl.col("date") >= since)
    found = []
    for (series,), rows in ahead.group_by("series", maintain_order=True):
        was = shown.filter(pl.col("series") == series)
        if grain == "day":
            # A day without a purchase has no row.
            days = pl.DataFrame({"date": pl.date_range(since, as_of, closed="left", eager=True)})
            was = days.join(was, on="date", how="left").with_columns(pl.col("value").fill_null(0.0))
        found.append(_figure(was, rows, grain, is_sum=series in ("revenue", "orders")))
    return found


def sales(con: duckdb.DuckDBPyConnection) -> Section:
    """History and forecast of revenue, orders and active users by day."""
    title = "Sales to come"
    text = (
        "What the shop can expect by day, from what was known on the scoring date. The darker band holds what comes "
        "with 80 %, the lighter one with 95 %, as far as the future errs like the past. Holidays and campaigns are "
        "known as far as the history has them."
    )
    ahead = _ahead(con, "day", stages=False)
    if ahead.is_empty():
        return Section("forecast-sales", title, text, filled_by=FORECAST, once=ONCE)
    order = pl.col("series").replace_strict(list(TITLES), range(len(TITLES)), return_dtype=pl.Int32)
    history = sales_before(con, ahead.item(0, "as_of_date"))
    return Section("forecast-sales", title, text, tuple(_figures(ahead.sort(order, "date"), "day", history)))


def stages(con: duckdb.DuckDBPyConnection) -> Section:
    """History and forecast of users in each stage by week."""
    title = "Stages to come"
    text = "How many users will be in each lifecycle stage on the next Mondays, one forecast a stage."
    ahead = _ahead(con, "week", stages=True)
    if ahead.is_empty():
        return Section("forecast-stages", title, text, filled_by=FORECAST, once=ONCE)
    history = stages_before(con, ahead.item(0, "as_of_date"), 0)
    return Section("forecast-stages", title, text, tuple(_figures(ahead, "week", history)))


def accuracy(con: duckdb.DuckDBPyConnection) -> Section:
    """Error and coverage of the served models on origins that had no part in choosing them."""
    title = "How good the forecasts are"
    text = (
        "Errors of forecasts made at past dates, the newest of them, which had no part in choosing the model. MASE "
        "below 1: nearer than repeating the last week was within the history. Beside it the same forecasts by the "
        "seasonal naive, with 95 % intervals over the dates; inside: how much of what came lay in the interval."
    )
    rows = rows_of(
        con,
        "ml.forecast_metrics",
        f"""
        select *
        from ml.forecast_metrics
        where
            as_of_date = {newest_date("ml.forecast_metrics")}
            and (is_served or model_name = $naive)
            and horizon = 'all'
        order by grain, series
        """,
        naive=NAIVE,
    )
    if rows.is_empty():
        return Section("forecast-accuracy", title, text, filled_by=FORECAST, once=ONCE)
    by_series: dict[str, dict[tuple[bool, str], dict[str, Any]]] = {}
    for row in rows.to_dicts():
        known = by_series.setdefault(_label(row["series"], row["grain"]), {})
        known[row["is_served"], row["metric"]] = row
        if row["model_name"] == NAIVE:
            known[False, row["metric"]] = row
    names = ("serves", "seasonal naive")
    points = [
        {"label": label, "name": name, **{key: figures[served, "mase"][key] for key in ("value", "ci_low", "ci_high")}}
        for label, figures in by_series.items()
        for served, name in zip((True, False), names, strict=True)
    ]
    better = [label for label, figures in by_series.items() if _is_better(figures)]
    worse = [label for label, figures in by_series.items() if _is_worse(figures)]
    says = (
        f"{plural(len(by_series), 'series', 'series')}; nearer than the seasonal naive beyond chance: "
        f"{listed(better) if better else 'none'}; further than it: {listed(worse) if worse else 'none'}."
    )
    table = Table(
        title,
        ("series", "model", "MASE", "of the naive", "difference", "WAPE", "inside 80 %", "inside 95 %"),
        tuple(
            (
                label,
                figures[True, "mase"]["model_name"],
                cell(figures[True, "mase"]),
                cell(figures[False, "mase"]),
                cell(figures.get((True, "mase_less_naive"))),
                cell(figures[True, "wape"], share),
                cell(figures[True, "coverage_80"], share),
                cell(figures[True, "coverage_95"], share),
            )
            for label, figures in by_series.items()
        ),
        labels=2,
    )
    drawing = charts.dots(pl.DataFrame(points), "MASE", ".1f", names, zero=True, line=30)
    dates = sorted({row["n_origins"] for row in rows.to_dicts()})
    notes = (f"Measured on {' to '.join(number(n, 0) for n in (dates[0], dates[-1]))} past dates a series.",)
    return Section("forecast-accuracy", title, text, (Figure(drawing, says, table),), notes=notes)


def _is_better(figures: dict[tuple[bool, str], dict[str, Any]]) -> bool:
    difference = figures.get((True, "mase_less_naive"))
    return difference is not None and difference["ci_high"] < 0


def _is_worse(figures: dict[tuple[bool, str], dict[str, Any]]) -> bool:
    difference = figures.get((True, "mase_less_naive"))
    return difference is not None and difference["value"] >= 0.005


SECTIONS: tuple[MakeSection, ...] = (sales, stages, accuracy)
