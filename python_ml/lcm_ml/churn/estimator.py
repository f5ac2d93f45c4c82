"""What an estimator is, and which there are."""

import importlib
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from lcm_ml.churn.encoding import FloatMatrix
from lcm_ml.errors import UsageError

FloatArray = npt.NDArray[np.float64]


class Estimator(ABC):
    """A classifier that knows how to choose its settings, how to be fitted with them, and how to be kept on disk.

    Matrices have shape (rows, columns) and may hold NaN; labels are 0.0 and 1.0; a fitted estimator's
    predictions depend on nothing but its settings, its seed and the data.
    """

    name: ClassVar[str]

    def __init__(self, seed: int = 0, settings: dict[str, Any] | None = None) -> None:
        self.seed = seed
        self.settings: dict[str, Any] = dict(settings or {})

    @abstractmethod
    def tune(self, x: FloatMatrix, y: FloatArray, x_validation: FloatMatrix, y_validation: FloatArray) -> FloatArray:
        """Fit on x, y; choose `settings` by the log loss on the validation date.

        Returns:
            Churn probabilities of the validation rows, from the fit that did not see them.
        """

    @abstractmethod
    def fit(self, x: FloatMatrix, y: FloatArray) -> None:
        """Fit on x, y with `settings` as they are."""

    @abstractmethod
    def predict_proba(self, x: FloatMatrix) -> FloatArray:
        """Churn probabilities before calibration, shape (rows,)."""

    @abstractmethod
    def importance(self) -> FloatArray:
        """Non-negative weight of each matrix column, summing to 1 (or all 0 for a constant model)."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the fitted model into `folder`, in a format that cannot run code when it is read."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path, seed: int, settings: dict[str, Any]) -> Self:
        """The inverse of save.

        Raises:
            LcmError: for a file that holds types no model of ours has.
        """


ESTIMATORS = {
    "logistic": "lcm_ml.churn.logistic:Logistic",
    "xgboost": "lcm_ml.churn.boosting:Boosting",
}
"""Name on the command line to module:class, imported when it is asked for."""

DEFAULT_MODELS = ("logistic", "xgboost")


def estimator_class(name: str) -> type[Estimator]:
    """The estimator of this name.

    Raises:
        UsageError: naming those there are.
    """
    if name not in ESTIMATORS:
        raise UsageError(f"there is no model {name!r}", f"take one of {', '.join(ESTIMATORS)}")
    module, class_name = ESTIMATORS[name].split(":")
    found: type[Estimator] = getattr(importlib.import_module(module), class_name)
    return found


def normalised(weights: FloatArray) -> FloatArray:
    """Weights that sum to 1, or stay 0."""
    total = float(weights.sum())
    return weights / total if total > 0 else weights
