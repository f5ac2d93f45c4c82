"""Scores of the current state: of whom something new is known, by the model and limits of the last full scoring."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import duckdb
import numpy as np
import polars as pl

from lcm_ml.churn.estimator import FloatArray
from lcm_ml.churn.model import ChurnModel
from lcm_ml.churn.reasons import reason_rows, usual_values
from lcm_ml.churn.scoring import Bands, score_rows
from lcm_ml.errors import LcmError
from lcm_ml.frames.frame import Frame, current_frame, read, scoring_date, scoring_frame
from lcm_ml.registry import artefacts
from lcm_ml.registry.versions import find_version
from lcm_ml.warehouse.connection import first_row
from lcm_ml.warehouse.contracts import tables
from lcm_ml.warehouse.packed import Rows

SCORES, REASONS = "current_churn_scores", "current_churn_reasons"
KEPT_REASONS = 3


@dataclass(frozen=True)
class FullScoring:
    """What the scores of the current state take over from the last full scoring.

    Attributes:
        as_of_date: its date.
        run_id: its run.
        version: the version that scored, as ml.model_versions names it.
        model: that version.
        bands: limits of risk bands and of the decision.
        limits: the lowest probability of the deciles 1 to 9.
        usual: the usual value of each feature, for the reasons.
    """

    as_of_date: date
    run_id: str
    version: str
    model: ChurnModel
    bands: Bands
    limits: FloatArray
    usual: dict[str, Any]


def last_full_scoring(con: duckdb.DuckDBPyConnection) -> tuple[date, str, str] | None:
    """Its date, run and model version; None where the end of the data has no scores."""
    found = first_row(
        con,
        "select as_of_date, max(run_id), max_by(model_version, run_id) from serving.churn_scores_latest "
        "where as_of_date = (select max(as_of_date) from marts.as_of_dates where is_scoring_date) group by 1",
    )
    return (found[0], found[1], found[2]) if found else None


def full_scoring(con: duckdb.DuckDBPyConnection, settings: dict[str, Any]) -> FullScoring:
    """Read the last full scoring.

    Raises:
        LcmError: when the scoring date has no scores, or the model cannot be read.
    """
    found = last_full_scoring(con)
    if found is None:
        raise LcmError(f"nobody was scored at {scoring_date(con)} yet", "lcm-ml run")
    day, run_id, version = found
    known = find_version(con, version)
    model, _ = artefacts.load(known["artefact"], known["artefact_hash"])
    scores = read(con, "select churn_decile, churn_probability from serving.churn_scores_latest")
    return FullScoring(
        day,
        run_id,
        version,
        model,
        Bands.from_settings(settings),
        limits_of(scores),
        usual_values(model, scoring_frame(con, day)),
    )


def limits_of(scores: pl.DataFrame) -> FloatArray:
    """The lowest probability of deciles 1 to 9 of rows of ml.churn_scores; of an empty one that of the one before."""
    lowest = dict(scores.group_by("churn_decile").agg(pl.col("churn_probability").min()).iter_rows())
    limits, before = [], 1.0
    for decile in range(1, 10):
        before = lowest.get(decile, before)
        limits.append(before)
    return np.array(limits)


def decile_by(limits: FloatArray, probability: FloatArray) -> pl.Series:
    """The decile of each probability, 1 the highest risk: the first whose lowest probability it reaches."""
    reached = np.searchsorted(-limits, -probability, side="left")
    return pl.Series((reached + 1).astype(np.int32))


def pending_users(con: duckdb.DuckDBPyConnection, version: str) -> list[str]:
    """Users of the churn population whose newest state was not scored by this model version."""
    found = con.execute(
        """
        select features.user_id
        from marts.current_user_features as features
        left join ml.current_churn_scores as scores on features.user_id = scores.user_id
        where
            features.is_active_buyer
            and (
                scores.user_id is null
                or scores.load_id is distinct from features.load_id
                or scores.as_of_ts is distinct from features.as_of_ts
                or scores.model_version != ?
            )
        """,
        [version],
    ).fetchall()
    return [row[0] for row in found]


def current_rows(
    con: duckdb.DuckDBPyConnection,
    full: FullScoring,
    users: list[str] | None,
    run_id: str,
    scored_at: datetime,
    before: pl.DataFrame | None = None,
    reasons: int = KEPT_REASONS,
) -> dict[str, Rows]:
    """Rows of ml.current_churn_scores and ml.current_churn_reasons.

    Args:
        con: an open connection.
        full: the last full scoring.
        users: whom to score; None: all of marts.current_user_features in the churn population.
        run_id: the run.
        scored_at: now, UTC.
        before: user_id, previous_probability, previous_decile, previous_risk_band; None: of serving.churn_scores_now.
        reasons: kept for each user.

    Returns:
        Table to rows; none of them where there is nobody to score.

    Raises:
        LcmError: when the features are not those that the model was trained on.
    """
    found = current_frame(con, full.as_of_date, users)
    if found is None:
        return {}
    frame, known = found
    rows = score_rows(full.model, full.version, frame, full.as_of_date, full.bands, run_id, scored_at)
    probability = rows.get_column("churn_probability").to_numpy()
    old = _before(con, frame) if before is None else before
    scores = (
        rows.with_columns(churn_decile=decile_by(full.limits, probability))
        .join(known, on="user_id", how="left", maintain_order="left")
        .join(old, on="user_id", how="left", maintain_order="left")
        .select(tables("ml")[SCORES].column_names)
    )
    told: dict[str, Rows] = {SCORES: scores}
    if reasons:
        told[REASONS] = reason_rows(full.model, full.version, frame, probability, run_id, reasons, full.usual)
    return told


def _before(con: duckdb.DuckDBPyConnection, frame: Frame) -> pl.DataFrame:
    con.register("scored_users", frame.data.select("user_id").to_arrow())
    try:
        return read(
            con,
            """
            select
                scores.user_id,
                scores.churn_probability as previous_probability,
                scores.churn_decile as previous_decile,
                scores.risk_band as previous_risk_band
            from serving.churn_scores_now as scores
            inner join scored_users using (user_id)
            """,
        )
    finally:
        con.unregister("scored_users")


def forget_current(con: duckdb.DuckDBPyConnection) -> None:
    """Remove all scores of the current state, which a full scoring makes anew. Call it inside a transaction."""
    for name in (SCORES, REASONS):
        con.execute(f"delete from {tables('ml')[name].full_name}")
