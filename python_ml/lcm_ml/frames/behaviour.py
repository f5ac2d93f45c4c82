"""The behaviour that segments are made from, and the segments that were made before."""

from collections.abc import Sequence
from datetime import date

import duckdb
import polars as pl

from lcm_ml.frames.frame import read
from lcm_ml.insights.segments.matching import Earlier
from lcm_ml.insights.segments.scaling import COLUMNS
from lcm_ml.insights.segments.segmentation import LEAST_USERS, segment_distances
from lcm_ml.warehouse.connection import first_row, table_exists


def behaviour_at(con: duckdb.DuckDBPyConnection, as_of: date) -> pl.DataFrame:
    """user_id and the columns that segments are made from, of all of marts.user_features at a date, sorted by user."""
    return read(
        con,
        f"select user_id, {', '.join(COLUMNS)} from marts.user_features where as_of_date = $day order by user_id",
        {"day": as_of},
    )


def segment_features(con: duckdb.DuckDBPyConnection, dates: Sequence[date]) -> pl.DataFrame:
    """Candidate features for the churn model: each user's distance to the segments of each date, see segment_distances.

    Returns:
        user_id, as_of_date, feature, value.
    """
    row = first_row(
        con,
        """
        select min(as_of_date)
        from (select as_of_date from marts.user_features group by as_of_date having count(*) >= ?)
        """,
        [2 * LEAST_USERS],
    )
    if row is None or row[0] is None:
        return segment_distances({}, pl.DataFrame())
    return segment_distances({day: behaviour_at(con, day) for day in dates}, behaviour_at(con, row[0]))


def segments_at(con: duckdb.DuckDBPyConnection, as_of: date, method: str) -> Earlier | None:
    """The segmentation that was written for a date; None where there is none."""
    if not table_exists(con, "ml", "user_segments"):
        return None
    where = {"day": as_of, "method": method}
    users = read(
        con,
        """
        select user_id, segment_id
        from ml.user_segments
        where as_of_date = $day and method = $method
        order by user_id
        """,
        where,
    )
    medians = read(
        con,
        """
        select segment_id, feature, median
        from ml.segment_features
        where as_of_date = $day and method = $method
        order by segment_id, feature
        """,
        where,
    )
    return Earlier(as_of, users, medians) if users.height else None


def segments_before(con: duckdb.DuckDBPyConnection, as_of: date, method: str) -> Earlier | None:
    """The segmentation of the newest date before `as_of`; None where there is none."""
    return _neighbour(con, "max(as_of_date)", "as_of_date < ?", as_of, method)


def segments_after(con: duckdb.DuckDBPyConnection, as_of: date, method: str) -> Earlier | None:
    """The segmentation of the first date after `as_of`; None where there is none."""
    return _neighbour(con, "min(as_of_date)", "as_of_date > ?", as_of, method)


def highest_segment_id(con: duckdb.DuckDBPyConnection, method: str) -> int:
    """The highest segment_id that the method has given; 0 before the first."""
    if not table_exists(con, "ml", "segment_profiles"):
        return 0
    row = first_row(con, "select max(segment_id) from ml.segment_profiles where method = ?", [method])
    return int(row[0]) if row and row[0] else 0


def _neighbour(con: duckdb.DuckDBPyConnection, which: str, where: str, as_of: date, method: str) -> Earlier | None:
    if not table_exists(con, "ml", "user_segments"):
        return None
    row = first_row(con, f"select {which} from ml.user_segments where {where} and method = ?", [as_of, method])
    return segments_at(con, row[0], method) if row and row[0] else None
