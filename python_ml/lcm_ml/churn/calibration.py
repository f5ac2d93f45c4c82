"""Maps from an estimator's output to probabilities, chosen on the validation date and kept as plain numbers."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lcm_ml.churn.estimator import FloatArray
from lcm_ml.churn.metrics import log_odds, logistic_line

FOLDS = 5
CLEARLY = 2.0
ISOTONIC_MIN_CHURNED = 200


@dataclass(frozen=True)
class Calibration:
    """A monotone map of probabilities.

    Attributes:
        kind: none, sigmoid (intercept and slope on the log-odds, after Platt 1999) or isotonic (Zadrozny and Elkan
            2002).
        inputs: sigmoid: the intercept; isotonic: the steps' positions.
        outputs: sigmoid: the slope; isotonic: the steps' values.
    """

    kind: str = "none"
    inputs: tuple[float, ...] = ()
    outputs: tuple[float, ...] = ()

    def apply(self, probability: FloatArray) -> FloatArray:
        """Calibrated probabilities, shape as given."""
        if self.kind == "sigmoid":
            return np.asarray(1 / (1 + np.exp(-(self.inputs[0] + self.outputs[0] * log_odds(probability)))))
        if self.kind == "isotonic":
            return np.asarray(np.interp(probability, self.inputs, self.outputs))
        return probability

    def line(self) -> tuple[float, float]:
        """Slope and intercept on the log-odds; for isotonic, which has none, those of no calibration."""
        return (self.outputs[0], self.inputs[0]) if self.kind == "sigmoid" else (1.0, 0.0)

    def to_dict(self) -> dict[str, Any]:
        """For calibration.json."""
        return asdict(self)

    @classmethod
    def from_dict(cls, entry: dict[str, Any]) -> "Calibration":
        """The inverse of to_dict."""
        return cls(str(entry["kind"]), tuple(entry["inputs"]), tuple(entry["outputs"]))


def fit_calibration(kind: str, probability: FloatArray, y: FloatArray) -> Calibration:
    """Fit a map of this kind; no map where a sigmoid would not rise."""
    if kind == "sigmoid":
        intercept, slope = logistic_line(log_odds(probability), y, np.ones((len(y), 1)))
        rises = np.isfinite(slope[0]) and slope[0] > 0
        return Calibration(kind, (float(intercept[0]),), (float(slope[0]),)) if rises else Calibration()
    if kind == "isotonic":
        from sklearn.isotonic import IsotonicRegression

        # A step of 0 or 1 would claim certainty from a handful of users.
        floor = 1 / (len(y) + 2)
        steps = IsotonicRegression(y_min=floor, y_max=1 - floor, out_of_bounds="clip").fit(probability, y)
        return Calibration(kind, tuple(steps.X_thresholds_.tolist()), tuple(steps.y_thresholds_.tolist()))
    return Calibration()


def choose_calibration(probability: FloatArray, y: FloatArray, seed: int) -> Calibration:
    """None, sigmoid or isotonic: the simplest that no other clearly betters in log loss, cross-validated.

    "Clearly" is more than two standard errors of the paired difference: on a few thousand users a map
    that is learnt for its own sake adds more noise than it takes away. Isotonic needs ISOTONIC_MIN_CHURNED churned
    users (Niculescu-Mizil and Caruana 2005 show it overfits small samples).

    Args:
        probability: out-of-time predictions of the validation date, shape (rows,).
        y: what happened, 0.0 or 1.0, shape (rows,).
        seed: of the folds.
    """
    rarer = int(min(y.sum(), len(y) - y.sum()))
    if rarer < 2 * FOLDS:
        return Calibration()
    fold = _stratified_folds(y, seed)
    best_kind, best = "none", _losses(probability, y)
    for kind in ("sigmoid", "isotonic") if rarer >= ISOTONIC_MIN_CHURNED else ("sigmoid",):
        mapped = np.empty_like(probability)
        for k in range(FOLDS):
            inside = fold == k
            mapped[inside] = fit_calibration(kind, probability[~inside], y[~inside]).apply(probability[inside])
        losses = _losses(mapped, y)
        gains = best - losses
        if gains.mean() > CLEARLY * gains.std(ddof=1) / np.sqrt(len(gains)):
            best_kind, best = kind, losses
    return fit_calibration(best_kind, probability, y)


def _losses(probability: FloatArray, y: FloatArray) -> FloatArray:
    z = log_odds(probability)
    return np.asarray(np.logaddexp(0, z) - y * z)


def _stratified_folds(y: FloatArray, seed: int) -> npt.NDArray[np.int64]:
    rng = np.random.default_rng(seed)
    fold = np.empty(len(y), dtype=np.int64)
    for outcome in (0.0, 1.0):
        rows = rng.permutation(np.flatnonzero(y == outcome))
        fold[rows] = np.arange(len(rows)) % FOLDS
    return fold
