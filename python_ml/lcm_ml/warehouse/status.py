"""What is loaded, built, trained, scored and published, and from when."""

import os
from datetime import datetime
from typing import Any

import duckdb

from lcm_ml import project
from lcm_ml.publishing.catalogue import current_manifest
from lcm_ml.warehouse import failures, state
from lcm_ml.warehouse.connection import read_holder, rows, table_exists


def collect(con: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """Gather the state of the warehouse.

    Returns:
        `loads`, `build`, `rows`, `stages`, `dates`, `champion`, `metrics`, `scores`, `failures`, `published`;
        each empty or None where that step has not happened yet.
    """
    built = table_exists(con, "marts", "data_quality") and table_exists(con, "marts", "user_features")
    return {
        "loads": _loads(con),
        "build": state.last_build(con),
        "rows": _row_counts(con) if built else [],
        "stages": _stages(con) if built else [],
        "dates": _dates(con) if built else None,
        "champion": _champion(con) if built else None,
        "metrics": _metrics(con) if built else [],
        "scores": _scores(con) if built else [],
        "failures": _failures(con),
        "published": current_manifest(),
    }


def _loads(con: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    if not table_exists(con, "raw", "loads"):
        return []
    return rows(
        con,
        """
        select
            loads.load_id, loads.loaded_at, loads.source, loads.mode,
            coalesce(sum(files.rows_in) filter (where files.table_name = 'events'), 0) as events_in
        from raw.loads as loads
        left join raw.load_files as files on loads.load_id = files.load_id
        group by all
        order by loads.load_id
        """,
    )


def _row_counts(con: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    return rows(
        con,
        """
        select kind, rule, cast(sum(row_count) as bigint) as row_count
        from marts.data_quality
        group by kind, rule
        order by kind, row_count desc
        """,
    )


def _stages(con: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    return rows(
        con,
        """
        select as_of_date, to_stage as stage, cast(sum(users) as bigint) as users
        from marts.lifecycle_transitions
        where as_of_date = (select max(as_of_date) from marts.lifecycle_transitions)
        group by all
        order by users desc
        """,
    )


def _dates(con: duckdb.DuckDBPyConnection) -> dict[str, Any] | None:
    found = rows(
        con,
        """
        select
            max(as_of_date) filter (where is_scoring_date) as scoring_date,
            min(as_of_date) as first_date,
            count(*) filter (where is_labelled) as labelled_dates,
            max(as_of_date) filter (where is_labelled) as last_labelled_date
        from marts.as_of_dates
        """,
    )
    return found[0] if found else None


def _champion(con: duckdb.DuckDBPyConnection) -> dict[str, Any] | None:
    found = rows(con, "select * from ml.model_versions where status = 'champion' order by created_at desc limit 1")
    return found[0] if found else None


def _metrics(con: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    return rows(
        con,
        """
        select model_name, as_of_date, metric, value, ci_low, ci_high, n_users
        from serving.model_performance
        where split = 'test'
        order by model_name, metric
        """,
    )


def _scores(con: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    return rows(
        con,
        """
        select as_of_date, model_version, risk_band, count(*) as users, max(scored_at) as scored_at
        from serving.churn_scores_latest
        group by all
        order by risk_band
        """,
    )


SHOWN_FAILURES = 5


def _failures(con: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """The newest open failures: no later run of the same command went well.

    Each has command, started_at (UTC), run_id, message and next_step.
    """
    told = {failure["command"]: failure for failure in _failed_runs(con)}
    went_well = _went_well(con)
    for failure in failures.read():
        failure["started_at"] = datetime.fromisoformat(failure["started_at"]).replace(tzinfo=None)
        if failure["started_at"] > went_well.get(failure["command"], datetime.min):
            told[failure["command"]] = failure
    found = [*told.values(), *_failed_build(con, told), *_killed()]
    return sorted(found, key=lambda failure: failure["started_at"], reverse=True)[:SHOWN_FAILURES]


def _failed_runs(con: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    if not table_exists(con, "ml", "model_runs"):
        return []
    return rows(
        con,
        """
        select
            'lcm-ml ' || command as command, started_at, run_id, message,
            coalesce(next_step, 'run `lcm-ml ' || command || '` again') as next_step
        from ml.model_runs
        qualify row_number() over (partition by command order by started_at desc) = 1 and status = 'failed'
        """,
    )


def _went_well(con: duckdb.DuckDBPyConnection) -> dict[str, datetime]:
    """When each command last went well, for what `failures` keeps and a part of `lcm-ml run` has mended since."""
    if not table_exists(con, "ml", "model_runs"):
        return {}
    found = con.execute(
        "select 'lcm-ml ' || command, max(finished_at) from ml.model_runs where status = 'ok' group by command"
    )
    return dict(found.fetchall())


def _failed_build(con: duckdb.DuckDBPyConnection, told: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    build = state.last_build(con)
    if build is None or build["status"] == "ok":
        return []
    run = told.get("lcm-ml run")
    if run and run["started_at"] >= build["started_at"]:
        return []  # that one tells of it
    failed = build["status"] == "failed"
    return [
        {
            "command": f"dbt {build['command']}",
            "started_at": build["started_at"],
            "run_id": build["build_id"],
            "message": f"failed in {build['failed_nodes']}" if failed else "did not finish: it was killed",
            "next_step": "see logs/dbt.log, mend it, then `dbt build`" if failed else "`dbt build` (or `lcm-ml run`)",
        }
    ]


def _killed() -> list[dict[str, Any]]:
    """A job that was killed leaves its name where it cannot be overlooked: the next job takes it away."""
    holder = read_holder(project.warehouse_path())
    if holder is None or _is_alive(holder["pid"]):
        return []
    return [
        {
            "command": holder["command"],
            "started_at": datetime.fromisoformat(holder["since"]).replace(tzinfo=None),
            "run_id": None,
            "message": "did not finish: it was killed; what it had not finished is as it was before",
            "next_step": f"run `{holder['command']}` again",
        }
    ]


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
