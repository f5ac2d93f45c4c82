"""How long users stay, and how long their second purchase takes: Kaplan-Meier curves, and tests between channels."""

import itertools
import warnings
from collections.abc import Iterator
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from lcm_ml.insights.significance import holm

if TYPE_CHECKING:
    from scipy.stats import CensoredData

CHURN, SECOND_PURCHASE = "churn", "second_purchase"
ALL, CHANNEL, MONTH = "(all)", "acquisition_channel", "cohort_month"
UNKNOWN = "(unknown)"
DAILY, STEP_DAYS = 28, 7
"""A curve has a row for each of the first days, then for every seventh."""
CURVES = {
    "curve": pl.String,
    "dimension": pl.String,
    "level": pl.String,
    "days": pl.Int32,
    "at_risk": pl.Int64,
    "events": pl.Int64,
    "survival": pl.Float64,
    "ci_low": pl.Float64,
    "ci_high": pl.Float64,
}
TESTS = {
    "curve": pl.String,
    "dimension": pl.String,
    "level": pl.String,
    "other_level": pl.String,
    "n_users": pl.Int64,
    "other_n_users": pl.Int64,
    "statistic": pl.Float64,
    "p_value": pl.Float64,
    "p_value_adjusted": pl.Float64,
}


def durations(quiet: pl.DataFrame, users: pl.DataFrame, as_of: date) -> pl.DataFrame:
    """What each user's two curves are made of.

    churn: the first silence that outlasts the user's own cut-off ends the wait, on the day after the cut-off; coming
    back later does not undo it, since whoever came back had to be silent first. Without one the user is censored at
    `as_of`. second_purchase: the next day with a purchase; without one the user is censored on the day before `as_of`,
    the last one that was seen.

    Args:
        quiet: of `silences`.
        users: user_id, churned_after_days, acquisition_channel (null: not known); as known at `as_of`.
        as_of: what came on or after it is not known.

    Returns:
        user_id, cohort_month (of the first purchase, as 2018-01), acquisition_channel, curve, days, is_event; two rows
        for each user in both frames.
    """
    first = pl.col("purchase_date").min().over("user_id")
    limit = pl.col("churned_after_days")
    spell = (
        quiet.join(users, on="user_id", how="inner")
        .with_columns(first_date=first)
        .with_columns(
            churned=pl.when(pl.col("days") > limit).then(
                (pl.col("purchase_date") - pl.col("first_date")).dt.total_days() + limit.floor() + 1
            )
        )
    )
    each = spell.group_by("user_id", maintain_order=True).agg(
        pl.col("first_date", "acquisition_channel").first(),
        pl.col("churned").min(),
        second=pl.col("days").filter(pl.col("is_over")).first(),
    )
    seen = (pl.lit(as_of) - pl.col("first_date")).dt.total_days()
    shared = (
        pl.col("user_id"),
        pl.col("first_date").dt.strftime("%Y-%m").alias(MONTH),
        pl.col(CHANNEL).fill_null(UNKNOWN),
    )
    return pl.concat(
        each.select(
            *shared,
            curve=pl.lit(curve),
            days=pl.coalesce(event, censored).cast(pl.Int32),
            is_event=pl.col(event).is_not_null(),
        )
        for curve, event, censored in ((CHURN, "churned", seen), (SECOND_PURCHASE, "second", seen - 1))
    )


def survival_curves(found: pl.DataFrame, smallest: int = 1) -> pl.DataFrame:
    """Kaplan-Meier curves of all users, by month of the first purchase and by acquisition channel.

    Args:
        found: of `durations`.
        smallest: months and channels with fewer users are left out.

    Returns:
        CURVES, one row for each of the first DAILY days, then for every STEP_DAYS, and the last one: users still
        watched on that day (at_risk), events since the row before, and the share without the event by the end of the
        day, with its 95 % interval (Greenwood's variance on the log-log scale, within 0 to 1; null before the first
        event, and after the last user).
    """
    parts = [
        survival_curve(rows["days"].to_numpy(), rows["is_event"].to_numpy()).select(
            pl.lit(curve).alias("curve"), pl.lit(dimension).alias("dimension"), pl.lit(level).alias("level"), pl.all()
        )
        for curve, dimension, level, rows in _levels(found, (ALL, MONTH, CHANNEL), smallest)
    ]
    return pl.concat(parts) if parts else pl.DataFrame(schema=CURVES)


def survival_curve(days: npt.NDArray[np.int32], is_event: npt.NDArray[np.bool_]) -> pl.DataFrame:
    """One Kaplan-Meier curve: days, at_risk, events, survival, ci_low, ci_high.

    Args:
        days: until the event, or until which the user was watched; shape (users,), 0 or more, not empty.
        is_event: whether the event came; shape (users,).
    """
    from scipy.stats import ecdf

    last = int(days.max())
    grid = np.unique(np.r_[np.arange(min(DAILY, last) + 1), np.arange(0, last + 1, STEP_DAYS), last])
    watched, events = np.bincount(days), np.bincount(days, is_event)
    ahead = watched[::-1].cumsum()[::-1]
    survival = ecdf(_censored(days, is_event)).sf
    with warnings.catch_warnings():
        # Before the first event and after the last user there is no interval; the rows say so with a null.
        warnings.simplefilter("ignore", RuntimeWarning)
        interval = survival.confidence_interval(method="log-log")
    share = survival.evaluate(grid)
    low, high = interval.low.evaluate(grid), interval.high.evaluate(grid)
    return pl.DataFrame(
        {
            "days": grid,
            "at_risk": ahead[grid],
            "events": np.diff(np.r_[0.0, events.cumsum()[grid]]),
            "survival": share,
            "ci_low": np.where((share < 1) & (share > 0), low, np.nan),
            "ci_high": np.where((share < 1) & (share > 0), high, np.nan),
        },
        nan_to_null=True,
    ).select(pl.col(name).cast(CURVES[name]) for name in list(CURVES)[3:])


def survival_tests(found: pl.DataFrame, smallest: int = 1) -> pl.DataFrame:
    """Log-rank tests (Mantel 1966) between every two acquisition channels, p-values adjusted by Holm (1979).

    Args:
        found: of `durations`.
        smallest: channels with fewer users are left out.

    Returns:
        TESTS; statistic is above 0 where `level` has its events sooner. Empty with fewer than two channels.
    """
    by_curve: dict[str, list[tuple[str, pl.DataFrame]]] = {}
    for curve, _, level, rows in _levels(found, (CHANNEL,), smallest):
        by_curve.setdefault(curve, []).append((level, rows))
    parts = [_tests_of(curve, levels) for curve, levels in by_curve.items() if len(levels) > 1]
    return pl.concat(parts) if parts else pl.DataFrame(schema=TESTS)


def _tests_of(curve: str, levels: list[tuple[str, pl.DataFrame]]) -> pl.DataFrame:
    from scipy.stats import logrank

    rows = []
    for (level, own), (other, others) in itertools.combinations(levels, 2):
        samples = [_censored(part["days"].to_numpy(), part["is_event"].to_numpy()) for part in (own, others)]
        with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
            warnings.simplefilter("ignore", RuntimeWarning)
            result = logrank(*samples)
        rows.append((curve, CHANNEL, level, other, own.height, others.height, result.statistic, result.pvalue))
    frame = pl.DataFrame(rows, schema=[name for name in TESTS if name != "p_value_adjusted"], orient="row")
    # Without an event there is nothing to compare: no figure, and no test that others are adjusted for.
    frame = frame.with_columns(pl.col("statistic", "p_value").fill_nan(None)).sort("p_value", "level", nulls_last=True)
    compared, others = frame.filter(pl.col("p_value").is_not_null()), frame.filter(pl.col("p_value").is_null())
    adjusted = compared.with_columns(p_value_adjusted=pl.Series(holm(compared["p_value"].to_numpy()), dtype=pl.Float64))
    return pl.concat([adjusted, others], how="diagonal").select(pl.col(name).cast(kind) for name, kind in TESTS.items())


def _levels(
    found: pl.DataFrame, dimensions: tuple[str, ...], smallest: int
) -> Iterator[tuple[str, str, str, pl.DataFrame]]:
    for (curve,), part in found.partition_by("curve", as_dict=True, maintain_order=True).items():
        for dimension in dimensions:
            if dimension == ALL:
                yield str(curve), ALL, ALL, part
            elif dimension != CHANNEL or (part[CHANNEL] != UNKNOWN).any():
                groups = part.partition_by(dimension, as_dict=True)
                for (level,) in sorted(groups):
                    if groups[level,].height >= smallest:
                        yield str(curve), dimension, str(level), groups[level,]


def _censored(days: npt.NDArray[np.int32], is_event: npt.NDArray[np.bool_]) -> "CensoredData":
    from scipy.stats import CensoredData

    return CensoredData(uncensored=days[is_event], right=days[~is_event])
