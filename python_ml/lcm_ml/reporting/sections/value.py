"""What users will spend, how far such forecasts can be trusted, and who holds the value."""

import duckdb
import polars as pl

from lcm_ml.reporting import charts_value
from lcm_ml.reporting.section import (
    Figure,
    MakeSection,
    Section,
    Table,
    cell,
    count,
    newest_date,
    number,
    rows_of,
    share,
    two_digits,
    with_interval,
)

VALUE = "lcm-ml value"
MODELS = {"naive": "same as last period", "bg_nbd": "BG/NBD and Gamma-Gamma", "xgboost": "XGBoost"}


def spread(con: duckdb.DuckDBPyConnection) -> Section:
    """Who holds the lifetime value: the curve over all users, and each tenth of them."""
    title = "Who holds the value"
    text = (
        "Lifetime value is the spend expected in the coming months, discounted: most of it is often in few hands. The "
        "curve tells which share of it the most valuable users hold. A user who may have left counts for less."
    )
    rows = rows_of(
        con,
        "serving.user_values_latest",
        """
        with ranked as (
            select *, ntile(100) over (order by lifetime_value desc, user_id) as hundredth
            from serving.user_values_latest
        )

        select
            hundredth,
            any_value(as_of_date) as as_of_date,
            any_value(horizon_months) as months,
            any_value(discount_rate) as rate,
            -- Every hundredth of a shop with 100 users or more lies within one tenth of its users.
            min(value_decile) as value_decile,
            count(*) as users,
            sum(lifetime_value) as value,
            sum(expected_amount_90d) as amount_90d,
            avg(probability_alive) as alive
        from ranked
        group by hundredth
        order by hundredth
        """,
    )
    if rows.is_empty() or not rows["value"].sum():
        return Section("value-spread", title, text, filled_by=VALUE)
    users, total = float(rows["users"].sum()), float(rows["value"].sum())
    curve = pl.concat(
        [
            pl.DataFrame({"users": [0.0], "value": [0.0]}),
            rows.select(users=pl.col("users").cum_sum() / users, value=pl.col("value").cum_sum() / total),
        ]
    )
    tenths = (
        rows.group_by("value_decile")
        .agg(
            pl.col("users", "value", "amount_90d").sum(),
            alive=(pl.col("alive") * pl.col("users")).sum() / pl.col("users").sum(),
        )
        .sort("value_decile")
        .with_columns(cumulative=pl.col("value").cum_sum() / total)
        .to_dicts()
    )
    first = rows.row(0, named=True)
    half = curve.filter(pl.col("value") <= 0.5)["users"].max()
    says = (
        f"The most valuable tenth holds {share(tenths[0]['value'] / total)} of {count(total)}; about "
        f"{share(half, 0)} of the users hold half of it."  # type: ignore[arg-type]
    )
    table = Table(
        "Lifetime value by tenth of the users",
        ("tenth", "users", "lifetime value each", "share", "with those above", "spend in 90 days each", "still there"),
        tuple(
            (
                str(row["value_decile"]),
                count(row["users"]),
                number(row["value"] / row["users"], 2),
                share(row["value"] / total),
                share(row["cumulative"]),
                number(row["amount_90d"] / row["users"], 2),
                share(row["alive"], 0),
            )
            for row in tenths
        ),
    )
    note = (
        f"At {first['as_of_date']}: {first['months']} months, {share(first['rate'], 0)} a year; refunds not subtracted."
    )
    return Section(
        "value-spread", title, text, (Figure(charts_value.concentration(curve), says, table),), notes=(note,)
    )


def forecasts(con: duckdb.DuckDBPyConnection) -> Section:
    """Expected beside realised spend, at the last date whose horizon is over."""
    title = "Expected against realised spend"
    text = (
        "What the models expected of each user at the last date whose horizon is over, knowing nothing of what came "
        "after, against what was then spent; beside them the naive guess that the last period repeats. Users are in "
        "tenths of what was expected of them: the nearer the two lines, the better."
    )
    newest = "run_id = (select max(run_id) from ml.value_metrics)"
    metrics = rows_of(con, "ml.value_metrics", f"select * from ml.value_metrics where {newest} order by horizon_days")
    if metrics.is_empty():
        return Section("value-forecasts", title, text, filled_by=VALUE, once="a horizon is over")
    deciles = rows_of(con, "ml.value_deciles", f"select * from ml.value_deciles where {newest} order by decile")
    served = dict(
        rows_of(
            con,
            "ml.user_values",
            f"""
            select horizon_days, mode(model_name) as model_name
            from ml.user_values
            where is_served and as_of_date = {newest_date("ml.user_values")}
            group by horizon_days
            """,
        ).iter_rows()
    )
    figures = tuple(
        _forecast(
            days, served.get(days, "bg_nbd"), metrics.filter(horizon_days=days), deciles.filter(horizon_days=days)
        )
        for days in metrics["horizon_days"].unique(maintain_order=True).to_list()
    )
    missing = [f"{days} days" for days in sorted(served) if days not in metrics["horizon_days"]]
    note = f"Not validated on this shop's data, which is too short for it: {', '.join(missing)}."
    return Section("value-forecasts", title, text, figures, notes=(note,) if missing else ())


def _forecast(days: int, served: str, metrics: pl.DataFrame, deciles: pl.DataFrame) -> Figure:
    cells = {(row["model_name"], row["metric"]): row for row in metrics.to_dicts()}
    at, users = metrics.item(0, "as_of_date"), metrics.item(0, "n_users")
    ratio, error = cells[served, "total_ratio"], cells[served, "mae"]
    says = (
        f"{MODELS[served]}, which serves {days} days, expected {with_interval(ratio, share)} of what {count(users)} "
        f"users spent from {at}, and missed the spend of one by {with_interval(error, two_digits)} on "
        f"average; the naive guess by {number(cells['naive', 'mae']['value'], 2)}."
    )
    names = [name for name in MODELS if (name, "mae") in cells]
    table = Table(
        f"Forecasts of {days} days from {at}, {count(users)} users",
        ("model", "expected over realised", "rank correlation", "mean error", "less naive's", "inside 80 % interval"),
        tuple(
            (
                MODELS[name],
                cell(cells.get((name, "total_ratio"))),
                cell(cells.get((name, "spearman"))),
                cell(cells.get((name, "mae")), two_digits),
                cell(cells.get((name, "mae_less_naive")), two_digits),
                cell(cells.get((name, "coverage_80")), share),
            )
            for name in names
        ),
        marked=frozenset({names.index(served)}),
    )
    drawing = charts_value.expected_and_realised(deciles.filter(model_name=served))
    return Figure(drawing, says, table, title=f"Next {days} days")


SECTIONS: tuple[MakeSection, ...] = (spread, forecasts)
