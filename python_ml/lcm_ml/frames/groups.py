"""Groups of users as they were at an as_of_date, for figures by group."""

from collections.abc import Sequence
from datetime import date

import duckdb
import polars as pl

from lcm_ml.frames.frame import read

DIMENSIONS = ("lifecycle_stage", "tenure_band", "value_band")


def user_groups(con: duckdb.DuckDBPyConnection, dates: Sequence[date]) -> pl.DataFrame:
    """Stage, tenure and value of the churn population at these dates, from what was known then.

    Value bands are thirds of the spend in the active window, among the users of the same date.

    Returns:
        user_id, as_of_date and one text column for each of DIMENSIONS.
    """
    return read(
        con,
        """
        with population as (
            select user_id, as_of_date, days_since_first_purchase, amount_84d
            from marts.user_features
            where is_active_buyer and as_of_date in $dates
        ),

        banded as (
            select
                *,
                case
                    when days_since_first_purchase < 84 then 'under 12 weeks'
                    when days_since_first_purchase < 168 then '12 to 23 weeks'
                    when days_since_first_purchase < 364 then '24 to 51 weeks'
                    else '52 weeks or more'
                end as tenure_band,
                ntile(3) over (partition by as_of_date order by amount_84d, user_id) as third
            from population
        )

        select
            banded.user_id,
            banded.as_of_date,
            lifecycle.stage as lifecycle_stage,
            banded.tenure_band,
            ['low', 'middle', 'high'][banded.third] as value_band
        from banded
        left join marts.user_lifecycle as lifecycle
            on lifecycle.user_id = banded.user_id and lifecycle.as_of_date = banded.as_of_date
        """,
        {"dates": list(dates)},
    )
