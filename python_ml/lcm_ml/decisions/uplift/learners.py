"""T-, X- and DR-learners on gradient-boosted trees.

T- and X-learner: Künzel, Sekhon, Bickel and Yu (2019), "Metalearners for estimating heterogeneous treatment effects
using machine learning", PNAS 116(10). DR-learner: Kennedy (2023), "Towards optimal doubly robust estimation of
heterogeneous causal effects", Electronic Journal of Statistics 17(2). What X and DR regress on comes from models of the
outcome that had no part in the row (cross-fitting).
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lcm_ml.churn.encoding import FloatMatrix
from lcm_ml.churn.estimator import FloatArray
from lcm_ml.decisions.uplift.trial import BoolArray, Trial, folds_of

T, X, DR = "t_learner", "x_learner", "dr_learner"
LEARNERS = (T, X, DR)
CROSS_FITS = 2
OUTCOME_TREES = {"max_depth": 4, "learning_rate": 0.08, "min_child_weight": 10.0}
EFFECT_TREES = {"max_depth": 3, "learning_rate": 0.06, "min_child_weight": 30.0}
ROUNDS = 90

Predict = Callable[[FloatMatrix], FloatArray]


@dataclass(frozen=True)
class Fits:
    """Fitted learners, and the models of the outcome in each arm that they rest on."""

    effects: dict[str, Predict]
    untreated: Predict
    treated: Predict

    def outcome(self, x: FloatMatrix, propensity: FloatArray) -> FloatArray:
        """What is expected of a row whose arm is not known, shape (rows,)."""
        return propensity * self.treated(x) + (1 - propensity) * self.untreated(x)


def fit_learners(trial: Trial, seed: int, names: Sequence[str] = LEARNERS) -> Fits:
    """Fit the named learners on a trial.

    Args:
        trial: with rows of both arms in each cross-fitting fold.
        seed: of folds and trees.
        names: of LEARNERS.
    """
    arms = [trial.treated == arm for arm in (0.0, 1.0)]
    full = [_outcome_model(trial, arm, seed) for arm in arms]
    effects: dict[str, Predict] = {}
    if T in names:
        effects[T] = lambda x: full[1](x) - full[0](x)
    if X in names or DR in names:
        aside = _cross_fitted(trial, seed)
        if X in names:
            effects[X] = _x_learner(trial, aside, seed)
        if DR in names:
            effects[DR] = _effect_model(trial.x, doubly_robust(trial, *aside), seed)
    return Fits(effects, full[0], full[1])


def doubly_robust(trial: Trial, untreated: FloatArray, treated: FloatArray) -> FloatArray:
    """The effect of each row but for noise of mean 0: right where either the propensity or the outcome models are.

    Augmented inverse propensity weighting (Robins, Rotnitzky and Zhao 1994).

    Args:
        trial: the rows.
        untreated: what models that had no part in a row expect of it without the treatment, shape (rows,).
        treated: and with it.

    Returns:
        Shape (rows,).
    """
    w, y, e = trial.treated, trial.outcome, trial.propensity
    return np.asarray(treated - untreated + w * (y - treated) / e - (1 - w) * (y - untreated) / (1 - e))


def _x_learner(trial: Trial, aside: tuple[FloatArray, FloatArray], seed: int) -> Predict:
    is_treated = trial.treated > 0
    untreated, treated = aside
    of_treated = _effect_model(trial.x[is_treated], (trial.outcome - untreated)[is_treated], seed)
    of_others = _effect_model(trial.x[~is_treated], (treated - trial.outcome)[~is_treated], seed)
    # Any weight is right; the share treated leans on the arm whose outcome model had more rows.
    share = float(trial.treated.mean())
    return lambda x: share * of_others(x) + (1 - share) * of_treated(x)


def _cross_fitted(trial: Trial, seed: int) -> tuple[FloatArray, FloatArray]:
    fold = folds_of(trial.user, CROSS_FITS, seed)
    untreated, treated = np.empty(len(trial)), np.empty(len(trial))
    for k in range(CROSS_FITS):
        inside = fold == k
        for arm, into in ((0.0, untreated), (1.0, treated)):
            into[inside] = _outcome_model(trial, ~inside & (trial.treated == arm), seed)(trial.x[inside])
    return untreated, treated


def _outcome_model(trial: Trial, rows: BoolArray, seed: int) -> Predict:
    y = trial.outcome[rows]
    if trial.is_binary:
        return boosted(trial.x[rows], y, OUTCOME_TREES | {"objective": "binary:logistic"}, seed)
    return boosted(trial.x[rows], y, OUTCOME_TREES, seed)


def _effect_model(x: FloatMatrix, effect: FloatArray, seed: int) -> Predict:
    return boosted(x, effect, EFFECT_TREES, seed)


def boosted(x: FloatMatrix, y: FloatArray, settings: dict[str, Any], seed: int) -> Predict:
    """Boosted trees of XGBoost with these settings; the mean where y does not vary."""
    import xgboost as xgb

    threads = os.environ.get("LCM_THREADS")
    mean = float(y.mean())
    classifies = settings.get("objective") == "binary:logistic"
    if np.ptp(y) == 0:
        return lambda rows: np.full(len(rows), mean)
    booster = xgb.train(
        {
            "objective": "reg:squarederror",
            "base_score": mean,
            "tree_method": "hist",
            "max_bin": 64,
            "subsample": 0.6,
            "colsample_bynode": 0.5,
            "reg_lambda": 10.0,
            "seed": seed,
            **({"nthread": int(threads)} if threads else {}),
            **settings,
            # A probability's curvature p (1 - p) is what this counts.
            **({"min_child_weight": settings["min_child_weight"] * mean * (1 - mean)} if classifies else {}),
        },
        xgb.DMatrix(x, y),
        num_boost_round=ROUNDS,
    )
    return lambda rows: np.asarray(booster.predict(xgb.DMatrix(rows)), dtype=np.float64)
