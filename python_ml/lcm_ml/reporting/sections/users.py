"""Who is at risk now, and why."""

import duckdb
import polars as pl

from lcm_ml.reporting import charts, charts_models
from lcm_ml.reporting.section import (
    Figure,
    MakeSection,
    Section,
    Table,
    count,
    feature_title,
    number,
    plural,
    rows_of,
    share,
)

SCORE = "lcm-ml score"
REASONS = 12


def scores(con: duckdb.DuckDBPyConnection) -> Section:
    """How the churn probabilities are spread."""
    bins = rows_of(
        con,
        "serving.churn_scores_latest",
        """
        select
            least(floor(churn_probability / 0.05) * 0.05, 0.95) as low,
            risk_band,
            count(*) as users,
            sum(churn_probability) as expected,
            max(as_of_date) as as_of_date,
            max(horizon_days) as horizon_days
        from serving.churn_scores_latest
        group by 1, 2
        order by 1, 2
        """,
    )
    title = "Churn probability"
    text = "Users who bought lately, by the probability that they buy nothing within the horizon, in the last scores."
    if bins.is_empty():
        return Section("scores", title, text, filled_by=SCORE)
    users, expected = int(bins["users"].sum()), float(bins["expected"].sum())
    bands = dict(bins.group_by("risk_band").agg(pl.col("users").sum()).iter_rows())
    told = ", ".join(f"{bands.get(band, 0):,} {band}" for band in reversed(charts.BANDS))
    says = (
        f"Of {plural(users, 'user')} scored as of {bins.item(0, 'as_of_date')}, {expected:,.0f} "
        f"({share(expected / users)}) are expected to buy nothing in {bins.item(0, 'horizon_days')} days. "
        f"By risk: {told}."
    )
    table = Table(
        "Users by churn probability and risk",
        ("probability from", "risk", "users", "expected to churn"),
        tuple(
            (share(row["low"], 0), row["risk_band"], count(row["users"]), number(row["expected"], 1))
            for row in bins.to_dicts()
        ),
        labels=2,
    )
    drawing = charts_models.score_distribution(bins.select("low", "risk_band", "users"))
    return Section("scores", title, text, (Figure(drawing, says, table),))


def reasons(con: duckdb.DuckDBPyConnection) -> Section:
    """What raises the risk of the users at high risk, most often."""
    rows = rows_of(
        con,
        "ml.churn_score_reasons",
        """
        with raising as (
            select
                reasons.user_id,
                reasons.feature,
                reasons.contribution,
                row_number() over (partition by reasons.user_id order by reasons.reason_rank) as place
            from serving.churn_reasons_latest as reasons
            inner join serving.churn_scores_latest as scores on reasons.user_id = scores.user_id
            where scores.risk_band = 'high' and reasons.feature is not null and reasons.contribution > 0
        )

        select
            feature,
            count(*) filter (where place = 1) as first_reason,
            count(*) as named,
            avg(contribution) as contribution,
            (select count(distinct user_id) from raising) as users
        from raising
        group by feature
        order by first_reason desc, named desc, feature
        limit $most
        """,
        most=REASONS,
    )
    title = "Top reasons of high risk"
    text = (
        "Over the users at high risk: how often a feature is the one that raises the risk most. It tells what the "
        "scores rest on; whether changing it would keep a user is another question."
    )
    if rows.is_empty():
        scored = rows_of(con, "ml.churn_score_reasons", "select 1 from serving.churn_reasons_latest limit 1")
        if scored.is_empty():
            return Section("reasons", title, text, filled_by=f"{SCORE} --reasons 3")
        return Section("reasons", title, text, notes=("No user scored last is at high risk.",))
    told = rows.with_columns(
        label=pl.Series([feature_title(name) for name in rows["feature"]]),
        value=pl.col("first_reason") / pl.col("users"),
    )
    top = told.row(0, named=True)
    says = (
        f"The first reason of {share(top['value'], 0)} of {plural(top['users'], 'user')} at high risk: "
        f"{top['label']}, which adds {top['contribution']:.2f} to the log-odds of churn on average."
    )
    table = Table(
        "Reasons of users at high risk",
        ("reason", "feature", "first reason of", "among the reasons of", "mean contribution (log-odds)"),
        tuple(
            (
                row["label"],
                row["feature"],
                count(row["first_reason"]),
                count(row["named"]),
                f"{row['contribution']:+.2f}",
            )
            for row in told.to_dicts()
        ),
        labels=2,
    )
    drawing = charts.bars(told.select("label", "value"), "users at high risk with it as first reason", "%")
    return Section("reasons", title, text, (Figure(drawing, says, table),))


SECTIONS: tuple[MakeSection, ...] = (scores, reasons)
