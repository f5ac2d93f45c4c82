"""XGBoost's boosted trees (Chen and Guestrin 2016) and random forest, kept as UBJ."""

import os
from abc import abstractmethod
from pathlib import Path
from typing import Any, Self

import numpy as np
import xgboost as xgb

from lcm_ml.churn.encoding import FloatMatrix
from lcm_ml.churn.estimator import Estimator, FloatArray, Range, normalised
from lcm_ml.churn.metrics import mean_log_loss
from lcm_ml.churn.trees import leaf_size

MAX_TREES = 2000
PATIENCE = 100
FILE = "model.ubj"

FOREST = {"n_trees": 300, "colsample_bynode": 0.15, "subsample": 0.632, "max_depth": 12}
FOREST_LEAVES = (40, 20, 10)
FOREST_BINS = 64

BOOSTING = {
    "learning_rate": 0.03,
    "max_depth": 3,
    "subsample": 0.6,
    "colsample_bynode": 0.4,
    "min_child_weight": 20.0,
    "reg_lambda": 5.0,
}
"""Chosen on validation dates of The Complete Journey; docs/models.md has the figures."""


class Trees(Estimator):
    """What boosting and the forest share."""

    _booster: xgb.Booster

    def predict_proba(self, x: FloatMatrix) -> FloatArray:
        """Probabilities of the booster."""
        # The mean of a forest's leaves can be 1.0000001.
        return np.asarray(np.clip(self._booster.inplace_predict(x), 0.0, 1.0), dtype=np.float64)

    def importance(self) -> FloatArray:
        """Total gain of each column's splits."""
        gains = self._booster.get_score(importance_type="total_gain")
        return normalised(np.array([gains.get(f"f{i}", 0.0) for i in range(self._booster.num_features())]))

    def save(self, folder: Path) -> None:
        """Write model.ubj."""
        # Not save_model: on a full disk it raises XGBoost's own error, of which nobody can tell the cause.
        (folder / FILE).write_bytes(self._booster.save_raw("ubj"))

    @classmethod
    def load(cls, folder: Path, seed: int, settings: dict[str, Any]) -> Self:
        """Read model.ubj."""
        loaded = cls(seed, settings)
        loaded._booster = xgb.Booster(model_file=str(folder / FILE))
        return loaded

    def _train(self, train: xgb.DMatrix, rounds: int, **more: Any) -> xgb.Booster:
        threads = os.environ.get("LCM_THREADS")
        fixed = {"tree_method": "hist", "seed": self.seed, **({"nthread": int(threads)} if threads else {})}
        return xgb.train({**self._parameters(), **fixed}, train, rounds, verbose_eval=False, **more)

    @abstractmethod
    def _parameters(self) -> dict[str, Any]:
        """XGBoost's parameters for `settings`."""


class Boosting(Trees):
    """Slow and shallow: many small steps of shallow trees; the validation date says how many."""

    name = "xgboost"

    def search_space(self) -> dict[str, Range]:
        """Wide around BOOSTING; the number of trees follows from early stopping."""
        return {
            "learning_rate": Range(0.01, 0.1, log=True),
            "max_depth": Range(2, 6, integer=True),
            "subsample": Range(0.4, 1.0),
            "colsample_bynode": Range(0.15, 1.0),
            "min_child_weight": Range(1.0, 100.0, log=True),
            "reg_lambda": Range(0.1, 50.0, log=True),
        }

    def tune(self, x: FloatMatrix, y: FloatArray, x_validation: FloatMatrix, y_validation: FloatArray) -> FloatArray:
        """Choose the number of trees by early stopping on the validation date."""
        # In a small shop 20 units of hessian would leave no leaf to split.
        weight = min(BOOSTING["min_child_weight"], max(1.0, len(x) / 500))
        self.settings = {**BOOSTING, "min_child_weight": weight, **self.settings}
        train = xgb.QuantileDMatrix(x, y)
        validation = xgb.QuantileDMatrix(x_validation, y_validation, ref=train)
        found: dict[str, dict[str, list[float]]] = {}
        given = self.settings.get("n_trees")
        booster = self._train(
            train,
            given or MAX_TREES,
            evals=[(train, "train"), (validation, "validation")],
            evals_result=found,
            early_stopping_rounds=None if given else PATIENCE,
        )
        self.settings["n_trees"] = given or booster.best_iteration + 1
        self._curves = {part: losses["logloss"] for part, losses in found.items()}
        predicted = booster.inplace_predict(x_validation, iteration_range=(0, self.settings["n_trees"]))
        return np.asarray(predicted, dtype=np.float64)

    def fit(self, x: FloatMatrix, y: FloatArray) -> None:
        """Fit the number of trees that was chosen."""
        self.settings = {**BOOSTING, "n_trees": 300, **self.settings}
        self._booster = self._train(xgb.QuantileDMatrix(x, y), self.settings["n_trees"])

    def contributions(self, x: FloatMatrix) -> tuple[str, FloatArray, FloatArray]:
        """TreeSHAP (Lundberg and others 2020)."""
        found = self._booster.predict(xgb.DMatrix(x), pred_contribs=True).astype(np.float64)
        return "tree_shap", found[:, -1], found[:, :-1]

    def _parameters(self) -> dict[str, Any]:
        chosen = {name: value for name, value in self.settings.items() if name != "n_trees"}
        return {**chosen, "objective": "binary:logistic", "eval_metric": "logloss"}


class RandomForest(Trees):
    """Many deep trees on resampled rows, averaged (Breiman 2001); the validation date chooses the size of the leaves.

    XGBoost grows it eight times faster than scikit-learn, on 63 % of the rows without replacement. With squared error
    and no shrinkage a leaf holds its churn rate, as in a forest; the logistic objective would stop half way.
    """

    name = "random_forest"

    def search_space(self) -> dict[str, Range]:
        """Wide around the usual settings."""
        return {
            "min_child_weight": Range(3, 100, log=True, integer=True),
            "colsample_bynode": Range(0.05, 0.6),
            "max_depth": Range(4, 20, integer=True),
        }

    def tune(self, x: FloatMatrix, y: FloatArray, x_validation: FloatMatrix, y_validation: FloatArray) -> FloatArray:
        """Choose the size of the leaves by the log loss on the validation date."""
        given = self.settings
        sizes = dict.fromkeys(leaf_size(len(x), size) for size in FOREST_LEAVES)
        best_loss, best_settings, best = np.inf, given, np.zeros(len(x_validation))
        for size in sizes if "min_child_weight" not in given else [given["min_child_weight"]]:
            self.settings = {**FOREST, **given, "min_child_weight": size}
            self.fit(x, y)
            probability = self.predict_proba(x_validation)
            loss = mean_log_loss(y_validation, probability)
            if loss < best_loss:
                best_loss, best_settings, best = loss, self.settings, probability
        self.settings = best_settings
        return best

    def fit(self, x: FloatMatrix, y: FloatArray) -> None:
        """Grow the forest."""
        self.settings = {**FOREST, "min_child_weight": leaf_size(len(x), FOREST_LEAVES[0]), **self.settings}
        self._rate = float(y.mean())
        self._booster = self._train(xgb.QuantileDMatrix(x, y, max_bin=FOREST_BINS), 1)

    def _parameters(self) -> dict[str, Any]:
        chosen = {name: value for name, value in self.settings.items() if name != "n_trees"}
        return {
            **chosen,
            "num_parallel_tree": self.settings["n_trees"],
            "objective": "reg:squarederror",
            "base_score": self._rate,
            "learning_rate": 1.0,
            "reg_lambda": 0.0,
            "max_bin": FOREST_BINS,
        }
