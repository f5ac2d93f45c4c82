"""What is built: the settings of the last build, and whether its tables may be read."""

import json
from typing import Any

import duckdb

from lcm_ml.errors import LcmError
from lcm_ml.warehouse.connection import rows, table_exists

BUILD = "run `dbt build` (or `lcm-ml run`)"


class Settings(dict[str, Any]):
    """The dbt vars of a build, by name.

    Raises:
        LcmError: for a var that came to lcm after the build.
    """

    def __missing__(self, name: str) -> Any:
        raise LcmError(f"the last build did not know the var {name}", BUILD)


def settings(con: duckdb.DuckDBPyConnection) -> Settings:
    """The dbt vars as the last build used them.

    Raises:
        LcmError: when nothing was built yet.
    """
    if not table_exists(con, "meta", "settings"):
        raise LcmError("nothing was built yet in this warehouse", BUILD)
    found = con.execute("select name, value from meta.settings").fetchall()
    return Settings({name: json.loads(value) for name, value in found})


def last_build(con: duckdb.DuckDBPyConnection) -> dict[str, Any] | None:
    """The newest row of meta.builds, or None before the first build."""
    if not table_exists(con, "meta", "builds"):
        return None
    found = rows(con, "select * from meta.builds order by started_at desc limit 1")
    return found[0] if found else None


def require_built(con: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """Refuse marts that a build left half done.

    Returns:
        The last build's row.

    Raises:
        LcmError: when nothing was built, or the last build is open or failed.
    """
    build = last_build(con)
    if build is None or not table_exists(con, "marts", "user_features"):
        raise LcmError("nothing was built yet in this warehouse", BUILD)
    if build["status"] == "open":
        raise LcmError(f"the dbt build of {build['started_at']:%Y-%m-%d %H:%M} UTC did not finish", BUILD)
    if build["status"] == "failed":
        raise LcmError(
            f"the dbt build of {build['started_at']:%Y-%m-%d %H:%M} UTC failed in {build['failed_nodes']}",
            "see logs/dbt.log, mend it, then " + BUILD,
        )
    behind = con.execute(
        """
        select load_id from meta.processed_loads where model_name = 'int_events'
        except
        -- What `lcm-ml watch` has taken up leaves the other marts as they were at the last build.
        select load_id from meta.processed_loads where model_name in ('user_features', 'current_user_lifecycle')
        """
    ).fetchall()
    if behind:
        raise LcmError("marts.user_features is older than the events that it is made of", BUILD)
    return build
