"""Features, labels and stages of a small random shop, computed again in plain Python from the raw rows."""

import itertools
import random
import statistics
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from lifecycle import WITHOUT_TESTS, build, query

from lcm_ml.warehouse import contracts, writer

START = datetime(2025, 3, 1)
DAYS = 260
DATES = (date(2025, 7, 7), date(2025, 9, 29), date(2025, 10, 27))
CATEGORIES = {f"p{k}": f"c{k % 4}" for k in range(12)} | {"priceless": "z"}


def random_events(seed: int) -> list[dict[str, Any]]:
    """Visits, purchases, refunds and reviews of 60 users with rhythms of their own; anonymous ones too."""
    rng = random.Random(seed)
    events: list[dict[str, Any]] = []
    for user in range(60):
        gap = rng.choice([3, 8, 20, 45, 400])
        moment = START + timedelta(days=rng.uniform(0, 120))
        stop = START + timedelta(days=rng.uniform(60, DAYS))
        order = 0
        while moment < stop:
            # Some visits of the users 0 to 4 come before they are known.
            who = f"anon{user}" if user < 5 and rng.random() < 0.3 else f"u{user}"
            common = {"user_id": who, "session_id": f"s{user}-{order}", "device": rng.choice(["mobile", "desktop"])}
            for kind in ("view", "cart"):
                if rng.random() < 0.6:
                    events.append(common | {"event_time": moment - timedelta(minutes=9), "event_type": kind})
            if user % 10 != 9:
                for _ in range(rng.randint(1, 3)):
                    product = f"p{rng.randrange(12)}"
                    quantity = rng.randint(1, 4)
                    line = {
                        "event_time": moment,
                        "event_type": "purchase",
                        "order_id": f"o{user}-{order}",
                        "product_id": product,
                        "quantity": quantity,
                        "amount": quantity * rng.randint(100, 900) / 100,
                        "discount": rng.choice([None, 0.5]),
                    }
                    events.append(common | line)
                if rng.random() < 0.2:
                    later = moment + timedelta(days=rng.uniform(0.1, 9))
                    refund = {
                        "event_time": later,
                        "event_type": "refund",
                        "order_id": f"o{user}-{order}",
                        "amount": -1.0,
                    }
                    events.append(common | refund)
                if rng.random() < 0.3:
                    review = {
                        "event_time": moment + timedelta(hours=3),
                        "event_type": "review",
                        "rating": rng.randint(1, 5),
                    }
                    events.append(common | review)
            moment += timedelta(days=rng.expovariate(1 / gap) + 0.2)
            order += 1
    # What was paid for `priceless` is not known: it is no favourite for that.
    for day, product, amount in ((100, "p0", 5.0), (150, "priceless", None), (210, "p1", 3.0)):
        line = {"event_type": "purchase", "event_time": START + timedelta(days=day), "session_id": f"day{day}"}
        events.append(line | {"user_id": "u60", "order_id": f"day{day}", "product_id": product, "amount": amount})
    for number, event in enumerate(events):
        event["event_id"] = f"e{number}"
    return events


CHANNELS = {f"u{user}": ("email", "social")[user % 2] for user in range(40)}
LINKS = {f"anon{user}": (f"u{user}", datetime(2025, 8, 1) + timedelta(days=20 * user)) for user in range(5)}


@pytest.fixture(scope="module")
def events() -> list[dict[str, Any]]:
    return random_events(7)


@pytest.fixture(scope="module")
def warehouse(events: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("byhand") / "lcm.duckdb"
    columns = [column.name for column in contracts.tables("raw")["events"].columns if not column.lineage]
    with duckdb.connect(str(path)) as con:
        writer.ensure(con, contracts.tables("raw"))
        rows = [
            [event.get(name) for name in columns] + ["one", datetime(2026, 1, 1), "events.parquet", number]
            for number, event in enumerate(events, start=1)
        ]
        con.executemany(f"insert into raw.events values ({', '.join('?' * len(rows[0]))})", rows)
        for product, category in CATEGORIES.items():
            con.execute("insert into raw.products (product_id, category) values (?, ?)", [product, category])
        for user, channel in CHANNELS.items():
            con.execute("insert into raw.users (user_id, acquisition_channel) values (?, ?)", [user, channel])
        for anonymous, (user, moment) in LINKS.items():
            con.execute(
                "insert into raw.identities (anonymous_id, user_id, linked_at) values (?, ?, ?)",
                [anonymous, user, moment],
            )
        con.execute("insert into raw.loads (load_id, loaded_at) values ('one', timestamp '2026-01-01')")
        con.execute(
            "insert into raw.load_files values ('one', 'events', 'events.parquet', 'x', ?, ?, 0, 0, 0)",
            [len(rows), len(rows)],
        )
    build(path, *WITHOUT_TESTS, variables={"data_end_date": "2025-11-24"})
    return path


def user_at(event: dict[str, Any], day: date) -> str:
    link = LINKS.get(event["user_id"])
    return link[0] if link and link[1].date() < day else event["user_id"]


def history(events: list[dict[str, Any]], day: date) -> dict[str, list[dict[str, Any]]]:
    """Each user's events strictly before the day."""
    found: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        if event["event_time"].date() < day:
            found.setdefault(user_at(event, day), []).append(event)
    return found


def by_hand(past: list[dict[str, Any]], day: date) -> dict[str, Any]:
    """A good part of user_features, the slow way."""

    def ago(event: dict[str, Any]) -> int:
        return (day - event["event_time"].date()).days

    purchases = [event for event in past if event["event_type"] == "purchase"]
    orders = {(event["order_id"], event["event_time"].date()) for event in purchases}
    days = sorted({event["event_time"].date() for event in purchases})
    gaps = [(later - earlier).days for earlier, later in itertools.pairwise(days)]
    recency = (day - days[-1]).days if days else None
    spend = [(ago(event), event["amount"] or 0, event.get("discount") or 0, event["product_id"]) for event in purchases]
    categories: dict[str, list[float]] = {}
    for when, amount, _, product in spend:
        recent_earlier = categories.setdefault(CATEGORIES[product], [0.0, 0.0])
        recent_earlier[0 if when <= 84 else 1] += amount
    dot = sum(recent * earlier for recent, earlier in categories.values())
    norms = [sum(pair[k] ** 2 for pair in categories.values()) ** 0.5 for k in (0, 1)]
    sessions = {(event["session_id"], event["event_time"].date()) for event in past}
    ratings = [event["rating"] for event in past if event["event_type"] == "review"]
    refunds = [event for event in past if event["event_type"] == "refund"]
    total = sum(amount for _, amount, _, _ in spend)
    return {
        "days_since_last_purchase": recency,
        "days_since_last_event": min(ago(event) for event in past),
        "days_since_first_event": max(ago(event) for event in past),
        "orders_28d": sum((day - when).days <= 28 for _, when in orders),
        "orders_168d": sum((day - when).days <= 168 for _, when in orders),
        "orders_total": len(orders),
        "purchase_days_84d": sum((day - when).days <= 84 for when in days),
        "purchase_weeks_84d": len({(day - when).days // 7 for when in days if (day - when).days <= 84}),
        "amount_84d": sum(amount for when, amount, _, _ in spend if when <= 84),
        "amount_total": total,
        "order_value_total": total / len(orders) if orders else None,
        "gap_mean_days": statistics.mean(gaps) if gaps else None,
        "gap_median_days": statistics.median(gaps) if gaps else None,
        "gap_spread_days": (statistics.pstdev(gaps) if gaps else 0) if days else None,
        "gap_max_days": max(gaps) if gaps else None,
        "gap_last_days": gaps[-1] if gaps else None,
        "gap_now_to_mean": recency / statistics.mean(gaps) if gaps and recency else None,
        "discount_share_total": sum(d for *_, d, _ in spend) / (total + sum(d for *_, d, _ in spend))
        if spend
        else None,
        "discounted_line_share_total": sum(d > 0 for *_, d, _ in spend) / len(spend) if spend else None,
        "products_total": len({product for *_, product in spend}),
        "categories_total": len(categories),
        "categories_84d": len({CATEGORIES[product] for when, _, _, product in spend if when <= 84}),
        "favourite_category": max(categories, key=lambda name: (sum(categories[name]), name)) if spend else None,
        "favourite_category_share": max(map(sum, categories.values())) / total if spend else None,
        "interest_drift": 1 - dot / (norms[0] * norms[1]) if norms[0] and norms[1] else None,
        "sessions_28d": sum((day - when).days <= 28 for _, when in sessions),
        "sessions_total": len(sessions),
        "views_84d": sum(event["event_type"] == "view" and ago(event) <= 84 for event in past),
        "carts_28d": sum(event["event_type"] == "cart" and ago(event) <= 28 for event in past),
        "events_total": len(past),
        "rating_mean": statistics.mean(ratings) if ratings else None,
        "reviews_total": len(ratings),
        "refunds_total": len(refunds),
        "refunded_amount_total": float(len(refunds)),
        "weekend_share_total": sum(when.isoweekday() >= 6 for _, when in orders) / len(orders) if orders else None,
    }


@pytest.mark.parametrize("day", DATES)
def test_features_equal_those_computed_by_hand(warehouse: Path, events: list[dict[str, Any]], day: date) -> None:
    table = query(warehouse, f"select * from marts.user_features where as_of_date = date '{day}'")
    rows = {row["user_id"]: row for row in table.to_dicts()}
    past = history(events, day)
    active = {user for user, own in past.items() if any((day - e["event_time"].date()).days <= 84 for e in own)}
    assert set(rows) == active
    assert len(active) > 20
    for user in active:
        for name, expected in by_hand(past[user], day).items():
            found = rows[user][name]
            if expected is None:
                assert found is None, (user, name, found)
            else:
                assert found == pytest.approx(expected, abs=1e-6), (user, name)


def test_labels_equal_those_computed_by_hand(warehouse: Path, events: list[dict[str, Any]]) -> None:
    labels = query(warehouse, "select * from marts.user_churn_labels").to_dicts()
    seen = set()
    for row in labels:
        day = row["as_of_date"]
        end = day + timedelta(days=28)
        bought = [e for e in events if e["event_type"] == "purchase"]
        later = [e for e in bought if day <= e["event_time"].date() < end and user_at(e, end) == row["user_id"]]
        assert row["is_churned"] == (not later), row
        seen.add(row["is_churned"])
    assert seen == {True, False}
    for day in DATES:
        population = {
            user_at(e, day)
            for e in events
            if e["event_type"] == "purchase" and 1 <= (day - e["event_time"].date()).days <= 84
        }
        assert {row["user_id"] for row in labels if row["as_of_date"] == day} == population


def stage_by_hand(own: list[dict[str, Any]], day: date, population_gap: float) -> str:
    days = sorted({event["event_time"].date() for event in own if event["event_type"] == "purchase"})
    if not days:
        return "prospect"
    gaps = [(later - earlier).days for earlier, later in itertools.pairwise(days)]
    typical = min(statistics.median(gaps) if len(gaps) >= 3 else population_gap, 84)
    at_risk, dormant, churned = max(14, 2 * typical), max(42, 4 * typical), max(84, 8 * typical)
    recency = (day - days[-1]).days
    recent = [gap for gap, when in zip(gaps, days[1:], strict=True) if (day - when).days <= 28]
    rules = [
        ("churned", recency > churned),
        ("dormant", recency > dormant),
        ("at_risk", recency > at_risk),
        ("new", (day - days[0]).days <= 28),
        ("reactivated", bool(recent) and max(recent) > dormant),
        ("loyal", sum((day - when).days <= 84 for when in days) >= 6),
        ("active", True),
    ]
    return next(stage for stage, holds in rules if holds)


def test_stages_equal_those_computed_by_hand(warehouse: Path, events: list[dict[str, Any]]) -> None:
    seen = set()
    for day in DATES:
        past = history(events, day)
        gaps = []
        for own in past.values():
            days = sorted({e["event_time"].date() for e in own if e["event_type"] == "purchase"})
            gaps += [(later - earlier).days for earlier, later in itertools.pairwise(days)]
        gaps.sort()
        position = 0.75 * (len(gaps) - 1)
        low = int(position)
        high = min(low + 1, len(gaps) - 1)
        population_gap = gaps[low] + (position - low) * (gaps[high] - gaps[low])
        table = query(warehouse, f"select user_id, stage from marts.user_lifecycle where as_of_date = date '{day}'")
        found = dict(table.iter_rows())
        expected = {user: stage_by_hand(own, day, population_gap) for user, own in past.items()}
        assert found == expected
        seen |= set(expected.values())
    assert len(seen) >= 6, seen


def test_cohorts_are_those_of_a_slow_count(warehouse: Path, events: list[dict[str, Any]]) -> None:
    end, step = date(2025, 11, 24), 28
    days: dict[str, set[date]] = {}
    for event in events:
        if event["event_type"] == "purchase" and event["event_time"].date() < end:
            days.setdefault(user_at(event, end), set()).add(event["event_time"].date())
    cohorts: dict[tuple[str, date], list[set[date]]] = {}
    for user, own in days.items():
        for channel in ("(all)", CHANNELS.get(user, "(unknown)")):
            cohorts.setdefault((channel, min(own).replace(day=1)), []).append(own)
    expected = []
    for (channel, month), members in sorted(cohorts.items()):
        # The last member could have come on the month's last day.
        last = (month + timedelta(days=31)).replace(day=1) - timedelta(days=1)
        for period in range(20):
            if last + timedelta(days=step * (period + 1)) > end:
                break
            buyers = sum(any((day - min(own)).days // step == period for day in own) for own in members)
            expected.append((channel, month, period, len(members), buyers, buyers / len(members)))
    found = query(
        warehouse,
        "select acquisition_channel, cohort_month, period, cohort_users, buyers, retention "
        "from marts.cohort_retention order by 1, 2, 3",
    )
    assert len(expected) > 60
    assert {row[0] for row in expected} == {"(all)", "(unknown)", "email", "social"}
    assert found.rows() == expected
