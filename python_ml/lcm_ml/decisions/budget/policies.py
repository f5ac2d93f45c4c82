"""Policies that go through a list of users until the money is spent."""

import numpy as np

from lcm_ml.churn.estimator import FloatArray
from lcm_ml.decisions.budget.allocation import IntArray, Options


def in_order(options: Options, rank: IntArray, capacity: FloatArray, *preference: FloatArray) -> IntArray:
    """The option of each user, in the order in which users have their turn.

    A user takes the most preferred option whose channel is not full yet; who finds all of them full goes without.

    Args:
        options: those that the policy considers.
        rank: of each option's user, lowest first, shape (options,); no two users have the same.
        capacity: most options of each channel, shape (channels,).
        preference: of each option among its user's, lowest first; a later one where earlier ones are equal.
    """
    waiting = np.lexsort((*reversed(preference), rank))
    while True:
        turn = waiting[np.diff(options.user[waiting], prepend=-1) != 0]
        channel = options.channel[turn]
        full = [turn[channel == place][int(most) :] for place, most in enumerate(capacity) if np.isfinite(most)]
        refused = np.concatenate([turn[:0], *full])
        if not len(refused):
            return np.asarray(turn)
        waiting = waiting[~np.isin(waiting, refused)]


def affordable(options: Options, order: IntArray, budget: float) -> IntArray:
    """The first options of an order that the budget pays for, up to the first that it does not."""
    spent = options.cost[order].cumsum()
    return order[: np.searchsorted(spent, budget * (1 + 1e-12), side="right")]
