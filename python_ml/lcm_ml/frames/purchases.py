"""Days of purchase and the users behind them, as they were known at an as_of_date."""

from datetime import date

import duckdb
import polars as pl

from lcm_ml.frames.events import USER_AT
from lcm_ml.frames.frame import read


def purchase_days_before(con: duckdb.DuckDBPyConnection, as_of: date) -> pl.DataFrame:
    """Days with a purchase strictly before `as_of`: user_id, purchase_date, each once, sorted by both."""
    return read(
        con,
        f"""
        select distinct {USER_AT} as user_id, purchase_date
        from marts.purchase_days
        where purchase_date < $as_of
        order by 1, 2
        """,
        {"as_of": as_of},
    )


def buyers_at(con: duckdb.DuckDBPyConnection, as_of: date) -> pl.DataFrame:
    """Users with a purchase before `as_of`, sorted: user_id, churned_after_days, acquisition_channel (static)."""
    return read(
        con,
        """
        select stages.user_id, stages.churned_after_days, accounts.acquisition_channel
        from marts.user_lifecycle as stages
        left join staging.stg_users as accounts on stages.user_id = accounts.user_id
        where stages.as_of_date = $as_of and stages.purchase_days > 0
        order by 1
        """,
        {"as_of": as_of},
    )
