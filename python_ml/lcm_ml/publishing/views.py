"""The file that BI opens: a DuckDB database of views over the snapshot that is current."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb

from lcm_ml.errors import LcmError
from lcm_ml.files import replace_private
from lcm_ml.warehouse.sql import literal, quoted

NAME = "lcm_published.duckdb"
STAMPS = "stamps.txt"
"""Beside the relations of a snapshot, a line for each: its name, written_in and snapshot_id, with tabs between."""

SCHEMAS = "schemas"
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
    try:
        with duckdb.connect(str(fresh), config={"storage_compatibility_version": READABLE_FROM}) as con:
            con.execute("begin transaction")
            for name, relation in relations.items():
                view = quoted(name)
                con.execute(f"create view {view} as {_select(published, name, relation)}")
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


def _select(published: Path, name: str, relation: dict[str, Any]) -> str:
    current = (published / "current").absolute()
    source = f"read_parquet({literal(str(current / f'{name}.parquet'))})"
    if "written_in" not in relation:
        # A snapshot of an earlier lcm: its files name their snapshot themselves.
        return f"select {', '.join(map(quoted, relation['columns']))} from {source}"
    if "schema_file" in relation:
        # DuckDB opens the first file when it plans a query and again when it reads, and fails where these are two
        # files. The first one here never changes, has no rows, and the others are opened when they are read.
        first = literal(str((published / relation["schema_file"]).absolute()))
        source = f"read_parquet([{first}, {literal(str(current / f'{name}.parquet'))}])"
    columns = ", ".join(f"rows_of.{quoted(column)}" for column in relation["columns"] if column != "snapshot_id")
    # Text, which is read in one go: a Parquet file of stamps would be opened twice, for every view.
    stamps = (
        "select split_part(line, chr(9), 2) as written_in, split_part(line, chr(9), 3) as snapshot_id from ("
        f"select unnest(string_split(content, chr(10))) as line from read_text({literal(str(current / STAMPS))})"
        f") as stamped where split_part(line, chr(9), 1) = {literal(name)}"
    )
    return (
        f"select {columns}, coalesce(stamp.snapshot_id, rows_of.snapshot_id) as snapshot_id "
        f"from {source} as rows_of left join ({stamps}) as stamp on stamp.written_in = rows_of.snapshot_id"
    )


def write_stamps(snapshot: Path, snapshot_id: str, relations: dict[str, Any]) -> None:
    """Write which snapshot each file of the folder belongs to, beside the snapshot in which it was written.

    Raises:
        OSError: when it cannot be written.
    """
    stamped = ((name, relation["written_in"]) for name, relation in relations.items() if "written_in" in relation)
    text = "".join(f"{name}\t{written_in}\t{snapshot_id}\n" for name, written_in in stamped)
    replace_private(snapshot / STAMPS, text)


def schema_file(name: str, columns: Sequence[tuple[str, str]]) -> str:
    """Where the columns of a relation, with their types, are below the published folder: named by what they are."""
    told = ",".join(f"{column} {data_type}" for column, data_type in columns)
    return f"{SCHEMAS}/{name}-{hashlib.sha256(told.encode()).hexdigest()[:16]}.parquet"


def write_schemas(published: Path, snapshot: Path, relations: dict[str, Any]) -> None:
    """Make the files without rows that views of a snapshot read first, where they are missing.

    Raises:
        LcmError: when one cannot be written.
    """
    for name, relation in relations.items():
        if "schema_file" not in relation or (path := published / relation["schema_file"]).exists():
            continue
        path.parent.mkdir(exist_ok=True, mode=0o700)
        fresh = path.with_name(f".{path.name}.fresh")
        try:
            with duckdb.connect() as con:
                source = literal(str(snapshot / f"{name}.parquet"))
                con.execute(f"copy (from read_parquet({source}) limit 0) to {literal(str(fresh))} (format parquet)")
        except duckdb.Error as error:
            raise LcmError(f"{path}: {str(error).splitlines()[0]}", "lcm-ml publish") from None
        fresh.chmod(0o600)
        fresh.replace(path)
