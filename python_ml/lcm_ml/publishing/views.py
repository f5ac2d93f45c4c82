"""The file that BI opens: a DuckDB database of views over the snapshot that is current."""

from pathlib import Path
from typing import Any

import duckdb

from lcm_ml.errors import LcmError
from lcm_ml.warehouse.sql import literal, quoted

NAME = "lcm_published.duckdb"
STAMPS = "stamps.parquet"
"""Beside the relations of a snapshot: relation, written_in, snapshot_id."""
READABLE_FROM = "v1.0.0"
"""The DuckDB that can open the file: BI tools are often behind this project's own."""


def write_views(published: Path, relations: dict[str, Any]) -> None:
    """Replace the views, in one step. DuckDB takes none whose file or column is not in `current` now.

    They have explicit columns, dbt's descriptions as comments, and read `current` by its absolute path: so they work
    from any working directory, and a connection that stays open follows the next swap.

    A file that a snapshot took over from the one before names the snapshot it was written for. The stamps beside it say
    which snapshot it belongs to now; where a swap came between the two reads and they do not know the file, its own
    word stands. Either way the snapshot_id that a reader sees is of a snapshot that has this very file.

    Args:
        published: the folder of `current`.
        relations: of a snapshot's manifest.

    Raises:
        LcmError: when `current` lacks something of them, or the file cannot be written.
    """
    path = published / NAME
    fresh = published / f".{NAME}.fresh"
    fresh.unlink(missing_ok=True)
    current = (published / "current").absolute()
    try:
        with duckdb.connect(str(fresh), config={"storage_compatibility_version": READABLE_FROM}) as con:
            con.execute("begin transaction")
            for name, relation in relations.items():
                view = quoted(name)
                con.execute(f"create view {view} as {_select(current, name, relation)}")
                con.execute(f"comment on view {view} is {literal(relation.get('description', ''))}")
                for column, description in relation.get("descriptions", {}).items():
                    con.execute(f"comment on column {view}.{quoted(column)} is {literal(description)}")
            con.execute("commit")
    except duckdb.Error as error:
        raise LcmError(f"{path}: {str(error).splitlines()[0]}", "lcm-ml publish") from None
    fresh.chmod(0o600)
    fresh.replace(path)


def are_of(published: Path) -> bool:
    """Whether there are views, and they read this very folder: it may have been moved or copied."""
    path = published / NAME
    if not path.is_file():
        return False
    try:
        with duckdb.connect(str(path), read_only=True) as con:
            found = con.execute("select sql from duckdb_views() where not internal limit 1").fetchall()
    except duckdb.Error:
        return False
    return bool(found) and literal(str((published / "current").absolute()))[:-1] in found[0][0]


def _select(current: Path, name: str, relation: dict[str, Any]) -> str:
    source = literal(str(current / f"{name}.parquet"))
    if "written_in" not in relation:
        # A snapshot of an earlier lcm: its files name their snapshot themselves.
        return f"select {', '.join(map(quoted, relation['columns']))} from read_parquet({source})"
    columns = ", ".join(f"rows_of.{quoted(column)}" for column in relation["columns"] if column != "snapshot_id")
    return (
        f"select {columns}, coalesce(stamp.snapshot_id, rows_of.snapshot_id) as snapshot_id "
        f"from read_parquet({source}) as rows_of "
        f"left join read_parquet({literal(str(current / STAMPS))}) as stamp "
        f"on stamp.relation = {literal(name)} and stamp.written_in = rows_of.snapshot_id"
    )


def write_stamps(snapshot: Path, snapshot_id: str, relations: dict[str, Any]) -> None:
    """Write which snapshot each file of the folder belongs to, beside the snapshot in which it was written.

    Raises:
        OSError: when it cannot be written.
    """
    path = snapshot / STAMPS
    rows = [
        f"({literal(name)}, {literal(relation['written_in'])}, {literal(snapshot_id)})"
        for name, relation in relations.items()
        if "written_in" in relation
    ] or ["(null, null, null)"]
    with duckdb.connect() as con:
        con.execute(
            "copy (select cast(relation as varchar) as relation, cast(written_in as varchar) as written_in, "
            "cast(snapshot_id as varchar) as snapshot_id "
            f"from (values {', '.join(rows)}) as stamps (relation, written_in, snapshot_id) "
            f"where relation is not null) to {literal(str(path))} (format parquet)"
        )
    path.chmod(0o600)
