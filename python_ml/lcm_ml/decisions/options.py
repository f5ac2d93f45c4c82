"""What decisions start from: the rules; for each user every offer and channel, what it is to earn, what forbids it."""

from dataclasses import dataclass
from datetime import date

import duckdb
import polars as pl

from lcm_ml.decisions.actions.rules import Rule, read_rules
from lcm_ml.decisions.eligibility import eligibility
from lcm_ml.decisions.gains import Economics, expected_gains
from lcm_ml.frames.decisions import contacts_before, setting_table, tried_channels, uplift_at, users_to_decide
from lcm_ml.frames.frame import built_settings


@dataclass(frozen=True)
class Situation:
    """What decisions at a date start from.

    Attributes:
        users: of `users_to_decide`.
        channels: marts.contact_channels.
        offers: marts.offers.
        uplift: of `uplift_at`.
        options: of `expected_gains`, with blocked_by of `eligibility` (null: allowed); rows of a user together.
    """

    users: pl.DataFrame
    channels: pl.DataFrame
    offers: pl.DataFrame
    uplift: pl.DataFrame
    options: pl.DataFrame


def situation_at(con: duckdb.DuckDBPyConnection, day: date) -> Situation:
    """Read and combine what is known at `day`.

    Raises:
        LcmError: when the marts cannot be read, or a setting allows no decision.
    """
    settings = built_settings(con)
    users, uplift = users_to_decide(con, day), uplift_at(con, day)
    channels, offers = setting_table(con, "contact_channels"), setting_table(con, "offers")
    economics = Economics.from_settings(settings)
    gains = expected_gains(users, offers, channels, uplift, tried_channels(con, day), economics)
    limit = int(settings["max_contacts_28d"])
    options = with_blocks(gains, eligibility(users, channels, contacts_before(con, day), day, limit))
    return Situation(users, channels, offers, uplift, options)


def rules_of(con: duckdb.DuckDBPyConnection) -> list[Rule]:
    """The active rules of marts.action_rules, in the order in which they are tried.

    Raises:
        LcmError: when the seeds are not built, or a rule makes no sense.
    """
    offers, channels = setting_table(con, "offers"), setting_table(con, "contact_channels")
    return read_rules(setting_table(con, "action_rules"), offers, channels)


def with_blocks(gains: pl.DataFrame, eligible: pl.DataFrame) -> pl.DataFrame:
    """The options with what forbids each, blocked_by; null where nothing does."""
    return gains.join(
        eligible.select("user_id", "channel", "blocked_by"),
        on=["user_id", "channel"],
        how="left",
        maintain_order="left",
    )


def permitted(options: pl.DataFrame) -> pl.DataFrame:
    """The options that nothing forbids, in their order."""
    return options.filter(pl.col("blocked_by").is_null()).drop("blocked_by")
