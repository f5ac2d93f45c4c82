"""Users whose effects are known and estimated, so that a plan on estimates can be held against the truth."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from simulated_uplift import campaign

from lcm_ml.decisions.budget.planning import OPTIMISED, plan_budget
from lcm_ml.decisions.gains import Economics, expected_gains
from lcm_ml.decisions.uplift.learners import fit_learners
from lcm_ml.decisions.uplift.uplifting import fit_effects

KINDS = {"newsletter": 0.4, "discount": 1.0, "winback": 1.6}
"""Kinds of campaigns, and how much users' effects differ (simulated_uplift.campaign)."""
OFFERS = pl.DataFrame(
    {
        "offer": ["news", "discount_10", "winback_15"],
        "campaign_kind": list(KINDS),
        "discount_share": [0.0, 0.1, 0.15],
        "assumed_success_rate": [0.02, 0.1, 0.05],
    }
)
CHANNELS = pl.DataFrame(
    {"channel": ["email", "push", "mail"], "cost_per_contact": [0.05, 0.01, 0.6]},
).with_columns(capacity=pl.lit(None, pl.Int64))
TRIED = pl.DataFrame({"campaign_kind": list(KINDS), "channel": ["push", "email", "mail"]})
ECONOMICS = Economics(margin=0.3, saved_value=40.0, success_rate=0.2)


@dataclass(frozen=True)
class Known:
    """The same users, with effects as estimated and as they are (columns of `frames.decisions.uplift_at`)."""

    users: pl.DataFrame
    estimated: pl.DataFrame
    true: pl.DataFrame


def simulated(learning: int, users: int, seed: int, *, errors: bool = False) -> Known:
    """Learn effects of three kinds from campaigns of `learning` users, and tell those of `users` others.

    Their standard errors take nine times as long; without `errors` they are 0.
    """
    estimated, true = [], []
    for place, (kind, spread) in enumerate(KINDS.items()):
        past = campaign(learning, 100 * seed + place, spread=spread).trial
        now = campaign(users, 100 * seed + 50, spread=spread)
        if errors:
            effect, error = fit_effects(past, "x_learner", seed)(now.trial.x)
        else:
            effect, error = fit_learners(past, seed, ("x_learner",)).effects["x_learner"](now.trial.x), np.zeros(users)
        same = {"user_id": np.arange(users), "campaign_kind": kind, "outcome": "purchase"}
        base = {"baseline_probability": now.baseline}
        estimated.append(pl.DataFrame({**same, "effect": effect, "standard_error": error, **base}))
        true.append(pl.DataFrame({**same, "effect": now.expected_effect, "standard_error": 0.0, **base}))
    rng = np.random.default_rng(seed)
    orders = now.trial.x[:, 5].astype(np.float64)
    people = pl.DataFrame(
        {
            "user_id": np.arange(users),
            "has_purchased": orders > 0,
            "orders": orders,
            "amount": orders * rng.lognormal(3.5, 0.5, users),
            "churn_probability": 1 - now.baseline,
            "probability_alive": 1.0,
        }
    )
    return Known(people, pl.concat(estimated), pl.concat(true))


def true_profits(planned: pl.DataFrame, true: pl.DataFrame) -> float:
    """What contacts bring by the true gains."""
    keys = ["user_id", "offer", "channel"]
    return float(planned.select(keys).join(true, on=keys, how="left")["expected_profit"].sum())


def regrets(
    users: pl.DataFrame,
    gains: pl.DataFrame,
    true: pl.DataFrame,
    channels: pl.DataFrame,
    shares: tuple[float, ...],
    seed: int = 0,
) -> list[dict[str, float | str]]:
    """Each policy's true profit beside that of the linear programme on true gains, under the same budgets.

    Args:
        users: of the plan.
        gains: options as estimated, of users, offers and channels that are permitted.
        true: the same options with their true gains.
        channels: with their capacity.
        shares: budgets as shares of the least at which nothing more pays by the true gains.
        seed: of the plan.
    """
    most = plan_budget(true, users, channels, 0.0, seed, steps=1).most
    rows: list[dict[str, float | str]] = []
    for share in shares:
        oracle = plan_budget(true, users, channels, share * most, seed, steps=1).contacts.filter(policy=OPTIMISED)
        best = float(oracle["expected_profit"].sum())
        plan = plan_budget(gains, users, channels, share * most, seed, steps=1)
        for row in plan.policies.filter("is_asked").to_dicts():
            profit = true_profits(plan.contacts.filter(policy=row["policy"]), true)
            told = {"budget": round(share * most, 2), "expected": row["expected_profit"], "ci_low": row["ci_low"]}
            figures = {"ci_high": row["ci_high"], "profit": profit, "oracle": best, "regret": 1 - profit / best}
            rows.append({"share": share, "policy": row["policy"], **told, **figures})
    return rows


def gains_of(known: Known, uplift: pl.DataFrame) -> pl.DataFrame:
    """Options of everybody, without consent or limits."""
    return expected_gains(known.users, OFFERS, CHANNELS, uplift, TRIED, ECONOMICS)


LIFTS = {"discount": 1.0, "newsletter": 0.4, "winback": 0.7}
LAPSED_LIFT, LAPSED_DAYS, EFFECT_DAYS = 1.8, 21, 14


def true_effects(users: pl.DataFrame, truth: pl.DataFrame) -> pl.DataFrame:
    """What `lcm-ml uplift` would tell of a simulated shop if it knew the truth, as docs/simulator.md has it.

    Args:
        users: of frames.decisions.users_to_decide.
        truth: truth_users of the shop.

    Returns:
        The columns of frames.decisions.uplift_at that gains need: extra orders of a touch, and the chance of an order
        without one, by user and kind of campaign.
    """
    known = users.select("user_id", "days_since_last_purchase").join(truth, on="user_id", how="inner")
    lapsed = pl.col("days_since_last_purchase") >= LAPSED_DAYS
    lives = pl.col("stage") == "alive"
    return pl.concat(
        known.select(
            "user_id",
            campaign_kind=pl.lit(kind),
            outcome=pl.lit("orders"),
            effect=(pl.col("treatment_effect") * lift * pl.when(lapsed).then(LAPSED_LIFT).otherwise(1.0)).clip(0, 0.9),
            standard_error=pl.lit(0.0),
            baseline_probability=pl.when(lives).then(1 - (-EFFECT_DAYS * pl.col("purchase_rate")).exp()).otherwise(0.0),
        )
        for kind, lift in LIFTS.items()
    )
