"""What contacting a user with an offer through a channel is expected to earn.

Where uplift was measured for the offer's kind of campaign, a contact adds `effect` to what the user purchases, of which
the margin is earned. The discount is given on every order that takes it up, so also on those that would have come
anyway: an offer to a sure thing costs money. Where nothing was measured, the contact is assumed to keep a share of the
users about to churn.

Whoever takes the largest of many noisy effects takes mostly noise. So each effect is drawn to the mean of its kind of
campaign by as much as its standard error says it is noise (empirical Bayes: Efron and Morris 1973).
"""

from dataclasses import dataclass
from typing import Any

import polars as pl

from lcm_ml.errors import UsageError

UPLIFT, ASSUMED = "uplift", "assumed"
PRIOR_ORDERS = 1.0
"""Orders of the shop's mean value that a user's own mean value is drawn to."""


@dataclass(frozen=True)
class Economics:
    """Money in base currency, shares between 0 and 1.

    Raises:
        UsageError: for values that make no sense.
    """

    margin: float
    saved_value: float
    success_rate: float

    def __post_init__(self) -> None:
        if not 0 < self.margin <= 1 or self.saved_value <= 0 or not 0 < self.success_rate <= 1:
            raise UsageError(
                f"gross_margin {self.margin:g}, saved_value {self.saved_value:g} and contact_success_rate "
                f"{self.success_rate:g} allow no decision",
                "in dbt_project.yml the shares must be above 0 and at most 1, the value above 0",
            )

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> "Economics":
        """From the dbt vars of the last build."""
        return cls(
            float(settings["gross_margin"]), float(settings["saved_value"]), float(settings["contact_success_rate"])
        )


@dataclass(frozen=True)
class Means:
    """What a shop's users have in common, for gains of some of them.

    Attributes:
        order_value: of all orders, base currency; 0 where there is none.
        effects: of `effect_means`.
    """

    order_value: float
    effects: pl.DataFrame


def expected_gains(
    users: pl.DataFrame,
    offers: pl.DataFrame,
    channels: pl.DataFrame,
    uplift: pl.DataFrame,
    tried: pl.DataFrame,
    economics: Economics,
    means: Means | None = None,
) -> pl.DataFrame:
    """Each user, offer and channel with what a contact is expected to earn.

    Args:
        users: user_id, has_purchased, orders, amount, churn_probability (null: not scored; then a user that has
            purchased counts as leaving, as far as it is not gone already) and probability_alive (null: not known).
        offers: offer, campaign_kind, discount_share, assumed_success_rate.
        channels: channel, cost_per_contact.
        uplift: user_id, campaign_kind, outcome, effect, standard_error, baseline_probability.
        tried: campaign_kind, channel; an effect is known only of the channels that campaigns of the kind went through.
        economics: margin, and what an assumed success is worth.
        means: of the whole shop; where None, `users` and `uplift` are the whole.

    Returns:
        user_id, offer, campaign_kind, channel, contact_cost, discount_cost, expected_profit, standard_error (of it;
        null where assumed) and gain_source. No rows for what nothing is known of: neither an effect nor a purchase.
        In the order of users, offers, channels.
    """
    if means is None:
        orders, amount = float(users["orders"].sum()), float(users["amount"].sum())
        means = Means(amount / orders if orders else 0.0, effect_means(uplift))
    drawn_to = PRIOR_ORDERS * means.order_value
    order_value = ((pl.col("amount") + drawn_to) / (pl.col("orders") + PRIOR_ORDERS)).clip(0)
    pairs = (
        users.select("user_id", "has_purchased", "churn_probability", "probability_alive", order_value=order_value)
        .join(offers, how="cross", maintain_order="left_right")
        .join(shrunk(uplift, means.effects), on=["user_id", "campaign_kind"], how="left", maintain_order="left")
    )
    measured = pl.col("effect").is_not_null()
    value, share = pl.col("order_value"), pl.col("discount_share")

    is_money = pl.col("outcome") == "spend"
    money = pl.when(is_money).then(pl.col("effect")).otherwise(pl.col("effect") * value)
    money_error = pl.when(is_money).then(pl.col("standard_error")).otherwise(pl.col("standard_error") * value)
    measured_discount = share * (pl.col("baseline_probability") * value + money).clip(0)

    churn = pl.col("churn_probability").fill_null(1.0)
    # Who has left for good is not kept by anything: of users that are not scored many have.
    there = pl.when(pl.col("churn_probability").is_null()).then(pl.col("probability_alive")).fill_null(1.0)
    success = churn * there * pl.col("assumed_success_rate").fill_null(economics.success_rate)
    assumed_discount = share * value * (1 - churn + success)

    by_offer = pairs.filter(measured | pl.col("has_purchased")).select(
        "user_id",
        "offer",
        "campaign_kind",
        discount_cost=pl.when(measured).then(measured_discount).otherwise(assumed_discount),
        earned=pl.when(measured).then(economics.margin * money).otherwise(success * economics.saved_value),
        standard_error=pl.when(measured).then((economics.margin - share).abs() * money_error),
        gain_source=pl.when(measured).then(pl.lit(UPLIFT)).otherwise(pl.lit(ASSUMED)),
    )
    options = by_offer.join(
        channels.select("channel", contact_cost="cost_per_contact"), how="cross", maintain_order="left_right"
    ).join(
        tried.unique().with_columns(is_tried=True), on=["campaign_kind", "channel"], how="left", maintain_order="left"
    )
    return options.filter(pl.col("is_tried").fill_null(False) | (pl.col("gain_source") == ASSUMED)).select(
        "user_id",
        "offer",
        "campaign_kind",
        "channel",
        "contact_cost",
        "discount_cost",
        expected_profit=pl.col("earned") - pl.col("discount_cost") - pl.col("contact_cost"),
        standard_error="standard_error",
        gain_source="gain_source",
    )


def effect_means(uplift: pl.DataFrame) -> pl.DataFrame:
    """The mean effect of each kind of campaign, and what effects vary by beyond their noise.

    Args:
        uplift: campaign_kind, effect, standard_error; of all users.

    Returns:
        campaign_kind, mean, truth (a variance).
    """
    noise = (pl.col("standard_error") ** 2).mean()
    return uplift.group_by("campaign_kind", maintain_order=True).agg(
        mean=pl.col("effect").mean(), truth=(pl.col("effect").var() - noise).clip(0).fill_null(0.0)
    )


def shrunk(uplift: pl.DataFrame, means: pl.DataFrame) -> pl.DataFrame:
    """The effects drawn to the mean of their kind. Standard errors stay: what the mean is wrong by is not told.

    Args:
        uplift: campaign_kind, effect, standard_error.
        means: of `effect_means`.

    Returns:
        The same rows and columns.
    """
    noise, truth, mean = pl.col("standard_error") ** 2, pl.col("truth"), pl.col("mean")
    weight = pl.when(noise > 0).then(truth / (truth + noise)).otherwise(1.0)
    return (
        uplift.join(means, on="campaign_kind", how="left", maintain_order="left")
        .with_columns(effect=mean + weight * (pl.col("effect") - mean))
        .drop("mean", "truth")
    )
