"""The mean of calibrated members."""

import json
from pathlib import Path
from typing import Any, Self

import numpy as np

from lcm_ml.churn.calibration import Calibration, choose_calibration
from lcm_ml.churn.encoding import FloatMatrix
from lcm_ml.churn.estimator import Estimator, FloatArray, estimator_class

MEMBERS = ("logistic", "xgboost", "random_forest", "neural_network")
FILE = "members.json"


class Ensemble(Estimator):
    """Averages the probabilities of unlike members, each calibrated on the validation date like a model of its own.

    Unlike members err differently, and the mean of their errors is smaller (Caruana and others 2004, "Ensemble
    selection from libraries of models", without the selection, which overfits one date).
    """

    name = "ensemble"

    def __init__(self, seed: int = 0, settings: dict[str, Any] | None = None) -> None:
        super().__init__(seed, settings)
        names = self.settings.setdefault("members", list(MEMBERS))
        own = self.settings.setdefault("settings", {})
        self._members = {name: estimator_class(name)(seed, own.get(name)) for name in names}
        self._calibrations = {
            name: Calibration.from_dict(entry) for name, entry in self.settings.get("calibrations", {}).items()
        }

    def tune(self, x: FloatMatrix, y: FloatArray, x_validation: FloatMatrix, y_validation: FloatArray) -> FloatArray:
        """Let every member choose its settings, and calibrate it."""
        total = np.zeros(len(x_validation))
        for name, member in self._members.items():
            predicted = member.tune(x, y, x_validation, y_validation)
            self._calibrations[name] = choose_calibration(predicted, y_validation, self.seed)
            total += self._calibrations[name].apply(predicted)
        self.settings["settings"] = {name: member.settings for name, member in self._members.items()}
        self.settings["calibrations"] = {name: found.to_dict() for name, found in self._calibrations.items()}
        return total / len(self._members)

    def fit(self, x: FloatMatrix, y: FloatArray) -> None:
        """Fit every member."""
        for member in self._members.values():
            member.fit(x, y)

    def predict_proba(self, x: FloatMatrix) -> FloatArray:
        """The mean of the members' calibrated probabilities."""
        calibrated = [
            self._calibrations.get(name, Calibration()).apply(member.predict_proba(x))
            for name, member in self._members.items()
        ]
        return np.asarray(np.mean(calibrated, axis=0), dtype=np.float64)

    def importance(self) -> FloatArray:
        """The mean of the members' weights."""
        return np.asarray(np.mean([member.importance() for member in self._members.values()], axis=0))

    def save(self, folder: Path) -> None:
        """Write one folder for each member."""
        for name, member in self._members.items():
            (folder / name).mkdir(mode=0o700)
            member.save(folder / name)
        (folder / FILE).write_text(json.dumps(list(self._members)), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, seed: int, settings: dict[str, Any]) -> Self:
        """Read the members."""
        loaded = cls(seed, settings)
        loaded._members = {
            name: estimator_class(name).load(folder / name, seed, settings["settings"].get(name, {}))
            for name in json.loads((folder / FILE).read_text(encoding="utf-8"))
        }
        return loaded
