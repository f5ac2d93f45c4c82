"""Features in words that a marketer reads: one table of phrases, and a rule for the windows in the names."""

import math
import re
from dataclasses import dataclass
from typing import Any

COUNTS = {
    "orders": ("order", "orders"),
    "purchase_days": ("day with a purchase", "days with a purchase"),
    "purchase_weeks": ("week with a purchase", "weeks with a purchase"),
    "sessions": ("visit", "visits"),
    "active_days": ("active day", "active days"),
    "events": ("event", "events"),
    "views": ("product view", "product views"),
    "carts": ("addition to the cart", "additions to the cart"),
    "cart_removals": ("removal from the cart", "removals from the cart"),
    "searches": ("search", "searches"),
    "wishlistings": ("addition to a wish list", "additions to a wish list"),
    "shares": ("share", "shares"),
    "support_requests": ("support request", "support requests"),
    "refunds": ("refund", "refunds"),
    "products": ("product bought", "products bought"),
    "categories": ("category bought", "categories bought"),
    "brands": ("brand bought", "brands bought"),
    "reviews": ("review", "reviews"),
    "touches": ("campaign contact", "campaign contacts"),
    "responses": ("response to a campaign", "responses to campaigns"),
    "tickets": ("support ticket", "support tickets"),
    "channels": ("channel used", "channels used"),
}
MONEY = {
    "amount": "spent",
    "order_value": "per order",
    "line_value": "per line of an order",
    "refunded_amount": "refunded",
    "order_value_max": "in the largest order",
}
SHARES = {
    "discount_share": "of the value was discount",
    "discounted_line_share": "of the lines had a discount",
    "refund_rate": "of the orders had a refund",
    "weekend_share": "of the orders fell on a weekend",
    "evening_share": "of the orders came in the evening or at night",
    "mobile_share": "of the visits came from a mobile device",
    "response_rate": "of the campaign contacts had a response",
    "favourite_category_share": "of the money went to the favourite category",
    "favourite_brand_share": "of the money went to the favourite brand",
    "favourite_weekday_share": "of the orders fell on the favourite weekday",
    "orders_28d_share": "of the orders of the last 84 days came in the last 28",
    "interest_drift": "of the taste is new in the last 84 days",
}
RATIOS = {
    "view_to_cart": "additions to the cart per view",
    "cart_to_order": "orders per addition to the cart",
    "session_to_order": "orders per visit",
    "lines_per_order": "lines per order",
    "products_per_order": "products per order",
    "categories_per_order": "categories per order",
    "purchase_days_per_day": "days with a purchase per day since the first",
    "gap_now_to_mean": "times the mean gap since the last purchase",
    "gap_now_to_median": "times the usual gap since the last purchase",
    "gap_now_z": "standard deviations later than usual",
    "rating_mean": "stars given on average",
    "rating_min": "stars at worst",
    "order_hour_mean": "is the mean hour of an order",
}
DAYS = {
    "days_since_last_purchase": "since the last purchase",
    "days_since_last_event": "since anything was seen of the user",
    "days_since_last_view": "since the last product view",
    "days_since_last_cart": "since something was put into the cart",
    "days_since_first_purchase": "since the first purchase",
    "days_since_first_event": "since the user was first seen",
    "days_since_sign_up": "since the account was opened",
    "days_since_last_touch": "since the last campaign contact",
    "gap_mean_days": "between purchases on average",
    "gap_median_days": "between purchases, typically",
    "gap_spread_days": "of spread in the gaps between purchases",
    "gap_max_days": "in the longest gap between purchases",
    "gap_last_days": "between the last two purchases",
}
CHANGES = {
    "orders_trend_28d": "orders in the last 28 days against the 28 before",
    "amount_trend_28d": "spent in the last 28 days against the 28 before",
    "sessions_trend_28d": "visits in the last 28 days against the 28 before",
    "orders_trend_84d": "orders in the last 84 days against the 84 before",
}
NAMED = {
    "favourite_weekday": "favourite weekday (1 is Monday)",
    "favourite_channel": "favourite channel",
    "favourite_category": "favourite category",
    "favourite_brand": "favourite brand",
    "country": "country",
    "acquisition_channel": "came by",
    "as_of_month": "month",
    "is_suspected_bot": "looks like a bot",
    "is_suspected_reseller": "looks like a reseller",
}


@dataclass(frozen=True)
class Phrase:
    """How a feature is told. `kind`: count, money, share, ratio, days, change or named."""

    kind: str
    words: str
    singular: str = ""
    window: str = ""

    def number(self, value: Any) -> str:
        """The value alone, with its unit where it has one."""
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return "unknown"
        if isinstance(value, (bool, str)):
            return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else value
        if self.kind == "share":
            return f"{value:.0%}"
        if self.kind == "change":
            return f"{value:+,.0f}"
        if self.kind in ("count", "days", "money") or float(value).is_integer():
            return f"{value:,.0f}"
        return f"{value:,.2f}"

    def tell(self, value: Any) -> str:
        """The value in a phrase: `61 days since the last purchase`."""
        number = self.number(value)
        if self.kind == "named":
            return f"{self.words}: {number}"
        if number == "unknown":
            return f"unknown: {self.words}{self.window}"
        if self.kind == "days":
            return f"{number} {'day' if number == '1' else 'days'} {self.words}"
        if self.kind == "count":
            words = self.singular if number == "1" else self.words
            return f"{'no' if number == '0' else number} {self.singular if number == '0' else words}{self.window}"
        return f"{number} {self.words}{self.window}"

    def change(self, before: Any, after: Any) -> str:
        """A move from one value to another: `visits in the last 28 days: from 1 to 4`."""
        ends = f"from {self.number(before)} to {self.number(after)}"
        if self.kind in ("count", "named"):
            return f"{self.words}{self.window}: {ends}"
        return f"{ends}{' days' if self.kind == 'days' else ''} {self.words}{self.window}"


def phrase(feature: str) -> Phrase:
    """The phrase of a feature; one that lcm does not know is told by its name."""
    if feature in NAMED:
        return Phrase("named", NAMED[feature])
    for kind, table in (("days", DAYS), ("change", CHANGES), ("share", SHARES), ("ratio", RATIOS), ("money", MONEY)):
        if feature in table:
            return Phrase(kind, table[feature])
    found = re.fullmatch(r"(?P<stem>\w+?)_(?P<window>\d+d|total)", feature)
    if found:
        stem, window = found["stem"], found["window"]
        told = " so far" if window == "total" else f" in the last {window[:-1]} days"
        if stem in COUNTS:
            return Phrase("count", COUNTS[stem][1], COUNTS[stem][0], told)
        for kind, table in (("money", MONEY), ("share", SHARES), ("ratio", RATIOS)):
            if stem in table:
                return Phrase(kind, table[stem], window=told)
    return Phrase("named", feature.replace("_", " "))
