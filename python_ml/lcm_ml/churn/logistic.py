"""Logistic regression behind a scikit-learn pipeline, kept with skops."""

import warnings
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import QuantileTransformer, StandardScaler

from lcm_ml.churn.encoding import FloatMatrix
from lcm_ml.churn.estimator import Estimator, FloatArray, normalised
from lcm_ml.errors import LcmError

PENALTIES = (0.001, 0.01, 0.1, 1.0)
"""Values of C (inverse strength of the L2 penalty) that the validation date chooses from."""

FILE = "model.skops"
TRUSTED = ("numpy.dtype",)
"""What a pipeline of ours holds beyond the types that skops trusts: the imputer remembers its input's type."""


class Logistic(Estimator):
    """Median imputation with missing flags, ranks instead of values, standardised, L2 penalty.

    Ranks (a quantile transform to the uniform) take skew and outliers out without a shape to choose. On The Complete
    Journey's validation dates they are level with plain and Yeo-Johnson values; docs/models.md has the figures.
    """

    name = "logistic"

    def tune(self, x: FloatMatrix, y: FloatArray, x_validation: FloatMatrix, y_validation: FloatArray) -> FloatArray:
        """Choose C on the validation date."""
        prepare = self._preparation(len(x))
        prepared, prepared_validation = prepare.fit_transform(x), prepare.transform(x_validation)
        regression = _regression(PENALTIES[0]).set_params(warm_start=True)
        best_loss, best = np.inf, np.zeros(len(x_validation))
        for penalty in PENALTIES:
            _quietly_fitted(regression.set_params(C=penalty), prepared, y)
            probability = regression.predict_proba(prepared_validation)[:, 1]
            loss = float(log_loss(y_validation, probability, labels=[0, 1]))
            if loss >= best_loss:
                break  # weaker penalties only follow the training data more closely, and take longest
            best_loss, best = loss, probability
            self.settings["C"] = penalty
        return np.asarray(best, dtype=np.float64)

    def fit(self, x: FloatMatrix, y: FloatArray) -> None:
        """Fit the whole pipeline."""
        self._pipeline = Pipeline(
            [*self._preparation(len(x)).steps, ("regression", _regression(self.settings.get("C", PENALTIES[1])))]
        )
        _quietly_fitted(self._pipeline, x, y)

    def predict_proba(self, x: FloatMatrix) -> FloatArray:
        """Probabilities of the pipeline."""
        return np.asarray(self._pipeline.predict_proba(x)[:, 1], dtype=np.float64)

    def importance(self) -> FloatArray:
        """Absolute standardised coefficients; a column's missing flag counts towards the column."""
        imputer = self._pipeline.named_steps["impute"]
        coefficients = np.abs(self._pipeline.named_steps["regression"].coef_[0]).astype(np.float64)
        columns = imputer.n_features_in_
        weights = coefficients[:columns].copy()
        np.add.at(weights, imputer.indicator_.features_, coefficients[columns:])
        return normalised(weights)

    def save(self, folder: Path) -> None:
        """Write model.skops."""
        import skops.io

        skops.io.dump(self._pipeline, folder / FILE)

    @classmethod
    def load(cls, folder: Path, seed: int, settings: dict[str, Any]) -> Self:
        """Read model.skops, refusing every type but those that skops trusts and TRUSTED."""
        import skops.io

        if unknown := sorted(set(skops.io.get_untrusted_types(file=folder / FILE)) - set(TRUSTED)):
            raise LcmError(
                f"{folder / FILE} holds types that no model of ours has: {', '.join(unknown)}",
                "do not use it; train again with `lcm-ml fit`",
            )
        loaded = cls(seed, settings)
        loaded._pipeline = skops.io.load(folder / FILE, trusted=list(TRUSTED))
        return loaded

    def _preparation(self, rows: int) -> Pipeline:
        return Pipeline(
            [
                # A column that is all missing in training stays, so that coefficients keep their places.
                ("impute", SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)),
                ("rank", QuantileTransformer(n_quantiles=min(200, rows), subsample=100_000, random_state=self.seed)),
                ("scale", StandardScaler()),
            ]
        )


def _regression(penalty: float) -> LogisticRegression:
    return LogisticRegression(C=penalty, max_iter=1000)


def _quietly_fitted(model: Any, x: Any, y: FloatArray) -> Any:
    with warnings.catch_warnings():
        # With a weak penalty the last digits may not settle; the validation date then prefers a stronger one.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(x, y)
