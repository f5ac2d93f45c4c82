"""Budgets: time and memory for many users, and what is lost against an oracle that knows the true effects.

    .venv/bin/python benchmarks/budget.py scale [--users 1000000] [--capacity]
    .venv/bin/python benchmarks/budget.py regret [--users 20000] [--seeds 10]
    .venv/bin/python benchmarks/budget.py shop WAREHOUSE.duckdb DATA

`shop` takes a warehouse of a simulated shop after `lcm-ml score` and `lcm-ml uplift`, and the folder that
`lcm-ml simulate` wrote.
"""

import argparse
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "python"))

from simulated_budget import CHANNELS, ECONOMICS, KINDS, LIFTS, OFFERS, gains_of, regrets, simulated, true_effects

from lcm_ml.decisions.budget.planning import OPTIMISED, plan_budget
from lcm_ml.decisions.eligibility import eligibility
from lcm_ml.decisions.gains import Economics, expected_gains
from lcm_ml.decisions.options import permitted, with_blocks
from lcm_ml.frames.decisions import contacts_before, setting_table, tried_channels, uplift_at, users_to_decide
from lcm_ml.frames.frame import built_settings, scoring_date

RESULTS = Path(__file__).parent / "results"
SHARES = (0.05, 0.1, 0.25, 0.5, 1.0)


def scale(users: int, *, capacity: bool) -> dict[str, Any]:
    """Gains, consent and the plan of 21 budgets for users with three offers through four channels."""
    rng = np.random.default_rng(0)
    names = ("email", "push", "sms", "mail")
    channels = pl.DataFrame(
        {
            "channel": names,
            "cost_per_contact": [0.05, 0.01, 0.08, 0.6],
            "needs_consent": [True, True, True, False],
            "min_days_between": [3, 2, 14, 28],
            "capacity": pl.Series([users // 10] * 4 if capacity else [None] * 4, dtype=pl.Int64),
        }
    )
    orders = 1.0 + rng.poisson(3, users)
    people = pl.DataFrame(
        {
            "user_id": [f"U{user:07d}" for user in range(users)],
            "has_purchased": True,
            "orders": orders,
            "amount": orders * rng.lognormal(3.5, 0.6, users),
            "churn_probability": rng.beta(1, 3, users),
            "probability_alive": 1.0,
            "marketing_consent": rng.random(users) < 0.75,
            "is_suspected_bot": False,
        }
    )
    uplift = pl.concat(
        people.select(
            "user_id",
            pl.lit(kind).alias("campaign_kind"),
            pl.lit("purchase").alias("outcome"),
            pl.Series("effect", LIFTS[kind] * rng.gamma(1, 0.05, users) + rng.normal(0, 0.01, users)),
            pl.lit(0.02).alias("standard_error"),
            pl.Series("baseline_probability", rng.beta(1, 2, users)),
        )
        for kind in KINDS
    )
    tried = pl.DataFrame({"campaign_kind": list(KINDS)}).join(channels.select("channel"), how="cross")
    started = time.perf_counter()
    gains = expected_gains(people, OFFERS, channels, uplift, tried, ECONOMICS)
    none = {"user_id": pl.String, "channel": pl.String, "last_contact_date": pl.Date, "contacts_28d": pl.UInt32}
    day = pl.select(pl.date(2026, 1, 1)).item()
    options = permitted(with_blocks(gains, eligibility(people, channels, pl.DataFrame(schema=none), day, 4)))
    gained = time.perf_counter()
    plan = plan_budget(options, people, channels, None, 0)
    done = time.perf_counter()
    asked = plan.policies.filter(policy=OPTIMISED)
    gap = (asked["upper_bound"] - asked["expected_profit"]) / asked["upper_bound"]
    return {
        "users": users,
        "capacity": capacity,
        "options": options.height,
        "seconds_gains": round(gained - started, 1),
        "seconds_plan": round(done - gained, 1),
        "budgets": asked.height,
        "largest_gap": float(gap.filter(asked["budget"] > 0).max()),
        "gigabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


def regret(users: int, seeds: int) -> list[dict[str, Any]]:
    """Regret where effects depend on observed features; learned from `users`, planned for 5,000 others."""
    rows: list[dict[str, Any]] = []
    for seed in range(seeds):
        known = simulated(users, 5_000, seed)
        found = regrets(known.users, gains_of(known, known.estimated), gains_of(known, known.true), CHANNELS, SHARES)
        rows += [{"seed": seed, **row} for row in found]
    return rows


def shop(warehouse: Path, data: Path) -> list[dict[str, Any]]:
    """Regret at the scoring date of a simulated shop, with measured and with assumed gains."""
    with duckdb.connect(str(warehouse), read_only=True) as con:
        day, settings = scoring_date(con), built_settings(con)
        users, channels, offers = (
            users_to_decide(con, day),
            setting_table(con, "contact_channels"),
            setting_table(con, "offers"),
        )
        tried, uplift = tried_channels(con, day), uplift_at(con, day)
        allowed = eligibility(users, channels, contacts_before(con, day), day, int(settings["max_contacts_28d"]))
    economics = Economics.from_settings(settings)
    truth = pl.read_parquet(data / "truth" / "truth_users.parquet")
    true = true_effects(users, truth)
    options = permitted(with_blocks(expected_gains(users, offers, channels, true, tried, economics), allowed))
    keys = ["user_id", "offer", "channel"]
    rows = []
    for name, effects in (("measured", uplift), ("assumed", uplift.clear())):
        gains = permitted(with_blocks(expected_gains(users, offers, channels, effects, tried, economics), allowed))
        known = gains.join(options.select(keys), on=keys, how="semi", maintain_order="left")
        rows += [{"gains": name, **row} for row in regrets(users, known, options, channels, SHARES)]
    return rows


def _show(rows: list[dict[str, Any]]) -> None:
    frame = pl.DataFrame(rows, infer_schema_length=None)
    by = [name for name in ("gains", "share", "policy") if name in frame.columns]
    found = frame.group_by(by, maintain_order=True).agg(
        pl.col("budget").mean(),
        pl.col("regret").mean(),
        least=pl.col("regret").min(),
        most=pl.col("regret").max(),
        expected=pl.col("expected").mean(),
        profit=pl.col("profit").mean(),
        oracle=pl.col("oracle").mean(),
    )
    with pl.Config(tbl_rows=-1, tbl_cols=-1, float_precision=3):
        print(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = parser.add_subparsers(dest="part", required=True)
    big = parts.add_parser("scale")
    big.add_argument("--users", type=int, default=1_000_000)
    big.add_argument("--capacity", action="store_true")
    lost = parts.add_parser("regret")
    lost.add_argument("--users", type=int, default=20_000)
    lost.add_argument("--seeds", type=int, default=10)
    simulated_shop = parts.add_parser("shop")
    simulated_shop.add_argument("warehouse", type=Path)
    simulated_shop.add_argument("data", type=Path)
    given = parser.parse_args()
    if given.part == "scale":
        found: Any = scale(given.users, capacity=given.capacity)
        print(json.dumps(found, indent=1))
    else:
        found = regret(given.users, given.seeds) if given.part == "regret" else shop(given.warehouse, given.data)
        _show(found)
    RESULTS.mkdir(exist_ok=True)
    name = f"budget_{given.part}{'_capacity' if given.part == 'scale' and given.capacity else ''}.json"
    (RESULTS / name).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
