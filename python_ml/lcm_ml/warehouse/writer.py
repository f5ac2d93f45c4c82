"""The only place that writes a contracted table."""

from collections.abc import Mapping
from typing import Any

import duckdb
import polars as pl

from lcm_ml.errors import LcmError
from lcm_ml.warehouse.contracts import Table
from lcm_ml.warehouse.packed import Packed, Rows, parts_of


def ensure(con: duckdb.DuckDBPyConnection, tables: dict[str, Table]) -> None:
    """Create the tables that are missing, and the columns that came to the contract after a table was made."""
    # One look at all of them: a statement for each that changes nothing takes ten times as long.
    found = con.execute(
        "select table_schema || '.' || table_name, list(column_name) from information_schema.columns "
        "where table_catalog = current_database() group by 1"
    )
    have: dict[str, list[str]] = dict(found.fetchall())
    for schema in dict.fromkeys(table.schema for table in tables.values()):
        con.execute(f"create schema if not exists {schema}")
    for table in tables.values():
        if table.full_name not in have:
            con.execute(table.create_sql())
            continue
        for column in table.columns:
            if column.name not in have[table.full_name]:
                con.execute(f"alter table {table.full_name} add column {column.name} {column.data_type}")


def write(con: duckdb.DuckDBPyConnection, table: Table, rows: Rows, scope: Mapping[str, Any] | None = None) -> int:
    """Write all rows, replacing rows with the same key or scope. Call it inside a transaction.

    Args:
        con: a connection with an open transaction, so that several tables appear together.
        table: the contract.
        rows: columns as in the contract, in any order.
        scope: for a table with a scope, the value of each of its columns; every one of the rows has these values.

    Returns:
        The rows written.

    Raises:
        LcmError: naming the column that the rows lack or have too many, or whose values do not fit.
    """
    if table.scope:
        in_scope = " and ".join(f"{name} = ?" for name in table.scope)
        con.execute(f"delete from {table.full_name} where {in_scope}", [(scope or {})[name] for name in table.scope])
    last: tuple[Any, ...] | None = None
    for part in parts_of(rows):
        _check(table, part, scope)
        if isinstance(rows, Packed):
            # Each part is looked through for repeated keys by itself: none may go on in the next.
            ordered = part.select(rows.order)
            if not ordered.equals(ordered.sort(rows.order)) or (last is not None and ordered.row(0) <= last):
                raise LcmError(f"rows for {table.full_name} are not in the order of {rows.order}", "sort them")
            last = ordered.row(-1)
        _insert(con, table, part)
    return rows.height


def _check(table: Table, frame: pl.DataFrame, scope: Mapping[str, Any] | None) -> None:
    missing = [name for name in table.column_names if name not in frame.columns]
    extra = [name for name in frame.columns if name not in table.column_names]
    if missing or extra:
        raise LcmError(
            f"rows for {table.full_name} do not fit its contract: missing {missing}, unknown {extra}",
            "bring the code and the contract of that table together",
        )
    if table.key and frame.select(table.key).is_duplicated().any():
        raise LcmError(f"rows for {table.full_name} repeat the key {table.key}", "write each key once")
    if outside := [name for name in table.scope if frame.height and (frame[name] != (scope or {}).get(name)).any()]:
        raise LcmError(
            f"rows for {table.full_name} lie outside the scope {scope}: {outside}", "write one scope at a time"
        )


def _insert(con: duckdb.DuckDBPyConnection, table: Table, frame: pl.DataFrame) -> None:
    # DuckDB finds it by its name here. As a registered view, a transaction would hold it, and all parts, to its end.
    # A table of that name would come first, and a shop may keep tables of its own in the warehouse.
    _lcm_incoming_rows = frame.select(table.column_names).to_arrow()
    try:
        if table.key and not table.scope:
            # A null in a key (a baseline has no version) is a value like any other here.
            same_key = " and ".join(f"t.{name} is not distinct from i.{name}" for name in table.key)
            con.execute(
                f"delete from {table.full_name} t where exists (select 1 from _lcm_incoming_rows i where {same_key})"
            )
        columns = ", ".join(table.column_names)
        casts = ", ".join(f"cast({column.name} as {column.data_type})" for column in table.columns)
        con.execute(f"insert into {table.full_name} ({columns}) select {casts} from _lcm_incoming_rows")
    except duckdb.ConversionException as error:
        raise LcmError(f"rows for {table.full_name} do not fit its contract: {error}", "mend the rows") from error
