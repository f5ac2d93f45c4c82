"""What decisions start from: the rules; for each user every offer and channel, what it is to earn, what forbids it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date

import duckdb
import polars as pl

from lcm_ml.decisions.actions.rules import Rule, read_rules
from lcm_ml.decisions.eligibility import eligibility
from lcm_ml.decisions.gains import ASSUMED, UPLIFT, Economics, Means, effect_means, expected_gains
from lcm_ml.frames.decisions import (
    Users,
    contacts_before,
    effects_at,
    order_value_before,
    parts_of_users,
    setting_table,
    tried_channels,
    uplift_at,
    users_to_decide,
)
from lcm_ml.frames.frame import built_settings
from lcm_ml.frames.purchase_history import USERS_AT_ONCE

Advance = Callable[[str, float], None]


@dataclass(frozen=True)
class Situation:
    """What decisions about some users start from.

    Attributes:
        within: which users, as the functions of frames/decisions.py take them.
        users: of `users_to_decide`.
        uplift: of `uplift_at`.
        options: of `expected_gains`, with blocked_by of `eligibility` (null: allowed); rows of a user together.
    """

    within: Users
    users: pl.DataFrame
    uplift: pl.DataFrame
    options: pl.DataFrame


def situations_at(con: duckdb.DuckDBPyConnection, day: date, advance: Advance) -> Iterator[Situation]:
    """Read and combine what is known at `day`, some users at a time, in the order of user_id.

    Args:
        con: an open connection to a built warehouse.
        day: one of marts.as_of_dates.
        advance: told the share of the users that is done.

    Raises:
        LcmError: when the marts cannot be read, or a setting allows no decision.
    """
    settings = built_settings(con)
    channels, offers = setting_table(con, "contact_channels"), setting_table(con, "offers")
    economics, tried = Economics.from_settings(settings), tried_channels(con, day)
    means = Means(order_value_before(con, day), effect_means(effects_at(con, day)))
    limit, parts = int(settings["max_contacts_28d"]), parts_of_users(con, day, USERS_AT_ONCE)
    for place, part in enumerate(parts):
        advance("reading", place / len(parts))
        users, uplift = users_to_decide(con, day, part), uplift_at(con, day, part)
        gains = expected_gains(users, offers, channels, uplift, tried, economics, means)
        allowed = eligibility(users, channels, contacts_before(con, day, part), day, limit)
        yield Situation(part, users, uplift, with_blocks(gains, allowed))


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


def narrow(options: pl.DataFrame, offers: pl.DataFrame, channels: pl.DataFrame) -> pl.DataFrame:
    """The options with a number of a few bits for each word: a large shop has ten for each of its users."""
    words = {
        "offer": offers["offer"].to_list(),
        "campaign_kind": offers["campaign_kind"].unique().sort().to_list(),
        "channel": channels["channel"].to_list(),
        "gain_source": [UPLIFT, ASSUMED],
    }
    return options.with_columns(pl.col(name).cast(pl.Enum(known)) for name, known in words.items())
