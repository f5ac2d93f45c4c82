"""Runs: their identity, their row in ml.model_runs, and writing all that a run found at once."""

import contextlib
import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import duckdb
import polars as pl

from lcm_ml.errors import LcmError, UsageError
from lcm_ml.frames.frame import inputs_fingerprint
from lcm_ml.warehouse import writer
from lcm_ml.warehouse.connection import Notify, connect, transaction, writer_lock
from lcm_ml.warehouse.contracts import tables


def utc_now() -> datetime:
    """Now in UTC, without a zone, as the warehouse's timestamps are."""
    return datetime.now(UTC).replace(tzinfo=None)


def _stamp() -> str:
    return f"{utc_now():%Y%m%dT%H%M%S%f}-{secrets.token_hex(2)}"


@dataclass
class Run:
    """A run of a command that writes ml tables. `stamp` sorts by time and is unique."""

    command: str
    parameters: dict[str, Any]
    seed: int | None = None
    data_fingerprint: str | None = None
    stamp: str = field(default_factory=_stamp)
    started_at: datetime = field(default_factory=utc_now)

    @property
    def run_id(self) -> str:
        """Identifies the run in every table."""
        return f"{self.stamp}-{self.command}"

    def row(self, status: str, message: str | None = None) -> pl.DataFrame:
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
            },
            schema_overrides={"data_fingerprint": pl.String, "seed": pl.Int64, "message": pl.String},
        )


def record(
    run: Run,
    rows: Callable[[duckdb.DuckDBPyConnection], dict[str, pl.DataFrame]],
    notify: Notify,
    scope: Mapping[str, Any] | None = None,
) -> dict[str, pl.DataFrame]:
    """Write a successful run and everything it found in one transaction.

    Args:
        run: the run.
        rows: given the connection with its open transaction (some rows depend on what is there), the rows of
            each ml table; empty frames are left out, except in a table with a scope, which they empty.
        notify: told when another process has to be waited for.
        scope: what a table with a scope is written for, e.g. its as_of_date.

    Returns:
        What was written.

    Raises:
        LcmError: when the warehouse cannot be written; nothing was.
    """
    contracts = tables("ml")
    with writer_lock(f"lcm-ml {run.command}", notify), connect(notify=notify) as con, transaction(con):
        writer.ensure(con, contracts)
        found = {"model_runs": run.row("ok"), **rows(con)}
        for name, frame in found.items():
            if frame.height or contracts[name].scope:
                writer.write(con, contracts[name], frame, scope)
    return found


def run_capability(
    run: Run,
    compute: Callable[[duckdb.DuckDBPyConnection], dict[str, pl.DataFrame]],
    notify: Notify,
    scope: Mapping[str, Any] | None = None,
) -> dict[str, pl.DataFrame]:
    """Read, compute and write, as every capability does: one transaction at the end, a failed run on record.

    Args:
        run: the run.
        compute: given a read-only connection, the rows of each ml table.
        notify: told when another process has to be waited for.
        scope: as in `record`. It is looked at after `compute`, which may fill it.

    Returns:
        What was written.

    Raises:
        LcmError: from `compute`, or when the warehouse cannot be written; nothing was.
    """
    with failure_recorded(run, notify):
        with connect(read_only=True, notify=notify) as con:
            found = compute(con)
            if run.data_fingerprint is None and scope and "as_of_date" in scope:
                run.data_fingerprint = inputs_fingerprint(con, scope["as_of_date"])
        return record(run, lambda _: found, notify, scope)


@contextlib.contextmanager
def failure_recorded(run: Run, notify: Notify) -> Iterator[None]:
    """Leave a row in ml.model_runs when the block fails; wrong use leaves none."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        message = error.message if isinstance(error, LcmError) else f"{type(error).__name__}: {error}"
        # The first failure is the one to tell: that it could not be recorded either adds nothing.
        with contextlib.suppress(LcmError, OSError, duckdb.Error):
            contracts = tables("ml")
            with writer_lock(f"lcm-ml {run.command}", notify), connect(notify=notify) as con, transaction(con):
                writer.ensure(con, contracts)
                writer.write(con, contracts["model_runs"], run.row("failed", message))
        raise
