"""Intervals for spend, which is 0 for many users, made to hold what they promise on users that no model was fitted to.

Conformalised quantile regression (Romano, Patterson and Candes 2019, NeurIPS, "Conformalized Quantile Regression"): the
ends of all intervals are moved by one margin, the one with which they would have held the promised share of users
set aside.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

PROMISED = 0.8
LEVELS = (0.1, 0.5, 0.8, 0.9)
"""Quantiles that a model has to give."""
ALMOST_NOTHING = 0.05
"""On the log scale: a lower quantile below it means that no purchase is among the likely outcomes."""


@dataclass(frozen=True)
class Intervals:
    """Lower and upper ends that hold the spend with the probability PROMISED, and the median between them."""

    low: FloatArray
    middle: FloatArray
    high: FloatArray


def from_quantiles(quantiles: FloatArray) -> Intervals:
    """Intervals on the log scale, from quantiles of it at LEVELS, shape (users, 4).

    Where nothing at all is among the likely outcomes the interval begins at 0, leaves out nothing below, and so ends at
    the quantile 0.8; everywhere else it lies between 0.1 and 0.9.
    """
    ordered = np.sort(np.maximum(quantiles, 0.0), axis=1)
    lower, middle, upper, uppermost = ordered.T
    from_zero = lower < ALMOST_NOTHING
    return Intervals(np.where(from_zero, 0.0, lower), middle, np.where(from_zero, upper, uppermost))


def margin(intervals: Intervals, outcome: FloatArray) -> float:
    """How far every end has to move outwards (below 0: inwards) to hold PROMISED of these outcomes.

    All on the log scale. A lower end at 0 never moves.
    """
    from_zero = intervals.low == 0
    above = outcome - intervals.high
    # Nothing bought lies in an interval from 0 however narrow it gets.
    score = np.where(from_zero, np.where(outcome == 0, -np.inf, above), np.maximum(intervals.low - outcome, above))
    rank = int(np.ceil((len(score) + 1) * PROMISED)) - 1
    found = float(np.sort(score)[min(rank, len(score) - 1)])
    return found if np.isfinite(found) else 0.0


def moved(intervals: Intervals, by: float) -> Intervals:
    """The intervals with both ends moved outwards by a margin, never beyond the median, a lower end never below 0."""
    low = np.where(intervals.low == 0, 0.0, np.clip(intervals.low - by, 0.0, intervals.middle))
    return Intervals(low, intervals.middle, np.maximum(intervals.high + by, intervals.middle))


@dataclass(frozen=True)
class LogScale:
    """Amounts to log(1 + amount / unit) and back, so that a margin is a share of what is spent.

    `unit`: what a purchase is usually worth.
    """

    unit: float

    def to(self, amount: FloatArray) -> FloatArray:
        """Amounts to the log scale."""
        return np.asarray(np.log1p(np.maximum(amount, 0.0) / self.unit))

    def back(self, value: FloatArray) -> FloatArray:
        """The log scale to amounts."""
        return np.asarray(np.expm1(value) * self.unit)
