"""The BG/NBD model of repeat purchases (Fader, Hardie and Lee 2005, "Counting Your Customers the Easy Way: An
Alternative to the Pareto/NBD Model", Marketing Science 24(2), 275-284).

While alive a user purchases at the rate lambda, and drops out after each purchase with the probability p:

    lambda ~ Gamma(r, alpha)          p ~ Beta(a, b)

A user is known by x (repeat purchases), t_x (age at the last purchase) and T (age now), ages counted from the first
purchase. Equation numbers below are the paper's.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import betaln, gammaln, hyp2f1

from lcm_ml.churn.estimator import FloatArray

NAMES = ("r", "alpha", "a", "b")
STEP = 1e-3
"""Of the finite differences on the log scale."""


@dataclass(frozen=True)
class BgNbd:
    """Parameters; alpha in the unit of the ages.

    `log_errors`: standard errors of the logarithms of r, alpha, a, b; NaN where the data do not bound one.
    """

    r: float
    alpha: float
    a: float
    b: float
    log_errors: tuple[float, ...] = ()

    def intervals(self, z: float = 1.96) -> dict[str, tuple[float, float]]:
        """95 % intervals from the observed information, symmetric on the log scale."""
        values = (self.r, self.alpha, self.a, self.b)
        return {
            name: (value * float(np.exp(-z * error)), value * float(np.exp(z * error)))
            for name, value, error in zip(NAMES, values, self.log_errors, strict=True)
        }

    def probability_alive(self, x: FloatArray, t_x: FloatArray, age: FloatArray) -> FloatArray:
        """P(not dropped out | x, t_x, T), shape (users,); 1 without a repeat purchase, as in the paper."""
        log_odds_dead = (
            np.log(self.a)
            - np.log(self.b + np.maximum(x, 1) - 1)
            + (self.r + x) * (np.log(self.alpha + age) - np.log(self.alpha + t_x))
        )
        return np.asarray(np.where(x > 0, 1 / (1 + np.exp(np.minimum(log_odds_dead, 700))), 1.0))

    def probability_no_purchase(self, x: FloatArray, t_x: FloatArray, age: FloatArray, days: float) -> FloatArray:
        """P(no purchase in the next `days` | x, t_x, T), shape (users,).

        Drop-out only comes with a purchase, so that a user who is alive stays silent when the Poisson process does.
        Given that it is alive its rate is Gamma(r + x, alpha + T): silence has the probability
        ((alpha + T) / (alpha + T + days)) ** (r + x).
        """
        silent = np.exp((self.r + x) * (np.log(self.alpha + age) - np.log(self.alpha + age + days)))
        return np.asarray(1 - self.probability_alive(x, t_x, age) * (1 - silent))

    def expected_purchases(self, x: FloatArray, t_x: FloatArray, age: FloatArray, days: float) -> FloatArray:
        """E(purchases in the next `days` | x, t_x, T), equation 10, shape (users,).

        The paper's 2F1 grows beyond any number with x; Euler's transformation (Abramowitz and Stegun 15.3.3) takes
        out the factor that its own power cancels, and leaves one that stays small where x <= T, as it is for days of
        purchase.
        """
        # At a = 1, or a + b + x = 1, a factor is 0 and another infinite: next to it the product is the limit.
        a = self.a if abs(self.a - 1) >= 1e-5 else 1 + 1e-5
        c = a + self.b + x - 1
        c = np.where(np.abs(c) < 1e-9, 1e-9, c)
        z = days / (self.alpha + age + days)
        one, other = a + self.b - 1 - self.r, a - 1
        series = hyp2f1(one, other, c, z)
        # scipy's overflows where c less both is a large whole number, which is rare, and is right beside it.
        if not np.isfinite(series).all():
            series = np.where(np.isfinite(series), series, hyp2f1(one, other, c * (1 + 1e-9), z))
        gone = (1 - z) ** (a - 1) * series
        return np.asarray(self.probability_alive(x, t_x, age) * c / (a - 1) * (1 - gone))


def log_likelihood(model: BgNbd, x: FloatArray, t_x: FloatArray, age: FloatArray) -> FloatArray:
    """Log-likelihood of each user (equation 6), shape (users,)."""
    r, alpha, a, b = model.r, model.alpha, model.a, model.b
    common = gammaln(r + x) - gammaln(r) + r * np.log(alpha)
    alive = betaln(a, b + x) - betaln(a, b) - (r + x) * np.log(alpha + age)
    repeated = np.maximum(x, 1)
    dead = betaln(a + 1, b + repeated - 1) - betaln(a, b) - (r + x) * np.log(alpha + t_x)
    return np.asarray(common + np.where(x > 0, np.logaddexp(alive, dead), alive))


def fit_bg_nbd(x: FloatArray, t_x: FloatArray, age: FloatArray) -> BgNbd:
    """Maximum likelihood on the log scale of the parameters.

    Users with equal x, t_x and T count as one with a weight, which makes a million users a few thousand.

    Args:
        x: repeat purchases, shape (users,).
        t_x: age at the last purchase, in days.
        age: age now, in days.
    """
    users, weights = np.unique(np.column_stack([x, t_x, age]), axis=0, return_counts=True)
    x, t_x, age = users.T
    scale = max(float(age.mean()), 1.0)

    def loss(log_parameters: FloatArray) -> float:
        r, alpha, a, b = np.exp(log_parameters)
        return -float(weights @ log_likelihood(BgNbd(r, alpha * scale, a, b), x, t_x, age) / weights.sum())

    found = minimize(
        loss, np.log([1.0, 0.2, 0.5, 2.0]), method="L-BFGS-B", bounds=[(-7, 7)] * 4, options={"ftol": 1e-13}
    )
    r, alpha, a, b = np.exp(found.x)
    information = _hessian(loss, found.x) * weights.sum()
    with np.errstate(invalid="ignore"):
        errors = np.sqrt(np.diag(np.linalg.pinv(information)))
    return BgNbd(float(r), float(alpha * scale), float(a), float(b), tuple(float(error) for error in errors))


def _hessian(value: Callable[[FloatArray], float], at: FloatArray) -> FloatArray:
    """Second derivatives by central differences."""
    size = len(at)
    steps = np.eye(size) * STEP
    return np.array(
        [
            [
                (
                    value(at + steps[i] + steps[j])
                    - value(at + steps[i] - steps[j])
                    - value(at - steps[i] + steps[j])
                    + value(at - steps[i] - steps[j])
                )
                / (4 * STEP**2)
                for j in range(size)
            ]
            for i in range(size)
        ]
    )
