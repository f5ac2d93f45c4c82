"""The file that BI opens: a DuckDB database of views over the snapshot that is current."""

from pathlib import Path
from typing import Any

import duckdb

from lcm_ml.errors import LcmError
from lcm_ml.warehouse.sql import literal, quoted

NAME = "lcm_published.duckdb"
READABLE_FROM = "v1.0.0"
"""The DuckDB that can open the file: BI tools are often behind this project's own."""


def write_views(published: Path, relations: dict[str, Any]) -> None:
    """Replace the views, in one step. DuckDB takes none whose file or column is not in `current` now.

    They have explicit columns, dbt's descriptions as comments, and read `current` by its absolute path: so they work
    from any working directory, and a connection that stays open follows the next swap.

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
                view, columns = quoted(name), ", ".join(map(quoted, relation["columns"]))
                source = literal(str(current / f"{name}.parquet"))
                con.execute(f"create view {view} as select {columns} from read_parquet({source})")
                con.execute(f"comment on view {view} is {literal(relation.get('description', ''))}")
                for column, description in relation.get("descriptions", {}).items():
                    con.execute(f"comment on column {view}.{quoted(column)} is {literal(description)}")
            con.execute("commit")
    except duckdb.Error as error:
        raise LcmError(f"{path}: {str(error).splitlines()[0]}", "lcm-ml publish") from None
    fresh.chmod(0o600)
    fresh.replace(path)
