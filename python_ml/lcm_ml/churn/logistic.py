"""Logistic regression on ranks."""

import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from lcm_ml.churn.encoding import FloatMatrix
from lcm_ml.churn.estimator import FloatArray, Range, normalised
from lcm_ml.churn.metrics import mean_log_loss
from lcm_ml.churn.pipeline import PipelineEstimator, ranked

PENALTIES = (0.001, 0.01, 0.1, 1.0)
"""Values of C (inverse strength of the L2 penalty) that the validation date chooses from."""


class Logistic(PipelineEstimator):
    """Median imputation with missing flags, ranks instead of values, standardised, L2 penalty.

    On The Complete Journey's validation dates ranks are level with plain and Yeo-Johnson values; docs/models.md has
    the figures.
    """

    name = "logistic"

    def search_space(self) -> dict[str, Range]:
        """Wide around the usual settings."""
        return {"C": Range(1e-4, 10.0, log=True)}

    def tune(self, x: FloatMatrix, y: FloatArray, x_validation: FloatMatrix, y_validation: FloatArray) -> FloatArray:
        """Choose C on the validation date."""
        prepare = Pipeline(ranked(len(x), self.seed))
        prepared, prepared_validation = prepare.fit_transform(x), prepare.transform(x_validation)
        regression = _regression(PENALTIES[0]).set_params(warm_start=True)
        best_loss, best = np.inf, np.zeros(len(x_validation))
        for penalty in (self.settings["C"],) if "C" in self.settings else PENALTIES:
            _quietly_fitted(regression.set_params(C=penalty), prepared, y)
            probability = regression.predict_proba(prepared_validation)[:, 1]
            loss = mean_log_loss(y_validation, probability)
            if loss >= best_loss:
                break  # weaker penalties only follow the training data more closely, and take longest
            best_loss, best = loss, probability
            self.settings["C"] = penalty
        return np.asarray(best, dtype=np.float64)

    def make_pipeline(self, rows: int) -> Pipeline:
        """Preparation and regression."""
        regression = _regression(self.settings.get("C", PENALTIES[1]))
        return Pipeline([*ranked(rows, self.seed), ("regression", regression)])

    def fit(self, x: FloatMatrix, y: FloatArray) -> None:
        """Fit the whole pipeline."""
        self._pipeline = _quietly_fitted(self.make_pipeline(len(x)), x, y)
        self._importance = self._coefficient_sizes()

    def contributions(self, x: FloatMatrix) -> tuple[str, FloatArray, FloatArray]:
        """Coefficient times standardised rank; a column's missing flag counts towards the column."""
        regression, imputer = self._pipeline.named_steps["regression"], self._pipeline.named_steps["impute"]
        terms = self._pipeline[:-1].transform(x) * regression.coef_[0]
        columns = imputer.n_features_in_
        found = terms[:, :columns].astype(np.float64)
        for place, column in enumerate(imputer.indicator_.features_):
            found[:, column] += terms[:, columns + place]
        return "linear", np.asarray(regression.intercept_[0], dtype=np.float64), found

    def _coefficient_sizes(self) -> FloatArray:
        """Absolute standardised coefficients; a column's missing flag counts towards the column."""
        imputer = self._pipeline.named_steps["impute"]
        coefficients = np.abs(self._pipeline.named_steps["regression"].coef_[0]).astype(np.float64)
        columns = imputer.n_features_in_
        weights = coefficients[:columns].copy()
        np.add.at(weights, imputer.indicator_.features_, coefficients[columns:])
        return normalised(weights)


def _regression(penalty: float) -> LogisticRegression:
    return LogisticRegression(C=penalty, max_iter=1000)


def _quietly_fitted(model: Any, x: Any, y: FloatArray) -> Any:
    with warnings.catch_warnings():
        # With a weak penalty the last digits may not settle; the validation date then prefers a stronger one.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(x, y)
