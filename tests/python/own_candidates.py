"""Candidate groups of a shop's own, as the var candidate_features names them: one tells, one is noise, one peeks."""

from collections.abc import Sequence
from datetime import date

import duckdb
import polars as pl

from lcm_ml.frames.frame import read


def _by_date(con: duckdb.DuckDBPyConnection, dates: Sequence[date], query: str) -> pl.DataFrame:
    return pl.concat(read(con, query, {"day": day}) for day in dates)


def mood(con: duckdb.DuckDBPyConnection, dates: Sequence[date]) -> pl.DataFrame:
    """The amount of the last purchase before the date, which the churn of the test's shop depends on."""
    return _by_date(
        con,
        dates,
        """
        select user_id, $day as as_of_date, 'mood' as feature, arg_max(amount, event_date) as value
        from marts.shop_events where event_date < $day group by user_id
        """,
    )


def noise(con: duckdb.DuckDBPyConnection, dates: Sequence[date]) -> pl.DataFrame:
    """Numbers that have nothing to do with anything."""
    return _by_date(
        con,
        dates,
        """
        select user_id, $day as as_of_date, 'noise_' || k as feature, hash(user_id, $day, k) % 1000 / 1000.0 as value
        from (select distinct user_id from marts.shop_events where event_date < $day), range(4) as t (k)
        """,
    )


def peek(con: duckdb.DuckDBPyConnection, dates: Sequence[date]) -> pl.DataFrame:
    """Events after the date: what no feature may read."""
    return _by_date(
        con,
        dates,
        """
        select user_id, $day as as_of_date, 'peek' as feature, count(*) as value
        from marts.shop_events where event_date >= $day group by user_id
        """,
    )
