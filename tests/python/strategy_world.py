"""Recorded actions of a shop whose users do what is known beforehand: for tests and benchmarks of the strategy loop."""

from collections.abc import Callable
from datetime import date

import numpy as np
import numpy.typing as npt
import polars as pl

MARGIN, ORDER_VALUE, COST = 0.3, 40.0, 0.6
RULE_COLUMNS = {
    **dict.fromkeys(("rule_id", "action", "stages", "uplift_segments", "offer", "channel"), pl.String),
    **dict.fromkeys(("min_churn_probability", "max_churn_probability"), pl.Float64),
    "is_active": pl.Boolean,
    "priority": pl.Int64,
}


def a_rule(rule_id: str, **changed: object) -> dict[str, object]:
    empty = dict.fromkeys(RULE_COLUMNS)
    return empty | {"rule_id": rule_id, "action": "contact", "is_active": True, "priority": 1, "offer": "o"} | changed


def rules_of(*rules: dict[str, object]) -> pl.DataFrame:
    return pl.DataFrame(list(rules), schema=RULE_COLUMNS)


Floats = npt.NDArray[np.float64]
Added = Callable[[Floats, npt.NDArray[np.str_]], Floats]
"""Probability of a purchase that a contact adds, from churn probability and stage."""


def outcomes(
    seed: int,
    rule_id: str = "r",
    n: int = 6000,
    added: Added | float = 0.0,
    held: float = 0.3,
    discount: float = 0.0,
    sent_on: date = date(2026, 1, 1),
) -> pl.DataFrame:
    """Users of a rule with a churn probability of 0.2 to 1, of whom the share `held` was not contacted."""
    rng = np.random.default_rng(seed)
    churn, stages = rng.uniform(0.2, 1.0, n), rng.choice(["active", "loyal"], n)
    control = rng.random(n) < held
    gain = np.full(n, added) if isinstance(added, float) else added(churn, stages)
    orders = (rng.random(n) < np.clip(1 - churn + np.where(control, 0.0, gain), 0, 1)).astype(float)
    return pl.DataFrame(
        {
            "campaign_id": f"act-{sent_on}-{rule_id}",
            "user_id": [f"{rule_id}{i}" for i in range(n)],
            "arm": np.where(control, "control", "treatment"),
            "rule_id": rule_id,
            "offer": "o",
            "channel": "mail",
            "stage": stages,
            "uplift_segment": "unknown",
            "churn_probability": churn,
            "expected_profit": 1.0,
            "contact_cost": np.where(control, 0.0, COST),
            "discount_share": discount,
            "sent_date": sent_on,
            "spend": orders * rng.gamma(4.0, ORDER_VALUE / 4, n),
            "orders": orders,
            "is_purchased": orders > 0,
            "spend_before": rng.gamma(2.0, 40.0, n) * (1.2 - churn),
        }
    )
