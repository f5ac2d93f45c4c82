"""Budgets: the linear programme keeps every limit, none beats it, and the command does what it says."""

import itertools

import duckdb
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifecycle import lcm, query
from scipy.optimize import linprog
from simulated_budget import CHANNELS, gains_of, regrets, simulated

from lcm_ml.decisions.budget import allocation
from lcm_ml.decisions.budget.allocation import Allocator, Options, worth_a_look
from lcm_ml.decisions.budget.planning import OPTIMISED, plan_budget
from lcm_ml.decisions.options import permitted, with_blocks
from lcm_ml.reporting.sections.budget import budget as budget_section

CHANNEL_NAMES = ("email", "push", "mail")


@st.composite
def shops(draw):
    """Options of a few users, what channels can carry, and a budget."""
    money = st.integers(0, 40).map(lambda value: value / 4)
    rows = [
        {
            "user_id": f"u{user}",
            "offer": offer,
            "campaign_kind": offer,
            "channel": channel,
            "contact_cost": draw(money),
            "discount_cost": draw(money) if offer == "b" else 0.0,
            "expected_profit": draw(st.integers(-20, 60)) / 4,
            "standard_error": 0.5,
            "gain_source": "uplift",
        }
        for user in range(draw(st.integers(1, 4)))
        for offer, channel in itertools.product("ab", CHANNEL_NAMES)
        if draw(st.booleans())
    ]
    capacity = [draw(st.none() | st.integers(0, 3)) for _ in CHANNEL_NAMES]
    types = {"contact_cost": pl.Float64, "discount_cost": pl.Float64, "expected_profit": pl.Float64}
    columns = ["user_id", "offer", "campaign_kind", "channel", *types, "standard_error", "gain_source"]
    texts = dict.fromkeys(["user_id", "offer", "campaign_kind", "channel", "gain_source"], pl.String)
    frame = pl.DataFrame(rows, schema={name: (texts | types).get(name, pl.Float64) for name in columns})
    users = pl.DataFrame({"user_id": [f"u{user}" for user in range(4)], "churn_probability": [0.1, None, 0.9, 0.5]})
    channels = pl.DataFrame({"channel": CHANNEL_NAMES, "capacity": capacity}, schema_overrides={"capacity": pl.Int64})
    return frame, users, channels, draw(st.integers(0, 200)) / 4


def best_by_trying(options: pl.DataFrame, channels: pl.DataFrame, budget: float) -> float:
    room = {name: np.inf if most is None else most for name, most in channels.iter_rows()}
    by_user = [[None, *rows.to_dicts()] for _, rows in options.group_by("user_id", maintain_order=True)]
    best = 0.0
    for chosen in itertools.product(*by_user):
        taken = [row for row in chosen if row is not None]
        costs = sum(row["contact_cost"] + row["discount_cost"] for row in taken)
        used = {name: sum(row["channel"] == name for row in taken) for name in room}
        if costs <= budget and all(used[name] <= room[name] for name in room):
            best = max(best, sum(row["expected_profit"] for row in taken))
    return best


@given(shops())
@settings(max_examples=40)
def test_every_policy_keeps_the_limits_and_none_beats_the_linear_programme(shop):
    options, users, channels, budget = shop
    plan = plan_budget(options, users, channels, budget, 0, steps=1)
    keys = ["user_id", "offer", "channel"]
    for _, taken in plan.contacts.group_by("policy"):
        assert taken["contact_cost"].sum() + taken["discount_cost"].sum() <= budget + 1e-6
        assert taken["user_id"].is_unique().all()
        assert taken.join(options, on=keys, how="anti").is_empty()
        used = taken.group_by("channel").len().join(channels, on="channel")
        assert (used["len"] <= used["capacity"].fill_null(1000)).all()
    asked = plan.policies.filter("is_asked")
    bound = asked.filter(policy=OPTIMISED)["upper_bound"].item()
    assert asked["expected_profit"].max() <= bound + 1e-6
    # Whole users: the optimum lies between what was found and the bound, and a user for each limit is the most lost.
    best = best_by_trying(options, channels, budget)
    found = asked.filter(policy=OPTIMISED)["expected_profit"].item()
    assert found <= best + 1e-6
    assert best <= bound + 1e-6
    limits = 1 + channels["capacity"].count()
    assert found >= bound - limits * max(options["expected_profit"].max() or 0, 0) - 1e-6


@given(shops())
@settings(max_examples=15)
def test_more_money_never_brings_less_and_none_brings_nothing(shop):
    options, users, channels, _ = shop
    curve = plan_budget(options, users, channels, None, 0, steps=4).policies.filter(policy=OPTIMISED)
    assert (np.diff(curve["upper_bound"]) >= -1e-6).all()
    assert curve["budget"][0] == 0
    # Where nothing more pays the users are whole, and the optimum is met.
    last = curve.row(-1, named=True)
    assert last["is_asked"]
    if channels["capacity"].null_count() == channels.height:
        assert last["expected_profit"] == pytest.approx(last["upper_bound"], abs=1e-6)
        assert last["expected_profit"] == pytest.approx(best_by_trying(options, channels, 1e9), abs=1e-6)


def many(users: int, seed: int) -> Options:
    """Offers through four channels, whose effects differ and whose costs tie in many ways."""
    rng = np.random.default_rng(seed)
    effect = rng.gamma(1, 0.05, (users, 1, 1)) * np.array([0.4, 1, 0.7])[:, None] + rng.normal(0, 0.01, (users, 3, 1))
    value = rng.gamma(2, 20, (users, 1, 1))
    discounts = np.array([0, 0.1, 0.15])[:, None] * value * (effect.clip(0) + rng.random((users, 1, 1)))
    cost = discounts + np.array([0.05, 0.01, 0.08, 0.6])
    open_to = np.broadcast_to(rng.random((users, 1, 4)) < 0.7, cost.shape)
    user, _, channel = np.nonzero(open_to)
    return Options(user, channel, cost[open_to], (0.3 * effect * value - cost)[open_to])


@pytest.mark.parametrize("room", [np.inf, 60])
@pytest.mark.parametrize("budget", [5.0, 40.0, 1e6])
def test_prices_and_a_core_reach_the_optimum_of_the_whole_programme(monkeypatch, room, budget):
    monkeypatch.setattr(allocation, "CORE_USERS", 20)
    options, capacity = many(800, 1), np.full(4, room)
    whole = linprog(
        -options.profit,
        np.concatenate(
            [
                options.cost[None],
                (options.channel == np.arange(4)[:, None]).astype(float),
                (options.user == np.arange(800)[:, None]).astype(float),
            ]
        ),
        np.r_[budget, np.minimum(capacity, 1e6), np.ones(800)],
        method="highs",
    )
    found = Allocator(options, capacity).at(budget)
    assert found.upper_bound == pytest.approx(-whole.fun, rel=2e-5)
    profit = options.profit[found.chosen].sum()
    assert profit <= found.upper_bound + 1e-6
    assert profit >= 0.98 * found.upper_bound
    assert options.cost[found.chosen].sum() <= budget + 1e-6
    assert (np.bincount(options.channel[found.chosen], minlength=4) <= capacity).all()
    if budget == 5.0:
        assert found.shadow_price == pytest.approx(-whole.ineqlin.marginals[0], rel=0.02)


def test_users_at_a_near_tie_need_no_larger_programme(monkeypatch):
    sizes = []
    solved = allocation._solved

    def counted(costs, *rest):
        sizes.append(len(costs))
        return solved(costs, *rest)

    monkeypatch.setattr(allocation, "_solved", counted)
    rng = np.random.default_rng(0)
    users = 100_000
    # As trees tell effects: of a few sizes, some of which hardly differ.
    near = 0.3 + rng.choice([0, 1e-4, 2e-4, 3e-4, 8e-3], users)
    profit = np.where(np.arange(users) < 1000, 5.0, near)
    options = Options(np.arange(users), np.zeros(users, dtype=np.int64), np.full(users, 0.01), profit)
    allocator = Allocator(options, np.array([np.inf]))
    for budget in (50.0, 200.0, 700.0):
        found = allocator.at(budget)
        assert found.upper_bound - profit[found.chosen].sum() <= 1e-5 * found.upper_bound
        assert len(found.chosen) == pytest.approx(100 * budget, abs=1)
    assert max(sizes) <= allocation.CORE_USERS


def test_an_option_that_another_beats_is_left_out_but_not_where_its_channel_is_scarce():
    options = Options(np.zeros(4, int), np.array([0, 0, 1, 1]), np.array([1.0, 2, 2, 1]), np.array([5.0, 4, 6, -1]))
    assert worth_a_look(options, np.array([0, 0])).tolist() == [True, False, True, False]
    better_but_scarce = Options(np.zeros(2, int), np.array([0, 1]), np.array([1.0, 2]), np.array([5.0, 4]))
    assert worth_a_look(better_but_scarce, np.array([1, 0])).tolist() == [True, True]


def test_who_may_not_be_contacted_is_in_no_plan():
    known = simulated(800, 60, 1)
    gains = gains_of(known, known.true)
    users = known.users["user_id"].to_list()
    blocked = pl.DataFrame(
        [
            {"user_id": user, "channel": channel, "blocked_by": "no_consent" if (user + place) % 2 else None}
            for user in users
            for place, channel in enumerate(CHANNELS["channel"])
        ]
    )
    contacts = plan_budget(permitted(with_blocks(gains, blocked)), known.users, CHANNELS, 20.0, 0, steps=1).contacts
    assert contacts.height > 20
    assert contacts.join(blocked.filter(pl.col("blocked_by").is_not_null()), on=["user_id", "channel"]).is_empty()


def test_little_is_lost_where_effects_are_estimated_and_more_where_they_are_not_looked_at():
    known = simulated(6_000, 2_000, 2)
    rows = regrets(known.users, gains_of(known, known.estimated), gains_of(known, known.true), CHANNELS, (0.25, 0.5))
    for share in (0.25, 0.5):
        lost = {row["policy"]: row["regret"] for row in rows if row["share"] == share}
        assert -1e-3 <= lost["optimised"] < 0.2
        assert lost["optimised"] < min(lost["by_uplift"], lost["by_risk"], lost["contact_all"])
        assert lost["nobody"] == 1


def test_the_command_plans_with_assumed_gains_where_nothing_was_measured(sample):
    found = lcm(sample, "budget")
    assert found["assumed"] == found["policies"][0]["n_contacts"] > 0
    assert found["budget"] == found["most_that_pays"]
    assert found["policies"][0]["ci_low"] is None
    half = lcm(sample, "budget", "--budget", str(found["budget"] / 2))
    optimised = half["policies"][0]
    assert 0 < optimised["expected_profit"] < found["policies"][0]["expected_profit"]
    assert optimised["contact_cost"] + optimised["discount_cost"] <= found["budget"] / 2 + 1e-6
    assert optimised["expected_profit"] == max(row["expected_profit"] for row in half["policies"])
    # The whole date is written again, not beside.
    policies = query(sample, "select * from serving.budget_policies_latest")
    assert policies.filter("is_asked")["budget"].unique().to_list() == [found["budget"] / 2]
    sent = query(sample, "select * from serving.budget_allocations_latest")
    assert sent.height == optimised["n_contacts"] == sum(row["n_contacts"] for row in half["allocations"])
    refused = query(sample, "select user_id from staging.stg_users where not marketing_consent")
    assert refused.height > 0
    assert sent.join(refused, on="user_id").is_empty()
    with duckdb.connect(str(sample), read_only=True) as con:
        section = budget_section(con)
    assert section.figures[0].says.startswith("A budget of")
    assert section.table is not None
    assert any("assumed" in note for note in section.notes)


def test_the_command_uses_measured_effects_and_tells_an_interval(sample):
    with duckdb.connect(str(sample)) as con:
        con.execute(
            """
            insert into ml.uplift_scores by name
            select
                'r' as run_id, as_of_date, user_id, 'discount' as campaign_kind, 'purchase' as outcome,
                14 as horizon_days, 'x_learner' as learner, 0.2 as effect,
                0.02 as standard_error, 0.1 as baseline_probability, 'persuadable' as uplift_segment,
                true as is_best_kind
            from marts.user_lifecycle
            where as_of_date = (select as_of_date from marts.as_of_dates where is_scoring_date)
            """
        )
        con.execute("delete from marts.offers where offer != 'discount_10'")
    found = lcm(sample, "budget")
    optimised = found["policies"][0]
    assert found["assumed"] == 0
    assert optimised["ci_low"] < optimised["expected_profit"] < optimised["ci_high"]
    assert {row["channel"] for row in found["allocations"]} == {"email"}


def test_wrong_use_is_told(cli):
    assert cli("budget", "--budget", "-1").exit_code == 2
