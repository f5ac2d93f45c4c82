"""How good a ranking by effect is: Qini and AUUC on users who had no part in it, with bootstrap intervals.

The gain of treating the first share s of a ranking is the mean over all rows of the doubly robust effect scores of
those in it: with randomised arms the curve of Radcliffe (2007), with less noise, and right for observational arms too
where overlap holds (Yadlowsky and others 2025, "Evaluating treatment prioritization rules via rank-weighted average
treatment effects").
"""

from dataclasses import dataclass

import numpy as np

from lcm_ml.churn.estimator import FloatArray
from lcm_ml.churn.metrics import Measured
from lcm_ml.decisions.uplift.trial import IntArray, Trial

STEPS = 50
DRAWS = 300
TOP = 0.3
MIN_GROUP = 1e-12


@dataclass(frozen=True)
class Curve:
    """Gain by share treated, at STEPS + 1 equal steps from 0 to 1, with its resamples, shape (DRAWS, STEPS + 1)."""

    gain: FloatArray
    resampled: FloatArray

    @property
    def shares(self) -> FloatArray:
        """Of the rows treated."""
        return np.linspace(0, 1, STEPS + 1, dtype=np.float64)

    @property
    def random(self) -> FloatArray:
        """The gain of treating as many at random."""
        return np.asarray(self.shares * self.gain[-1])

    def interval(self) -> tuple[FloatArray, FloatArray]:
        """The 95 % percentile interval at each step."""
        low, high = np.percentile(self.resampled, [2.5, 97.5], axis=0)
        return low, high

    def auuc(self) -> Measured:
        """Area under the curve: the mean gain over all shares."""
        return Measured(float(_area(self.gain[None])[0]), _area(self.resampled))

    def qini(self) -> Measured:
        """Area between the curve and treating at random; 0 is a ranking that says nothing."""
        return Measured(
            float(_area(self.gain[None])[0] - self.gain[-1] / 2), _area(self.resampled) - self.resampled[:, -1] / 2
        )

    def at(self, share: float) -> Measured:
        """The gain of treating this share."""
        place = round(share * STEPS)
        return Measured(float(self.gain[place]), self.resampled[:, place])


def _area(gain: FloatArray) -> FloatArray:
    return np.asarray(((gain[:, 1:] + gain[:, :-1]) / 2).mean(axis=1))


def gain_curve(ranking: FloatArray, effect_score: FloatArray, user: IntArray, seed: int = 0) -> Curve:
    """The curve of a ranking, with resamples clustered by user; rows of equal rank share what they bring.

    Args:
        ranking: higher is treated first, shape (rows,).
        effect_score: of `learners.doubly_robust`, from models that had no part in these rows, shape (rows,).
        user: number of the user, shape (rows,).
        seed: of the resamples; the same seed and users give the same draws, so that differences are paired.
    """
    order = np.argsort(-ranking, kind="stable")
    score, own = effect_score[order], user[order]
    starts = np.flatnonzero(np.r_[True, np.diff(ranking[order]) != 0])
    known, place = np.unique(own, return_inverse=True)
    rng = np.random.default_rng(seed)
    drawn = np.stack(
        [_curve(score, starts, rng.poisson(1.0, len(known))[place].astype(np.float64)) for _ in range(DRAWS)]
    )
    return Curve(_curve(score, starts, np.ones(len(score))), drawn)


def _curve(score: FloatArray, starts: IntArray, weight: FloatArray) -> FloatArray:
    mass, brought = np.add.reduceat(weight, starts), np.add.reduceat(weight * score, starts)
    total = max(float(mass.sum()), MIN_GROUP)
    shares = np.r_[0.0, np.cumsum(mass)] / total
    gain = np.r_[0.0, np.cumsum(brought)] / total
    return np.asarray(np.interp(np.linspace(0, 1, STEPS + 1), shares, gain))


def r_loss(trial: Trial, expected: FloatArray, effect: FloatArray) -> FloatArray:
    """Each row's loss whose mean the true effect minimises (Nie and Wager 2021), shape (rows,).

    Args:
        trial: rows that had no part in fitting.
        expected: the outcome expected of a row whose arm is not known.
        effect: as predicted.
    """
    rest = trial.outcome - expected - (trial.treated - trial.propensity) * effect
    return np.asarray(rest**2)


def slope(effect: FloatArray, effect_score: FloatArray, user: IntArray, seed: int = 0) -> Measured:
    """Slope of the scores on the predicted effect: 1 is right, 0 that differences are noise (Chernozhukov 2018)."""
    known, place = np.unique(user, return_inverse=True)
    rng = np.random.default_rng(seed)

    def line(weight: FloatArray) -> float:
        total = weight.sum()
        centred = effect - weight @ effect / total
        spread = weight @ centred**2
        return float(weight * centred @ effect_score / spread) if spread > MIN_GROUP else float("nan")

    drawn = [line(rng.poisson(1.0, len(known))[place].astype(np.float64)) for _ in range(DRAWS)]
    return Measured(line(np.ones(len(effect))), np.array(drawn))
