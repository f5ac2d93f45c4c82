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
    stale = con.execute(
        """
        select distinct mart.model_name
        from meta.processed_loads as events
        cross join (values ('user_features'), ('lapsed_user_features')) as mart (model_name)
        where events.model_name = 'int_events'
          and not exists (
              select 1 from meta.processed_loads as held
              where held.load_id = events.load_id
                -- What `lcm-ml watch` has taken up leaves the other marts as they were at the last build.
                and held.model_name in (mart.model_name, 'current_user_lifecycle')
          )
        order by 1
        """
    ).fetchall()
    if stale:
        names = ", ".join(name for (name,) in stale)
        raise LcmError(f"marts older than the events they are made of: {names}", BUILD)
    return build
