"""Write the warehouse anew: DuckDB leaves the bytes of deleted rows in its file until others take their place."""

import os
import shutil

import duckdb

from lcm_ml import project
from lcm_ml.errors import LcmError
from lcm_ml.warehouse.connection import Notify, connect, rows
from lcm_ml.warehouse.sql import literal, quoted

WORTHWHILE = 0.2
"""Share of free room in the file from which on a rewrite pays; DuckDB fills less by itself."""


def free_share(con: duckdb.DuckDBPyConnection) -> float:
    """The share of the file's blocks that hold nothing."""
    con.execute("checkpoint")
    name = con.execute("select current_database()").fetchall()[0][0]
    sizes = next(row for row in rows(con, "pragma database_size") if row["database_name"] == name)
    return float(sizes["free_blocks"] / sizes["total_blocks"]) if sizes["total_blocks"] else 0.0


def rewrite_file(notify: Notify) -> None:
    """Copy every table and view into a fresh file, and let it take the place of the old one. Under the writer lock.

    A reader that has the old file open goes on reading it; whoever opens the warehouse afterwards has the new one.
    DuckDB's own lock of the old file is held across the swap, so that nothing can be written to it in between. A kill
    leaves the old file, or the new one.

    Raises:
        LcmError: when there is no room for a second copy, or the file is locked for too long.
    """
    path = project.warehouse_path().resolve()
    fresh = path.with_name(f".{path.name}.fresh")
    leftovers = (fresh, fresh.with_name(f"{fresh.name}.wal"))
    for leftover in leftovers:
        leftover.unlink(missing_ok=True)
    size = path.stat().st_size
    if shutil.disk_usage(path.parent).free < size:
        raise LcmError(
            f"{path.parent} has no room for a second copy of the warehouse ({size / 2**30:.1f} GiB), which takes the "
            "bytes of deleted rows out of the file",
            "free some space and run it again: what was done stays done",
        )
    try:
        with connect(notify=notify) as con:
            con.execute("checkpoint")
            name = con.execute("select current_database()").fetchone()
            assert name is not None
            con.execute(f"attach {literal(str(fresh))} as fresh_copy")
            con.execute(f"copy from database {quoted(name[0])} to fresh_copy")
            con.execute("detach fresh_copy")
            fresh.chmod(path.stat().st_mode & 0o777)
            with fresh.open("rb") as file:
                os.fsync(file.fileno())
            fresh.replace(path)
    finally:
        for leftover in leftovers:
            leftover.unlink(missing_ok=True)
