"""Learners compared on the training part, and all of them measured on rows held out."""

from collections.abc import Callable
from typing import Any

import numpy as np

from lcm_ml.churn.estimator import FloatArray
from lcm_ml.churn.metrics import Measured, figure
from lcm_ml.decisions.uplift.evaluation import DRAWS, TOP, Curve, gain_curve, r_loss, slope
from lcm_ml.decisions.uplift.learners import LEARNERS, Fits, doubly_robust, fit_learners
from lcm_ml.decisions.uplift.trial import Trial, folds_of

FOLDS = 3
RESPONSE = "response"
"""The ranking by who purchases when touched, which is what a response model says."""
CROSS_VALIDATION, HELD_OUT = "cross_validation", "held_out"

Row = dict[str, Any]


def choose_learner(trial: Trial, seed: int, advance: Callable[[float], None]) -> tuple[str, list[Row]]:
    """The learner with the least R-loss in cross-validation by user, and everybody's figures.

    R-loss decides rather than Qini: it looks at every row, where Qini looks at ranks through noise.

    Returns:
        The name, and rows of part, learner, metric, value, ci_low, ci_high.
    """
    fold = folds_of(trial.user, FOLDS, seed)
    effects = {name: np.empty(len(trial)) for name in LEARNERS}
    expected, scores = np.empty(len(trial)), np.empty(len(trial))
    for k in range(FOLDS):
        inside = fold == k
        fits, part = fit_learners(trial.take(~inside), seed), trial.take(inside)
        expected[inside] = fits.outcome(part.x, part.propensity)
        scores[inside] = effect_scores(fits, part)
        for name in LEARNERS:
            effects[name][inside] = fits.effects[name](part.x)
        advance((k + 1) / FOLDS)
    rest, treated = trial.outcome - expected, trial.treated - trial.propensity
    constant = r_loss(trial, expected, np.full(len(trial), float(rest @ treated / (treated @ treated))))
    rows, losses = [], {}
    for name in LEARNERS:
        difference = r_loss(trial, expected, effects[name]) - constant
        losses[name] = float(difference.mean())
        qini = gain_curve(effects[name], scores, trial.user, seed).qini()
        for metric, value in (("r_loss_less_constant", _mean(difference, trial, seed)), ("qini", qini)):
            rows.append({"part": CROSS_VALIDATION, "learner": name, "metric": metric, **figure(value)})
    return min(losses, key=lambda name: losses[name]), rows


def effect_scores(fits: Fits, trial: Trial) -> FloatArray:
    """Doubly robust effect of rows that had no part in the fits."""
    return doubly_robust(trial, fits.untreated(trial.x), fits.treated(trial.x))


def _mean(values: FloatArray, trial: Trial, seed: int) -> Measured:
    known, place = np.unique(trial.user, return_inverse=True)
    sums, counts = np.bincount(place, weights=values), np.bincount(place)
    times = np.random.default_rng(seed).poisson(1.0, (DRAWS, len(known)))
    return Measured(float(values.mean()), (times @ sums) / np.maximum(times @ counts, 1))


def measure_held_out(
    fits: Fits, chosen: str, test: Trial, seed: int
) -> tuple[list[Row], dict[str, Curve], dict[str, FloatArray]]:
    """Each learner, and the ranking by response, on rows that had no part in fitting or choosing.

    Returns:
        Rows of part, learner, metric, value, ci_low, ci_high; the curves; and the rankings, shape (rows,) each.
    """
    scores = effect_scores(fits, test)
    rankings = {name: fits.effects[name](test.x) for name in LEARNERS}
    rankings[RESPONSE] = fits.treated(test.x)
    curves = {name: gain_curve(ranking, scores, test.user, seed) for name, ranking in rankings.items()}
    rows = []
    for name, curve in curves.items():
        figures = {
            "qini": curve.qini(),
            "auuc": curve.auuc(),
            "gain_top_30": curve.at(TOP),
            "gain_all": curve.at(1.0),
        }
        if name in LEARNERS:
            figures["calibration_slope"] = slope(rankings[name], scores, test.user, seed)
        if name == chosen:
            figures["qini_less_response"] = curve.qini().minus(curves[RESPONSE].qini())
        rows += [
            {"part": HELD_OUT, "learner": name, "metric": metric, **figure(value)} for metric, value in figures.items()
        ]
    return rows, curves, rankings
