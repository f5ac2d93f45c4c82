"""Who may be contacted through which channel: consent, and how often one was contacted lately."""

from datetime import date

import polars as pl

NO_CONSENT = "no_consent"
SUSPECTED_BOT = "suspected_bot"
CONTACTED_RECENTLY = "contacted_recently"
TOO_MANY_CONTACTS = "too_many_contacts"


def eligibility(
    users: pl.DataFrame, channels: pl.DataFrame, contacts: pl.DataFrame, as_of: date, max_contacts_28d: int
) -> pl.DataFrame:
    """Each user and channel, with what forbids a contact.

    Who refused is never contacted; who was never asked only through channels that need no consent. A channel's
    min_days_between counts its own contacts, max_contacts_28d those of all channels.

    Args:
        users: user_id, marketing_consent, is_suspected_bot.
        channels: channel, needs_consent, min_days_between.
        contacts: user_id, channel, last_contact_date, contacts_28d.
        as_of: the day of the contact.
        max_contacts_28d: of one user.

    Returns:
        user_id, channel, blocked_by (null: may be contacted); in the order of `users`, then of `channels`.
    """
    total = contacts.group_by("user_id").agg(total=pl.col("contacts_28d").sum())
    pairs = (
        users.select("user_id", "marketing_consent", "is_suspected_bot")
        .join(channels.select("channel", "needs_consent", "min_days_between"), how="cross", maintain_order="left_right")
        .join(contacts.drop("contacts_28d"), on=["user_id", "channel"], how="left", maintain_order="left")
        .join(total, on="user_id", how="left", maintain_order="left")
    )
    consents = pl.col("marketing_consent").fill_null(~pl.col("needs_consent"))
    days = (pl.lit(as_of) - pl.col("last_contact_date")).dt.total_days()
    return pairs.select(
        "user_id",
        "channel",
        blocked_by=pl.when("is_suspected_bot")
        .then(pl.lit(SUSPECTED_BOT))
        .when(~consents)
        .then(pl.lit(NO_CONSENT))
        .when(pl.col("total").fill_null(0) >= max_contacts_28d)
        .then(pl.lit(TOO_MANY_CONTACTS))
        .when(days < pl.col("min_days_between"))
        .then(pl.lit(CONTACTED_RECENTLY)),
    )
