"""A user's own estimator: any class with scikit-learn's interface, named in the var custom_estimators."""

import importlib
import inspect
from typing import Any

from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline

from lcm_ml.churn.estimator import Range
from lcm_ml.churn.pipeline import PipelineEstimator, ranked
from lcm_ml.errors import LcmError

PREPARATIONS = ("none", "impute", "rank")
ENTRIES = {"name", "class", "parameters", "candidates", "prepare", "search"}
MEND = "mend the var custom_estimators and run `dbt build`"


class Custom(PipelineEstimator):
    """Wraps the class that `settings` names.

    Settings: class (import path), parameters (of its constructor), candidates (dictionaries of parameters that the
    validation date chooses from), prepare (none, impute or rank), search (parameter to [low, high]).

    Raises:
        LcmError: when the class cannot be imported or is no classifier with probabilities.
    """

    def __init__(self, seed: int = 0, settings: dict[str, Any] | None = None) -> None:
        super().__init__(seed, settings)
        self.name = str(self.settings.get("name", "custom"))
        if unknown := sorted(set(self.settings) - ENTRIES - {"chosen"} - set(self.search_space())):
            raise LcmError(
                f"custom_estimators.{self.name} has no entry {unknown[0]}: {', '.join(sorted(ENTRIES))}", MEND
            )
        if self.settings.get("prepare", "impute") not in PREPARATIONS:
            raise LcmError(
                f"custom_estimators.{self.name}.prepare is {self.settings['prepare']!r}, none of "
                f"{', '.join(PREPARATIONS)}",
                MEND,
            )
        self._class = self._imported()

    def search_space(self) -> dict[str, Range]:
        """The entry `search`: whole numbers stay whole."""
        return {
            name: Range(low, high, integer=isinstance(low, int) and isinstance(high, int))
            for name, (low, high) in self.settings.get("search", {}).items()
        }

    def candidates(self, rows: int) -> list[dict[str, Any]]:  # noqa: ARG002
        """The entry `candidates`, or the parameters alone."""
        return [{"chosen": candidate} for candidate in self.settings.get("candidates") or [{}]]

    def make_pipeline(self, rows: int) -> Pipeline:
        """Preparation and the user's class, with the seed as its random_state where it takes one."""
        parameters = {**self.settings.get("parameters", {}), **self.settings.get("chosen", {})}
        parameters |= {name: self.settings[name] for name in self.search_space() if name in self.settings}
        if "random_state" in inspect.signature(self._class).parameters:
            parameters.setdefault("random_state", self.seed)
        before = {
            "none": [],
            "impute": [("impute", SimpleImputer(strategy="median", keep_empty_features=True))],
            "rank": ranked(rows, self.seed),
        }[self.settings.get("prepare", "impute")]
        try:
            made = self._class(**parameters)
        except TypeError as error:
            raise LcmError(f"custom_estimators.{self.name}: {self.settings['class']}: {error}", MEND) from None
        return Pipeline([*before, ("estimator", made)])

    def is_trusted(self, type_name: str) -> bool:
        """Whatever comes from the package that the user named, from scikit-learn, or from us."""
        package = str(self.settings["class"]).split(".")[0]
        return type_name.split(".")[0] in (package, "sklearn") or super().is_trusted(type_name)

    def _imported(self) -> Any:
        path = str(self.settings.get("class", ""))
        module, _, name = path.rpartition(".")
        try:
            found = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise LcmError(
                f"custom_estimators.{self.name}.class is {path!r}, which cannot be imported: {error}",
                "give a path as in sklearn.ensemble.ExtraTreesClassifier, of a package installed here",
            ) from None
        if not (hasattr(found, "fit") and hasattr(found, "predict_proba")):
            raise LcmError(
                f"custom_estimators.{self.name}.class: {path} has no fit and predict_proba",
                "take a classifier that gives probabilities",
            )
        return found
