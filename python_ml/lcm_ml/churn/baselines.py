"""What any model has to beat."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from lcm_ml.churn.bg_nbd import fit_bg_nbd
from lcm_ml.churn.estimator import FloatArray
from lcm_ml.errors import LcmError
from lcm_ml.frames.frame import FEATURES_MART, Frame

RECENCY, RFM, BG_NBD = "recency", "rfm", "bg_nbd"
BASELINES = (RECENCY, RFM, BG_NBD)
RECENCY_COLUMN = "days_since_last_purchase"
RFM_COLUMNS = (RECENCY_COLUMN, "purchase_days_total", "amount_total")


@dataclass(frozen=True)
class Baseline:
    """What ranks the users (higher is riskier) and the probability of churn, both of shape (rows,)."""

    score: FloatArray
    probability: FloatArray


def baselines(train: Frame, test: Frame) -> dict[str, Baseline]:
    """The baselines for the rows of `test`. RFM and BG/NBD are left out where what they need is not there.

    Raises:
        LcmError: when the features lack the days since the last purchase.
    """
    found = {RECENCY: recency(train, test)}
    if set(RFM_COLUMNS) <= set(test.features):
        found[RFM] = rfm(train, test)
    if test.purchases is not None:
        found[BG_NBD] = bg_nbd(test)
    return found


def recency(train: Frame, test: Frame) -> Baseline:
    """Days since the last purchase alone; the probability is an isotonic fit of churn on them, learnt in training.

    Raises:
        LcmError: when the features lack the column.
    """
    if RECENCY_COLUMN not in train.features:
        raise LcmError(
            f"{FEATURES_MART} has no model feature {RECENCY_COLUMN}, which the recency baseline needs",
            "bring the column back, or take it out of the var non_model_features, and run `dbt build`",
        )
    return _isotonic(_days(train), train.labels(), _days(test))


def rfm(train: Frame, test: Frame) -> Baseline:
    """The RFM score (Hughes 1994): fifths of recency, frequency and monetary value at each date, added up."""
    return _isotonic(_rfm_risk(train), train.labels(), _rfm_risk(test))


def bg_nbd(test: Frame) -> Baseline:
    """BG/NBD: no purchase within the horizon, from counts and times of purchase days alone.

    The parameters are fitted at the test date on every user who had purchased by then: the churn population alone is
    chosen by its recency, which would bias them. No label is read, and no calibration added.
    """
    assert test.purchases is not None
    users = test.purchases.filter(pl.col("as_of_date").is_in(test.dates()))
    model = fit_bg_nbd(*(users.get_column(name).to_numpy() for name in ("repeats", "last_age", "age")))
    own = test.data.select("user_id", "as_of_date").join(
        users, on=["user_id", "as_of_date"], how="left", maintain_order="left"
    )
    x, t_x, age = (own.get_column(name).fill_null(0.0).to_numpy() for name in ("repeats", "last_age", "age"))
    silent = model.probability_no_purchase(x, t_x, age, test.horizon_days)
    return Baseline(silent, silent)


def _isotonic(train: FloatArray, y: FloatArray, test: FloatArray) -> Baseline:
    from sklearn.isotonic import IsotonicRegression

    floor = 1 / (len(y) + 2)
    steps = IsotonicRegression(y_min=floor, y_max=1 - floor, out_of_bounds="clip").fit(train, y)
    return Baseline(test, np.asarray(steps.predict(test), dtype=np.float64))


def _days(frame: Frame) -> FloatArray:
    days = frame.data.get_column(RECENCY_COLUMN).cast(pl.Float64)
    # A user without a purchase has been away longest.
    return days.fill_null(days.max()).fill_null(0.0).to_numpy()


def _rfm_risk(frame: Frame) -> FloatArray:
    def fifth(column: str) -> pl.Expr:
        share = pl.col(column).fill_null(0).rank("average").over("as_of_date") / pl.len().over("as_of_date")
        return (share * 5).ceil()

    days, purchases, amount = RFM_COLUMNS
    risk = frame.data.select(fifth(days) - fifth(purchases) - fifth(amount)).to_series()
    return risk.cast(pl.Float64).to_numpy()
