"""Survival curves and purchase hazards against data whose truth is known, and against counts by hand."""

import itertools
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifecycle import change, lcm, query

from lcm_ml.insights.silences import hazards, silences
from lcm_ml.insights.survival import (
    ALL,
    CHANNEL,
    CHURN,
    MONTH,
    SECOND_PURCHASE,
    durations,
    survival_curve,
    survival_curves,
    survival_tests,
)

START, END = date(2025, 1, 1), date(2026, 1, 1)


def purchases(days: dict[str, list[int]], start: date = START) -> pl.DataFrame:
    """Days of purchase, counted from a start, as `purchase_days_before` has them."""
    rows = [(user, start + timedelta(days=day)) for user in sorted(days) for day in sorted(days[user])]
    return pl.DataFrame(rows, schema={"user_id": pl.String, "purchase_date": pl.Date}, orient="row")


def users(days: dict[str, list[int]], cut_off: float = 84.0, channel: str | None = None) -> pl.DataFrame:
    return pl.DataFrame(
        {"user_id": sorted(days), "churned_after_days": [cut_off] * len(days), CHANNEL: [channel] * len(days)},
        schema_overrides={"user_id": pl.String, "churned_after_days": pl.Float64, CHANNEL: pl.String},
    )


def test_a_curve_is_the_textbook_one():
    # Kleinbaum and Klein (2012), Survival Analysis, chapter 2: weeks in remission of 21 treated leukaemia patients.
    events = [6, 6, 6, 7, 10, 13, 16, 22, 23]
    censored = [6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35]
    days = np.array(events + censored, dtype=np.int32)
    curve = survival_curve(days, np.array([True] * len(events) + [False] * len(censored)))
    by_day = {row["days"]: row for row in curve.to_dicts()}
    expected = {5: 1.0, 6: 0.8571, 7: 0.8067, 10: 0.7529, 13: 0.6902, 16: 0.6275, 22: 0.5378, 23: 0.4482, 35: 0.4482}
    for day, share in expected.items():
        assert by_day[day]["survival"] == pytest.approx(share, abs=5e-5)
    assert (by_day[6]["at_risk"], by_day[6]["events"]) == (21, 3)
    assert by_day[5]["ci_low"] is None
    # Greenwood at 10: 0.7529 ** 2 * (3 / (21 * 18) + 1 / (17 * 16) + 1 / (15 * 14)), on the log-log scale.
    error = (3 / (21 * 18) + 1 / (17 * 16) + 1 / (15 * 14)) ** 0.5 / abs(np.log(0.752941))
    low, high = (0.752941 ** np.exp(sign * 1.959964 * error) for sign in (1, -1))
    assert by_day[10]["ci_low"] == pytest.approx(low, abs=1e-4)
    assert by_day[10]["ci_high"] == pytest.approx(high, abs=1e-4)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 60), st.booleans()), min_size=1, max_size=60))
def test_a_curve_falls_and_its_interval_holds_it(found):
    days, is_event = (np.array(part) for part in zip(*found, strict=True))
    curve = survival_curve(days.astype(np.int32), is_event.astype(bool))
    share = curve["survival"].to_numpy()
    assert (np.diff(share) <= 1e-12).all()
    assert curve["events"].sum() == is_event.sum()
    known = curve.drop_nulls("ci_low")
    assert (known["ci_low"] <= known["survival"]).all()
    assert (known["ci_high"] >= known["survival"]).all()
    # The product over days, the slow way.
    slow = 1.0
    for day in range(int(days.max()) + 1):
        left = (days >= day).sum()
        slow *= 1 - ((days == day) & is_event).sum() / left
    assert share[-1] == pytest.approx(slow)


def gamma_shop(n: int, rng: np.random.Generator, shape: float = 0.8, scale: float = 16.0) -> dict[str, list[int]]:
    """First purchases over a year, the second one after an exponential time with a rate of the user's own."""
    first = rng.integers(0, 365, n)
    wait = np.ceil(rng.exponential(1, n) / rng.gamma(shape, 1 / scale, n)).astype(int)
    return {
        f"u{k:05d}": [int(a)] + ([int(a + b)] if a + b < 365 else [])
        for k, (a, b) in enumerate(zip(first, wait, strict=True))
    }


def test_the_time_to_the_second_purchase_covers_the_truth():
    # The gamma mixture of exponentials is what BG/NBD assumes: (alpha / (alpha + t)) ** r have no second one by t.
    inside = []
    for seed in range(8):
        shop = gamma_shop(1500, np.random.default_rng(seed))
        found = durations(silences(purchases(shop), END), users(shop), END)
        curve = (
            survival_curves(found)
            .filter(curve=SECOND_PURCHASE, dimension=ALL)
            .filter(pl.col("days").is_in([7, 28, 84, 182]))
        )
        truth = (16 / (16 + curve["days"].to_numpy())) ** 0.8
        inside.append((curve["ci_low"].to_numpy() <= truth) & (truth <= curve["ci_high"].to_numpy()))
        # What ignores that later users were watched for less time is far off.
        naive = 1 - found.filter(curve=SECOND_PURCHASE)["is_event"].mean()
        assert naive > truth[-1] + 0.05
    assert np.mean(inside) >= 0.85


def test_churn_is_the_first_silence_beyond_the_cut_off_and_nothing_later_undoes_it():
    shop = {"back": [0, 10, 110], "gone": [0, 20], "here": [0, 300], "just": [280]}
    found = durations(silences(purchases(shop), END), users(shop, 84.5), END)
    churn = {row["user_id"]: (row["days"], row["is_event"]) for row in found.filter(curve=CHURN).to_dicts()}
    # Silent from day 10 on: longer than 84.5 days on day 95. It came back on day 110, which undoes nothing.
    assert churn == {"back": (95, True), "gone": (105, True), "here": (85, True), "just": (85, True)}
    second = {row["user_id"]: (row["days"], row["is_event"]) for row in found.filter(curve=SECOND_PURCHASE).to_dicts()}
    # The day before as_of is the last one on which `just` could have been seen.
    assert second == {"back": (10, True), "gone": (20, True), "here": (300, True), "just": (84, False)}
    young = durations(silences(purchases({"just": [281]}), END), users({"just": [281]}, 84.5), END)
    assert young.filter(curve=CHURN).select("days", "is_event").row(0) == (84, False)


def test_what_comes_later_changes_no_earlier_curve():
    rng = np.random.default_rng(3)
    shop = {f"u{k}": sorted(set(rng.integers(0, 364, rng.integers(1, 12)).tolist())) for k in range(60)}
    cut = START + timedelta(days=200)
    before = {user: [day for day in days if day < 200] for user, days in shop.items()}
    kept = purchases(shop).filter(pl.col("purchase_date") < cut)
    assert kept.equals(purchases({user: days for user, days in before.items() if days}))
    known = users(before)
    assert durations(silences(kept, cut), known, cut)["days"].max() <= 200


def test_months_and_channels_are_told_apart_and_small_ones_left_out():
    shop = {f"u{k:03d}": [k % 60, k % 60 + 5] for k in range(90)}
    half = users(shop).with_columns(pl.when(pl.int_range(pl.len()) < 40).then(pl.lit("email")).alias(CHANNEL))
    curves = survival_curves(durations(silences(purchases(shop), END), half, END), smallest=35)
    levels = set(curves.select("dimension", "level").unique().iter_rows())
    assert levels == {(ALL, ALL), (MONTH, "2025-01"), (CHANNEL, "email"), (CHANNEL, "(unknown)")}
    nobody = survival_curves(durations(silences(purchases(shop), END), users(shop), END))
    assert CHANNEL not in nobody["dimension"]
    none = purchases({})
    assert survival_curves(durations(silences(none, END), users({}), END)).is_empty()


def log_rank_by_hand(first: pl.DataFrame, second: pl.DataFrame) -> float:
    observed = expected = variance = 0.0
    both = pl.concat([first, second])
    for day in both.filter("is_event")["days"].unique():
        n, n1 = ((frame["days"] >= day).sum() for frame in (both, first))
        d, d1 = ((frame.filter("is_event")["days"] == day).sum() for frame in (both, first))
        observed, expected = observed + d1, expected + d * n1 / n
        if n > 1:
            variance += d * (n1 / n) * (1 - n1 / n) * (n - d) / (n - 1)
    return (observed - expected) / variance**0.5


def test_channels_that_differ_are_found_and_p_values_are_adjusted():
    rng = np.random.default_rng(5)
    slow, fast = gamma_shop(300, rng, scale=48.0), gamma_shop(300, rng)
    shop = {
        f"{name}{user}": days
        for name, part in (("a", slow), ("b", fast), ("c", gamma_shop(300, rng)))
        for user, days in part.items()
    }
    channel = {"a": "slow", "b": "fast", "c": "fast too"}
    known = users(shop).with_columns(pl.col("user_id").str.slice(0, 1).replace_strict(channel).alias(CHANNEL))
    found = durations(silences(purchases(shop), END), known, END)
    tests = survival_tests(found).filter(curve=SECOND_PURCHASE)
    by_pair = {(row["level"], row["other_level"]): row for row in tests.to_dicts()}
    assert by_pair["fast", "slow"]["p_value_adjusted"] < 0.001
    assert by_pair["fast", "fast too"]["p_value_adjusted"] > 0.05
    second = found.filter(curve=SECOND_PURCHASE)
    by_hand = log_rank_by_hand(second.filter(pl.col(CHANNEL) == "fast"), second.filter(pl.col(CHANNEL) == "slow"))
    assert by_pair["fast", "slow"]["statistic"] == pytest.approx(by_hand, rel=1e-6)
    assert by_hand > 0
    smallest, middle, largest = sorted(tests["p_value"])
    holm = [3 * smallest, max(3 * smallest, 2 * middle), max(3 * smallest, 2 * middle, largest)]
    assert sorted(tests["p_value_adjusted"]) == pytest.approx([min(p, 1) for p in holm])


def test_hazards_of_a_memoryless_shop_are_flat_and_their_intervals_cover_the_truth():
    hits, back_hits, chance = [], [], 0.05
    for seed in range(6):
        rng = np.random.default_rng(seed)
        shop = {f"u{k:03d}": [0, *np.flatnonzero(rng.random(364) < chance).tolist()] for k in range(150)}
        found = hazards(
            silences(purchases({user: sorted(set(days)) for user, days in shop.items()}), END), 28, 30, seed
        )
        hits.append(((found["ci_low"] <= chance) & (found["ci_high"] >= chance)).to_numpy())
        known = found.drop_nulls("probability_back")
        truth = 1 - (1 - chance) ** 28
        back_hits.append(((known["back_ci_low"] <= truth) & (known["back_ci_high"] >= truth)).to_numpy())
    assert 0.88 <= np.mean(np.concatenate(hits)) <= 1
    assert np.mean(np.concatenate(back_hits)) >= 0.85


def test_a_hazard_is_a_slow_count_of_silences():
    rng = np.random.default_rng(2)
    shop = {f"u{k}": sorted(set(rng.integers(0, 365, 20).tolist())) for k in range(40)}
    found = {row["days_since_last_purchase"]: row for row in hazards(silences(purchases(shop), END), 28).to_dicts()}
    for day in (1, 5, 20):
        reached = bought = 0
        for days in shop.values():
            for one, following in itertools.zip_longest(days, days[1:], fillvalue=None):
                # A silence that lasts was watched up to the day before the end, day 364.
                watched = following - one if following is not None else 364 - one
                reached += watched >= day
                bought += following is not None and following - one == day
        assert (found[day]["at_risk"], found[day]["purchases"]) == (reached, bought)
        assert found[day]["hazard"] == pytest.approx(bought / reached)
    within = 1.0
    for day in range(5, 5 + 24):
        within *= 1 - found[day]["hazard"] if day <= 28 else 1
    short = {row["days_since_last_purchase"]: row for row in hazards(silences(purchases(shop), END), 24).to_dicts()}
    assert short[5]["probability_back"] == pytest.approx(1 - within)


def test_users_with_many_silences_widen_the_interval():
    rng = np.random.default_rng(7)
    # From nearly every day to hardly ever: the silences of one user are no independent draws.
    shop = {}
    for k, chance in enumerate(rng.uniform(0.1, 0.9, 60)):
        shop[f"u{k:02d}"] = [0, *(1 + np.flatnonzero(rng.random(363) < chance)).tolist()]
    row = hazards(silences(purchases(shop), END), 28, seed=1).row(0, named=True)
    p, n = row["hazard"], row["exposure_days"]
    assert row["ci_high"] - row["ci_low"] > 2 * 2 * 1.96 * (p * (1 - p) / n) ** 0.5
    assert row["ci_low"] < p < row["ci_high"]
    assert hazards(silences(purchases({}), END), 28).is_empty()


def test_the_command_fills_the_tables_and_a_second_run_replaces_them(sample: Path) -> None:
    first = lcm(sample, "cohorts")
    again = lcm(sample, "cohorts")
    assert first["rows"] == again["rows"]
    assert query(sample, "select count(*), count(distinct run_id) from ml.survival_curves").row(0) == (
        first["rows"]["survival_curves"],
        1,
    )
    curves = query(sample, "select * from serving.survival_curves_latest")
    assert curves.height == first["rows"]["survival_curves"]
    ever = query(sample, "select count(distinct user_id) from marts.purchase_days").item()
    start = curves.filter(pl.col("days") == 0, pl.col("dimension") == ALL, pl.col("curve") == CHURN)
    assert 0 < start["at_risk"].item() <= ever
    assert set(curves["dimension"]) == {ALL, MONTH, CHANNEL}
    hazard = query(sample, "select * from serving.purchase_hazards_latest order by 1, 2")
    assert hazard["purchases"].sum() > 500
    assert hazard["horizon_days"].unique().to_list() == [28]


def test_an_earlier_date_stands_beside_and_the_newest_is_served(sample: Path) -> None:
    newest = lcm(sample, "cohorts")["as_of_date"]
    lcm(sample, "cohorts", "--as-of", "2025-09-29")
    assert query(sample, "select count(distinct as_of_date) from ml.purchase_hazards").item() == 2
    served = query(sample, "select distinct as_of_date from serving.purchase_hazards_latest").item()
    assert str(served) == newest
    old = query(sample, "select max(days) from ml.survival_curves where as_of_date = date '2025-09-29'").item()
    assert old <= (date(2025, 9, 29) - query(sample, "select min(purchase_date) from marts.purchase_days").item()).days


def test_a_shop_without_purchases_gives_empty_tables(sample: Path, tmp_path: Path) -> None:
    path = tmp_path / "lcm.duckdb"
    path.write_bytes(sample.read_bytes())
    change(path, "delete from marts.purchase_days", "update marts.user_lifecycle set purchase_days = 0")
    found = lcm(path, "cohorts")
    assert found["note"]
    assert found["rows"] == {"survival_curves": 0, "survival_tests": 0, "purchase_hazards": 0}
