"""What an estimator is, and which there are."""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from lcm_ml.churn.encoding import FloatMatrix
from lcm_ml.errors import LcmError, UsageError

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Range:
    """Values of a setting that a search may try, both ends included."""

    low: float
    high: float
    log: bool = False
    integer: bool = False


class Estimator(ABC):
    """A classifier that knows how to choose its settings, how to be fitted with them, and how to be kept on disk.

    Matrices have shape (rows, columns) and may hold NaN; labels are 0.0 and 1.0; a fitted estimator's
    predictions depend on nothing but its settings, its seed and the data. A setting that is given is kept: `tune`
    chooses only those that are not.
    """

    name: str

    def __init__(self, seed: int = 0, settings: dict[str, Any] | None = None) -> None:
        self.seed = seed
        self.settings: dict[str, Any] = dict(settings or {})
        self._curves: dict[str, list[float]] = {}

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

    def contributions(self, x: FloatMatrix) -> tuple[str, FloatArray, FloatArray] | None:  # noqa: ARG002
        """What each column adds to the log-odds, where that is known exactly.

        Returns:
            The method, the log-odds of the average user, shape () or (rows,), and contributions of shape
            (rows, columns), which with it add up to the log-odds of the prediction. None where it is not known.
        """
        return None

    def search_space(self) -> dict[str, Range]:
        """Settings that `lcm-ml fit --tune` searches; empty where there is nothing to search."""
        return {}

    def curves(self) -> dict[str, list[float]]:
        """Log loss of train and validation after each iteration of `tune`; empty where there are no iterations."""
        return self._curves


ESTIMATORS = {
    "logistic": "lcm_ml.churn.logistic:Logistic",
    "xgboost": "lcm_ml.churn.boosting:Boosting",
    "random_forest": "lcm_ml.churn.boosting:RandomForest",
    "decision_tree": "lcm_ml.churn.trees:DecisionTree",
    "gradient_boosting": "lcm_ml.churn.trees:GradientBoosting",
    "neural_network": "lcm_ml.churn.neural_network:NeuralNetwork",
    "ensemble": "lcm_ml.churn.ensemble:Ensemble",
}
"""Name on the command line to module:class, imported when it is asked for."""

CUSTOM = "custom"
CUSTOM_CLASS = "lcm_ml.churn.custom:Custom"

DEFAULT_MODELS = ("logistic", "xgboost")


def estimator_class(kind: str) -> type[Estimator]:
    """The class behind a name of ESTIMATORS, or behind CUSTOM.

    Raises:
        UsageError: naming those there are.
    """
    if kind != CUSTOM and kind not in ESTIMATORS:
        raise UsageError(f"there is no model {kind!r}", f"take one of {', '.join(ESTIMATORS)}")
    module, class_name = (CUSTOM_CLASS if kind == CUSTOM else ESTIMATORS[kind]).split(":")
    found: type[Estimator] = getattr(importlib.import_module(module), class_name)
    return found


@dataclass(frozen=True)
class Recipe:
    """An estimator to be made: its name, the class behind it, and the settings that are given."""

    name: str
    kind: str
    settings: dict[str, Any] = field(default_factory=dict)

    def make(self, seed: int) -> Estimator:
        """An estimator that is not fitted yet.

        Raises:
            LcmError: for a user's own class that cannot be used.
        """
        return estimator_class(self.kind)(seed, self.settings)


def recipes(names: Iterable[str], custom: Mapping[str, Any] | None = None) -> tuple[Recipe, ...]:
    """Recipes of these names, each once.

    Args:
        names: of ESTIMATORS or of `custom`.
        custom: the var custom_estimators, name to its entry; docs/models.md shows one.

    Raises:
        UsageError: for a name that is neither.
        LcmError: for an entry of `custom` that cannot be used.
    """
    own = custom or {}
    if taken := sorted(set(own) & set(ESTIMATORS)):
        raise LcmError(
            f"the var custom_estimators uses names that are taken: {', '.join(taken)}",
            "rename them and run `dbt build`",
        )
    found = []
    for name in dict.fromkeys(names):
        if name in own:
            entry = own[name] if isinstance(own[name], dict) else {"class": own[name]}
            found.append(Recipe(name, CUSTOM, {"name": name, **entry}))
        elif name in ESTIMATORS:
            found.append(Recipe(name, name))
        else:
            raise UsageError(
                f"there is no model {name!r}",
                f"take one of {', '.join([*ESTIMATORS, *own])}, or add it to the var custom_estimators and `dbt build`",
            )
    for recipe in found:
        if recipe.kind == CUSTOM:
            recipe.make(0)
    return tuple(found)


def normalised(weights: FloatArray) -> FloatArray:
    """Weights that sum to 1, or stay 0."""
    total = float(weights.sum())
    return weights / total if total > 0 else weights
