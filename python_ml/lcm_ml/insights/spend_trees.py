"""Boosted trees for what users will spend: its mean, its quantiles, and their days of purchase."""

import os
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import xgboost as xgb

from lcm_ml.churn.encoding import Encoding, learn_encoding
from lcm_ml.frames.splits import split_for
from lcm_ml.insights import conformal
from lcm_ml.insights.purchase_model import PurchaseModel

FloatArray = npt.NDArray[np.float64]

NAME = "xgboost"
KEYS = ("user_id", "as_of_date")
MIN_ROWS = 200
"""Rows below which there is no model: two dozen leaves would hold a handful of users each."""
TREES = {
    "learning_rate": 0.07,
    "max_depth": 4,
    "subsample": 0.6,
    "colsample_bynode": 0.4,
    "reg_lambda": 5.0,
    "max_bin": 64,
    "tree_method": "hist",
}
ROUNDS = 100
MEAN_SPEND = {"objective": "reg:tweedie", "tweedie_variance_power": 1.3}
"""Spend is 0 for some and skewed for the rest, as a compound Poisson-Gamma variable is (Tweedie)."""
MEAN_PURCHASES = {"objective": "count:poisson"}
QUANTILES = {"objective": "reg:quantileerror", "quantile_alpha": list(conformal.LEVELS), "max_depth": 3}


@dataclass(frozen=True)
class SpendTrees:
    """Fitted for one horizon.

    `margin`: how far conformal prediction moves the intervals; `calibrated_by`: date, where the users set aside are
    those of a later date, or user, where too few dates are known for that.
    """

    encoding: Encoding
    purchases: xgb.Booster
    spend: xgb.Booster
    quantiles: xgb.Booster
    scale: conformal.LogScale
    margin: float
    calibrated_by: str

    def predict(self, rows: pl.DataFrame) -> pl.DataFrame:
        """What the users of these rows will purchase and spend in the horizon.

        Args:
            rows: columns as in training.

        Returns:
            user_id, as_of_date, expected_purchases, expected_amount, amount_low, amount_high (which hold 80 %).
        """
        x = xgb.DMatrix(self.encoding.matrix(rows))
        ends = conformal.moved(conformal.from_quantiles(_predicted(self.quantiles, x)), self.margin)
        return rows.select(KEYS).with_columns(
            expected_purchases=_predicted(self.purchases, x),
            expected_amount=_predicted(self.spend, x),
            amount_low=self.scale.back(ends.low),
            amount_high=self.scale.back(ends.high),
        )


def with_history(
    features: pl.DataFrame, summaries: pl.DataFrame, model: PurchaseModel, horizon_days: int
) -> pl.DataFrame:
    """Features of users who had purchased, with their history and what the purchase model makes of it.

    Trees see what BG/NBD and Gamma-Gamma expect, and learn where the features know better.

    Args:
        features: of active and lapsed users, from `frames.purchase_history.buyers_features`.
        summaries: of the same dates, from `frames.purchase_history.purchase_summaries`; of other users too.
        model: fitted on what was known when the trees are fitted.
        horizon_days: the horizon.

    Returns:
        A row for each user and date in both, sorted by date and user.
    """
    told = summaries.join(features.select(KEYS), on=KEYS, how="semi").select(
        *KEYS,
        "repeats",
        "last_age",
        "age",
        "paid_days",
        "paid_amount",
        purchases_last_period=f"purchases_last_{horizon_days}",
        amount_last_period=f"amount_last_{horizon_days}",
    )
    expected = model.predict(told, horizon_days).rename(
        {name: f"{name}_by_history" for name in ("expected_purchases", "expected_amount", "probability_alive")}
    )
    told = told.rename(
        {name: f"history_{name}" for name in told.columns if name in features.columns and name not in KEYS}
    )
    return features.join(told, on=KEYS).join(expected, on=KEYS).sort("as_of_date", "user_id")


def fit_spend_trees(
    rows: pl.DataFrame, moment: date, horizon_days: int, unit: float, seed: int = 0
) -> SpendTrees | None:
    """Fit the means on all rows, and the quantiles on those that leave some aside to calibrate the intervals.

    Args:
        rows: from `with_history`, with the outcomes `purchases` and `amount`; all dates' horizons are over at `moment`.
        moment: the date that is predicted.
        horizon_days: the horizon.
        unit: what a purchase is usually worth.
        seed: of the trees and of the choice of users.

    Returns:
        The models; None where there are too few rows, or nobody purchased.
    """
    outcomes = {"purchases", "amount"}
    if rows.height < MIN_ROWS or rows.filter(pl.col("amount") > 0).height < MIN_ROWS // 4:
        return None
    encoding, _ = learn_encoding(rows, [name for name in rows.columns if name not in {*KEYS, *outcomes}])
    x, scale = encoding.matrix(rows), conformal.LogScale(unit)
    spend = np.maximum(rows["amount"].to_numpy(), 0.0)
    fitted, aside, by = _set_aside(rows, moment, horizon_days, seed)
    everybody = xgb.QuantileDMatrix(x, max_bin=TREES["max_bin"])
    quantiles = _train(
        xgb.QuantileDMatrix(x[fitted], max_bin=TREES["max_bin"]), scale.to(spend[fitted]), QUANTILES, seed
    )
    intervals = conformal.from_quantiles(_predicted(quantiles, xgb.DMatrix(x[aside])))
    return SpendTrees(
        encoding,
        _train(everybody, rows["purchases"].to_numpy(), MEAN_PURCHASES, seed),
        _train(everybody, spend, MEAN_SPEND, seed),
        quantiles,
        scale,
        conformal.margin(intervals, scale.to(spend[aside])),
        by,
    )


def _set_aside(
    rows: pl.DataFrame, moment: date, horizon_days: int, seed: int
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_], str]:
    """Rows to fit the quantiles on, rows to calibrate with, and whether these are apart by date or by user.

    By date the horizons of one part are over before the other begins. Where that leaves nothing to fit, half of the
    users calibrate, at every date: their behaviour was never seen, the season was.
    """
    days = rows["as_of_date"]
    split = split_for(days.unique().to_list(), moment, horizon_days)
    if split is not None:
        return days.is_in(list(split.train)).to_numpy(), (days == split.validation).to_numpy(), "date"
    users = rows["user_id"].unique().sort()
    half = users.sample(fraction=0.5, seed=seed)
    is_aside = rows["user_id"].is_in(half.implode()).to_numpy()
    return ~is_aside, is_aside, "user"


def _train(x: xgb.QuantileDMatrix, y: FloatArray, objective: dict[str, Any], seed: int) -> xgb.Booster:
    threads = os.environ.get("LCM_THREADS")
    parameters = {
        **TREES,
        # In a small shop 20 units would leave no leaf to split.
        "min_child_weight": min(20.0, max(1.0, x.num_row() / 500)),
        "seed": seed,
        **({"nthread": int(threads)} if threads else {}),
        **objective,
    }
    x.set_label(y)
    return xgb.train(parameters, x, ROUNDS, verbose_eval=False)


def _predicted(booster: xgb.Booster, x: xgb.DMatrix) -> FloatArray:
    return np.asarray(booster.predict(x), dtype=np.float64)
