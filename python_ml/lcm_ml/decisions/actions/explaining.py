"""Why a user gets its action, in one sentence with the figures."""

import polars as pl

from lcm_ml.decisions.actions.rules import CONTACT

REASONS = {
    "no_consent": "no consent",
    "contacted_recently": "the last contact was too short a time ago",
    "too_many_contacts": "too many contacts in 28 days",
    "suspected_bot": "it behaves like a bot",
    "no_gain": "it would not earn enough",
    "over_budget": "the budget earns more with others",
    "over_capacity": "the channel is full",
}
UNITS = {"purchase": "purchases", "orders": "orders", "spend": "of spend"}


def why() -> pl.Expr:
    """One sentence; what is not known is left out.

    From the columns stage, has_purchased, days_since_last_purchase, typical_gap_days, churn_probability, effect,
    outcome, uplift_segment, action, expected_profit, blocked_by, blocked_rule and rule_id.
    """
    is_contact = pl.col("action") == CONTACT
    return pl.concat_str(
        [
            _situation(),
            pl.format("churn probability {} %", _rounded("churn_probability", 100, 0)),
            _effect(is_contact),
            pl.when(is_contact).then(pl.format("expected to earn {}", _rounded("expected_profit"))),
            _blocked(),
            pl.when(pl.col("rule_id").is_null())
            .then(pl.lit("no rule fits"))
            .otherwise(pl.format("rule {}", "rule_id")),
        ],
        separator="; ",
        ignore_nulls=True,
    )


def _situation() -> pl.Expr:
    gap = pl.col("typical_gap_days").round(0).cast(pl.Int64)
    days = pl.concat_str(
        [
            pl.format("{} days since the last purchase", "days_since_last_purchase"),
            pl.format("usually {}", gap),
        ],
        separator=", ",
        ignore_nulls=True,
    )
    situation = pl.when("has_purchased").then(days).otherwise(pl.lit("no purchase yet"))
    return pl.format("{}: {}", _words("stage"), situation)


def _effect(is_contact: pl.Expr) -> pl.Expr:
    unit = pl.col("outcome").replace_strict(UNITS, default=None, return_dtype=pl.String)
    measured = pl.format("a contact adds {} {} ({})", _rounded("effect"), unit, _words("uplift_segment"))
    assumed = pl.when(is_contact & pl.col("effect").is_null()).then(
        pl.lit("what a contact adds is assumed, not measured")
    )
    return pl.coalesce(measured, assumed)


def _blocked() -> pl.Expr:
    reason = pl.col("blocked_by").replace_strict(REASONS, default=pl.col("blocked_by"), return_dtype=pl.String)
    return pl.format("no contact by {}: {}", "blocked_rule", reason)


def _words(column: str) -> pl.Expr:
    return pl.col(column).str.replace_all("_", " ")


def _rounded(column: str, factor: float = 1.0, digits: int = 2) -> pl.Expr:
    """A figure as text, always with `digits` decimals and never -0; null stays null."""
    scaled = (pl.col(column).abs() * factor * 10**digits).round(0).cast(pl.Int64)
    whole = (scaled // 10**digits).cast(pl.String)
    text = whole if digits == 0 else pl.format("{}.{}", whole, (scaled % 10**digits).cast(pl.String).str.zfill(digits))
    return pl.when((pl.col(column) < 0) & (scaled > 0)).then(pl.format("-{}", text)).otherwise(text)
