"""Plans under a budget: the linear programme beside what needs none, and what more or less money would bring."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import polars as pl
import polars.selectors as cs

from lcm_ml.churn.estimator import FloatArray
from lcm_ml.decisions.budget.allocation import Allocator, IntArray, Options
from lcm_ml.decisions.budget.policies import affordable, in_order
from lcm_ml.decisions.gains import ASSUMED

OPTIMISED, BY_UPLIFT, BY_RISK, CONTACT_ALL, NOBODY = "optimised", "by_uplift", "by_risk", "contact_all", "nobody"
POLICIES = (OPTIMISED, BY_UPLIFT, BY_RISK, CONTACT_ALL, NOBODY)
STEPS = 20
"""Budgets of the curve, besides none at all."""
Z_95 = 1.96


@dataclass(frozen=True)
class Plan:
    """What budgets bring.

    Attributes:
        budget: the one asked for, or the most that pays.
        most: the least budget at which nothing more pays.
        usual_offer: what contact_all and by_risk send; None where nobody can be contacted.
        policies: policy, budget, is_asked, n_contacts, contact_cost, discount_cost, expected_profit, ci_low, ci_high,
            shadow_price, upper_bound (of any allocation; optimised lies below it by its rounding).
        contacts: policy and the columns of `options`, a row for each contact that `budget` pays for.
    """

    budget: float
    most: float
    usual_offer: str | None = None
    policies: pl.DataFrame = field(default_factory=pl.DataFrame)
    contacts: pl.DataFrame = field(default_factory=pl.DataFrame)


def plan_budget(
    options: pl.DataFrame,
    users: pl.DataFrame,
    channels: pl.DataFrame,
    asked: float | None,
    seed: int,
    advance: Callable[[str, float], None] = lambda _what, _share: None,
    steps: int = STEPS,
) -> Plan:
    """Spend a budget by each policy, and draw the curve of profit by budget.

    A budget pays for contacts and for the discounts expected of them. The optimised policy solves the linear programme.
    The others go through users until the money is spent: by_uplift from the largest margin that a contact adds, through
    what adds most whatever it costs; by_risk from the highest churn probability, contact_all at random, both with the
    usual offer, through the cheapest channel. The usual offer is the one that would bring most if everybody got it.

    Args:
        options: as `options.permitted` gives them: rows of a user together, and in them those of an offer; words may
            be `options.narrow`.
        users: user_id, churn_probability (null: after all others).
        channels: channel, capacity (null: no limit).
        asked: the budget; None: the least at which nothing more pays.
        seed: of the order of contact_all, and of users who are equal.
        advance: told what is under way.
        steps: budgets of the curve, besides none and the one asked for.
    """
    own = _options(options, channels)
    capacity = channels["capacity"].cast(pl.Float64).fill_null(np.inf).to_numpy()
    advance("optimising", 0.3)
    allocator = Allocator(own, capacity)
    best = allocator.at(np.inf)
    most = float(own.cost[best.chosen].sum())
    budget = most if asked is None else asked
    usual, orders = _orders(options, own, users, capacity, seed)
    grid = sorted({*(most * (step / steps) ** 2 for step in range(steps + 1)), budget})
    rows, contacts = [], []
    for place, money in enumerate(grid):
        advance("optimising", 0.4 + 0.55 * place / len(grid))
        found = best if money >= most else allocator.at(money)
        chosen = {OPTIMISED: found.chosen} | {name: affordable(own, order, money) for name, order in orders.items()}
        is_asked = money == budget
        for name in POLICIES:
            row = {"policy": name, "budget": money, "is_asked": is_asked, **_told(options, chosen[name])}
            if name == OPTIMISED:
                row |= {"shadow_price": found.shadow_price if money < most else 0.0, "upper_bound": found.upper_bound}
            rows.append(row)
        if is_asked:
            contacts = [
                options[chosen[name]].select(pl.lit(name).alias("policy"), cs.enum().cast(pl.String), ~cs.enum())
                for name in POLICIES
            ]
    types = dict.fromkeys(("ci_low", "ci_high", "shadow_price", "upper_bound"), pl.Float64)
    return Plan(budget, most, usual, pl.DataFrame(rows, schema_overrides=types), pl.concat(contacts))


def _options(options: pl.DataFrame, channels: pl.DataFrame) -> Options:
    return Options(
        options["user_id"].rle_id().cast(pl.Int64).to_numpy(),
        options["channel"].cast(pl.Enum(channels["channel"])).to_physical().cast(pl.Int64).to_numpy(),
        (options["contact_cost"] + options["discount_cost"]).to_numpy(),
        options["expected_profit"].to_numpy(),
    )


def _orders(
    options: pl.DataFrame, own: Options, users: pl.DataFrame, capacity: FloatArray, seed: int
) -> tuple[str | None, dict[str, IntArray]]:
    """The usual offer, and for each policy that goes through a list its options in that order."""
    nothing = np.empty(0, dtype=np.int64)
    if options.is_empty():
        return None, dict.fromkeys((BY_UPLIFT, BY_RISK, CONTACT_ALL, NOBODY), nothing)
    starts = np.flatnonzero(np.diff(own.user, prepend=-1))
    chance = np.random.default_rng(seed).permutation(len(starts))
    risk = options["user_id"].gather(starts).to_frame().join(users, on="user_id", how="left", maintain_order="left")
    added = own.profit + own.cost
    contact_cost = options["contact_cost"].to_numpy()
    usual = _usual_offer(options, own)
    of_usual = np.flatnonzero((options["offer"] == usual).to_numpy())

    def listed(rows: IntArray, first: FloatArray, *preference: FloatArray) -> IntArray:
        rank = np.empty(len(starts), dtype=np.int64)
        rank[np.lexsort((chance, first))] = np.arange(len(starts))
        keys = (each[rows] for each in preference)
        return rows[in_order(own.take(rows), rank[own.user[rows]], capacity, *keys)]

    return usual, {
        BY_UPLIFT: listed(np.flatnonzero(added > 0), -np.maximum.reduceat(added, starts), -added, own.cost),
        BY_RISK: listed(of_usual, -risk["churn_probability"].fill_null(-1.0).to_numpy(), contact_cost),
        CONTACT_ALL: listed(of_usual, np.zeros(len(starts)), contact_cost),
        NOBODY: nothing,
    }


def _usual_offer(options: pl.DataFrame, own: Options) -> str:
    """The offer that would bring most if everybody got it, through the cheapest channel."""
    offers = options["offer"].rle_id().to_numpy()
    starts = np.flatnonzero((np.diff(own.user, prepend=-1) != 0) | (np.diff(offers, prepend=offers[0]) != 0))
    # Of each user and offer the first of its cheapest options by the channel's name.
    channel = options["channel"].cast(pl.String).rank("dense").to_numpy()
    cost = options["contact_cost"].to_numpy()
    run = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(cost)))
    channel = np.where(cost == np.minimum.reduceat(cost, starts)[run], channel, np.iinfo(channel.dtype).max)
    cheapest = channel == np.minimum.reduceat(channel, starts)[run]
    profits = options.select(pl.col("offer").cast(pl.String), "expected_profit").filter(pl.Series(cheapest))
    totals = profits.group_by("offer").agg(pl.sum("expected_profit"))
    return str(totals.sort("expected_profit", "offer", descending=[True, False]).item(0, "offer"))


def _told(options: pl.DataFrame, rows: IntArray) -> dict[str, float | int | None]:
    """Figures of the options taken.

    The interval takes the errors of all effects as one: what a model gets wrong it gets wrong for many users alike, and
    errors that are added as if each were alone would cancel out.
    """
    taken = options.select("contact_cost", "discount_cost", "expected_profit", "standard_error", "gain_source")[rows]
    profit = float(taken["expected_profit"].sum())
    known = not (taken["gain_source"] == ASSUMED).any()
    error = Z_95 * float(taken["standard_error"].sum())
    return {
        "n_contacts": taken.height,
        "contact_cost": float(taken["contact_cost"].sum()),
        "discount_cost": float(taken["discount_cost"].sum()),
        "expected_profit": profit,
        "ci_low": profit - error if known else None,
        "ci_high": profit + error if known else None,
    }
