"""Interests that change: what a user bought and looked at lately, against before."""

from collections.abc import Sequence
from datetime import date, timedelta

import duckdb
import polars as pl

from lcm_ml.frames.events import USER_AT
from lcm_ml.frames.frame import read

RECENT_DAYS = (28, 84)
LONG = max(RECENT_DAYS)


def interest_features(con: duckdb.DuckDBPyConnection, dates: Sequence[date]) -> pl.DataFrame:
    """The candidate group `interests`, from purchases and views strictly before each date.

    Returns:
        user_id, as_of_date, feature, value, as `drift_of_interests` has them.
    """
    parts = [
        drift_of_interests(category_sums(con, day)).select(
            "user_id", pl.lit(day).alias("as_of_date"), "feature", "value"
        )
        for day in dates
    ]
    return pl.concat(parts)


def category_sums(con: duckdb.DuckDBPyConnection, as_of: date) -> pl.DataFrame:
    """What each user spent on each category, and its views of it, before `as_of`.

    Returns:
        user_id, category and, for each of `spend` and `views`: the sum of all (spend), and of the last 28 and 84 days
        (spend_28d, spend_84d). Purchases of money below 0 count as 0; rows without a category are left out.
    """
    sums = []
    # Money is added up as decimals: floats would depend on the order of the rows.
    for name, total, kind in (("spend", "sum(greatest(amount, 0))", "purchase"), ("views", "count(*)", "view")):
        for days in (None, *RECENT_DAYS):
            recent, ending = (f" and event_date >= $day_{days}", f"_{days}d") if days else ("", "")
            total_of = f"{total} filter (where event_type = '{kind}'{recent})"
            sums.append(f"cast(coalesce({total_of}, 0) as double) as {name}{ending}")
    return read(
        con,
        f"""
        select {USER_AT} as user_id, category, {", ".join(sums)}
        from marts.shop_events
        where event_date < $as_of and category is not null and event_type in ('purchase', 'view')
        group by 1, 2
        order by 1, 2
        """,
        {"as_of": as_of, **{f"day_{days}": as_of - timedelta(days=days) for days in RECENT_DAYS}},
    )


def drift_of_interests(sums: pl.DataFrame) -> pl.DataFrame:
    """Features of how far a user's categories have moved.

    Args:
        sums: of `category_sums`, one row per user and category.

    Returns:
        user_id, feature, value; a feature that is not defined (nothing recent, or nothing before) has no row.

        - interests_distance_28d, _84d, interests_view_distance_28d, _84d: Jensen-Shannon distance (base 2; Endres and
          Schindelin 2003) of the shares of the categories, the last days against all before; 0 is the same, 1 nothing
          in common;
        - interests_entropy_84d, interests_entropy_change_84d: entropy in bits of the last 84 days, and that less
          before;
        - interests_new_share_28d, _84d: share of the last days' spend on categories without any before;
        - interests_favourite_lost_84d, interests_favourite_change_84d: 1 where the category with most spend before had
          none in the last 84 days, and how much its share has grown.
    """
    figures: list[pl.Expr] = []
    for days in RECENT_DAYS:
        recent, before = _shares("spend", days)
        new = pl.when(before == 0).then(recent).otherwise(0.0)
        figures += [
            _distance(recent, before).alias(f"interests_distance_{days}d"),
            _distance(*_shares("views", days)).alias(f"interests_view_distance_{days}d"),
            _defined(new.sum(), recent, before).alias(f"interests_new_share_{days}d"),
        ]
    recent, before = _shares("spend", LONG)
    favourite = before.arg_max()
    figures += [
        _defined(_entropy(recent), recent).alias(f"interests_entropy_{LONG}d"),
        _defined(_entropy(recent) - _entropy(before), recent, before).alias(f"interests_entropy_change_{LONG}d"),
        _defined((recent.gather(favourite) == 0).first().cast(pl.Float64), recent, before).alias(
            f"interests_favourite_lost_{LONG}d"
        ),
        _defined((recent.gather(favourite) - before.gather(favourite)).first(), recent, before).alias(
            f"interests_favourite_change_{LONG}d"
        ),
    ]
    return (
        sums.sort("user_id", "category")
        .group_by("user_id", maintain_order=True)
        .agg(figures)
        .unpivot(index="user_id", variable_name="feature", value_name="value")
        .drop_nulls("value")
    )


def _shares(kind: str, days: int) -> tuple[pl.Expr, pl.Expr]:
    """Shares of a user's categories in the last days and before; NaN where there is nothing."""
    recent = pl.col(f"{kind}_{days}d")
    before = (pl.col(kind) - recent).clip(0.0)
    return recent / recent.sum(), before / before.sum()


def _entropy(shares: pl.Expr) -> pl.Expr:
    return -pl.when(shares > 0).then(shares * shares.log(2)).otherwise(0.0).sum()


def _distance(recent: pl.Expr, before: pl.Expr) -> pl.Expr:
    divergence = _entropy((recent + before) / 2) - (_entropy(recent) + _entropy(before)) / 2
    # Rounding leaves a little below 0 where nothing has changed.
    return _defined(divergence.clip(0.0, 1.0).sqrt(), recent, before)


def _defined(figure: pl.Expr, *shares: pl.Expr) -> pl.Expr:
    """The figure, null for a user without anything in one of the parts."""
    there = pl.all_horizontal(share.sum().is_not_nan() for share in shares)
    return pl.when(there).then(figure)
