"""The only place that opens a connection to the warehouse."""

import json
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
from filelock import FileLock, Timeout

from lcm_ml import project
from lcm_ml.errors import LcmError

WAREHOUSE_VERSION = 1
POLL_SECONDS = 0.2
DBT_LOCK_WAIT = "LCM_DBT_CONNECT_ATTEMPTS"
"""Read by profiles.yml: how often dbt tries to open the file, with 1, 2, 4 ... seconds in between."""

Notify = Callable[[str], None]


def lock_timeout() -> float:
    """Seconds to wait for another process: LCM_LOCK_TIMEOUT, default 60."""
    text = os.environ.get("LCM_LOCK_TIMEOUT", "60")
    try:
        return float(text)
    except ValueError:
        raise LcmError(f"LCM_LOCK_TIMEOUT is not a number: {text!r}", "set it to seconds, e.g. 60") from None


def _silent(_: str) -> None:
    return None


@contextmanager
def writer_lock(command: str, notify: Notify = _silent) -> Iterator[None]:
    """Hold the warehouse's writer lock, so that two lcm-ml jobs never interleave. Within one process it nests.

    The operating system frees the lock of a killed process, so a stale one cannot stay behind.

    Args:
        command: what holds it, told to whoever waits.
        notify: called once with a message when waiting starts.

    Raises:
        LcmError: when it is still held after `lock_timeout` seconds.
    """
    path = project.warehouse_path()
    _make_private_folder(path.parent)
    holder_file = path.with_name(f"{path.name}.holder")
    lock = FileLock(path.with_name(f"{path.name}.lock"), is_singleton=True)
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            holder = _read_holder(holder_file)
            notify(f"waiting up to {lock_timeout():g} s for {holder}, which is writing to {path}")
            try:
                lock.acquire(timeout=lock_timeout())
            except Timeout:
                raise LcmError(
                    f"{path} is being written by {_read_holder(holder_file)}",
                    "wait for it to finish, or raise LCM_LOCK_TIMEOUT (seconds)",
                ) from None
    except OSError as error:
        raise LcmError(
            f"cannot create the lock file beside {path}: {error.strerror}",
            "make the folder writable, or set LCM_WAREHOUSE to one that is",
        ) from None
    try:
        holder_file.write_text(
            json.dumps(
                {
                    "pid": os.getpid(),
                    "command": command,
                    "since": datetime.now(UTC).isoformat(timespec="seconds"),
                }
            ),
            encoding="utf-8",
        )
        yield
    finally:
        if lock.lock_counter == 1:
            holder_file.unlink(missing_ok=True)
        lock.release()


def _read_holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "another process"
    return f"`{holder['command']}` (process {holder['pid']}, since {holder['since']})"


def _make_private_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    try:
        folder.mkdir(parents=True, mode=0o700)
    except OSError as error:
        raise LcmError(
            f"cannot create the folder {folder}: {error.strerror}",
            "set LCM_WAREHOUSE to a path that can be written",
        ) from None


@contextmanager
def connect(*, read_only: bool = False, notify: Notify = _silent) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open the warehouse; wait for another process to let go of it; close it at the end.

    Args:
        read_only: for reading alone; several readers may be in at once.
        notify: called once with a message when waiting starts.

    Raises:
        LcmError: when the file is missing (read_only), locked for too long, not a warehouse, or written by a
            newer version; and, from within the block, for DuckDB errors that a user can act on (a full disk).
    """
    path = project.warehouse_path()
    if read_only and not path.exists():
        raise LcmError(f"there is no warehouse at {path}", "run `lcm-ml run` or `dbt build`, or set LCM_WAREHOUSE")
    _make_private_folder(path.parent)
    con = _open(path, read_only, notify)
    try:
        _configure(con)
        check_version(con, path)
        yield con
    except duckdb.Error as error:
        raise translate(error, path) from error
    finally:
        con.close()


def _configure(con: duckdb.DuckDBPyConnection) -> None:
    con.execute("set timezone = 'UTC'")
    con.execute("set enable_progress_bar = false")
    # Nothing in the default path needs an extension, and a closed network must fail at once, not after a time-out.
    con.execute("set autoinstall_known_extensions = false")
    if memory := os.environ.get("LCM_MEMORY_LIMIT"):
        con.execute("set memory_limit = ?", [memory])
    if threads := os.environ.get("LCM_THREADS"):
        con.execute("set threads = ?", [int(threads)])


def _open(path: Path, read_only: bool, notify: Notify) -> duckdb.DuckDBPyConnection:
    existed = path.exists()
    deadline = time.monotonic() + lock_timeout()
    told = False
    while True:
        try:
            con = duckdb.connect(str(path), read_only=read_only)
        except duckdb.IOException as error:
            if "lock" not in str(error).lower():
                raise translate(error, path) from None
            holder = lock_holder(str(error))
            if time.monotonic() >= deadline:
                raise LcmError(
                    f"{path} is locked by {holder}",
                    "close it there (a BI tool should read the published snapshot instead), "
                    "or raise LCM_LOCK_TIMEOUT (seconds)",
                ) from None
            if not told:
                notify(f"waiting up to {lock_timeout():g} s for {holder}, which holds {path}")
                told = True
            time.sleep(POLL_SECONDS)
        except duckdb.Error as error:
            raise translate(error, path) from None
        else:
            if not existed and path.exists():
                path.chmod(0o600)
            return con


def lock_holder(message: str) -> str:
    """The process that DuckDB's lock error names, in words."""
    found = re.search(r"held in (?P<program>.+?) \(PID (?P<pid>\d+)\)", message)
    return f"{found['program']} (process {found['pid']})" if found else "another process"


def translate(error: duckdb.Error, path: Path) -> LcmError:
    """Put a DuckDB error in words that name the thing and the next step."""
    text = str(error).strip()
    first_line = text.splitlines()[0] if text else type(error).__name__
    lowered = text.lower()
    if "no space left" in lowered or "disk full" in lowered or "could not write all bytes" in lowered:
        return LcmError(f"the disk of {path.parent} is full; nothing was changed", "free some space and run it again")
    if "permission denied" in lowered or "read-only" in lowered:
        return LcmError(
            f"{path} cannot be written: {first_line}",
            "check its permissions, or set LCM_WAREHOUSE to another path",
        )
    if "not a valid duckdb database" in lowered:
        return LcmError(f"{path} is not a DuckDB file", "move it away, or set LCM_WAREHOUSE to another path")
    if "newer version" in lowered or "storage version" in lowered or "version number" in lowered:
        return LcmError(
            f"{path} was written by a newer version of DuckDB: {first_line}",
            "upgrade with `make setup`, or set LCM_WAREHOUSE to another path",
        )
    if "out of memory" in lowered or "failed to allocate" in lowered or "failed to pin" in lowered:
        return LcmError(f"out of memory: {first_line}", "raise LCM_MEMORY_LIMIT, or lower LCM_THREADS")
    return LcmError(f"the warehouse {path} refused: {first_line}", "run `lcm-ml doctor`")


def check_version(con: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Refuse a warehouse whose layout is newer than this code knows.

    Raises:
        LcmError: naming both versions.
    """
    if not table_exists(con, "meta", "warehouse_version"):
        return
    row = first_row(con, "select max(version) from meta.warehouse_version")
    if row and row[0] is not None and row[0] > WAREHOUSE_VERSION:
        raise LcmError(
            f"{path} has layout version {row[0]}, newer than the {WAREHOUSE_VERSION} that this lcm-ml knows",
            "upgrade this checkout (git pull, then make setup), or set LCM_WAREHOUSE to another path",
        )


def first_row(con: duckdb.DuckDBPyConnection, sql: str, parameters: Sequence[object] = ()) -> tuple[Any, ...] | None:
    """The first row of a query, or None. The result is read to its end: an open one blocks the connection's next."""
    found = con.execute(sql, list(parameters)).fetchall()
    return found[0] if found else None


def rows(con: duckdb.DuckDBPyConnection, sql: str, parameters: Sequence[object] = ()) -> list[dict[str, Any]]:
    """The rows of a query, each as column name to value."""
    cursor = con.execute(sql, list(parameters))
    names = [column[0] for column in cursor.description or []]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def table_exists(con: duckdb.DuckDBPyConnection, schema: str, name: str) -> bool:
    """Whether the warehouse has this table or view."""
    found = first_row(
        con,
        "select 1 from information_schema.tables "
        "where table_catalog = current_database() and table_schema = ? and table_name = ?",
        [schema, name],
    )
    return found is not None


@contextmanager
def transaction(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """All of the block's writes, or none of them."""
    con.execute("begin transaction")
    try:
        yield
    except BaseException:
        con.execute("rollback")
        raise
    con.execute("commit")
