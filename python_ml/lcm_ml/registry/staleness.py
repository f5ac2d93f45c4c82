"""When the champion must be trained again."""

import duckdb

from lcm_ml import project
from lcm_ml.frames.frame import inputs_fingerprint, scoring_date
from lcm_ml.warehouse import state
from lcm_ml.warehouse.connection import first_row, table_exists


def why_unusable(con: duckdb.DuckDBPyConnection) -> str | None:
    """Why the champion cannot serve any more, in words; None while it can.

    Raises:
        LcmError: when nothing was built yet.
    """
    settings = state.settings(con)
    if not table_exists(con, "ml", "model_versions"):
        return "there is no champion yet"
    champion = first_row(
        con,
        "select artefact, horizon_days, created_at from ml.model_versions where status = 'champion' "
        "order by created_at desc limit 1",
    )
    if champion is None:
        return "there is no champion yet"
    artefact, horizon_days, created_at = champion
    if not (project.beside_warehouse("artefacts") / artefact).is_dir():
        return "the champion's files are gone"
    if horizon_days != settings["churn_horizon_days"]:
        return f"churn_horizon_days is {settings['churn_horizon_days']}, the champion's is {horizon_days}"
    replaced = first_row(con, "select max(loaded_at) from raw.loads where mode = 'replace'")
    if replaced and replaced[0] and replaced[0] > created_at:
        return "the data was replaced since"
    return None


def why_stale(con: duckdb.DuckDBPyConnection) -> str | None:
    """Why a new fit is due, in words; None while there is nothing to gain from one.

    It is due when the champion cannot serve, or a date has labels that no version has learnt from: a fit whose
    candidate was refused counts, else every run would fit again.

    Raises:
        LcmError: when nothing was built yet.
    """
    if reason := why_unusable(con):
        return reason
    newest = first_row(con, "select max(as_of_date) from marts.as_of_dates where is_labelled")
    learnt = first_row(
        con, "select max(trained_to) from ml.model_versions where status in ('champion', 'challenger', 'archived')"
    )
    if newest and newest[0] and learnt and newest[0] > learnt[0]:
        return f"{newest[0]} has labels now, the latest version was trained up to {learnt[0]}"
    return None


def is_current(con: duckdb.DuckDBPyConnection, command: str) -> bool:
    """Whether the last successful run of a capability saw what the scoring date has now.

    Raises:
        LcmError: when nothing was built yet.
    """
    wanted = inputs_fingerprint(con, scoring_date(con))
    last = first_row(
        con,
        "select data_fingerprint from ml.model_runs where command = ? and status = 'ok' "
        "order by started_at desc limit 1",
        [command],
    )
    return last is not None and last[0] == wanted
