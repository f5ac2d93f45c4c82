"""Runs: their identity, their row in ml.model_runs, and writing all that a run found at once."""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, TypeVar

import duckdb
import polars as pl

from lcm_ml import logs
from lcm_ml.errors import LcmError, LockedError, UsageError
from lcm_ml.frames.frame import inputs_fingerprint, resolve_as_of
from lcm_ml.warehouse import writer
from lcm_ml.warehouse.connection import Notify, connect, transaction, writer_lock
from lcm_ml.warehouse.contracts import tables
from lcm_ml.warehouse.packed import Packed, Rows

Found = TypeVar("Found")


def utc_now() -> datetime:
    """Now in UTC, without a zone, as the warehouse's timestamps are."""
    return datetime.now(UTC).replace(tzinfo=None)


@dataclass
class Run:
    """A run of a command that writes ml tables. `stamp` sorts by time and is unique."""

    command: str
    parameters: dict[str, Any]
    seed: int | None = None
    data_fingerprint: str | None = None
    stamp: str = field(default_factory=logs.stamp)
    started_at: datetime = field(default_factory=utc_now)

    @property
    def run_id(self) -> str:
        """Identifies the run in every table."""
        return f"{self.stamp}-{self.command}"

    def row(self, status: str, message: str | None = None, next_step: str | None = None) -> pl.DataFrame:
        """The run as a row of ml.model_runs, finished now."""
        return pl.DataFrame(
            {
                "run_id": [self.run_id],
                "command": [self.command],
                "started_at": [self.started_at],
                "finished_at": [utc_now()],
                "status": [status],
                "parameters": [json.dumps(self.parameters, default=str)],
                "data_fingerprint": [self.data_fingerprint],
                "seed": [self.seed],
                "message": [message],
                "next_step": [next_step],
            },
            schema_overrides={
                "data_fingerprint": pl.String,
                "seed": pl.Int64,
                "message": pl.String,
                "next_step": pl.String,
            },
        )


def record(
    run: Run,
    rows: Callable[[duckdb.DuckDBPyConnection], Mapping[str, Rows]],
    notify: Notify,
    scope: Mapping[str, Any] | None = None,
) -> dict[str, Rows]:
    """Write a successful run and everything it found in one transaction.

    Args:
        run: the run.
        rows: given the connection with its open transaction (some rows depend on what is there), the rows of
            each ml table; empty ones are left out, except in a table with a scope, which they empty.
        notify: told when another process has to be waited for.
        scope: what a table with a scope is written for, e.g. its as_of_date.

    Returns:
        What was written.

    Raises:
        LcmError: when the warehouse cannot be written; nothing was.
    """
    contracts = tables("ml")
    with (
        writer_lock(f"lcm-ml {run.command}", notify),
        connect(notify=notify, beside_frames=True) as con,
        transaction(con),
    ):
        writer.ensure(con, contracts)
        found: dict[str, Rows] = {"model_runs": run.row("ok"), **rows(con)}
        for name, frame in found.items():
            if frame.height or contracts[name].scope:
                writer.write(con, contracts[name], frame, scope)
    logs.event(
        "run",
        ml_run_id=run.run_id,
        status="ok",
        rows={name: frame.height for name, frame in found.items()},
        seconds=(utc_now() - run.started_at).total_seconds(),
    )
    return found


def run_capability(
    run: Run,
    as_of: date | None,
    compute: Callable[[duckdb.DuckDBPyConnection, date], tuple[Mapping[str, Rows], Found]],
    notify: Notify,
    **scope: str,
) -> tuple[date, Found]:
    """Read, compute and write, as every capability does: one transaction at the end, a failed run on record.

    Args:
        run: the run; its parameters get as_of.
        as_of: one of marts.as_of_dates; the end of the data where None.
        compute: given a read-only connection and the as_of_date, the rows of each ml table and what else was found.
            as_of_date, run_id and the columns of `scope` are filled in where rows lack them; a frame without rows
            need not have any column.
        notify: told when another process has to be waited for.
        scope: as in `record`, besides as_of_date.

    Returns:
        The as_of_date, and what else was found.

    Raises:
        LcmError: when `as_of` is no as_of_date, from `compute`, or when the warehouse cannot be written; nothing was.
    """
    asked = as_of.date() if isinstance(as_of, datetime) else as_of
    run.parameters = {"as_of": asked, **run.parameters}
    with failure_recorded(run, notify):
        with connect(read_only=True, notify=notify) as con:
            day = resolve_as_of(con, asked)
            tables_found, found = compute(con, day)
            run.data_fingerprint = inputs_fingerprint(con, day)
        within = {"as_of_date": day, **scope}
        rows = {name: _filled_in(name, frame, {**within, "run_id": run.run_id}) for name, frame in tables_found.items()}
        record(run, lambda _: rows, notify, within)
    return day, found


def _filled_in(table: str, rows: Rows, values: Mapping[str, Any]) -> Rows:
    columns = tables("ml")[table].column_names
    if rows.is_empty():
        return pl.DataFrame(schema=columns)
    lacking = {name: value for name, value in values.items() if name in columns and name not in rows.columns}
    if isinstance(rows, Packed):
        return rows.fill(lacking)
    return rows.with_columns(pl.lit(value).alias(name) for name, value in lacking.items())


@contextlib.contextmanager
def failure_recorded(run: Run, notify: Notify) -> Iterator[None]:
    """Leave a row in ml.model_runs when the block fails; wrong use leaves none."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        told = error if isinstance(error, LcmError) else LcmError(f"{type(error).__name__}: {error}")
        told.run_id = run.run_id
        logs.event("run", "error", ml_run_id=run.run_id, status="failed")
        # The first failure is the one to tell: that it could not be recorded either adds nothing. What another
        # process holds is not waited for a second time.
        if not isinstance(error, LockedError):
            with contextlib.suppress(LcmError, OSError, duckdb.Error):
                contracts = tables("ml")
                with writer_lock(f"lcm-ml {run.command}", notify), connect(notify=notify) as con, transaction(con):
                    writer.ensure(con, contracts)
                    writer.write(con, contracts["model_runs"], run.row("failed", told.message, told.next_step or None))
                told.is_recorded = True
        raise
