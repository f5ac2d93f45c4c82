"""Funnels, paths and transitions of sessions made by hand; sequences against counting one by one, and planted ones."""

from datetime import datetime, timedelta
from itertools import combinations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from scipy.stats.contingency import relative_risk

from lcm_ml.insights import sequences
from lcm_ml.insights.paths import END, MORE, START, frequent_paths, funnels, has_clicks, transitions
from lcm_ml.insights.sequences import Pattern, rank_lifts, risk_ratio, sequence_lifts

BEGIN = datetime(2026, 1, 5, 12)


def steps_of(*sessions: tuple[str, str | None, list[tuple[int, str]]]) -> pl.DataFrame:
    """Sessions as (user, channel, [(second, event type), ...])."""
    return pl.DataFrame(
        [
            (trail, user, state, BEGIN + timedelta(seconds=second), channel)
            for trail, (user, channel, events) in enumerate(sessions)
            for second, state in events
        ],
        schema={
            "trail": pl.UInt64,
            "user": pl.String,
            "state": pl.String,
            "started_at": pl.Datetime("us"),
            "channel": pl.String,
        },
        orient="row",
    )


BY_HAND = steps_of(
    ("ann", "web", [(0, "view"), (60, "cart"), (90, "purchase")]),
    ("ann", "web", [(0, "view"), (20, "cart"), (30, "view")]),
    ("bob", "app", [(0, "cart"), (10, "view"), (15, "purchase")]),
    ("cid", None, [(0, "purchase"), (5, "review")]),
    ("cid", "web", [(0, "view"), (10, "search"), (12, "view"), (100, "cart"), (400, "purchase")]),
)


def test_a_funnel_counts_steps_in_their_order():
    everywhere = funnels(BY_HAND).filter(channel="(all)")
    assert everywhere["event_type"].to_list() == ["view", "cart", "purchase"]
    # bob's cart came before the view, so neither it nor the purchase after it is a step.
    assert everywhere["sessions"].to_list() == [4, 3, 2]
    assert everywhere["users"].to_list() == [3, 2, 2]
    assert everywhere["sessions_with_type"].to_list() == [4, 4, 4]
    assert everywhere["share_of_first"].to_list() == [1, 0.75, 0.5]
    assert everywhere["share_of_previous"].to_list() == pytest.approx([None, 0.75, 2 / 3])
    assert everywhere["drop_off"].to_list() == pytest.approx([None, 0.25, 1 / 3])
    # View to cart: 60, 20 and 100 s; cart to purchase: 30 and 300 s.
    assert everywhere["median_seconds"].to_list() == pytest.approx([None, 60, 165])
    assert everywhere["p90_seconds"].to_list() == pytest.approx([None, 92, 273])
    # Newcombe (1998), score interval of 3 of 4.
    assert everywhere.row(1, named=True)["ci_low"] == pytest.approx(0.3006, abs=1e-4)


def test_a_funnel_by_channel_has_every_step_of_every_channel():
    rows = funnels(BY_HAND)
    assert rows["channel"].unique(maintain_order=True).to_list() == ["(all)", "web", "(unknown)", "app"]
    assert rows.height == 12
    app = rows.filter(channel="app")
    assert app["sessions"].to_list() == [1, 0, 0]
    assert app["share_of_previous"].to_list() == [None, 0, None]
    unknown = rows.filter(channel="(unknown)")
    assert unknown["sessions"].to_list() == [0, 0, 0]
    assert unknown["sessions_with_type"].to_list() == [0, 0, 1]
    assert unknown["ci_low"].to_list() == [None, None, None]
    parts = rows.filter(pl.col("channel") != "(all)").group_by("step").agg(pl.col("sessions").sum()).sort("step")
    assert parts["sessions"].to_list() == [4, 3, 2]


def test_transitions_have_known_probabilities_and_times():
    rows = {(row["from_state"], row["to_state"]): row for row in transitions(BY_HAND).to_dicts()}
    assert {key: row["transitions"] for key, row in rows.items() if key[0] in (START, "view")} == {
        (START, "view"): 3, (START, "cart"): 1, (START, "purchase"): 1,
        ("view", "cart"): 3, ("view", "purchase"): 1, ("view", "search"): 1, ("view", END): 1,
    }  # fmt: skip
    assert rows["view", "cart"]["probability"] == pytest.approx(3 / 6)
    assert rows["view", "cart"]["median_seconds"] == pytest.approx(60)
    assert rows["cart", "purchase"]["median_seconds"] == pytest.approx(165)
    assert rows["view", END]["median_seconds"] is None
    assert rows["purchase", END]["transitions"] == 3
    for state in {key[0] for key in rows}:
        assert sum(row["probability"] for key, row in rows.items() if key[0] == state) == pytest.approx(1)
    entered = sum(row["transitions"] for key, row in rows.items() if key[0] == START)
    assert entered == sum(row["transitions"] for key, row in rows.items() if key[1] == END) == 5


def test_paths_are_counted_ranked_and_cut():
    long = [(second, ("view", "cart")[second % 2]) for second in range(12)]
    steps = steps_of(
        *[("ann", "web", [(0, "view"), (9, "purchase")])] * 3,
        ("bob", "web", [(0, "view")]),
        ("bob", "web", long),
        ("cid", "web", [*long, (99, "purchase")]),
    )
    paths = frequent_paths(steps)
    assert paths["path"].to_list()[0] == "view > purchase"
    assert paths["trails"].to_list() == [3, 2, 1]
    assert paths["users"].to_list() == [1, 2, 1]
    assert paths["share"].to_list() == pytest.approx([0.5, 1 / 3, 1 / 6])
    assert paths["path"].to_list()[1] == " > ".join([*["view", "cart"] * 4, MORE])
    # How the longer ones end is not told by their first eight steps.
    assert paths["ends_in_purchase"].to_list() == [True, None, False]
    assert paths["purchase_share"].to_list() == [1, 0.5, 0]
    assert frequent_paths(steps, most=1).height == 1
    by_hand = {row["path"]: row for row in frequent_paths(BY_HAND).to_dicts()}
    assert not by_hand["purchase > review"]["ends_in_purchase"]
    assert by_hand["purchase > review"]["purchase_share"] == 1


def test_a_shop_without_clicks_is_told_apart():
    only = steps_of(*[("ann", "store", [(0, "purchase")])] * 300, ("bob", "store", [(0, "purchase"), (1, "refund")]))
    assert not has_clicks(only)
    assert has_clicks(BY_HAND)
    empty = BY_HAND.clear()
    assert not has_clicks(empty)
    assert funnels(empty).is_empty()
    assert frequent_paths(empty).is_empty()
    assert transitions(empty).is_empty()


def frames(walks: list[list[str]], outcomes: list[bool]) -> tuple[pl.DataFrame, pl.DataFrame]:
    steps = [(subject, place + 1, state) for subject, walk in enumerate(walks) for place, state in enumerate(walk)]
    schema = {"subject": pl.Int64, "position": pl.Int64, "state": pl.String}
    return pl.DataFrame(steps, schema=schema, orient="row"), pl.DataFrame(
        {"subject": range(len(outcomes)), "outcome": outcomes}, schema={"subject": pl.Int64, "outcome": pl.Boolean}
    )


def patterns_of(walk: list[str]) -> set[Pattern]:
    """Every sequence of up to three steps in a walk, found one by one."""
    found = {Pattern((state,), True) for state in walk}
    for length in (2, 3):
        for places in combinations(range(len(walk)), length):
            states = tuple(walk[place] for place in places)
            found.add(Pattern(states, False))
            if places[-1] - places[0] == length - 1:
                found.add(Pattern(states, True))
    return found


WALKS = st.lists(st.lists(st.sampled_from("abc"), max_size=6), min_size=40, max_size=60)


@settings(max_examples=25)
@given(WALKS, st.randoms(use_true_random=False))
def test_sequences_are_those_counted_one_by_one(walks, random):
    outcomes = [random.random() < 0.5 for _ in walks]
    rows = sequence_lifts(*frames(walks, outcomes))
    counted: dict[str, list[int]] = {}
    for walk, outcome in zip(walks, outcomes, strict=True):
        for pattern in patterns_of(walk):
            hits = counted.setdefault(str(pattern), [0, 0])
            hits[0] += 1
            hits[1] += outcome
    tested = {name for name, (n, _) in counted.items() if 10 <= n <= len(walks) - 10}
    if rows.is_empty():
        assert not tested or min(sum(outcomes), len(outcomes) - sum(outcomes)) < 10
        return
    assert rows["tested"].unique().to_list() == [len(tested)]
    assert set(rows["sequence"]) <= tested
    for row in rows.iter_rows(named=True):
        n, hits = counted[row["sequence"]]
        assert (row["users_with"], row["users_without"]) == (n, len(walks) - n)
        assert row["rate_with"] == pytest.approx(hits / n)
        assert row["rate_without"] == pytest.approx((sum(outcomes) - hits) / (len(walks) - n))


def planted(seed: int, users: int = 1200) -> tuple[pl.DataFrame, pl.DataFrame]:
    """One in six users had to ask for support twice in a row; 80 % of them churn, 20 % of the others."""
    rng = np.random.default_rng(seed)
    walks, outcomes = [], []
    for user in range(users):
        walk = list(rng.choice(["view", "cart", "purchase", "review"], rng.integers(2, 11)))
        is_planted = user % 6 == 0
        if is_planted:
            walk[1:1] = ["support", "support"]
        elif user % 6 == 1:
            walk.insert(1, "support")
        walks.append(walk)
        outcomes.append(bool(rng.random() < (0.8 if is_planted else 0.2)))
    return frames(walks, outcomes)


def test_a_planted_sequence_comes_out_first_with_its_lift():
    ranked = rank_lifts({"event": sequence_lifts(*planted(0))})
    top = ranked.row(0, named=True)
    # Nobody asked twice with something in between, so that both forms are the same users: the general one is told.
    assert top["sequence"] == "support ... support"
    assert top["users_with"] == 200
    assert top["ci_low"] < 4 < top["ci_high"]
    assert top["ci_high"] - top["ci_low"] < 1.5
    assert top["is_significant"]
    assert top["lift_rank"] == 1
    assert "support > support" not in ranked["sequence"]


def test_users_are_counted_alike_in_small_parts(monkeypatch):
    whole = sequence_lifts(*planted(3, users=300))
    monkeypatch.setattr(sequences, "CHUNK", 7)
    assert_frame_equal(sequence_lifts(*planted(3, users=300)), whole)


def test_a_sequence_that_only_matters_in_a_row_is_told_as_such():
    rng = np.random.default_rng(4)
    walks = [["a", "b"] if user % 3 == 0 else ["a", "c", "b"] if user % 3 == 1 else ["b", "a"] for user in range(900)]
    outcomes = [bool(rng.random() < (0.7 if walk == ["a", "b"] else 0.2)) for walk in walks]
    assert rank_lifts({"event": sequence_lifts(*frames(walks, outcomes))}).row(0, named=True)["sequence"] == "a > b"


def test_an_outcome_by_chance_has_hardly_any_sequence():
    wrong = 0
    for seed in range(40):
        steps, outcomes = planted(seed, users=400)
        by_chance = outcomes.with_columns(outcome=pl.Series(np.random.default_rng(seed).random(400) < 0.3))
        wrong += rank_lifts({"event": sequence_lifts(steps, by_chance)})["is_significant"].any()
    # Of Binomial(40, 0.05), 99.9 % lie at or below 7.
    assert wrong <= 7


def test_the_correction_is_over_all_kinds_of_steps():
    found = sequence_lifts(*planted(1))
    alone = rank_lifts({"event": found})
    both = rank_lifts({"event": found, "category": found.clear(), "gap": found})
    assert both["step_kind"].unique().sort().to_list() == ["event", "gap"]
    assert both["q_value"].max() >= alone["q_value"].max()
    assert both["lift_rank"].to_list() == list(range(1, both.height + 1))


@given(st.integers(1, 50), st.integers(1, 50), st.integers(51, 90), st.integers(51, 90))
def test_the_interval_of_a_lift_is_that_of_katz(hits, others, n, m):
    ratio, low, high = risk_ratio(*(np.array([value]) for value in (hits, n, others, m)))
    known = relative_risk(hits, n, others, m)
    assert ratio[0] == pytest.approx(known.relative_risk)
    interval = known.confidence_interval()
    assert (low[0], high[0]) == pytest.approx((interval.low, interval.high), rel=1e-5)


def test_an_empty_cell_still_has_an_interval():
    ratio, low, high = risk_ratio(np.array([0, 5]), np.array([20, 20]), np.array([8, 0]), np.array([40, 40]))
    assert ratio[0] == 0
    assert 0 < low[0] < 1
    assert np.isinf(ratio[1])
    assert high[1] > low[1] > 0


@pytest.mark.parametrize("happened", [0, 3, 400])
def test_too_few_outcomes_are_no_failure(happened):
    steps, outcomes = planted(2, users=400)
    rare = outcomes.with_columns(outcome=pl.col("subject") < happened)
    assert rank_lifts({"event": sequence_lifts(steps, rare)}).is_empty()
    assert sequence_lifts(steps.clear(), rare.clear()).is_empty()
