"""All that is known of one user: read from what BI reads, and told as a card."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Any

import duckdb

from lcm_ml.errors import LcmError
from lcm_ml.frames.frame import built_settings
from lcm_ml.warehouse.connection import rows

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
SENSITIVE = ("age_band", "gender", "income_band", "marital_status", "household_size", "home_ownership")

# What belongs to a user besides its row in user_profiles: name, relation, order.
LISTS = (
    ("stages", "marts.user_stage_history", "from_date"),
    ("interests", "marts.user_interests", "interest_rank"),
    ("reasons", "serving.churn_reasons_latest", "reason_rank"),
    ("hints", "serving.churn_hints_latest", "n_changes"),
    ("recommendations", "serving.recommendations_latest", "rank"),
    ("contacts", "marts.user_contacts", "contact_rank"),
)


@dataclass(frozen=True)
class Part:
    """Lines of a card under one heading: what, and what is known of it."""

    title: str
    lines: tuple[tuple[str, str], ...]


def read_profile(con: duckdb.DuckDBPyConnection, user_id: str) -> dict[str, Any]:
    """What the warehouse knows of a user, as of the scoring date.

    Returns:
        profile: the row of serving.user_profiles; and a list of rows for each of LISTS.

    Raises:
        LcmError: when the marts may not be read, or there is no such user.
    """
    built_settings(con)
    found = rows(con, "select * from serving.user_profiles where user_id = ?", [user_id])
    if not found:
        example = rows(con, "select user_id from serving.user_profiles order by user_id limit 1")
        ids = f"ids look like {example[0]['user_id']!r}; " if example else ""
        error = LcmError(
            f"no user {user_id!r} in serving.user_profiles",
            f"{ids}where loads hide ids, `lcm-ml pseudonym` tells the one to look for",
        )
        error.is_private = True
        raise error
    lists = {
        name: rows(con, f"select * from {relation} where user_id = ? order by {order}", [user_id])
        for name, relation, order in LISTS
    }
    return {"profile": found[0], **lists}


def card(found: dict[str, Any]) -> list[Part]:
    """A profile in words; what is not known is left out.

    Args:
        found: what `read_profile` gives.
    """
    profile = found["profile"]
    parts = [
        Part("Who", _known(profile, WHO)),
        Part("Where it stands", (*_known(profile, STANDING), *_history(found["stages"]))),
        Part("What it likes", (*_interests(found["interests"]), *_known(profile, TASTE))),
        Part("Whether it stays", (*_known(profile, RISK), *_reasons(found["reasons"]), *_hints(found["hints"]))),
        Part("What it is worth", _known(profile, WORTH)),
        Part("What to do next", _known(profile, NEXT)),
        Part("What to offer next", _recommendations(found["recommendations"])),
        Part("What it was told", _contacts(found["contacts"])),
    ]
    return [part for part in parts if part.lines]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, date):
        return f"{value:%Y-%m-%d}"
    return f"{value:,.2f}" if isinstance(value, float) else str(value)


Form = Callable[[Any, dict[str, Any]], str]


def _percent(value: Any, _: dict[str, Any]) -> str:
    return f"{value:.1%}"


def _money(value: Any, _: dict[str, Any]) -> str:
    return f"{value:,.2f}"


def _plain(value: Any, _: dict[str, Any]) -> str:
    return _text(value)


def _stage(value: Any, profile: dict[str, Any]) -> str:
    before = profile["previous_stage"]
    came = f", before that {before}" if before and before != value else ""
    return f"{value} for {profile['days_in_stage']} days{came}"


def _last_purchase(value: Any, profile: dict[str, Any]) -> str:
    gap = profile["typical_gap_days"]
    usual = f"; usually every {gap:.0f} days" if gap is not None else ""
    return f"{_text(value)}, {profile['days_since_last_purchase']} days ago{usual}"


def _orders(value: Any, profile: dict[str, Any]) -> str:
    mean = profile["order_value_total"]
    each = f", {mean:,.2f} each on average" if mean is not None else ""
    return f"{value:,}, {profile['amount_total']:,.2f} in all{each}"


def _scores(value: Any, profile: dict[str, Any]) -> str:
    scores = f"recency {value}, frequency {profile['frequency_score']}, money {profile['monetary_score']} (5 is best)"
    return f"{profile['rfm_segment']}: {scores}" if profile.get("rfm_segment") else scores


def _price(value: Any, profile: dict[str, Any]) -> str:
    return f"{value} ({profile['price_level']:.2f}, 0 the cheapest of a category, 1 the dearest)"


def _discounts(value: Any, profile: dict[str, Any]) -> str:
    return f"{value} ({profile['discounted_line_share']:.0%} of lines bought at a discount)"


def _weekday(value: Any, _: dict[str, Any]) -> str:
    return WEEKDAYS[value - 1]


def _action(value: Any, profile: dict[str, Any]) -> str:
    action = "leave it alone" if value == "none" else value
    return f"{action}: {profile['next_action_why']}"


def _risk(value: Any, profile: dict[str, Any]) -> str:
    return f"{value:.1%}: {profile['risk_band']} risk, decile {profile['churn_decile']} (1 is the highest)"


def _expected(days: int) -> Form:
    def form(value: Any, profile: dict[str, Any]) -> str:
        low, high = profile.get(f"amount_low_{days}d"), profile.get(f"amount_high_{days}d")
        spread = f" ({low:,.2f} to {high:,.2f} in 4 of 5 cases)" if low is not None and high is not None else ""
        return f"{value:,.2f}{spread} from {profile[f'expected_purchases_{days}d']:.1f} days of purchase"

    return form


Shown = tuple[tuple[str, str, Form], ...]
WHO: Shown = (
    ("signed_up_at", "signed up", _plain),
    ("country", "country", _plain),
    ("acquisition_channel", "came by", _plain),
    ("marketing_consent", "may be contacted", _plain),
    *((name, f"{name.replace('_', ' ')} (sensitive)", _plain) for name in SENSITIVE),
)
STANDING: Shown = (
    ("stage", "stage", _stage),
    ("first_purchase_date", "first purchase", _plain),
    ("last_purchase_date", "last purchase", _last_purchase),
    ("orders_total", "orders", _orders),
    ("recency_score", "RFM", _scores),
    ("segment_name", "segment", _plain),
)
TASTE: Shown = (
    ("top_brands", "brands", _plain),
    ("price_band", "price level", _price),
    ("discount_affinity", "discounts", _discounts),
    ("favourite_daypart", "time of day", _plain),
    ("favourite_weekday", "weekday", _weekday),
    ("favourite_channel", "channel", _plain),
)
RISK: Shown = (("churn_probability", "churn", _risk),)
WORTH: Shown = (
    ("probability_alive", "still a customer", _percent),
    ("expected_amount_30d", "in 30 days", _expected(30)),
    ("expected_amount_90d", "in 90 days", _expected(90)),
    ("expected_amount_365d", "in 365 days", _expected(365)),
    ("lifetime_value", "lifetime value", _money),
    ("value_decile", "value decile (1 is the most)", _plain),
)

NEXT: Shown = (("next_action", "next action", _action),)


def _known(profile: dict[str, Any], shown: Shown) -> tuple[tuple[str, str], ...]:
    return tuple((label, form(profile[name], profile)) for name, label, form in shown if profile.get(name) is not None)


def _history(stages: list[dict[str, Any]]) -> tuple[tuple[str, str], ...]:
    told = ", ".join(f"{row['stage']} from {row['from_date']}" for row in stages)
    return (("stages so far", told),) if len(stages) > 1 else ()


def _interests(interests: list[dict[str, Any]]) -> tuple[tuple[str, str], ...]:
    return tuple(
        (row["category"], f"{row['strength']:.0%}" + (f", {row['trend']}" if row["trend"] else ""))
        for row in interests[:5]
    )


def _reasons(reasons: list[dict[str, Any]]) -> tuple[tuple[str, str], ...]:
    told = [row for row in reasons if row["feature"] is not None]
    return tuple(("raises it" if row["contribution"] > 0 else "lowers it", row["reason"]) for row in told)


def _hints(hints: list[dict[str, Any]]) -> tuple[tuple[str, str], ...]:
    return tuple(("would change it", row["hint"]) for row in hints if row["hint"])


def _recommendations(recommendations: list[dict[str, Any]]) -> tuple[tuple[str, str], ...]:
    return tuple(
        (str(row["rank"]), f"{row['title'] or row['product_id']}: {row['explanation']}") for row in recommendations[:5]
    )


def _contacts(contacts: list[dict[str, Any]]) -> tuple[tuple[str, str], ...]:
    lines = []
    for row in contacts:
        what = " ".join(text for text in (row["channel"], row["kind"]) if text) or row["campaign_id"]
        answer = f", answered on {row['responded_date']}" if row["responded_date"] else ", no answer"
        lines.append((f"{row['contacted_date']}", f"{what}{answer}"))
    return tuple(lines)
