"""Estimators made of a scikit-learn pipeline, kept with skops."""

import json
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import QuantileTransformer, StandardScaler

from lcm_ml.churn.encoding import FloatMatrix
from lcm_ml.churn.estimator import Estimator, FloatArray, normalised
from lcm_ml.churn.metrics import mean_log_loss
from lcm_ml.errors import LcmError

FILE = "model.skops"
IMPORTANCE = "importance.json"
IMPORTANCE_ROWS = 2000


class PipelineEstimator(Estimator):
    """A scikit-learn pipeline whose last step is a classifier.

    Subclasses say how the pipeline is made from `settings`, and which `candidates` the validation date chooses from.
    """

    trusted: ClassVar[Sequence[str]] = ("numpy.dtype",)
    """Types in a saved pipeline beyond those that skops trusts by itself: the imputer remembers its input's type."""

    @abstractmethod
    def make_pipeline(self, rows: int) -> Pipeline:
        """The unfitted pipeline for `settings` and this many training rows."""

    def candidates(self, rows: int) -> list[dict[str, Any]]:  # noqa: ARG002 - some depend on the size of the shop
        """Settings to choose from, the most regular first."""
        return [{}]

    def tune(self, x: FloatMatrix, y: FloatArray, x_validation: FloatMatrix, y_validation: FloatArray) -> FloatArray:
        """Choose among the candidates by the log loss on the validation date."""
        given = dict(self.settings)
        best_loss, best_settings, best = np.inf, given, np.zeros(len(x_validation))
        for candidate in self.candidates(len(x)):
            self.settings = {**candidate, **given}
            self.fit(x, y)
            probability = self.predict_proba(x_validation)
            loss = mean_log_loss(y_validation, probability)
            if loss < best_loss:
                best_loss, best_settings, best = loss, self.settings, probability
        self.settings = best_settings
        return best

    def fit(self, x: FloatMatrix, y: FloatArray) -> None:
        """Fit the whole pipeline."""
        self._pipeline = self.make_pipeline(len(x)).fit(x, y)
        self._importance = self._weigh(x, y)

    def predict_proba(self, x: FloatMatrix) -> FloatArray:
        """Probabilities of the pipeline."""
        return np.asarray(self._pipeline.predict_proba(x)[:, 1], dtype=np.float64)

    def importance(self) -> FloatArray:
        """The classifier's own weights where it has one per column, else the rise in log loss when shuffled."""
        return self._importance

    def _weigh(self, x: FloatMatrix, y: FloatArray) -> FloatArray:
        own = getattr(self._pipeline.steps[-1][1], "feature_importances_", None)
        if own is not None and len(own) == x.shape[1]:
            return normalised(np.asarray(own, dtype=np.float64))
        rng = np.random.default_rng(self.seed)
        rows = rng.permutation(len(x))[:IMPORTANCE_ROWS]
        sample, outcome = x[rows].copy(), y[rows]
        usual = mean_log_loss(outcome, self.predict_proba(sample))
        rises = np.zeros(x.shape[1])
        for column in range(x.shape[1]):
            kept = sample[:, column].copy()
            sample[:, column] = rng.permutation(kept)
            rises[column] = mean_log_loss(outcome, self.predict_proba(sample)) - usual
            sample[:, column] = kept
        return normalised(np.maximum(rises, 0.0))

    def save(self, folder: Path) -> None:
        """Write model.skops, and the weights, which cost a pass over training rows."""
        import skops.io

        skops.io.dump(self._pipeline, folder / FILE)
        (folder / IMPORTANCE).write_text(json.dumps(self._importance.tolist()), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, seed: int, settings: dict[str, Any]) -> Self:
        """Read model.skops, refusing every type but those that skops trusts and ours."""
        loaded = cls(seed, settings)
        loaded._pipeline = loaded.read(folder / FILE)
        loaded._importance = np.array(json.loads((folder / IMPORTANCE).read_text(encoding="utf-8")), dtype=np.float64)
        return loaded

    def read(self, path: Path) -> Pipeline:
        """A saved pipeline.

        Raises:
            LcmError: for a file that holds types no model of ours has.
        """
        import skops.io

        held = skops.io.get_untrusted_types(file=path)
        if unknown := sorted(name for name in held if not self.is_trusted(name)):
            raise LcmError(
                f"{path} holds types that no model of ours has: {', '.join(unknown)}",
                "do not use it; train again with `lcm-ml fit`",
            )
        return skops.io.load(path, trusted=held)

    def is_trusted(self, type_name: str) -> bool:
        """Whether a saved pipeline may hold this type."""
        return type_name in self.trusted


def ranked(rows: int, seed: int) -> list[tuple[str, Any]]:
    """Steps before an estimator that minds missing values and skew.

    Median imputation with missing flags, ranks instead of values (a quantile transform to the uniform takes skew and
    outliers out without a shape to choose), standardised.
    """
    return [
        # A column that is all missing in training stays, so that coefficients keep their places.
        ("impute", SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)),
        ("rank", QuantileTransformer(n_quantiles=min(200, rows), subsample=100_000, random_state=seed)),
        ("scale", StandardScaler()),
    ]
