"""What users did with products, and who the users are, as known at an as_of_date."""

from datetime import date

import duckdb
import polars as pl

from lcm_ml.frames.events import USER_AT
from lcm_ml.frames.frame import read


def interactions_before(con: duckdb.DuckDBPyConnection, as_of: date) -> pl.DataFrame:
    """What happened between users and products strictly before `as_of`, a row per user, product, day and kind.

    Refunds, searches and what takes something back say nothing about liking and are left out.

    Returns:
        user_id (as known then), product_id, event_date, event_type, quantity, amount, discount; sorted.
    """
    return _interactions(con, as_of, date.min, as_of)


def purchases_between(con: duckdb.DuckDBPyConnection, first: date, end: date) -> pl.DataFrame:
    """Who purchased which product from `first` on, before `end`: user_id (as known at `end`) and product_id, sorted."""
    rows = _interactions(con, end, first, end).filter(pl.col("event_type") == "purchase")
    return rows.select("user_id", "product_id").unique().sort("user_id", "product_id")


def _interactions(con: duckdb.DuckDBPyConnection, as_of: date, first: date, end: date) -> pl.DataFrame:
    return read(
        con,
        f"""
        select
            {USER_AT} as user_id,
            product_id,
            event_date,
            event_type,
            cast(sum(coalesce(quantity, 1)) as double) as quantity,
            cast(sum(coalesce(amount, 0)) as double) as amount,
            cast(sum(coalesce(discount, 0)) as double) as discount
        from marts.shop_events
        where event_date >= $first and event_date < $end and product_id is not null
            and event_type not in ('refund', 'search', 'support', 'remove_from_cart')
            and (event_type != 'purchase' or (coalesce(quantity, 1) > 0 and coalesce(amount, 0) >= 0))
        group by all
        order by all
        """,
        {"as_of": as_of, "first": first, "end": end},
    )


def users_at(con: duckdb.DuckDBPyConnection, as_of: date) -> pl.DataFrame:
    """Everybody who had signed up or done anything strictly before `as_of`.

    Returns:
        user_id (as known then; a visitor that was linked is its user), country and acquisition_channel (null where
        not known); sorted.
    """
    return read(
        con,
        f"""
        with seen as (
            select distinct {USER_AT} as user_id from marts.shop_events where event_date < $as_of
            union
            select user_id from staging.stg_users where cast(signed_up_at as date) < $as_of
        )

        select seen.user_id, accounts.country, accounts.acquisition_channel
        from seen
        left join staging.stg_users as accounts on seen.user_id = accounts.user_id
        order by 1
        """,
        {"as_of": as_of},
    )
