"""Sensitive attributes of users, which a fairness audit reads and no model."""

import duckdb
import polars as pl

from lcm_ml.frames.frame import read
from lcm_ml.warehouse.contracts import raw_inputs


def sensitive_columns() -> list[str]:
    """Columns of users that their contract marks as sensitive."""
    return [column.name for column in raw_inputs()["users"].columns if column.sensitive]


def sensitive_attributes(con: duckdb.DuckDBPyConnection) -> pl.DataFrame:
    """user_id and the sensitive columns as text, one row per user; an empty text is no value."""
    texts = ", ".join(f"nullif(trim(cast({name} as varchar)), '') as {name}" for name in sensitive_columns())
    return read(con, f"select user_id, {texts} from staging.stg_users order by user_id")
