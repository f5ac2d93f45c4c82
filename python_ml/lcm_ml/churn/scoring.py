"""Churn probabilities of one date as rows of ml.churn_scores."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import numpy as np
import polars as pl

from lcm_ml.churn.estimator import FloatArray
from lcm_ml.churn.model import ChurnModel
from lcm_ml.frames.frame import Frame


@dataclass(frozen=True)
class Bands:
    """Settings that turn a probability into a decision."""

    threshold: float
    high: float
    medium: float

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> "Bands":
        """From the dbt vars of the last build."""
        return cls(
            float(settings["decision_threshold"]),
            float(settings["risk_band_high"]),
            float(settings["risk_band_medium"]),
        )


def deciles(probability: FloatArray, users: pl.Series) -> pl.Series:
    """Decile of each user, 1 the highest risk; ties fall by user_id, so that a rerun gives the same ones."""
    by_user = users.arg_sort().to_numpy()
    order = by_user[np.argsort(-probability[by_user], kind="stable")]
    decile = np.empty(len(order), dtype=np.int32)
    decile[order] = np.arange(len(order)) * 10 // len(order) + 1
    return pl.Series(decile)


def score_rows(
    model: ChurnModel, version: str, frame: Frame, as_of_date: date, bands: Bands, run_id: str, scored_at: datetime
) -> pl.DataFrame:
    """Score every user of `frame`, which holds one as_of_date.

    Returns:
        Columns as in ml.churn_scores, sorted by user_id, all of them marked as served.

    Raises:
        LcmError: when the features are not those that the model was trained on.
    """
    probability = model.predict(frame.data)
    users = frame.data.get_column("user_id")
    p = pl.col("churn_probability")
    return pl.DataFrame(
        {
            "user_id": users,
            "as_of_date": frame.data.get_column("as_of_date"),
            "churn_probability": probability,
            "churn_decile": deciles(probability, users),
        }
    ).with_columns(
        horizon_days=pl.lit(model.horizon_days),
        model_name=pl.lit(model.name),
        model_version=pl.lit(version),
        run_id=pl.lit(run_id),
        risk_band=pl.when(p >= bands.high)
        .then(pl.lit("high"))
        .when(p >= bands.medium)
        .then(pl.lit("medium"))
        .otherwise(pl.lit("low")),
        is_predicted_churn=p > bands.threshold,
        is_in_training_data=pl.lit(as_of_date in model.trained_on),
        is_served=pl.lit(True),
        scored_at=pl.lit(scored_at),
    )


def no_longer_served(before: pl.DataFrame, now: pl.DataFrame) -> pl.DataFrame:
    """Rows that were served for the date until now and are replaced by no row of `now`, marked as history.

    Args:
        before: the date's rows of ml.churn_scores with is_served.
        now: the rows about to be written.
    """
    key = ["user_id", "as_of_date", "model_version"]
    return before.join(now.select(key), on=key, how="anti").with_columns(is_served=pl.lit(False))
