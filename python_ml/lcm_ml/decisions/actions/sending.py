"""Who is contacted of the users that an action is meant for, and who is held back so that its effect can be told."""

from datetime import date, datetime

import polars as pl

from lcm_ml.decisions.actions.rules import CONTACT
from lcm_ml.decisions.experiments.assignment import assign
from lcm_ml.errors import UsageError
from lcm_ml.frames.touches import CONTROL

ARMS = (CONTROL, "treatment")


def to_send(
    actions: pl.DataFrame, offers: pl.DataFrame, as_of: date, sent_at: datetime, holdout_share: float
) -> pl.DataFrame:
    """The contacts among the actions, each with its campaign and arm.

    A campaign is a rule, a channel and an offer at an as_of_date. Arms are balanced within it.

    Args:
        actions: of `deciding.decide`.
        offers: offer, discount_share.
        as_of: the as_of_date.
        sent_at: when the lists are handed over, UTC.
        holdout_share: of each campaign's users who are held back.

    Returns:
        The columns of ml.actions_sent but for the run's, sorted by campaign and user.

    Raises:
        UsageError: for a share that is not at least 0 and below 1.
    """
    if not 0 <= holdout_share < 1:
        raise UsageError(
            f"action_holdout_share is {holdout_share:g}", "set it to at least 0 and below 1 in dbt_project.yml"
        )
    contacts = actions.filter(pl.col("action") == CONTACT).with_columns(
        campaign_id=pl.format("act-{}-{}-{}-{}", pl.lit(as_of.isoformat()), "rule_id", "channel", "offer")
    )
    arms = assign(
        contacts.select("user_id", stratum="campaign_id"),
        f"act-{as_of}",
        ARMS,
        (holdout_share, 1 - holdout_share),
        together=True,
    )
    return (
        contacts.join(arms.select("user_id", "arm"), on="user_id")
        .join(offers.select("offer", "discount_share"), on="offer", how="left")
        .select(
            "campaign_id",
            "user_id",
            "arm",
            pl.lit(sent_at).cast(pl.Datetime("us")).alias("sent_at"),
            "rule_id",
            "offer",
            "channel",
            "campaign_kind",
            "product_id",
            "send_date",
            "send_daypart",
            contact_cost=pl.when(pl.col("arm") == CONTROL).then(0.0).otherwise("contact_cost"),
            discount_share="discount_share",
            expected_profit="expected_profit",
            stage="stage",
            churn_probability="churn_probability",
            uplift_segment="uplift_segment",
            value_decile="value_decile",
        )
        .sort("campaign_id", "user_id")
    )
