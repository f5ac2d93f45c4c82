"""The Gamma-Gamma model of what a purchase is worth (Fader and Hardie 2013, "The Gamma-Gamma Model of Monetary Value",
http://www.brucehardie.com/notes/025/).

A user's purchases are worth Gamma(p, nu) each, and nu differs between users:

    nu ~ Gamma(q, gamma)          both with rates, as in the note

so that p q gamma say how much purchases vary within and between users. Worth is independent of how often one buys.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import gammaln

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class GammaGamma:
    """Parameters; gamma in the unit of the amounts. q is above 1: the population's mean is finite."""

    p: float
    q: float
    gamma: float

    @property
    def mean(self) -> float:
        """Expected worth of a purchase of a user that nothing is known of."""
        return self.p * self.gamma / (self.q - 1)

    def expected_value(self, count: FloatArray, total: FloatArray) -> FloatArray:
        """E(worth of a purchase | `count` purchases worth `total` together), equation 5, shape (users,).

        A mean of the population's and the user's own, whose weight grows with the count.
        """
        return np.asarray(self.p * (self.gamma + total) / (self.p * count + self.q - 1))


def log_likelihood(model: GammaGamma, count: FloatArray, total: FloatArray) -> FloatArray:
    """Log-likelihood of each user's mean amount (equation 1a), shape (users,); counts and totals are above 0."""
    shape = model.p * count
    mean = total / count
    return np.asarray(
        gammaln(shape + model.q)
        - gammaln(shape)
        - gammaln(model.q)
        + model.q * np.log(model.gamma)
        + (shape - 1) * np.log(mean)
        + shape * np.log(count)
        - (shape + model.q) * np.log(model.gamma + total)
    )


def fit_gamma_gamma(count: FloatArray, total: FloatArray) -> GammaGamma:
    """Maximum likelihood, on the log scale of p, q - 1 and gamma.

    Args:
        count: purchases with an amount above 0, at least 1, shape (users,).
        total: their sum.
    """
    unit = float(total.sum() / count.sum())

    def model(logs: FloatArray) -> GammaGamma:
        p, above_one, gamma = np.exp(logs)
        return GammaGamma(float(p), float(1 + above_one), float(gamma))

    def loss(logs: FloatArray) -> float:
        return -float(np.mean(log_likelihood(model(logs), count, total / unit)))

    found = minimize(loss, np.log([2.0, 2.0, 1.5]), method="L-BFGS-B", bounds=[(-9, 9)] * 3, options={"ftol": 1e-13})
    best = model(found.x)
    return GammaGamma(best.p, best.q, best.gamma * unit)
