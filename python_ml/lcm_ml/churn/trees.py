"""scikit-learn's single tree and histogram boosting, which take missing values as they are."""

from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import Pipeline
from sklearn.tree import DecisionTreeClassifier

from lcm_ml.churn.encoding import FloatMatrix
from lcm_ml.churn.estimator import FloatArray, Range
from lcm_ml.churn.metrics import mean_log_loss
from lcm_ml.churn.pipeline import PipelineEstimator

MAX_ROUNDS = 600


class DecisionTree(PipelineEstimator):
    """One tree that a person can read; the validation date chooses its depth."""

    name = "decision_tree"
    trusted = ("sklearn.tree._tree.Tree",)

    def search_space(self) -> dict[str, Range]:
        """Wide around the usual settings."""
        return {
            "max_depth": Range(2, 8, integer=True),
            "min_samples_leaf": Range(10, 500, log=True, integer=True),
        }

    def candidates(self, rows: int) -> list[dict[str, Any]]:
        """Depths, with leaves large enough for a rate."""
        return [{"max_depth": depth, "min_samples_leaf": leaf_size(rows, 100)} for depth in (3, 4, 5, 6)]

    def make_pipeline(self, rows: int) -> Pipeline:  # noqa: ARG002
        """The tree alone."""
        return Pipeline([("tree", DecisionTreeClassifier(**self.settings, random_state=self.seed))])


class GradientBoosting(PipelineEstimator):
    """scikit-learn's histogram gradient boosting; the validation date says how many rounds."""

    name = "gradient_boosting"
    trusted = ("sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",)

    def search_space(self) -> dict[str, Range]:
        """Wide around the usual settings."""
        return {
            "learning_rate": Range(0.01, 0.15, log=True),
            "max_leaf_nodes": Range(4, 32, integer=True),
            "min_samples_leaf": Range(10, 200, log=True, integer=True),
            "l2_regularization": Range(0.1, 50.0, log=True),
            "max_features": Range(0.1, 1.0),
        }

    def tune(self, x: FloatMatrix, y: FloatArray, x_validation: FloatMatrix, y_validation: FloatArray) -> FloatArray:
        """Choose the number of rounds on the validation date."""
        self.settings = {**self._usual(len(x)), **self.settings, "max_iter": MAX_ROUNDS}
        pipeline = self.make_pipeline(len(x)).fit(_filled(x), y)
        staged = [stage[:, 1] for stage in pipeline.steps[-1][1].staged_predict_proba(x_validation)]
        losses = [mean_log_loss(y_validation, probability) for probability in staged]
        best = int(np.argmin(losses))
        self.settings["max_iter"] = best + 1
        self._curves = {"validation": losses}
        return np.asarray(staged[best], dtype=np.float64)

    def fit(self, x: FloatMatrix, y: FloatArray) -> None:
        """Fit the number of rounds that was chosen."""
        super().fit(_filled(x), y)

    def make_pipeline(self, rows: int) -> Pipeline:
        """The boosting alone, which stops where it is told."""
        chosen = {**self._usual(rows), **self.settings}
        boosting = HistGradientBoostingClassifier(**chosen, early_stopping=False, random_state=self.seed)
        return Pipeline([("boosting", boosting)])

    def _usual(self, rows: int) -> dict[str, Any]:
        return {
            "learning_rate": 0.04,
            "max_leaf_nodes": 8,
            "min_samples_leaf": leaf_size(rows, 60),
            "l2_regularization": 5.0,
            "max_features": 0.4,
        }


def _filled(x: FloatMatrix) -> FloatMatrix:
    """Zeros in columns without a single value, which scikit-learn's binning cannot take; nothing is split there."""
    empty = np.isnan(x).all(axis=0)
    return np.where(empty, np.float32(0), x) if empty.any() else x


def leaf_size(rows: int, wanted: int) -> int:
    """The wanted size, less in a small shop, where it would leave no tree to grow."""
    return max(2, min(wanted, rows // 50))
