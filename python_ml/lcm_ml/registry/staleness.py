"""When the champion must be trained again."""

import duckdb

from lcm_ml import project
from lcm_ml.warehouse import state
from lcm_ml.warehouse.connection import first_row, table_exists


def why_stale(con: duckdb.DuckDBPyConnection) -> str | None:
    """Why a new fit is due, in words; None while the champion is up to date.

    It is due when there is no champion, its files are gone, the label's horizon changed, a newer date has labels, or
    the data was replaced by a load since.

    Raises:
        LcmError: when nothing was built yet.
    """
    settings = state.settings(con)
    if not table_exists(con, "ml", "model_versions"):
        return "there is no champion yet"
    champion = first_row(
        con,
        "select artefact, horizon_days, trained_to, created_at from ml.model_versions where status = 'champion' "
        "order by created_at desc limit 1",
    )
    if champion is None:
        return "there is no champion yet"
    artefact, horizon_days, trained_to, created_at = champion
    if not (project.beside_warehouse("artefacts") / artefact).is_dir():
        return "the champion's files are gone"
    if horizon_days != settings["churn_horizon_days"]:
        return f"churn_horizon_days is {settings['churn_horizon_days']}, the champion's is {horizon_days}"
    replaced = first_row(con, "select max(loaded_at) from raw.loads where mode = 'replace'")
    if replaced and replaced[0] and replaced[0] > created_at:
        return "the data was replaced since"
    newest = first_row(con, "select max(as_of_date) from marts.as_of_dates where is_labelled")
    if newest and newest[0] and newest[0] > trained_to:
        return f"{newest[0]} has labels now, the champion was trained up to {trained_to}"
    return None
