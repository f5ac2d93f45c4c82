"""The shop's series over time, as they were known at an as_of_date: sales by day and week, stages by week."""

from datetime import date

import duckdb
import polars as pl

from lcm_ml.frames.events import USER_AT
from lcm_ml.frames.frame import read


def sales_before(con: duckdb.DuckDBPyConnection, as_of: date) -> pl.DataFrame:
    """Sales of whole days and whole weeks strictly before `as_of`; a day or week without any has no row.

    A week is told by its Monday. The first week is left out where the data begins within it.

    Returns:
        series (revenue, orders, active_users: users with a purchase), grain (day, week), date and value, sorted.
    """
    return read(
        con,
        f"""
        with purchases as (
            select
                {USER_AT} as user_id,
                purchase_date as day,
                cast(date_trunc('week', purchase_date) as date) as week,
                orders,
                amount
            from marts.purchase_days
            where purchase_date < $as_of
        ),

        dated as (
            select * exclude (day, week), 'day' as grain, day as date
            from purchases
            union all
            select * exclude (day, week), 'week', week
            from purchases
            where week + 7 <= $as_of and week >= (select min(day) from purchases)
        ),

        summed as (
            select
                grain,
                date,
                cast(sum(amount) as double) as revenue,
                cast(sum(orders) as double) as orders,
                cast(count(distinct user_id) as double) as active_users
            from dated
            group by all
        )

        unpivot summed on revenue, orders, active_users into name series value value
        order by series, grain, date
        """,
        {"as_of": as_of},
    ).select("series", "grain", "date", "value")


def stages_before(con: duckdb.DuckDBPyConnection, as_of: date, settling_days: int) -> pl.DataFrame:
    """Users in each lifecycle stage on Mondays up to `as_of`: a Monday's stages are known from what came before it.

    Args:
        con: an open connection to a built warehouse.
        as_of: the as_of_date.
        settling_days: days of history that the stages need to tell anything of the shop rather than of where its data
            begins; Mondays before are left out.

    Returns:
        series (stage_ and the stage), grain (week), date and value (0 where nobody is in the stage), sorted.
    """
    return read(
        con,
        """
        with mondays as (
            select distinct as_of_date
            from marts.lifecycle_weekly
            where
                as_of_date <= $as_of
                and as_of_date >= (select min(purchase_date) from marts.purchase_days) + cast($settling as integer)
        ),

        stages as (
            select distinct stage
            from marts.lifecycle_weekly
            where as_of_date <= $as_of
        )

        select
            'stage_' || stages.stage as series,
            'week' as grain,
            mondays.as_of_date as date,
            cast(coalesce(weekly.users, 0) as double) as value
        from mondays
        cross join stages
        left join marts.lifecycle_weekly as weekly
            on mondays.as_of_date = weekly.as_of_date and stages.stage = weekly.stage
        order by series, date
        """,
        {"as_of": as_of, "settling": settling_days},
    )
