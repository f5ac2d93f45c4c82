"""How long users stay, how long their second purchase takes, and when a silence means that they are gone."""

import duckdb
import polars as pl

from lcm_ml.reporting import charts_cohorts
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
    with_interval,
)
from lcm_ml.warehouse.state import settings

COHORTS = "lcm-ml cohorts"
ALL = "(all)"
LEVELS = 4
WIDEST = 0.2
"""A curve ends once fewer than min_group_size users are left and its interval is wider than this."""
TOLD_DAYS = (28, 84, 182, 364)
TITLES = {"second_purchase": "Time to the second purchase", "churn": "Time to churn"}
AXES = {"second_purchase": "without a second purchase", "churn": "not churned"}
DIMENSIONS = {"acquisition_channel": "acquisition channel", "cohort_month": "month of the first purchase"}


def survival(con: duckdb.DuckDBPyConnection) -> Section:
    """Kaplan-Meier curves, by channel where channels are known, else by month."""
    title = "How long users stay"
    text = (
        "The share of users who had not bought a second time, and who had not churned, by the days since their first "
        "purchase (Kaplan-Meier, with 95 % bands). Users who have not been watched for long count for as long as they "
        "were. Churned: a silence longer than the user's own cut-off, so nobody churns in the first weeks."
    )
    rows = rows_of(con, "serving.survival_curves_latest", "select * from serving.survival_curves_latest")
    if rows.is_empty():
        return Section("survival", title, text, filled_by=COHORTS, once="somebody has purchased")
    smallest = int(settings(con)["min_group_size"])
    channels = (rows["dimension"] == "acquisition_channel").any()
    dimension = "acquisition_channel" if channels else "cohort_month"
    figures = tuple(_curve(rows.filter(curve=curve), curve, dimension, smallest) for curve in TITLES)
    return Section("survival", title, text, figures, table=_tests(con))


def _curve(rows: pl.DataFrame, curve: str, dimension: str, smallest: int) -> Figure:
    parts = rows.filter(pl.col("dimension").is_in([ALL, dimension]))
    sizes = parts.filter(pl.col("days") == 0).sort(pl.col("dimension") != ALL, -pl.col("at_risk"), "level")
    names = sizes["level"].head(LEVELS + 1).to_list()
    precise = (pl.col("at_risk") >= smallest) | (pl.col("ci_high") - pl.col("ci_low") < WIDEST)
    shown = parts.filter(
        pl.col("level").is_in(names), pl.col("days") <= pl.col("days").filter(precise).max().over("level")
    ).select("days", "survival", "ci_low", "ci_high", name="level")
    known = {(row["level"], row["days"]): row for row in parts.to_dicts()}
    everybody = [known[ALL, days] for days in TOLD_DAYS if (ALL, days) in known]
    told = [f"after {row['days']} days {with_interval(row, share, 'survival')}" for row in everybody]
    says = f"{AXES[curve].capitalize()}: {listed(told)} of all users." if told else "The curve is shorter than 28 days."
    table = Table(
        f"Share {AXES[curve]} by {DIMENSIONS[dimension]}",
        ("users", "at the start", *(f"{days} days" for days in TOLD_DAYS)),
        tuple(
            (
                row["level"],
                count(row["at_risk"]),
                *(cell(known.get((row["level"], days)), share, "survival") for days in TOLD_DAYS),
            )
            for row in sizes.to_dicts()
        ),
    )
    drawing = charts_cohorts.survival(shown.sort("name", "days"), AXES[curve], names)
    return Figure(drawing, says, table, TITLES[curve])


def _tests(con: duckdb.DuckDBPyConnection) -> Table | None:
    rows = rows_of(
        con,
        "ml.survival_tests",
        f"""
        select * from ml.survival_tests
        where as_of_date = {newest_date("ml.survival_tests")} and p_value is not null
        order by p_value_adjusted, p_value, curve, level, other_level
        """,
    )
    if rows.is_empty():
        return None
    return Table(
        "Do channels differ? Log-rank tests",
        ("curve", "channel", "against", "sooner", "p", "p for all pairs"),
        tuple(
            (
                TITLES[row["curve"]],
                row["level"],
                row["other_level"],
                row["level"] if row["statistic"] > 0 else row["other_level"],
                number(row["p_value"]),
                number(row["p_value_adjusted"]),
            )
            for row in rows.to_dicts()
        ),
        labels=3,
        marked=frozenset(place for place, row in enumerate(rows.to_dicts()) if row["p_value_adjusted"] <= 0.05),
    )


def coming_back(con: duckdb.DuckDBPyConnection) -> Section:
    """The chance of a purchase by days of silence."""
    title = "When the next purchase is due"
    text = (
        "Of all silences after a purchase that have reached a number of days: the share that ends with a purchase on "
        "that very day, and within the churn horizon from it on. Single days up to 28, then weeks, then four weeks; "
        "the bands allow for several silences of one user."
    )
    rows = rows_of(
        con,
        "serving.purchase_hazards_latest",
        "select * from serving.purchase_hazards_latest order by days_since_last_purchase",
    )
    if rows.is_empty():
        return Section("coming-back", title, text, filled_by=COHORTS, once="enough users have purchased")
    horizon = int(rows.item(0, "horizon_days"))
    middle = (pl.col("days_since_last_purchase") + pl.col("days_to")) / 2
    daily = rows.filter(pl.col("days_since_last_purchase") == pl.col("days_to"))
    peak = daily.sort("hazard", "days_since_last_purchase", descending=[True, False]).row(0, named=True)
    told = {row["days_since_last_purchase"]: row for row in rows.drop_nulls("probability_back").to_dicts()}
    back = [
        f"{share(told[days]['probability_back'], 0)} after {plural(days, 'day')}"
        for days in (7, 28, 57, 85)
        if days in told
    ]
    table = Table(
        "Chance of a purchase by days since the last one",
        ("days", "silences", "purchases", "on a day", f"within {horizon} days"),
        tuple(
            (
                str(row["days_since_last_purchase"])
                if row["days_since_last_purchase"] == row["days_to"]
                else f"{row['days_since_last_purchase']} to {row['days_to']}",
                count(row["at_risk"]),
                count(row["purchases"]),
                f"{share(row['hazard'])}\n{share(row['ci_low'])} to {share(row['ci_high'])}",
                "-"
                if row["probability_back"] is None
                else f"{share(row['probability_back'])}\n{share(row['back_ci_low'])} to {share(row['back_ci_high'])}",
            )
            for row in rows.to_dicts()
        ),
    )
    on_a_day = Figure(
        charts_cohorts.hazard(
            rows.select("ci_low", "ci_high", days=middle, value="hazard"), "chance of a purchase on the day", ".0%"
        ),
        f"The likeliest day is day {peak['days_since_last_purchase']}: {with_interval(peak, share, 'hazard')}.",
        table,
        "On a day",
    )
    if not back:
        return Section("coming-back", title, text, (on_a_day,))
    within = Figure(
        charts_cohorts.hazard(
            rows.drop_nulls("probability_back").select(
                days="days_since_last_purchase", value="probability_back", ci_low="back_ci_low", ci_high="back_ci_high"
            ),
            f"chance of a purchase within {horizon} days",
            ".0%",
        ),
        f"A purchase within {horizon} days: {listed(back)} without one.",
        table,
        f"Within {horizon} days",
    )
    return Section("coming-back", title, text, (on_a_day, within))


SECTIONS: tuple[MakeSection, ...] = (survival, coming_back)
