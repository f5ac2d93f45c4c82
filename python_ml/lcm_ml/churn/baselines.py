"""What any model has to beat."""

import numpy as np
import polars as pl

from lcm_ml.churn.estimator import FloatArray
from lcm_ml.errors import LcmError
from lcm_ml.frames.frame import FEATURES_MART, Frame

RECENCY = "recency"
RECENCY_COLUMN = "days_since_last_purchase"


def recency_baseline(train: Frame, test: Frame) -> tuple[FloatArray, FloatArray]:
    """Rank users by days since the last purchase alone.

    Returns:
        Score (the days) and probability (an isotonic fit of churn on the days, learnt in training) of the test rows.

    Raises:
        LcmError: when the features lack the column.
    """
    from sklearn.isotonic import IsotonicRegression

    if RECENCY_COLUMN not in train.features:
        raise LcmError(
            f"{FEATURES_MART} has no model feature {RECENCY_COLUMN}, which the recency baseline needs",
            "bring the column back, or take it out of the var non_model_features, and run `dbt build`",
        )
    floor = 1 / (train.data.height + 2)
    steps = IsotonicRegression(y_min=floor, y_max=1 - floor, out_of_bounds="clip").fit(_days(train), train.labels())
    days = _days(test)
    return days, np.asarray(steps.predict(days), dtype=np.float64)


def _days(frame: Frame) -> FloatArray:
    days = frame.data.get_column(RECENCY_COLUMN).cast(pl.Float64)
    # A user without a purchase has been away longest.
    return days.fill_null(days.max()).fill_null(0.0).to_numpy()
