"""Metrics agree with scikit-learn, and their intervals behave."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference
from sklearn.linear_model import LogisticRegression

from lcm_ml.churn.calibration import Calibration, choose_calibration, fit_calibration
from lcm_ml.churn.metrics import (
    METRICS,
    Outcome,
    Resamples,
    log_odds,
    logistic_line,
    mass_bins,
    mean_over_dates,
    measure,
    measure_auc,
    measure_outcome,
)


def drawn(seed, rows=400, ties=False):
    rng = np.random.default_rng(seed)
    p = np.clip(rng.beta(1.2, 4, rows), 0.01, 0.99)
    if ties:
        p = np.round(p, 1).clip(0.05, 0.95)
    return (rng.random(rows) < p).astype(float), p


@given(st.integers(0, 10_000), st.booleans(), st.integers(30, 300))
@settings(max_examples=40, deadline=None)
def test_weighted_metrics_agree_with_scikit_learn(seed, ties, rows):
    y, p = drawn(seed, rows, ties)
    y[:2] = (0, 1)
    w = np.random.default_rng(seed + 1).integers(0, 4, rows).astype(float)
    w[:2] = 1
    ours = measure(y, p, p, w[:, None])
    assert ours["auc"][0] == pytest.approx(reference.roc_auc_score(y, p, sample_weight=w))
    assert ours["average_precision"][0] == pytest.approx(reference.average_precision_score(y, p, sample_weight=w))
    assert ours["log_loss"][0] == pytest.approx(reference.log_loss(y, p, sample_weight=w))
    assert ours["brier"][0] == pytest.approx(reference.brier_score_loss(y, p, sample_weight=w))
    assert ours["accuracy"][0] == pytest.approx(reference.accuracy_score(y, p > 0.5, sample_weight=w))
    assert measure_auc(y, p) == pytest.approx(reference.roc_auc_score(y, p))


def test_the_score_ranks_and_the_probability_is_taken_at_its_word():
    y, p = drawn(1)
    ours = measure(y, p * 100, np.full_like(p, y.mean()))
    assert ours["auc"][0] == pytest.approx(reference.roc_auc_score(y, p))
    assert ours["brier"][0] == pytest.approx(y.mean() * (1 - y.mean()))
    assert np.isnan(ours["calibration_slope"][0])


def test_accuracy_stands_beside_the_majority():
    y, p = drawn(2)
    ours = measure(y, p, np.zeros_like(p))
    assert ours["accuracy"][0] == ours["majority_accuracy"][0] == pytest.approx(1 - y.mean())


def test_top_decile_lift_counts_the_first_tenth():
    y = np.r_[np.ones(10), np.zeros(90)]
    assert measure(y, y, y)["top_decile_lift"][0] == pytest.approx(10)
    assert measure(y, np.zeros(100), np.full(100, 0.1))["top_decile_lift"][0] == pytest.approx(1)


@pytest.mark.parametrize("stretch", [0.2, 1.0, 1.7, 4.0])
def test_calibration_slope_agrees_with_a_logistic_regression(stretch):
    y, p = drawn(3, 3000)
    z = stretch * log_odds(p) - 0.4
    intercept, slope = logistic_line(z, y, np.ones((len(y), 1)))
    fitted = LogisticRegression(C=1e9, tol=1e-10).fit(z[:, None], y)
    assert slope[0] == pytest.approx(fitted.coef_[0, 0], rel=1e-4)
    assert intercept[0] == pytest.approx(fitted.intercept_[0], rel=1e-3, abs=1e-4)


def test_calibration_error_is_small_for_true_probabilities_and_large_for_wrong_ones():
    y, p = drawn(4, 20_000)
    assert measure(y, p, p)["ece"][0] < 0.012
    assert measure(y, p, np.clip(p + 0.2, 0, 1))["ece"][0] == pytest.approx(0.2, abs=0.02)
    assert np.bincount(mass_bins(p)).tolist() == [2000] * 10


def test_one_class_gives_no_ranking_figure():
    ours = measure(np.zeros(20), np.arange(20.0), np.full(20, 0.1))
    assert np.isnan(ours["auc"][0])
    assert np.isfinite(ours["log_loss"][0])
    for outcome in (np.zeros(20), np.ones(20)):
        assert np.isnan(measure(outcome, np.arange(20.0), np.linspace(0.1, 0.9, 20))["calibration_slope"][0])


def outcome(seed, users=600):
    y, p = drawn(seed, users)
    return Outcome(np.array([f"u{i:04d}" for i in range(users)]), y, p, p)


def test_intervals_hold_the_figure_and_repeat_with_the_seed():
    said = outcome(5)
    first, again, other = (measure_outcome(said, Resamples([said.users], seed, 200)) for seed in (1, 1, 2))
    for name in METRICS:
        low, high = first[name].interval
        assert np.array_equal(first[name].interval, again[name].interval, equal_nan=True)
        assert np.isnan(low) == name.startswith("ece_by_chance")  # what chance alone gives is no estimate
        if name not in ("ece", "majority_accuracy") and np.isfinite(low):  # both are pushed up by resampling
            assert low <= first[name].value <= high
    assert first["auc"].interval != other["auc"].interval


def test_interval_of_auc_has_the_width_that_theory_gives():
    said = outcome(6, 2000)
    low, high = measure_outcome(said, Resamples([said.users], 0, 400))["auc"].interval
    auc, n1 = measure_auc(said.y, said.probability), said.y.sum()
    n0 = len(said.y) - n1
    # Hanley and McNeil 1982
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    error = np.sqrt((auc * (1 - auc) + (n1 - 1) * (q1 - auc**2) + (n0 - 1) * (q2 - auc**2)) / (n1 * n0))
    assert (high - low) / (2 * 1.96) == pytest.approx(error, rel=0.25)


def test_a_user_at_many_dates_counts_as_one_observation():
    said = outcome(7)
    draws = Resamples([said.users] * 4, 0, 300)
    one = measure_outcome(said, draws)
    repeated = mean_over_dates([one] * 4)
    assert repeated["auc"].interval == pytest.approx(one["auc"].interval)
    assert repeated["auc"].minus(one["auc"]).interval == pytest.approx((0, 0), abs=1e-12)


def test_calibration_is_learnt_only_where_it_is_clearly_needed():
    y, p = drawn(8, 3000)
    assert choose_calibration(p, y, 0).kind == "none"
    extreme = 1 / (1 + np.exp(-2.5 * log_odds(p)))
    chosen = choose_calibration(extreme, y, 0)
    assert chosen.kind == "sigmoid"
    assert measure(y, extreme, chosen.apply(extreme))["calibration_slope"][0] == pytest.approx(1, abs=1e-6)
    assert choose_calibration(extreme[:30], y[:30], 0).kind == "none"


@pytest.mark.parametrize("kind", ["none", "sigmoid", "isotonic"])
def test_calibrations_rise_and_survive_json(kind):
    y, p = drawn(9, 500)
    fitted = fit_calibration(kind, p, y)
    mapped = fitted.apply(np.linspace(0, 1, 101))
    assert (np.diff(mapped) >= 0).all()
    assert (mapped >= 0).all()
    assert (mapped <= 1).all()
    assert np.array_equal(Calibration.from_dict(fitted.to_dict()).apply(p), fitted.apply(p))


def test_a_map_that_would_turn_the_order_round_is_not_used():
    y, p = drawn(10, 500)
    assert fit_calibration("sigmoid", 1 - p, y).kind == "none"
