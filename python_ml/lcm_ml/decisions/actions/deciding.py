"""What to do next with each user: the first rule that fits, and whose contact is allowed and pays, decides."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import polars as pl

from lcm_ml.decisions.actions.explaining import why
from lcm_ml.decisions.actions.rules import BEST, CONTACT, NEW, NO_ACTION, NO_PRODUCT, REPEAT, UNKNOWN, Rule
from lcm_ml.decisions.budget.allocation import Allocator, Options
from lcm_ml.frames.purchase_history import USERS_AT_ONCE

NO_GAIN, OVER_BUDGET, OVER_CAPACITY = "no_gain", "over_budget", "over_capacity"
BEST_KIND = "segment of the best kind"
CHOSEN = (
    "offer", "campaign_kind", "channel", "contact_cost", "discount_cost", "expected_profit", "standard_error",
    "gain_source",
)  # fmt: skip

TOLD_OF = (
    "user_id", "action", "rule_id", *CHOSEN, "product_id", "stage", "has_purchased", "days_since_last_purchase",
    "typical_gap_days", "churn_probability", "outcome", "effect", "uplift_segment", "value_decile",
    "favourite_weekday", "favourite_daypart", "blocked_by", "blocked_rule",
)  # fmt: skip
"""What of a user's figures is needed once its rule is found."""


@dataclass(frozen=True)
class Known:
    """What is known of some users when deciding, each frame as its function of frames/decisions.py gives it.

    Attributes:
        users: of `users_to_decide`.
        options: of `gains.expected_gains`, with blocked_by of `eligibility` (null: allowed).
        uplift: of `uplift_at`.
        recommended: of `recommended_at`.
    """

    users: pl.DataFrame
    options: pl.DataFrame
    uplift: pl.DataFrame
    recommended: pl.DataFrame


@dataclass(frozen=True)
class Decided:
    """What was decided.

    Attributes:
        actions: one row per user, sorted by user_id, with the columns of ml.next_best_actions but for the run's.
        rules: one row per rule in their order: rule_id, priority, action, fits (users, whatever other rules say),
            decides, contacts, blocked (users of whom it would have been the rule) and example (a user it decides for).
    """

    actions: pl.DataFrame
    rules: pl.DataFrame


def decide(
    parts: Iterable[Known], rules: Sequence[Rule], channels: pl.DataFrame, as_of: date, budget: float | None = None
) -> Decided:
    """Decide for every user. Only limits look at all of them together.

    Args:
        parts: what is known of the users, some at a time: one part at least, in the order of user_id.
        rules: in the order in which they are tried.
        channels: channel, capacity (null: no limit).
        as_of: the day of the contacts.
        budget: money for contacts and discounts, base currency; None is no limit.
    """
    fitting, chosen = np.zeros(len(rules), dtype=np.int64), []
    for known in parts:
        fits, found = _chosen(known, rules)
        fitting += np.array(fits, dtype=np.int64)
        chosen.append(_with_product(_with_effect(found, known.uplift), known.recommended).select(TOLD_OF))
    limited = _within_limits(pl.concat(chosen), channels, budget)
    del chosen
    # The sentences are most of what is written: they are made of some users at a time.
    told = [_told(some, as_of) for some in limited.iter_slices(USERS_AT_ONCE)]
    return Decided(pl.concat(told) if told else _told(limited, as_of), _counted(rules, fitting.tolist(), limited))


def _chosen(known: Known, rules: Sequence[Rule]) -> tuple[list[int], pl.DataFrame]:
    """How many users each rule fits, and each user with the rule that decides and its option."""
    users = _with_segments(known.users, known.uplift)
    options = known.options.sort("user_id", -pl.col("expected_profit"), "offer", "channel")
    open_users = users.with_columns(
        blocked_by=pl.lit(None, pl.String), blocked_rule=pl.lit(None, pl.String), fits=pl.lit(False)
    )
    decided, fitting = [], []
    for rule in rules:
        segment = _segment_column(rule.kind, users)
        fitting.append(users.filter(rule.fits(segment)).height)
        tried = open_users.with_columns(fits=rule.fits(segment))
        if rule.action == CONTACT:
            tried = _try_contact(tried, options.filter(rule.carries()), rule)
        takes = tried.filter("fits").with_columns(
            rule_id=pl.lit(rule.rule_id),
            action=pl.lit(rule.action),
            product=pl.lit(rule.product),
            # A named offer's kind counts even where nothing of it was measured.
            kind=pl.lit(rule.kind, pl.String),
        )
        decided.append(takes)
        open_users = tried.filter(~pl.col("fits")).select(open_users.columns)
    no_rule = open_users.with_columns(
        rule_id=pl.lit(None, pl.String),
        action=pl.lit(NO_ACTION),
        product=pl.lit(NO_PRODUCT),
        kind=pl.lit(None, pl.String),
    )
    return fitting, pl.concat([*decided, no_rule, _no_choice(options)], how="diagonal").sort("user_id")


def _told(limited: pl.DataFrame, as_of: date) -> pl.DataFrame:
    """The rows of ml.next_best_actions."""
    is_contact = pl.col("action") == CONTACT
    return limited.with_columns(_send_date(as_of)).select(
        "user_id",
        "action",
        "rule_id",
        *(pl.when(is_contact).then(pl.col(name)).alias(name) for name in (*CHOSEN, "product_id", "send_date")),
        pl.when(is_contact).then("favourite_daypart").alias("send_daypart"),
        "stage",
        "churn_probability",
        "uplift_segment",
        pl.col("value_decile").cast(pl.Int32),
        why().alias("why"),
        "blocked_by",
        "blocked_rule",
    )


def _segment_column(kind: str | None, users: pl.DataFrame) -> str:
    column = f"segment of {kind}"
    # A kind of which nothing was measured has no column of its own: unknown to everybody.
    return BEST_KIND if kind is None else column if column in users.columns else UNKNOWN


def _with_segments(users: pl.DataFrame, uplift: pl.DataFrame) -> pl.DataFrame:
    """Users with a column for the segment of each kind, of the best kind, and one that says unknown."""
    best = uplift.filter("is_best_kind").select("user_id", pl.col("uplift_segment").alias(BEST_KIND))
    found = users.with_columns(pl.lit(UNKNOWN).alias(UNKNOWN)).join(
        best, on="user_id", how="left", maintain_order="left"
    )
    columns = [BEST_KIND]
    for kind in uplift["campaign_kind"].unique().sort():
        columns.append(f"segment of {kind}")
        own = uplift.filter(pl.col("campaign_kind") == kind)
        found = found.join(
            own.select("user_id", pl.col("uplift_segment").alias(columns[-1])),
            on="user_id",
            how="left",
            maintain_order="left",
        )
    return found.with_columns(pl.col(columns).fill_null(UNKNOWN))


def _try_contact(tried: pl.DataFrame, options: pl.DataFrame, rule: Rule) -> pl.DataFrame:
    """The users with the rule's best option; `fits` only where it may be taken, else what it was blocked by."""
    pays = pl.lit(True) if rule.min_profit is None else pl.col("expected_profit") > rule.min_profit
    allowed = options.filter(pl.col("blocked_by").is_null() & pays).unique("user_id", keep="first", maintain_order=True)
    # Would a contact pay if it were allowed? Then what forbids the best one; else there is nothing to gain.
    best = options.filter(pays).unique("user_id", keep="first", maintain_order=True)
    joined = tried.join(
        allowed.select("user_id", *CHOSEN, is_possible=pl.lit(True)), on="user_id", how="left", maintain_order="left"
    ).join(best.select("user_id", reason="blocked_by"), on="user_id", how="left", maintain_order="left")
    is_possible = pl.col("is_possible").fill_null(False)
    is_first_block = pl.col("fits") & ~is_possible & pl.col("blocked_by").is_null()
    return joined.with_columns(
        blocked_by=pl.when(is_first_block).then(pl.col("reason").fill_null(NO_GAIN)).otherwise("blocked_by"),
        blocked_rule=pl.when(is_first_block).then(pl.lit(rule.rule_id)).otherwise("blocked_rule"),
        fits=pl.col("fits") & is_possible,
    ).drop("is_possible", "reason")


def _no_choice(options: pl.DataFrame) -> pl.DataFrame:
    """No rows, but the columns of a choice: there may be no rule that contacts."""
    return options.clear().select("user_id", *CHOSEN)


def _within_limits(chosen: pl.DataFrame, channels: pl.DataFrame, budget: float | None) -> pl.DataFrame:
    """Leave alone who is beyond the budget or a channel's capacity: the linear programme takes those who earn most.

    Channels couple by the budget alone. Without one, a channel that can carry all its contacts is left as it is, and
    also contacts that a rule makes at a loss stay.
    """
    rooms = channels.select("channel", room=pl.col("capacity").cast(pl.Float64).fill_null(math.inf))
    contacts = (
        chosen.select("action", "channel", "expected_profit", cost=pl.col("contact_cost") + pl.col("discount_cost"))
        .with_row_index("row")
        .filter(pl.col("action") == CONTACT)
        .join(rooms, on="channel", how="left", maintain_order="left")
    )
    if budget is None:
        contacts = contacts.filter(pl.len().over("channel") > pl.col("room"))
    if contacts.is_empty():
        return chosen
    names = rooms["channel"].to_list()
    options = Options(
        np.arange(contacts.height),
        contacts["channel"].replace_strict(names, range(len(names)), return_dtype=pl.Int64).to_numpy(),
        contacts["cost"].to_numpy(),
        contacts["expected_profit"].to_numpy(),
    )
    taken = Allocator(options, rooms["room"].to_numpy()).at(math.inf if budget is None else budget).chosen
    is_full = pl.col("is_taken").sum().over("channel") >= pl.col("room").floor()
    refused = (
        contacts.with_columns(is_taken=pl.Series(np.isin(np.arange(contacts.height), taken)))
        .select("row", "is_taken", limit=pl.when(is_full).then(1).otherwise(2))
        .filter(~pl.col("is_taken"))
    )
    # A column beside the others rather than a join, which would copy them all.
    limits = np.zeros(chosen.height, dtype=np.int8)
    limits[refused["row"].to_numpy()] = refused["limit"].to_numpy()
    limit, is_over = pl.lit(pl.Series(limits)), pl.lit(pl.Series(limits > 0))
    named = pl.when(limit == 1).then(pl.lit(OVER_CAPACITY)).otherwise(pl.lit(OVER_BUDGET))
    return chosen.with_columns(
        action=pl.when(is_over).then(pl.lit(NO_ACTION)).otherwise("action"),
        blocked_by=pl.when(is_over).then(named).otherwise("blocked_by"),
        blocked_rule=pl.when(is_over).then("rule_id").otherwise("blocked_rule"),
    )


def _with_effect(chosen: pl.DataFrame, uplift: pl.DataFrame) -> pl.DataFrame:
    """The effect and segment of the chosen offer's kind; of the rule's, else the best kind where nothing was chosen."""
    best = uplift.filter("is_best_kind").select("user_id", best_kind="campaign_kind")
    known = uplift.select("user_id", "campaign_kind", "outcome", "effect", "uplift_segment")
    return (
        chosen.join(best, on="user_id", how="left", maintain_order="left")
        .with_columns(told_kind=pl.coalesce("campaign_kind", "kind", "best_kind"))
        .join(
            known,
            left_on=["user_id", "told_kind"],
            right_on=["user_id", "campaign_kind"],
            how="left",
            maintain_order="left",
        )
        .with_columns(pl.col("uplift_segment").fill_null(UNKNOWN))
    )


def _with_product(chosen: pl.DataFrame, recommended: pl.DataFrame) -> pl.DataFrame:
    """The first recommendation of the sort that the rule shows."""
    sorts = {BEST: pl.lit(True), NEW: ~pl.col("is_repeat"), REPEAT: pl.col("is_repeat")}
    firsts = pl.concat(
        recommended.filter(wanted)
        .unique("user_id", keep="first", maintain_order=True)
        .select("user_id", "product_id", product=pl.lit(word))
        for word, wanted in sorts.items()
    )
    return chosen.join(firsts, on=["user_id", "product"], how="left", maintain_order="left")


def _send_date(as_of: date) -> pl.Expr:
    ahead = (pl.col("favourite_weekday") - as_of.isoweekday()) % 7
    return pl.lit(as_of).dt.offset_by(pl.format("{}d", ahead.fill_null(0))).alias("send_date")


def _counted(rules: Sequence[Rule], fitting: Sequence[int], shown: pl.DataFrame) -> pl.DataFrame:
    won = shown.group_by("rule_id").agg(
        decides=pl.len(), contacts=(pl.col("action") == CONTACT).sum(), example=pl.col("user_id").min()
    )
    blocked = shown.filter(pl.col("blocked_rule").is_not_null()).group_by(rule_id="blocked_rule").agg(blocked=pl.len())
    listed = pl.DataFrame(
        {
            "rule_id": [rule.rule_id for rule in rules],
            "priority": [rule.priority for rule in rules],
            "action": [rule.action for rule in rules],
            "fits": list(fitting),
        },
        schema={"rule_id": pl.String, "priority": pl.Int32, "action": pl.String, "fits": pl.Int64},
    )
    counts = listed.join(won, on="rule_id", how="left", maintain_order="left").join(
        blocked, on="rule_id", how="left", maintain_order="left"
    )
    return counts.select(
        "rule_id",
        "priority",
        "action",
        "fits",
        pl.col("decides", "contacts", "blocked").fill_null(0).cast(pl.Int64),
        "example",
    )
