"""BG/NBD against the shop that was simulated from it, and against a slow computation by other means."""

import numpy as np
import polars as pl
import pytest
from scipy.stats import beta, gamma

from lcm_ml.churn.bg_nbd import NAMES, BgNbd, fit_bg_nbd, log_likelihood
from lcm_ml.sources.simulate import SimulationConfig, simulate

MODEL = BgNbd(0.9, 14.0, 0.7, 2.5)
USERS = [(0, 0.0, 60.0), (1, 10.0, 60.0), (4, 50.0, 60.0), (12, 55.0, 200.0), (3, 20.0, 300.0)]


def by_quadrature(x: int, t_x: float, age: float, ahead: float) -> tuple[float, float, float]:
    """Likelihood, P(alive) and P(no purchase ahead): means over a fine grid of users of each user's own process."""
    middles = (np.arange(1500) + 0.5) / 1500
    rate = gamma.ppf(middles, MODEL.r, scale=1 / MODEL.alpha)[:, None]
    p = beta.ppf(middles, MODEL.a, MODEL.b)[None, :]
    alive = (1 - p) ** x * rate**x * np.exp(-rate * age)
    dead = p * (1 - p) ** (x - 1) * rate**x * np.exp(-rate * t_x) if x else np.zeros_like(alive)
    total = (alive + dead).mean()
    return total, alive.mean() / total, (dead + alive * np.exp(-rate * ahead)).mean() / total


@pytest.mark.parametrize("user", USERS)
def test_the_closed_forms_agree_with_quadrature(user):
    x, t_x, age = (np.array([float(value)]) for value in user)
    likelihood, alive, silent = by_quadrature(*user, ahead=28.0)
    assert np.exp(log_likelihood(MODEL, x, t_x, age))[0] == pytest.approx(likelihood, rel=5e-3)
    assert MODEL.probability_alive(x, t_x, age)[0] == pytest.approx(alive, abs=3e-3)
    assert MODEL.probability_no_purchase(x, t_x, age, 28.0)[0] == pytest.approx(silent, abs=3e-3)


def histories(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, SimulationConfig]:
    config = SimulationConfig(users=20_000, days=400, seed=seed, preset="plain")
    events = simulate(config).tables["events"]
    end = pl.lit(config.end_date).cast(pl.Datetime)
    days = 86_400_000_000
    summary = events.group_by("user_id").agg(
        x=(pl.col("order_id").n_unique() - 1).cast(pl.Float64),
        t_x=(pl.col("event_time").max() - pl.col("event_time").min()).dt.total_microseconds() / days,
        age=(end - pl.col("event_time").min()).dt.total_microseconds() / days,
    )
    return *(summary.get_column(name).to_numpy() for name in ("x", "t_x", "age")), config


def test_the_simulators_parameters_are_recovered_within_their_intervals():
    x, t_x, age, config = histories(5)
    found = fit_bg_nbd(x, t_x, age)
    truth = config.parameters.purchases
    for name, (low, high) in found.intervals(z=2.58).items():
        assert low < getattr(truth, name) < high, (name, low, high)
        assert high / low < 1.5, name
    assert list(found.intervals()) == list(NAMES)


def test_more_silence_is_more_likely_when_it_has_lasted():
    ages = np.linspace(10, 300, 30)
    silent = MODEL.probability_no_purchase(np.full(30, 5.0), np.full(30, 10.0), ages, 28)
    assert (np.diff(silent) > 0).all()
    assert MODEL.probability_alive(np.array([0.0]), np.array([0.0]), np.array([500.0]))[0] == 1
