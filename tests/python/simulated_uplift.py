"""A campaign whose effects are known: observed features, an effect that depends on them, and noise around it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lcm_ml.churn.estimator import FloatArray
from lcm_ml.decisions.uplift.trial import Trial

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Campaign:
    """A trial; of each row, the effect expected given its features and the chance of a purchase without a touch."""

    trial: Trial
    expected_effect: Array
    baseline: Array


def campaign(
    users: int, seed: int, *, observational: bool = False, spread: float = 1.0, extreme: float = 0.0
) -> Campaign:
    """Draw a campaign.

    The effects follow docs/simulator.md (deal seekers, paid search, app, 1.8 times for who was away for 21 days), with
    users who are put off besides. Nine other features tell of purchases or of nothing.

    Args:
        users: rows, one each.
        seed: of everything.
        observational: who purchases more is touched more often.
        spread: times the differences between users' effects; 0 gives everybody the same.
        extreme: how strongly the touch follows the features, besides: large values leave no overlap.
    """
    rng = np.random.default_rng(seed)
    discount = rng.beta(0.7, 1.3, users)
    paid, app, put_off = (rng.random(users) < share for share in (0.25, 0.35, 0.15))
    recency = np.minimum(rng.exponential(25, users), 200)
    orders = rng.poisson(rng.gamma(1.5, 2.0, users))
    others = rng.normal(size=(users, 8))
    base = 1 / (1 + np.exp(-(-1.2 + 0.25 * np.sqrt(orders) - 0.02 * recency + 0.3 * others[:, 0])))
    effect = 0.02 + 0.15 * discount + 0.06 * paid + 0.05 * app - 0.16 * put_off
    effect = np.where(recency >= 21, 1.8, 1.0) * effect
    effect = effect.mean() + spread * (effect - effect.mean())
    # The noise is bounded by what keeps probabilities inside 0 to 1, so that its mean given the features stays 0.
    room = np.minimum(0.04, np.minimum(base + effect, 1 - base - effect)).clip(0)
    expected = np.clip(base + effect, 0, 1) - base
    own = expected + rng.uniform(-1, 1, users) * room
    lean = (1.2 * observational + extreme) * (np.sqrt(orders) - 1.5 + others[:, 0])
    propensity = 1 / (1 + np.exp(-lean))
    treated = (rng.random(users) < propensity).astype(np.float64)
    outcome = (rng.random(users) < base + treated * own).astype(np.float64)
    x = np.column_stack([discount, paid, app, put_off, recency, orders, others]).astype(np.float32)
    trial = Trial(x, treated, outcome, propensity, np.arange(users))
    return Campaign(trial, expected, base)


def policy_share(expected: FloatArray, ranking: FloatArray, *, cost: float) -> float:
    """What treating wherever the prediction is above the cost brings, as a share of the best that features allow.

    Args:
        expected: the effect given the features, shape (rows,).
        ranking: as predicted, shape (rows,).
        cost: of a touch, in outcomes.
    """
    best = np.where(expected > cost, expected - cost, 0).sum()
    return float(np.where(ranking > cost, expected - cost, 0).sum() / best)
