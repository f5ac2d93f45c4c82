"""Figures of merit for churn probabilities, with bootstrap intervals clustered by user.

Every metric is computed for many weightings of the rows at once: a column of ones gives the figure itself, a
column of how often each user was drawn gives one bootstrap resample (Efron and Tibshirani 1993, An Introduction
to the Bootstrap). The same draws serve all models, so that differences between them are paired.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lcm_ml.churn.estimator import FloatArray

PROBABILITY_FLOOR = 1e-6
BINS = 10
MAX_CELLS = 20_000_000

METRICS = (
    "auc",
    "average_precision",
    "log_loss",
    "brier",
    "top_decile_lift",
    "ece",
    "ece_by_chance",
    "ece_by_chance_p95",
    "calibration_slope",
    "accuracy",
    "majority_accuracy",
    "base_rate",
)
COMPARED = ("auc", "average_precision", "log_loss", "brier", "top_decile_lift", "ece", "accuracy")
"""Metrics whose difference between two models says which is better."""


def log_odds(probability: FloatArray) -> FloatArray:
    """Log-odds of probabilities, which are kept PROBABILITY_FLOOR away from 0 and 1."""
    kept = np.clip(probability, PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)
    return np.asarray(np.log(kept / (1 - kept)), dtype=np.float64)


def mean_log_loss(y: FloatArray, probability: FloatArray) -> float:
    """Log loss of probabilities, shape (rows,), which are kept PROBABILITY_FLOOR away from 0 and 1."""
    kept = np.clip(probability, PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)
    return float(-np.mean(y * np.log(kept) + (1 - y) * np.log1p(-kept)))


def measure(
    y: FloatArray,
    score: FloatArray,
    probability: FloatArray,
    weights: FloatArray | None = None,
    threshold: float = 0.5,
) -> dict[str, FloatArray]:
    """All METRICS, one value per weighting.

    Args:
        y: outcomes 0.0 or 1.0, shape (rows,).
        score: what ranks the users, higher is riskier, shape (rows,).
        probability: of churn, shape (rows,).
        weights: shape (rows, weightings); None is one weighting of ones.
        threshold: accuracy counts probability > threshold as predicted churn.

    Returns:
        Metric to an array of shape (weightings,). NaN where a weighting holds one class only.
    """
    w = np.ones((len(y), 1)) if weights is None else weights
    total = w.sum(axis=0)
    kept = np.clip(probability, PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)
    losses = -(y * np.log(kept) + (1 - y) * np.log1p(-kept))
    base_rate = y @ w / total
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            **_ranking(y, score, w),
            "log_loss": losses @ w / total,
            "brier": (probability - y) ** 2 @ w / total,
            "ece": _calibration_error(y, probability, w),
            "calibration_slope": logistic_line(log_odds(probability), y, w)[1],
            "accuracy": ((probability > threshold) == (y > 0)) @ w / total,
            "majority_accuracy": np.maximum(base_rate, 1 - base_rate),
            "base_rate": base_rate,
        }


def _ranking(y: FloatArray, score: FloatArray, w: FloatArray) -> dict[str, FloatArray]:
    """AUC, average precision and top-decile lift; tied users share their place, so their order does not matter."""
    order = np.argsort(-score, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(score[order]) != 0])
    churned = np.add.reduceat(w[order] * y[order, None], starts, axis=0)
    everyone = np.add.reduceat(w[order], starts, axis=0)
    above_churned, above = np.cumsum(churned, axis=0), np.cumsum(everyone, axis=0)
    n_churned, n = above_churned[-1], above[-1]
    stayed = everyone - churned
    auc = (stayed * (above_churned - churned / 2)).sum(axis=0) / (n_churned * (n - n_churned))
    precision = np.divide(above_churned, above, out=np.zeros_like(above), where=above > 0)
    average_precision = (churned * precision).sum(axis=0) / n_churned
    share = np.divide(n / BINS - (above - everyone), everyone, out=np.zeros_like(above), where=everyone > 0)
    lift = (np.clip(share, 0, 1) * churned).sum(axis=0) * BINS / n_churned
    return {"auc": auc, "average_precision": average_precision, "top_decile_lift": lift}


def measure_auc(y: FloatArray, score: FloatArray) -> float:
    """AUC alone: the chance that a churned user is ranked above one who stayed, ties counting half."""
    from scipy.stats import rankdata

    churned = y > 0
    n_churned, n_stayed = int(churned.sum()), int((~churned).sum())
    ranks = rankdata(score)[churned].sum()
    return float((ranks - n_churned * (n_churned + 1) / 2) / (n_churned * n_stayed))


def mass_bins(values: FloatArray) -> npt.NDArray[np.int64]:
    """Bin 0 (lowest) to BINS - 1 of each value, as many users in each as can be; ties fall by position."""
    rank = np.empty(len(values), dtype=np.int64)
    rank[np.argsort(values, kind="stable")] = np.arange(len(values))
    return rank * BINS // max(len(values), 1)


def _calibration_error(y: FloatArray, probability: FloatArray, w: FloatArray) -> FloatArray:
    """Expected calibration error over bins of equal mass (Naeini and others 2015); the bins are those of all rows."""
    member = (mass_bins(probability) == np.arange(BINS)[:, None]).astype(np.float64)
    gaps = (member * (probability - y)) @ w
    return np.asarray(np.abs(gaps).sum(axis=0) / w.sum(axis=0), dtype=np.float64)


def calibration_error_by_chance(probability: FloatArray, draws: int = 400) -> tuple[float, float]:
    """What the calibration error would be if the probabilities were right: mean and 95 % point over drawn outcomes.

    With a few thousand users chance alone keeps it well above 0 (Vaicenavicius and others 2019).
    """
    rng = np.random.default_rng(0)
    count = int(np.clip(MAX_CELLS // max(len(probability), 1), 20, draws))
    member = (mass_bins(probability) == np.arange(BINS)[:, None]).astype(np.float64)
    errors = [
        np.abs(member @ (probability - (rng.random(len(probability)) < probability))).sum() / len(probability)
        for _ in range(count)
    ]
    return float(np.mean(errors)), float(np.quantile(errors, 0.95))


def logistic_line(z: FloatArray, y: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Intercept and slope of the logistic regression of y on z, by Newton's method, for each weighting.

    With z the log-odds of a prediction the slope is Cox's calibration slope (1958): 1 is right, below 1 too extreme.

    Args:
        z: shape (rows,).
        y: 0.0 or 1.0, shape (rows,).
        weights: shape (rows, weightings).

    Returns:
        Two arrays of shape (weightings,); NaN where the line is not defined (one class, or constant z).
    """
    nowhere = np.full(weights.shape[1], np.nan)
    if np.ptp(z) < 1e-9:
        return nowhere, nowhere
    centre, spread = z.mean(), z.std()
    scaled = (z - centre) / spread
    rate = y @ weights / weights.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        # From the base rate and a flat line Newton's steps do not overshoot; from a steep line they can.
        intercept, slope = np.log(rate / (1 - rate)), np.zeros(weights.shape[1])
        for _ in range(30):
            p = 1 / (1 + np.exp(-np.clip(intercept + np.outer(scaled, slope), -30, 30)))
            residual = weights * (y[:, None] - p)
            curvature = weights * p * (1 - p)
            g0, g1 = residual.sum(axis=0), scaled @ residual
            h00, h01, h11 = curvature.sum(axis=0), scaled @ curvature, scaled**2 @ curvature
            determinant = h00 * h11 - h01**2
            step0, step1 = (h11 * g0 - h01 * g1) / determinant, (h00 * g1 - h01 * g0) / determinant
            # Longer steps would only come from a nearly separable resample, whose line has no end.
            intercept, slope = intercept + np.clip(step0, -3, 3), slope + np.clip(step1, -3, 3)
            if np.nanmax(np.abs(np.r_[step0, step1]), initial=0.0) < 1e-8:
                break
    # With one class the steps run away, or stop where they began.
    defined = (rate > 0) & (rate < 1)
    return np.where(defined, intercept - slope * centre / spread, np.nan), np.where(defined, slope / spread, np.nan)


@dataclass(frozen=True)
class Outcome:
    """What one model said about one date, and what happened. Arrays have shape (rows,)."""

    users: npt.NDArray[np.str_]
    y: FloatArray
    score: FloatArray
    probability: FloatArray


class Resamples:
    """Bootstrap draws of users, made once and shared by every model and date.

    Args:
        users: the users of each date.
        seed: same seed, same draws.
        count: resamples wanted; fewer where rows times resamples would not fit in memory.
    """

    def __init__(self, users: Sequence[npt.NDArray[np.str_]], seed: int, count: int = 500) -> None:
        self._known = np.unique(np.concatenate(list(users)))
        rows = max(len(date_users) for date_users in users)
        size = len(self._known)
        rng = np.random.default_rng(seed)
        self.count = int(np.clip(MAX_CELLS // max(rows, 1), 50, count))
        draws = [np.bincount(rng.integers(0, size, size), minlength=size) for _ in range(self.count)]
        self._times = np.stack(draws, axis=1).astype(np.float32)

    def weights(self, users: npt.NDArray[np.str_]) -> FloatArray:
        """How often each of these users was drawn, shape (rows, count)."""
        return self._times[np.searchsorted(self._known, users)].astype(np.float64)


@dataclass(frozen=True)
class Measured:
    """A figure and its resampled values, shape (resamples,)."""

    value: float
    resampled: FloatArray

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % percentile interval; NaN where too few resamples give a figure."""
        known = self.resampled[np.isfinite(self.resampled)]
        if len(known) < 0.9 * len(self.resampled):
            return (float("nan"), float("nan"))
        low, high = np.percentile(known, [2.5, 97.5])
        return float(low), float(high)

    def minus(self, other: "Measured") -> "Measured":
        """The paired difference: both were resampled with the same users."""
        return Measured(self.value - other.value, self.resampled - other.resampled)


def measure_outcome(outcome: Outcome, resamples: Resamples, threshold: float = 0.5) -> dict[str, Measured]:
    """All METRICS of one model and date, resampled."""
    point = measure(outcome.y, outcome.score, outcome.probability, threshold=threshold)
    drawn = measure(
        outcome.y, outcome.score, outcome.probability, resamples.weights(outcome.users), threshold=threshold
    )
    mean, high = calibration_error_by_chance(outcome.probability)
    none = np.full(resamples.count, np.nan)
    return {
        "ece_by_chance": Measured(mean, none),
        "ece_by_chance_p95": Measured(high, none),
        **{name: Measured(float(value[0]), drawn[name]) for name, value in point.items()},
    }


def take(outcome: Outcome, positions: npt.NDArray[np.int64]) -> Outcome:
    """Some rows of an outcome."""
    return Outcome(
        outcome.users[positions], outcome.y[positions], outcome.score[positions], outcome.probability[positions]
    )


def figure(measured: Measured | None) -> dict[str, float | None]:
    """value, ci_low and ci_high as JSON and SQL take them: what is no number is null."""
    if measured is None:
        return {"value": None, "ci_low": None, "ci_high": None}
    low, high = measured.interval
    return {
        name: value if np.isfinite(value) else None
        for name, value in (("value", measured.value), ("ci_low", low), ("ci_high", high))
    }


def mean_over_dates(per_date: Sequence[dict[str, Measured]]) -> dict[str, Measured]:
    """The plain mean over dates of each metric; users are drawn for all dates together, so intervals allow for that."""
    return {
        name: Measured(
            float(np.mean([figures[name].value for figures in per_date])),
            np.mean([figures[name].resampled for figures in per_date], axis=0),
        )
        for name in METRICS
    }
