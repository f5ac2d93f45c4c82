"""How much users will purchase, from when they did and for how much: BG/NBD for how often, Gamma-Gamma for how much."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from lcm_ml.churn.bg_nbd import BgNbd, fit_bg_nbd
from lcm_ml.errors import LcmError
from lcm_ml.insights.conformal import LEVELS
from lcm_ml.insights.gamma_gamma import GammaGamma, fit_gamma_gamma

FloatArray = npt.NDArray[np.float64]

NAME = "bg_nbd"
MIN_REPEATERS = 30
"""Users with a second day of purchase, below which four parameters are no more than noise."""
TOO_FEW = f"fewer than {MIN_REPEATERS} users paid and purchased on a second day: too few for a model of their purchases"
MAX_FITTED = 100_000
"""Users that the likelihood runs over; more would not change the figures that are shown."""
DAYS_PER_MONTH, DAYS_PER_YEAR = 365.25 / 12, 365.25
LIFETIME_MONTHS = 36
CHUNK = 20_000
"""Users simulated at once, which bounds the memory."""


@dataclass(frozen=True)
class PurchaseModel:
    """Fitted to every user who had purchased by a date.

    `paid_share`: share of days of purchase with an amount above 0, which is what Gamma-Gamma speaks of.
    """

    purchases: BgNbd
    worth: GammaGamma
    paid_share: float

    @property
    def unit(self) -> float:
        """What a day of purchase is usually worth."""
        return self.worth.mean

    def predict(self, users: pl.DataFrame, days: int) -> pl.DataFrame:
        """What users will purchase in the next `days`.

        Args:
            users: rows of `frames.purchase_history.purchase_summaries`.
            days: the horizon.

        Returns:
            user_id, as_of_date, expected_purchases, expected_amount, probability_alive; a row for each row.
        """
        x, t_x, age = _history(users)
        purchases = self.purchases.expected_purchases(x, t_x, age, days)
        return users.select("user_id", "as_of_date").with_columns(
            expected_purchases=purchases,
            expected_amount=purchases * self.value_of_purchase(users),
            probability_alive=self.purchases.probability_alive(x, t_x, age),
        )

    def value_of_purchase(self, users: pl.DataFrame) -> FloatArray:
        """Expected spend on a day of purchase, shape (users,)."""
        count, total = users["paid_days"].to_numpy(), users["paid_amount"].to_numpy()
        return self.paid_share * self.worth.expected_value(count, total)

    def lifetime(self, users: pl.DataFrame, discount_rate: float) -> pl.DataFrame:
        """Discounted spend over the next LIFETIME_MONTHS months.

        Purchases of a month count as if made in its middle: their expected number times their expected value over
        (1 + rate) ** years.

        Args:
            users: rows of `frames.purchase_history.purchase_summaries`.
            discount_rate: a year's, 0.1 for 10 %.

        Returns:
            user_id, as_of_date, lifetime_value, purchase_value (expected spend on a day of purchase) and value_decile
            (1 is the highest tenth), a row for each row.
        """
        history = _history(users)
        before, discounted = np.zeros(users.height), np.zeros(users.height)
        for month in range(1, LIFETIME_MONTHS + 1):
            until = self.purchases.expected_purchases(*history, month * DAYS_PER_MONTH)
            discounted += (until - before) / (1 + discount_rate) ** ((month - 0.5) / 12)
            before = until
        value = self.value_of_purchase(users)
        return (
            users.select("user_id", "as_of_date")
            .with_columns(lifetime_value=discounted * value, purchase_value=value)
            .with_columns(value_decile=tenth(pl.col("lifetime_value")))
        )

    def quantiles(self, users: pl.DataFrame, horizons: Sequence[int], seed: int = 0) -> dict[int, FloatArray]:
        """Quantiles of the spend in each horizon at conformal.LEVELS, shape (users, 4), by simulation.

        Each user is drawn from what its history leaves open: whether it is there, its rate, its drop-out probability,
        and the worth of its purchases.
        """
        rng = np.random.default_rng(seed)
        draws = 300 if users.height <= CHUNK else 100
        parts = [
            self._simulated(users.slice(start, CHUNK), sorted(horizons), draws, rng)
            for start in range(0, users.height, CHUNK)
        ]
        return {
            days: np.concatenate([part[place] for part in parts]) if parts else np.empty((0, len(LEVELS)))
            for place, days in enumerate(sorted(horizons))
        }

    def _simulated(
        self, users: pl.DataFrame, horizons: Sequence[int], draws: int, rng: np.random.Generator
    ) -> list[FloatArray]:
        x, t_x, age = (values[:, None] for values in _history(users))
        bought, worth = self.purchases, self.worth
        size = (users.height, draws)
        alive = rng.random(size) < bought.probability_alive(x, t_x, age)
        rate = rng.standard_gamma(bought.r + x, size) / (bought.alpha + age) * alive
        # Drop-out comes with purchase number Geometric(p), p ~ Beta(a, b + x), as the posterior of who is there has it.
        p = rng.beta(bought.a, bought.b + x, size)
        last = np.ceil(np.log(rng.random(size)) / np.log1p(-np.clip(p, 1e-12, 1 - 1e-12)))
        count, total = (users[name].to_numpy()[:, None] for name in ("paid_days", "paid_amount"))
        scale = (worth.gamma + total) / rng.standard_gamma(worth.p * count + worth.q, size)
        made, spent, begun, found = np.zeros(size), np.zeros(size), 0, []
        for days in horizons:
            now = np.minimum(made + rng.poisson(rate * (days - begun)), last)
            spent = spent + rng.standard_gamma(worth.p * self.paid_share * (now - made)) * scale
            found.append(np.quantile(spent, LEVELS, axis=1).T)
            made, begun = now, days
        return found


def tenth(value: pl.Expr) -> pl.Expr:
    """1 for the highest tenth of the rows to 10 for the lowest; equal values in the order of the rows."""
    rank = value.rank("ordinal", descending=True)
    return ((rank - 1) * 10 // pl.len() + 1).cast(pl.Int32)


def is_enough(users: pl.DataFrame) -> bool:
    """Whether enough users purchased a second time, and paid, for `fit_purchase_model`."""
    return all(users.filter(pl.col(name) > 0).height >= MIN_REPEATERS for name in ("repeats", "paid_days"))


def fit_purchase_model(users: pl.DataFrame, seed: int = 0) -> PurchaseModel:
    """Fit both models to the users of one date, by maximum likelihood.

    Args:
        users: rows of `frames.purchase_history.purchase_summaries` at one date.
        seed: of the choice of users, where there are more than MAX_FITTED.

    Raises:
        LcmError: when too few users purchased twice, or nobody paid.
    """
    if not is_enough(users):
        raise LcmError(TOO_FEW, "load more history")
    paying = users.filter(pl.col("paid_days") > 0)
    some = users.sample(MAX_FITTED, seed=seed) if users.height > MAX_FITTED else users
    paying = paying.sample(MAX_FITTED, seed=seed) if paying.height > MAX_FITTED else paying
    worth = fit_gamma_gamma(paying["paid_days"].to_numpy(), paying["paid_amount"].to_numpy())
    days = float((users["repeats"] + 1).sum())
    return PurchaseModel(fit_bg_nbd(*_history(some)), worth, float(users["paid_days"].sum()) / days)


def _history(users: pl.DataFrame) -> tuple[FloatArray, FloatArray, FloatArray]:
    x, t_x, age = (users[name].to_numpy() for name in ("repeats", "last_age", "age"))
    return x, t_x, age
