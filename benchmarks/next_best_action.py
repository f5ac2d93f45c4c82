"""What do the next best actions truly earn? On a simulated shop, whose truth tells what each contact adds.

A touch brings an extra order with the probability of docs/simulator.md. Its value is the user's own mean order, drawn
to the shop's as in decisions/gains.py; a discount is also given where the user would have come anyway. Beside the
rules: everybody who may be contacted with one offer, and who knows the truth; contacting nobody earns 0. Intervals are
over users (bootstrap).

    LCM_WAREHOUSE=sim.duckdb .venv/bin/python benchmarks/next_best_action.py data/sim/truth
"""

import argparse
import json
import sys
from pathlib import Path

import duckdb
import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "python"))

from simulated_budget import true_effects

from lcm_ml import project
from lcm_ml.decisions.eligibility import eligibility
from lcm_ml.decisions.gains import Economics, expected_gains
from lcm_ml.decisions.options import permitted, with_blocks
from lcm_ml.frames.decisions import contacts_before, setting_table, users_to_decide
from lcm_ml.frames.frame import built_settings, scoring_date

RESULTS = Path(__file__).parent / "results" / "next_best_action.json"
RESAMPLES = 2_000


def options(con: duckdb.DuckDBPyConnection, truth: pl.DataFrame) -> pl.DataFrame:
    """Each user with each offer and channel that is allowed, and what it truly earns; sorted by user."""
    day, settings = scoring_date(con), built_settings(con)
    users = users_to_decide(con, day)
    channels, offers = setting_table(con, "contact_channels"), setting_table(con, "offers")
    allowed = eligibility(users, channels, contacts_before(con, day), day, int(settings["max_contacts_28d"]))
    # Of visitors the truth says nothing: they gain nothing, nor does who is not known to have purchased.
    known = users.select("user_id", "has_purchased").join(truth, on="user_id", how="left", maintain_order="left")
    rates = pl.col("purchase_rate", "treatment_effect").fill_null(0.0) * pl.col("has_purchased")
    true = true_effects(users, known.with_columns(rates))
    # A touch brings the same through every channel.
    tried = offers.select("campaign_kind").join(channels.select("channel"), how="cross")
    gains = expected_gains(users, offers, channels, true, tried, Economics.from_settings(settings))
    return permitted(with_blocks(gains, allowed)).rename({"expected_profit": "profit"})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("truth", type=Path)
    truth = pl.read_parquet(parser.parse_args().truth / "truth_users.parquet")
    with duckdb.connect(str(project.warehouse_path()), read_only=True) as con:
        every = options(con, truth.select("user_id", "stage", "purchase_rate", "treatment_effect"))
        actions = con.sql(
            "select user_id, rule_id, action, offer, channel, expected_profit from serving.next_best_actions_latest"
        ).pl()
    contacts = actions.filter(pl.col("action") == "contact")
    decided = contacts.join(every, on=["user_id", "offer", "channel"], how="left")
    assert decided["profit"].null_count() == 0, "a contact that is not allowed"
    policies = {"rules": decided.select("user_id", "profit")}
    for offer, channel in (("discount_10", "email"), ("news", "push"), ("winback_15", "push")):
        one = every.filter((pl.col("offer") == offer) & (pl.col("channel") == channel))
        policies[f"everybody: {offer} by {channel}"] = one.select("user_id", "profit")
    best = every.group_by("user_id").agg(pl.col("profit").max()).filter(pl.col("profit") > 0)
    policies["who knows the truth"] = best
    users = actions.select("user_id").sort("user_id")
    rng = np.random.default_rng(0)
    weights = rng.multinomial(users.height, np.full(users.height, 1 / users.height), size=RESAMPLES)
    own = {
        name: users.join(rows, on="user_id", how="left")["profit"].fill_null(0.0).to_numpy()
        for name, rows in policies.items()
    }
    found = {"users": users.height, "policies": {}, "rules": {}}
    for name, profit in own.items():
        found["policies"][name] = {
            "contacts": policies[name].height,
            "profit": float(profit.sum()),
            "interval": interval(weights @ profit),
            "rules_less_this": interval(weights @ (own["rules"] - profit)),
        }
    for (rule,), rows in decided.sort("rule_id").group_by("rule_id", maintain_order=True):
        profit = users.join(rows, on="user_id", how="left")["profit"].fill_null(0.0).to_numpy()
        found["rules"][rule] = {
            "contacts": rows.height,
            "expected": float(rows["expected_profit"].sum()),
            "true": float(profit.sum()),
            "interval": interval(weights @ profit),
        }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))


def interval(values: np.ndarray) -> list[float]:
    """95 % percentile interval."""
    return [float(bound) for bound in np.quantile(values, [0.025, 0.975])]


if __name__ == "__main__":
    main()
