"""The only place that opens a connection to the warehouse."""

import json
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
from filelock import FileLock, Timeout

from lcm_ml import project
from lcm_ml.errors import FULL, LcmError, LockedError
from lcm_ml.memory import give_back
from lcm_ml.warehouse import failures

WAREHOUSE_VERSION = 2
"""Layout of the tables; macros/build_state/build_log.sql says the same, migrations.py leads here from older ones."""
POLL_SECONDS = 0.2
LOCK_TIMEOUT = "LCM_LOCK_TIMEOUT"
LOCK_HELD = "LCM_WRITER_LOCK_HELD"
"""Set for a dbt that lcm-ml starts, which waited for the warehouse already."""

DISK_IS_FULL = ("no space left", "disk full", "could not write all bytes", "file too large", "quota exceeded")
"""What DuckDB's errors say then, in lower case."""

Notify = Callable[[str], None]


def lock_timeout() -> float:
    """Seconds to wait for another process: LCM_LOCK_TIMEOUT, default 60."""
    text = os.environ.get(LOCK_TIMEOUT, "60")
    try:
        return float(text)
    except ValueError:
        raise LcmError(f"LCM_LOCK_TIMEOUT is not a number: {text!r}", "set it to seconds, e.g. 60") from None


def _silent(_: str) -> None:
    return None


@contextmanager
def writer_lock(command: str, notify: Notify = _silent, path: Path | None = None) -> Iterator[None]:
    """Hold the writer lock of a file or folder, so that two lcm-ml jobs never interleave. Within one process it nests.

    The operating system frees the lock of a killed process, so a stale one cannot stay behind.

    Args:
        command: what holds it, told to whoever waits.
        notify: called once with a message when waiting starts.
        path: what is written; default: the warehouse.

    Raises:
        LcmError: when it is still held after `lock_timeout` seconds.
    """
    path = path or project.warehouse_path()
    _make_private_folder(path.parent)
    holder = holder_path(path)
    lock = FileLock(path.with_name(f"{path.name}.lock"), is_singleton=True)
    with failures.kept(command):
        _acquire(lock, path, notify)
        try:
            if lock.lock_counter == 1:
                # Who waits is told of "another process" where this cannot be written: no reason not to do the job.
                with suppress(OSError):
                    holder.write_text(
                        json.dumps({"pid": os.getpid(), "command": command, "since": f"{datetime.now(UTC):%FT%TZ}"}),
                        encoding="utf-8",
                    )
                if path == project.warehouse_path() and command != "lcm-ml restore":
                    _finish_restore(notify)
            yield
        finally:
            if lock.lock_counter == 1:
                holder.unlink(missing_ok=True)
            lock.release()


def _acquire(lock: FileLock, path: Path, notify: Notify) -> None:
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            notify(f"waiting up to {lock_timeout():g} s for {_who_holds(path)}, which is writing to {path}")
            try:
                lock.acquire(timeout=lock_timeout())
            except Timeout:
                raise LockedError(
                    f"{path} is being written by {_who_holds(path)}",
                    "wait for it to finish, or raise LCM_LOCK_TIMEOUT (seconds)",
                ) from None
    except OSError as error:
        if error.errno in FULL:
            raise
        raise LcmError(
            f"cannot create the lock file beside {path}: {error.strerror}",
            "make the folder writable, or set LCM_WAREHOUSE to one that is",
        ) from None


def _finish_restore(notify: Notify) -> None:
    if project.beside_warehouse("restore").is_dir():
        from lcm_ml.warehouse.restore import finish

        finish(notify)


def holder_path(path: Path) -> Path:
    """The file that names who holds the writer lock of `path`. It outlives a job that was killed."""
    return path.with_name(f"{path.name}.holder")


def read_holder(path: Path) -> dict[str, Any] | None:
    """Who holds the writer lock of `path`, or held it when it was killed: command, pid and since."""
    try:
        holder: dict[str, Any] = json.loads(holder_path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return holder


def _who_holds(path: Path) -> str:
    holder = read_holder(path)
    return f"`{holder['command']}` (process {holder['pid']}, since {holder['since']})" if holder else "another process"


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
def connect(
    *, read_only: bool = False, notify: Notify = _silent, any_layout: bool = False, beside_frames: bool | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open the warehouse; wait for another process to let go of it; close it at the end.

    A warehouse of an older layout is backed up and brought along when it is opened for writing.

    Args:
        read_only: for reading alone; several readers may be in at once.
        notify: called once with a message when waiting starts, and of a change of layout.
        any_layout: take the layout as it is; for backups.
        beside_frames: leave most of LCM_MEMORY_LIMIT to frames in this process; None: readers do.

    Raises:
        LcmError: when the file is missing (read_only), locked for too long, not a warehouse, of a newer layout, or
            of an older one (read_only); and, from within the block, for DuckDB errors that a user can act on (a full
            disk).
    """
    path = project.warehouse_path()
    if read_only and not path.exists():
        raise LcmError(f"there is no warehouse at {path}", "run `lcm-ml run` or `dbt build`, or set LCM_WAREHOUSE")
    _make_private_folder(path.parent)
    has_frames = read_only if beside_frames is None else beside_frames
    # DuckDB fills its share in time: on top of what is in use, not of what was.
    give_back()
    con = _open(path, read_only, has_frames, notify)
    try:
        if not any_layout and is_older(con, path):
            if read_only:
                raise LcmError(
                    f"{path} was made by an earlier version of lcm-ml",
                    "`lcm-ml upgrade` (or `lcm-ml run`) backs it up and brings it along",
                )
            con.close()
            from lcm_ml.warehouse.migrations import upgrade

            upgrade(notify)
            con = _open(path, read_only, has_frames, notify)
        yield con
    except duckdb.Error as error:
        raise translate(error, path) from error
    finally:
        con.close()


def _configure(con: duckdb.DuckDBPyConnection, has_frames: bool) -> None:
    con.execute("set timezone = 'UTC'")
    con.execute("set enable_progress_bar = false")
    # Nothing in the default path needs an extension, and a closed network must fail at once, not after a time-out.
    con.execute("set autoinstall_known_extensions = false")
    if memory := os.environ.get("LCM_MEMORY_LIMIT"):
        con.execute("set memory_limit = ?", [memory])
        if has_frames:
            # What DuckDB keeps of the file fills its limit in time, and frames come on top of it. It tells 5.5 GiB.
            told = first_row(con, "select current_setting('memory_limit')")
            number, unit = str(told[0] if told else "").split()
            con.execute("set memory_limit = ?", [f"{float(number) / 3:.3f}{unit}"])
    if threads := os.environ.get("LCM_THREADS"):
        con.execute("set threads = ?", [int(threads)])


def _open(path: Path, read_only: bool, has_frames: bool, notify: Notify) -> duckdb.DuckDBPyConnection:
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
                raise LockedError(
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
            _configure(con, has_frames)
            return con


def lock_holder(message: str) -> str:
    """The process that DuckDB's lock error names, in words: what it was called with, and since when it runs."""
    found = re.search(r"held in (?P<program>.+?) \(PID (?P<pid>\d+)\)", message)
    if not found:
        return "another process"
    # Only Linux tells more, and only of one's own processes.
    process = Path("/proc") / found["pid"]
    try:
        words = (process / "cmdline").read_text(encoding="utf-8", errors="replace").split("\0")
        since = f", since {datetime.fromtimestamp(process.stat().st_mtime, UTC):%FT%TZ}"
    except OSError:
        words, since = [], ""
    return f"`{_command_of(words) or found['program']}` (process {found['pid']}{since})"


def _command_of(words: list[str]) -> str:
    """dbt's or lcm-ml's command; options are left out, since they may name users. Empty for any other program."""
    for place, word in enumerate(words):
        name = Path(word).name
        if name in ("lcm-ml", "dbt") or word == "dbt.cli.main":
            called = [text for text in words[place + 1 :][:2] if re.fullmatch(r"[a-z-]+", text) and text[0] != "-"]
            return " ".join(["lcm-ml" if name == "lcm-ml" else "dbt", *called])
    return ""


def translate(error: duckdb.Error, path: Path) -> LcmError:
    """Put a DuckDB error in words that name the thing and the next step."""
    text = str(error).strip()
    first_line = text.splitlines()[0] if text else type(error).__name__
    lowered = text.lower()
    if any(words in lowered for words in DISK_IS_FULL):
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


def layout_of(con: duckdb.DuckDBPyConnection) -> int | None:
    """The version of the tables' layout. None before the first build: raw tables alone, which grow by columns."""
    if not table_exists(con, "meta", "warehouse_version"):
        return None
    row = first_row(con, "select max(version) from meta.warehouse_version")
    return row[0] if row else None


def is_older(con: duckdb.DuckDBPyConnection, path: Path) -> bool:
    """Whether the layout is one that has to be brought along first.

    Raises:
        LcmError: naming both versions, when it is newer than this code knows.
    """
    layout = layout_of(con) or WAREHOUSE_VERSION
    if layout > WAREHOUSE_VERSION:
        raise LcmError(
            f"{path} has layout version {layout}, newer than the {WAREHOUSE_VERSION} that this lcm-ml knows",
            "upgrade this checkout (git pull, then make setup), or set LCM_WAREHOUSE to another path",
        )
    return layout < WAREHOUSE_VERSION


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
