"""What contacting the users above a threshold earns.

A contact costs `contact_cost`; it keeps a user who would have churned with the probability `success_rate`, which is
worth `saved_value`. A contact of a user with churn probability p then earns
p x success_rate x saved_value - contact_cost, so that the threshold follows from the costs alone (Elkan 2001, "The
foundations of cost-sensitive learning"): it needs calibrated probabilities, and no outcomes of a test date.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from lcm_ml.churn.estimator import FloatArray
from lcm_ml.churn.metrics import Measured, Outcome, Resamples, figure
from lcm_ml.errors import UsageError

STEPS = 50


@dataclass(frozen=True)
class Costs:
    """Money in base currency; success_rate between 0 and 1.

    Raises:
        UsageError: for values that make no sense.
    """

    contact_cost: float
    saved_value: float
    success_rate: float

    def __post_init__(self) -> None:
        if self.contact_cost < 0 or self.saved_value <= 0 or not 0 < self.success_rate <= 1:
            raise UsageError(
                f"contact cost {self.contact_cost:g}, saved value {self.saved_value:g} and success rate "
                f"{self.success_rate:g} allow no decision",
                "the cost must not be negative, the value must be above 0, the rate above 0 and at most 1",
            )

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> "Costs":
        """From the dbt vars of the last build."""
        return cls(
            float(settings["contact_cost"]), float(settings["saved_value"]), float(settings["contact_success_rate"])
        )

    @property
    def threshold(self) -> float:
        """The churn probability from which a contact pays; above 1 none does."""
        return self.contact_cost / (self.success_rate * self.saved_value)

    def profit(self, churn: FloatArray) -> FloatArray:
        """What contacting each user earns, given its churn (a probability, or 0 and 1)."""
        return churn * self.success_rate * self.saved_value - self.contact_cost


def profit_curve(outcome: Outcome, costs: Costs, draws: Resamples) -> pl.DataFrame:
    """Expected and realised profit for a range of thresholds.

    Args:
        outcome: calibrated probabilities of one date, and what happened.
        costs: what a contact costs and earns.
        draws: bootstrap draws of users.

    Returns:
        Columns threshold to is_chosen of ml.profit_curve, by rising threshold.
    """
    thresholds = np.unique(np.append(np.linspace(0, 1, STEPS + 1), min(costs.threshold, 1.0)))
    contacted = outcome.probability[:, None] > thresholds
    weights = draws.weights(outcome.users)
    realised = costs.profit(outcome.y)[:, None] * contacted
    # Users drawn twice count twice; the size of the shop stays.
    resampled = realised.T @ (weights * (len(outcome.y) / weights.sum(axis=0)))
    intervals = [figure(Measured(float(column.sum()), resampled[i])) for i, column in enumerate(realised.T)]
    n_contacted, n_caught = contacted.sum(axis=0), outcome.y @ contacted
    with np.errstate(divide="ignore", invalid="ignore"):
        return pl.DataFrame(
            {
                "threshold": thresholds,
                "contacted_share": n_contacted / len(outcome.y),
                "precision": n_caught / n_contacted,
                "recall": n_caught / outcome.y.sum(),
                "expected_profit": costs.profit(outcome.probability) @ contacted,
                "realised_profit": [row["value"] for row in intervals],
                "ci_low": [row["ci_low"] for row in intervals],
                "ci_high": [row["ci_high"] for row in intervals],
                "is_chosen": thresholds == min(costs.threshold, 1.0),
            }
        ).with_columns(pl.col("precision", "recall").fill_nan(None))
