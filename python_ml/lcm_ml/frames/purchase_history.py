"""What users purchased before a date, and what they purchased in the time after it, as Polars frames."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date

import duckdb
import polars as pl

from lcm_ml.frames.frame import is_drawn, make_frame, read
from lcm_ml.warehouse.connection import first_row

FEATURE_TABLES = ("marts.user_features", "marts.lapsed_user_features")
USERS_AT_ONCE = 100_000
"""Users whose features of one date are in memory together."""


def purchase_summaries(
    con: duckdb.DuckDBPyConnection, dates: Sequence[date], horizons: Sequence[int], share: float = 1.0
) -> pl.DataFrame:
    """Everybody who had purchased by each date, in the terms that models of repeat purchases take.

    Args:
        con: an open connection to a built warehouse.
        dates: as_of_dates; a user counts as it was known at each of them.
        horizons: days of the periods before the date to tell apart.
        share: of the users, the same ones at every date.

    Returns:
        user_id, as_of_date, repeats (days of purchase after the first), last_age and age (days from the first one to
        the last one, and to the date), paid_days and paid_amount (days with an amount above 0, and their sum), and for
        each horizon h purchases_last_h and amount_last_h (of the h days before the date). Sorted by date and user.
    """
    periods = "".join(
        f"""
            cast(count(*) filter (where purchase_date >= as_of_date - {int(days)}) as double) as purchases_last_{days},
            cast(coalesce(sum(amount) filter (where purchase_date >= as_of_date - {int(days)}), 0) as double)
                as amount_last_{days},"""
        for days in horizons
    )
    return read(
        con,
        f"""
        with dates as (
            select unnest($dates::date[]) as as_of_date
        ),

        days as (
            select
                dates.as_of_date,
                case when p.linked_date < dates.as_of_date then p.linked_user_id else p.user_id end as user_id,
                p.purchase_date,
                sum(p.amount) as amount  -- a decimal, so that no sum of it depends on the order of rows
            from dates
            inner join marts.purchase_days as p on p.purchase_date < dates.as_of_date
            group by all
        )

        select
            user_id,
            as_of_date,{periods}
            cast(count(*) - 1 as double) as repeats,
            cast(max(purchase_date) - min(purchase_date) as double) as last_age,
            cast(as_of_date - min(purchase_date) as double) as age,
            cast(count(*) filter (where amount > 0) as double) as paid_days,
            cast(coalesce(sum(amount) filter (where amount > 0), 0) as double) as paid_amount
        from days
        where {is_drawn("user_id", share)}
        group by user_id, as_of_date
        order by as_of_date, user_id
        """,
        {"dates": list(dates)},
    )


def purchase_outcomes(
    con: duckdb.DuckDBPyConnection, dates: Sequence[date], horizon_days: int, share: float = 1.0
) -> pl.DataFrame:
    """Days of purchase and spend of those who purchased in [d, d + horizon_days), for each of `dates`.

    Told with what was known at the horizon's end, as user_churn_labels does: a purchase as an anonymous visitor
    counts for the user when the link was made in the meantime.

    Args:
        con: an open connection to a built warehouse.
        dates: as_of_dates.
        horizon_days: the days after each of them.
        share: of the users, those that `purchase_summaries` takes.

    Returns:
        user_id, as_of_date, purchases, amount.
    """
    return read(
        con,
        f"""
        with dates as (
            select unnest($dates::date[]) as as_of_date
        ),

        days as (
            select
                case
                    when p.linked_date < dates.as_of_date + $days::integer then p.linked_user_id else p.user_id
                end as user_id,
                dates.as_of_date,
                p.purchase_date,
                p.amount
            from dates
            inner join marts.purchase_days as p
                on p.purchase_date >= dates.as_of_date and p.purchase_date < dates.as_of_date + $days::integer
        )

        select
            user_id,
            as_of_date,
            cast(count(distinct purchase_date) as double) as purchases,
            cast(sum(amount) as double) as amount
        from days
        where {is_drawn("user_id", share)}
        group by user_id, as_of_date
        order by as_of_date, user_id
        """,
        {"dates": list(dates), "days": horizon_days},
    )


def buyers_features(
    con: duckdb.DuckDBPyConnection,
    dates: Sequence[date],
    left_out: Sequence[str],
    share: float = 1.0,
    part: tuple[int, int] = (0, 1),
) -> pl.DataFrame:
    """Features of active and lapsed users at `dates`.

    Args:
        con: an open connection to a built warehouse.
        dates: as_of_dates.
        left_out: columns that no model sees, as in the var non_model_features.
        share: of the users, those that `purchase_summaries` takes.
        part: a number from 0 and how many parts there are: the users of one of them.

    Returns:
        user_id, as_of_date and the features with plain types, sorted by date and user.
    """
    number, parts = part
    wanted = f"as_of_date in $dates and {is_drawn('user_id', share)} and hash(user_id) % {parts} = {number}"
    tables = " union all by name ".join(f"select * from {name} where {wanted}" for name in FEATURE_TABLES)
    return make_frame(read(con, tables, {"dates": list(dates)}), 0, left_out).data


@dataclass(frozen=True)
class PurchaseReader:
    """The frames of any as_of_date of a built warehouse.

    Attributes:
        con: an open connection to it.
        horizons: days of the periods that summaries tell apart.
        left_out: columns of the features that no model sees.
    """

    con: duckdb.DuckDBPyConnection
    horizons: Sequence[int]
    left_out: Sequence[str]

    @property
    def dates(self) -> list[date]:
        """The as_of_dates, oldest first."""
        return [row[0] for row in self.con.execute("select as_of_date from marts.as_of_dates order by 1").fetchall()]

    def summaries(self, dates: Sequence[date], share: float = 1.0) -> pl.DataFrame:
        """As `purchase_summaries`."""
        return purchase_summaries(self.con, dates, self.horizons, share)

    def features(self, dates: Sequence[date], share: float = 1.0) -> pl.DataFrame:
        """As `buyers_features`."""
        return buyers_features(self.con, dates, self.left_out, share)

    def features_at(self, as_of: date, users: int, share: float = 1.0) -> Iterator[pl.DataFrame]:
        """Features of a share of the users at one date, USERS_AT_ONCE of about `users` at a time."""
        parts = 1 + users // USERS_AT_ONCE
        for number in range(parts):
            yield buyers_features(self.con, [as_of], self.left_out, share, (number, parts))

    def outcomes(self, dates: Sequence[date], horizon_days: int, share: float = 1.0) -> pl.DataFrame:
        """As `purchase_outcomes`."""
        return purchase_outcomes(self.con, dates, horizon_days, share)

    def buyers_before(self, as_of: date) -> int:
        """How many users had purchased before `as_of`, a linked visitor counted as itself."""
        sql = "select count(distinct user_id) from marts.purchase_days where purchase_date < ?"
        row = first_row(self.con, sql, [as_of])
        return int(row[0]) if row else 0

    def refunded_share(self, as_of: date) -> float:
        """Refunds before `as_of` over what was purchased before it, in money; 0 where nothing was."""
        row = first_row(
            self.con,
            """
            select
                cast(sum(abs(amount)) filter (where event_type = 'refund') as double)
                / nullif(cast(sum(amount) filter (where event_type = 'purchase') as double), 0)
            from marts.shop_events
            where event_type in ('purchase', 'refund') and event_date < ?
            """,
            [as_of],
        )
        return float(row[0]) if row and row[0] is not None else 0.0
