"""Models of what a campaign touch comes to: linear, tree, boosted and neural, with what they are compared with."""

import os
import warnings
from typing import Any

import numpy as np
import polars as pl
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from lcm_ml.churn.encoding import FloatMatrix
from lcm_ml.churn.estimator import FloatArray
from lcm_ml.churn.pipeline import ranked

RESPONSE, SPEND = "response", "spend"
LINEAR, TREE, BOOSTED, NEURAL = "linear", "tree", "xgboost", "mlp"
MODELS = (LINEAR, TREE, BOOSTED, NEURAL)
BASE_RATE, PAST_RATE, PAST_SPEND = "base_rate", "past_rate", "past_spend"
BASELINES = {RESPONSE: (BASE_RATE, PAST_RATE), SPEND: (BASE_RATE, PAST_SPEND)}
PRIOR_CONTACTS = 5.0
"""A user's own response rate counts as much as that of all after so many contacts."""
PAST_DAYS = 84


class Fitted:
    """A fitted model of one target; `predict` takes the encoded matrix."""

    def __init__(self, name: str, target: str, x: FloatMatrix, y: FloatArray, seed: int) -> None:
        self._classifies = target == RESPONSE
        # In units of the mean spend a net's learning rate and penalty fit every currency.
        self._unit = 1.0 if self._classifies else float(y.mean()) or 1.0
        self._model = _unfitted(name, target, len(x), seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._model.fit(x, y / self._unit)

    def predict(self, x: FloatMatrix) -> FloatArray:
        """Probability of a response, or expected spend (0 or more), shape (rows,)."""
        if self._classifies:
            return np.asarray(self._model.predict_proba(x)[:, 1], dtype=np.float64)
        return np.clip(np.asarray(self._model.predict(x), dtype=np.float64), 0, None) * self._unit


def _unfitted(name: str, target: str, rows: int, seed: int) -> Any:
    classifies = target == RESPONSE
    if name == LINEAR:
        model: Any = LogisticRegression(C=0.003, max_iter=1000) if classifies else Ridge(alpha=rows / 20)
        return Pipeline([*_prepared(rows, seed, classifies), ("model", model)])
    if name == TREE:
        made = DecisionTreeClassifier if classifies else DecisionTreeRegressor
        return made(max_depth=5, min_samples_leaf=max(20, rows // 60), random_state=seed)
    if name == NEURAL:
        settings = {
            "hidden_layer_sizes": (16,),
            "alpha": 3.0,
            "batch_size": min(256, rows),
            "learning_rate_init": 0.003,
            "max_iter": 12,
            "random_state": seed,
        }
        net = MLPClassifier(**settings) if classifies else MLPRegressor(loss="poisson", **settings)
        return Pipeline([*ranked(rows, seed), ("model", net)])
    return _boosted(classifies, seed)


def _prepared(rows: int, seed: int, classifies: bool) -> list[tuple[str, Any]]:
    """As the churn models do; ranks lose how much the largest spenders spend, so that a line of spend keeps values."""
    impute, rank, scale = ranked(rows, seed)
    return [impute, rank, scale] if classifies else [impute, scale]


def _boosted(classifies: bool, seed: int) -> Any:
    import xgboost as xgb

    threads = os.environ.get("LCM_THREADS")
    made = xgb.XGBClassifier if classifies else xgb.XGBRegressor
    return made(
        objective="binary:logistic" if classifies else "reg:tweedie",
        n_estimators=100,
        learning_rate=0.07,
        max_depth=3,
        min_child_weight=5,
        subsample=0.7,
        colsample_bynode=0.3,
        reg_lambda=10.0,
        max_bin=64,
        tree_method="hist",
        random_state=seed,
        n_jobs=int(threads) if threads else None,
    )


def baseline(name: str, y: FloatArray, rows: pl.DataFrame, days: int) -> FloatArray:
    """What needs no model: the mean of the training part, the user's own past rate, or its own past spend.

    Args:
        name: one of BASELINES.
        y: the target of the training part.
        rows: rows to predict, with the touch_ columns of `frames.touches`.
        days: of the outcome window.

    Returns:
        Shape (rows,).
    """
    mean = float(y.mean())
    if name == PAST_RATE:
        prior = PRIOR_CONTACTS * mean
        rate = (pl.col("touch_responses") + prior) / (pl.col("touch_contacts") + PRIOR_CONTACTS)
        return rows.select(rate).to_series().to_numpy().astype(np.float64)
    if name == PAST_SPEND:
        return rows["touch_amount_84d"].to_numpy().astype(np.float64) * days / PAST_DAYS
    return np.full(rows.height, mean)
