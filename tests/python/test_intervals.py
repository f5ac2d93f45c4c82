"""Intervals of means over users: drawn in a small shop, the normal ones they come to in a large one."""

import numpy as np
import pytest

from lcm_ml.insights import intervals
from lcm_ml.insights.intervals import mean_interval


@pytest.mark.parametrize("weighted", [False, True])
def test_many_users_have_the_interval_that_resamples_give(monkeypatch: pytest.MonkeyPatch, weighted: bool):
    rng = np.random.default_rng(1)
    spend = rng.lognormal(2.0, 1.0, 20_000)
    weights = rng.integers(0, 5, len(spend)).astype(float) if weighted else None
    at_once = mean_interval(spend, weights)
    monkeypatch.setattr(intervals, "MANY", 10**9)
    drawn = mean_interval(spend, weights, draws=4000)
    assert at_once[0] == drawn[0]
    width = drawn[2] - drawn[1]
    assert at_once[1:] == pytest.approx(drawn[1:], abs=0.04 * width)


@pytest.mark.parametrize("users", [200, intervals.MANY])
def test_the_interval_holds_the_true_mean_as_often_as_it_says(users: int):
    rng = np.random.default_rng(2)
    inside = 0
    for n in range(300):
        _, low, high = mean_interval(rng.exponential(1.0, users), seed=n, draws=400)
        inside += low <= 1.0 <= high
    assert 0.89 <= inside / 300 <= 0.98


def test_nobody_has_no_interval():
    assert all(np.isnan(end) for end in mean_interval([]))
    assert all(np.isnan(end) for end in mean_interval([1.0, 2.0], [0.0, 0.0]))
