"""Whether a candidate group reads the future: its values at a date, before and after all later rows are deleted."""

import shutil
from datetime import date
from pathlib import Path

import duckdb
import polars as pl

from lcm_ml.insights.candidates import MakeFeatures, make_features

# A row with one of these on or after the date, or a figure of a later as_of_date, was not known at it.
EVENT_DATES = ("event_date", "purchase_date", "order_date", "written_date", "touched_date")


def values_before_and_after(path: Path, make: MakeFeatures, day: date, copy: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """A group's values at `day` in the warehouse at `path`, and in a `copy` of it that ends there."""
    shutil.copy(path, copy)
    with duckdb.connect(str(path), read_only=True) as con:
        whole = make_features("candidate", make, con, [day])
    with duckdb.connect(str(copy)) as con:
        columns = con.execute(
            """
            select columns.table_schema || '.' || columns.table_name, columns.column_name
            from information_schema.columns as columns
            inner join information_schema.tables as tables using (table_schema, table_name)
            where tables.table_type = 'BASE TABLE' and columns.table_schema in ('intermediate', 'marts', 'staging')
            """
        ).fetchall()
        for table, column in columns:
            if column in EVENT_DATES:
                con.execute(f"delete from {table} where {column} >= ?", [day])
            elif column == "as_of_date":
                con.execute(f"delete from {table} where as_of_date > ?", [day])
        return whole, make_features("candidate", make, con, [day])
