"""What is loaded, built, trained, scored and published, and from when."""

from typing import Any

import duckdb

from lcm_ml.publishing.snapshot import current_manifest
from lcm_ml.warehouse import state
from lcm_ml.warehouse.connection import rows, table_exists


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
        "failures": _failures(con) if built else [],
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


def _failures(con: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    return rows(
        con,
        """
        select command, started_at, message
        from ml.model_runs
        where
            status = 'failed'
            and started_at > coalesce(
                (select max(started_at) from ml.model_runs where status = 'ok'), timestamp '1900-01-01'
            )
        order by started_at desc
        limit 5
        """,
    )
