"""Recorded actions of a shop whose users do what is known beforehand: for tests and benchmarks of the strategy loop."""

from collections.abc import Callable
from datetime import date

import numpy as np
import numpy.typing as npt
import polars as pl

from lcm_ml.decisions.actions.rules import read_rules
from lcm_ml.decisions.strategy.effects import effects_of

MARGIN, ORDER_VALUE, COST = 0.3, 40.0, 0.6
RULE_COLUMNS = {
    **dict.fromkeys(("rule_id", "action", "stages", "uplift_segments", "offer", "channel", "product"), pl.String),
    **dict.fromkeys(("min_churn_probability", "max_churn_probability", "min_profit"), pl.Float64),
    "max_value_decile": pl.Int64,
    "is_active": pl.Boolean,
    "priority": pl.Int64,
}
OFFERS = pl.DataFrame({"offer": ["o", "another"], "campaign_kind": ["k", "l"], "assumed_success_rate": [0.1, 0.1]})
CHANNELS = pl.DataFrame({"channel": ["mail"]})


def a_rule(rule_id: str, **changed: object) -> dict[str, object]:
    usual = {"rule_id": rule_id, "action": "contact", "is_active": True, "offer": "o", "channel": "mail"}
    return dict.fromkeys(RULE_COLUMNS) | usual | changed


def rules_of(*rules: dict[str, object]) -> pl.DataFrame:
    return pl.DataFrame([rule | {"priority": place} for place, rule in enumerate(rules)], schema=RULE_COLUMNS)


def effects(sent: pl.DataFrame, rules: pl.DataFrame) -> pl.DataFrame:
    return effects_of(sent, read_rules(rules, OFFERS, CHANNELS), MARGIN, 28)


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
            "value_decile": 1,
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
