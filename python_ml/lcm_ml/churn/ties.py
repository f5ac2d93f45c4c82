"""What else changes when a feature does: user_features' own definitions, so that a supposed user could exist.

A count of the last 28 days is part of that of the last 84; a ratio follows its parts; a visit is an event. Only what
the definitions demand moves, and no more than they demand: money, orders and habits stay as they are.
"""

import re
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from lcm_ml.churn.estimator import FloatArray

Values = dict[str, FloatArray]
"""Feature to its values, shape (rows,), NaN where missing."""

WINDOWS = {"7d": 7, "14d": 14, "28d": 28, "56d": 56, "84d": 84, "168d": 168, "total": None}
"""Shorter ones are part of longer ones."""

EVENTS = ("views", "carts", "cart_removals", "searches", "wishlistings", "shares", "support_requests", "reviews")
PARTS = {"sessions": "events", "categories": "products", **dict.fromkeys(EVENTS, "events")}
"""Each one of these is, or brings, one of those."""

DISTINCT = ("categories", "products", "brands", "channels")
"""Counts of different things: what is new in a window may have been there before."""

SINCE = {
    "touches": "days_since_last_touch",
    "events": "days_since_last_event",
    "views": "days_since_last_view",
    "carts": "days_since_last_cart",
}
RATIOS = {
    "response_rate_total": ("responses_total", "touches_total"),
    "session_to_order_84d": ("orders_84d", "sessions_84d"),
    "view_to_cart_84d": ("carts_84d", "views_84d"),
    "cart_to_order_84d": ("orders_84d", "carts_84d"),
    "line_value_84d": ("order_value_84d", "lines_per_order_84d"),
}
PER_ORDER = {
    "products": (("lines_per_order_84d", "orders_84d"), ("products_per_order_total", "orders_total")),
    "categories": (("categories_per_order_total", "orders_total"),),
}
"""Means over orders that one more product or category, in an order that there was, raises."""

AT_MOST = (("responses_total", "touches_total"),)

DISCOUNTS = ("amount_84d", "amount_total", "discount_share_total")
"""With the share of the last 84 days, these tell the share of all time."""

READ = {
    "active_days_84d",
    "line_value_total",
    "amount_total",
    *DISCOUNTS,
    *SINCE.values(),
    *(name for ratio, parts in RATIOS.items() for name in (ratio, *parts)),
    *(name for means in PER_ORDER.values() for pair in means for name in pair),
    *(name for pair in AT_MOST for name in pair),
}
"""Features that a move may read or change besides the windows of its own kind."""


def settle(values: Mapping[str, FloatArray], feature: str, target: FloatArray) -> Values:
    """The values once `feature` has moved to `target`, with all that its definition ties to it.

    Columns that `values` lacks are left out; a feature that lcm does not know moves alone.
    """
    now = dict(values)
    stem, window = _window_of(feature)
    if feature == "discount_share_84d":
        _discount(now, target)
    elif window is None:
        now[feature] = target
    else:
        _add(now, stem, window, target - values[feature])
    for ratio, (part, whole) in RATIOS.items():
        if ratio in now and any(name in now and now[name] is not values[name] for name in (part, whole)):
            now[ratio] = _over(now[part], now[whole])
    return now


def moved_along(names: Iterable[str], feature: str) -> set[str]:
    """The features, of those that there are, that `settle` changes with this one, itself among them."""
    values = {name: np.full(1, 0.5) for name in names}
    now = settle(values, feature, np.full(1, 0.25))
    return {name for name in now if now[name] is not values[name]}


def needed(names: Iterable[str], features: Iterable[str]) -> list[str]:
    """The features, of those that there are, that `settle` reads or changes when these move."""
    there = list(names)
    wanted = READ.union(*(moved_along(there, feature) for feature in features))
    return [name for name in there if name in wanted]


def possible(values: Mapping[str, FloatArray]) -> npt.NDArray[np.bool_]:
    """Which rows could be a user's: no more responses than contacts."""
    found = np.ones(len(next(iter(values.values()))), dtype=bool)
    for part, whole in AT_MOST:
        if part in values and whole in values:
            found &= ~(values[part] > values[whole])
    return found


def _window_of(feature: str) -> tuple[str, str | None]:
    found = re.fullmatch(rf"(\w+?)_({'|'.join(WINDOWS)})", feature)
    return (found[1], found[2]) if found else (feature, None)


def _add(now: Values, stem: str, window: str, change: FloatArray) -> None:
    """Let a count of a window change, with the other windows of its kind."""
    name = f"{stem}_{window}"
    before = now.get(name)
    if before is not None:
        now[name] = before + change
    order = list(WINDOWS)
    for other in order:
        tied = f"{stem}_{other}"
        if other == window or tied not in now:
            continue
        if order.index(other) < order.index(window):
            now[tied] = np.minimum(now[tied], now[name]) if name in now else now[tied]
        elif stem in DISTINCT and name in now:
            now[tied] = np.maximum(now[tied], now[name])
        else:
            now[tied] = now[tied] + change
    if (trend := f"{stem}_trend_{window}") in now:
        now[trend] = now[trend] + change
    if stem in SINCE and SINCE[stem] in now and name in now:
        now[SINCE[stem]] = _since(now[SINCE[stem]], now[name], change, WINDOWS[window])
    if stem == "sessions" and window == "28d" and before is not None and "active_days_84d" in now:
        # A visit in weeks that had none falls on a day that had none.
        now["active_days_84d"] = now["active_days_84d"] + ((before == 0) & (change > 0))
    for mean, orders in PER_ORDER.get(stem, ()):
        if mean in now and orders in now:
            now[mean] = now[mean] + _over(change, now[orders])
    if stem == "products" and {"line_value_total", "amount_total"} <= set(now):
        lines = _over(now["amount_total"], now["line_value_total"]) + change
        now["line_value_total"] = _over(now["amount_total"], lines)
    if stem in PARTS:
        _add(now, PARTS[stem], window, change)


def _since(days: FloatArray, count: FloatArray, change: FloatArray, window: int | None) -> FloatArray:
    """Days since the last one, once there are `count` in the window: no more than the window, or just beyond it."""
    if window is None:
        return days.copy()
    nearer = np.where(change > 0, np.fmin(days, window), days)
    farther = np.maximum(nearer, window + 1)
    return np.asarray(np.where((change < 0) & (count == 0), farther, nearer), dtype=np.float64)


def _discount(now: Values, target: FloatArray) -> None:
    """Let the share of discounts change while what was paid stays."""
    share = "discount_share_84d"
    before, now[share] = now[share], target
    if not set(DISCOUNTS) <= set(now):
        return
    paid, total = now["amount_total"], now["discount_share_total"]
    given = _over(paid * total, 1 - total) + now["amount_84d"] * (_over(target, 1 - target) - _over(before, 1 - before))
    now["discount_share_total"] = _over(given, paid + given)


def _over(part: FloatArray, whole: FloatArray) -> FloatArray:
    found: FloatArray = np.divide(part, whole, out=np.full(len(part), np.nan), where=whole != 0)
    return found
