"""A load: everything it writes to schema raw appears together, or not at all."""

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import duckdb

import lcm_ml
from lcm_ml.errors import LcmError
from lcm_ml.privacy.suppression import Suppression
from lcm_ml.warehouse import contracts, writer
from lcm_ml.warehouse.connection import Notify, connect, first_row, transaction, writer_lock


@dataclass
class FileOutcome:
    """What became of one file."""

    table_name: str
    source_file: str
    content_hash: str
    rows_in: int
    rows_loaded: int
    rows_rejected: int
    rows_suppressed: int = 0
    unused_columns: list[str] = field(default_factory=list)


@dataclass
class RawLoad:
    """An open load. `loaded_at` is naive UTC; `load_id` sorts by time; `suppression` names the forgotten users."""

    con: duckdb.DuckDBPyConnection
    load_id: str
    loaded_at: datetime
    suppression: Suppression | None = None
    files: list[FileOutcome] = field(default_factory=list)

    def record(self, outcome: FileOutcome) -> None:
        """Enter a file in raw.load_files.

        Raises:
            LcmError: when its rows do not add up, which would mean that some were lost.
        """
        if outcome.rows_in != outcome.rows_loaded + outcome.rows_rejected + outcome.rows_suppressed:
            raise LcmError(
                f"{outcome.source_file}: {outcome.rows_in} rows read, but {outcome.rows_loaded} loaded, "
                f"{outcome.rows_rejected} rejected and {outcome.rows_suppressed} of forgotten users; "
                "nothing was changed",
                "report this with the file's first lines",
            )
        self.con.execute(
            "insert into raw.load_files (load_id, table_name, source_file, content_hash, rows_in, rows_loaded, "
            "rows_rejected, rows_suppressed) values (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                self.load_id,
                outcome.table_name,
                outcome.source_file,
                outcome.content_hash,
                outcome.rows_in,
                outcome.rows_loaded,
                outcome.rows_rejected,
                outcome.rows_suppressed,
            ],
        )
        self.files.append(outcome)

    def insert(self, table: contracts.Table, rows: str, label: str) -> int:
        """Add rows to a raw table, but for those of forgotten users.

        Args:
            table: the contract.
            rows: SQL of a relation with the contract's columns and source_row.
            label: the source_file of their lineage.

        Returns:
            The rows added.
        """
        columns = [column for column in table.columns if not column.lineage]
        names = ", ".join(column.name for column in columns)
        casts = ", ".join(f"cast({column.name} as {column.data_type})" for column in columns)
        kept = f"not ({self.suppression.condition(table)})" if self.suppression else "true"
        inserted = first_row(
            self.con,
            f"insert into {table.full_name} ({names}, load_id, loaded_at, source_file, source_row) "
            f"select {casts}, ?, ?, ?, source_row from {rows} where {kept}",
            [self.load_id, self.loaded_at, label],
        )
        return int(inserted[0]) if inserted else 0

    def already_loaded(self, table_name: str, content_hash: str) -> bool:
        """Whether raw holds a file of the same bytes in this table, from this load or an earlier one."""
        found = first_row(
            self.con,
            "select 1 from raw.load_files where table_name = ? and content_hash = ?",
            [table_name, content_hash],
        )
        return found is not None


@contextmanager
def raw_load(
    source: str, options: dict[str, Any], *, append: bool, memory_notify: Notify | None = None
) -> Iterator[RawLoad]:
    """Open a load in one transaction. Without `append` it takes the place of everything raw holds.

    A load that brings no file leaves no trace.

    Raises:
        LcmError: when the warehouse is locked or cannot be written; nothing is changed then.
    """
    notify = memory_notify or (lambda _: None)
    with writer_lock(f"lcm-ml load {source}", notify), connect(notify=notify) as con, transaction(con):
        con.execute("create schema if not exists raw")
        if not append:
            for name in contracts.tables("raw"):
                con.execute(f"drop table if exists raw.{name}")
        with load_within(con, source, options, append=append) as load:
            yield load


@contextmanager
def load_within(
    con: duckdb.DuckDBPyConnection, source: str, options: dict[str, Any], *, append: bool
) -> Iterator[RawLoad]:
    """Open a load within a transaction that is open already, so that other tables can change with it."""
    now = datetime.now(UTC).replace(tzinfo=None)
    load_id = f"{now:%Y%m%dT%H%M%S%f}-{secrets.token_hex(3)}"
    writer.ensure(con, contracts.tables("raw"))
    load = RawLoad(con, load_id, now, Suppression.of(con))
    yield load
    if load.files:
        con.execute(
            "insert into raw.loads values (?, ?, ?, ?, ?, ?)",
            [
                load_id,
                now,
                source,
                "append" if append else "replace",
                json.dumps(options, sort_keys=True),
                lcm_ml.__version__,
            ],
        )


def result_of(load: RawLoad, skipped: list[str]) -> dict[str, Any]:
    """What a load command prints."""
    return {
        "load_id": load.load_id if load.files else None,
        "files": [vars(outcome) for outcome in load.files],
        "rows_in": sum(outcome.rows_in for outcome in load.files),
        "rows_loaded": sum(outcome.rows_loaded for outcome in load.files),
        "rows_rejected": sum(outcome.rows_rejected for outcome in load.files),
        "rows_suppressed": sum(outcome.rows_suppressed for outcome in load.files),
        "skipped": skipped,
    }
