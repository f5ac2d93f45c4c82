"""Gradient-boosted trees (Chen and Guestrin 2016, XGBoost), slow and shallow, kept as UBJ."""

import os
from pathlib import Path
from typing import Any, Self

import numpy as np
import xgboost as xgb

from lcm_ml.churn.encoding import FloatMatrix
from lcm_ml.churn.estimator import Estimator, FloatArray, normalised

MAX_TREES = 2000
PATIENCE = 100
FILE = "model.ubj"

BOOSTING = {
    "learning_rate": 0.03,
    "max_depth": 3,
    "subsample": 0.6,
    "colsample_bynode": 0.4,
    "min_child_weight": 20.0,
    "reg_lambda": 5.0,
}
"""Chosen on validation dates of The Complete Journey; docs/models.md has the figures."""


class Boosting(Estimator):
    """Many small steps of shallow trees; the validation date says how many."""

    name = "xgboost"

    def tune(self, x: FloatMatrix, y: FloatArray, x_validation: FloatMatrix, y_validation: FloatArray) -> FloatArray:
        """Choose the number of trees by early stopping on the validation date."""
        self.settings = {**BOOSTING, **self.settings}
        # In a small shop 20 units of hessian would leave no leaf to split.
        self.settings["min_child_weight"] = min(self.settings["min_child_weight"], max(1.0, len(x) / 500))
        train = xgb.QuantileDMatrix(x, y)
        validation = xgb.QuantileDMatrix(x_validation, y_validation, ref=train)
        booster = xgb.train(
            self._parameters(),
            train,
            MAX_TREES,
            evals=[(validation, "validation")],
            early_stopping_rounds=PATIENCE,
            verbose_eval=False,
        )
        self.settings["n_trees"] = booster.best_iteration + 1
        predicted = booster.inplace_predict(x_validation, iteration_range=(0, self.settings["n_trees"]))
        return np.asarray(predicted, dtype=np.float64)

    def fit(self, x: FloatMatrix, y: FloatArray) -> None:
        """Fit the number of trees that was chosen."""
        self.settings = {**BOOSTING, "n_trees": 300, **self.settings}
        self._booster = xgb.train(self._parameters(), xgb.QuantileDMatrix(x, y), self.settings["n_trees"])

    def predict_proba(self, x: FloatMatrix) -> FloatArray:
        """Probabilities of the booster."""
        return np.asarray(self._booster.inplace_predict(x), dtype=np.float64)

    def importance(self) -> FloatArray:
        """Total gain of each column's splits."""
        gains = self._booster.get_score(importance_type="total_gain")
        return normalised(np.array([gains.get(f"f{i}", 0.0) for i in range(self._booster.num_features())]))

    def save(self, folder: Path) -> None:
        """Write model.ubj."""
        self._booster.save_model(folder / FILE)

    @classmethod
    def load(cls, folder: Path, seed: int, settings: dict[str, Any]) -> Self:
        """Read model.ubj."""
        loaded = cls(seed, settings)
        loaded._booster = xgb.Booster(model_file=str(folder / FILE))
        return loaded

    def _parameters(self) -> dict[str, Any]:
        chosen = {name: value for name, value in self.settings.items() if name != "n_trees"}
        fixed = {"objective": "binary:logistic", "eval_metric": "logloss", "tree_method": "hist", "seed": self.seed}
        threads = os.environ.get("LCM_THREADS")
        return {**chosen, **fixed, **({"nthread": int(threads)} if threads else {})}
