"""Does the strategy loop find what pays, and leave alone what does?

A shop with four rules, of which only some contacts pay, runs for a year of 28-day periods. After each period
`lcm-ml strategy`'s proposals are applied, or not. Prints what contacts earned in all, beside the same shop with its
rules as they were and with the rules that somebody who knows the truth would have; and how often a rule was changed
in shops where every contact is worth what it costs.

    .venv/bin/python benchmarks/strategy.py [--shops 20] [--users 6000]
"""

import argparse
import sys
from datetime import date, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "python"))

import numpy as np
import polars as pl
from strategy_world import CHANNELS, COST, MARGIN, OFFERS, ORDER_VALUE, a_rule, effects, outcomes, rules_of

from lcm_ml.decisions.actions.rules import read_rules
from lcm_ml.decisions.strategy.proposals import proposals

PERIODS, DAYS, HELD, WINDOW = 13, 28, 0.1, 3
WORTH = COST / (MARGIN * ORDER_VALUE)
# What a contact adds to the probability of a purchase: pays everywhere, nowhere, above 0.6, for active users alone.
TRUTH = {
    "pays": lambda churn, _: np.minimum(churn, 0.15),
    "wasted": lambda churn, _: np.zeros_like(churn),
    "late": lambda churn, _: np.where(churn > 0.6, 0.25, 0.0),
    "active": lambda churn, stages: np.where(stages == "active", np.minimum(churn, 0.2), 0.0),
}
BEST = rules_of(
    a_rule("pays"),
    a_rule("wasted", is_active=False),
    a_rule("late", min_churn_probability=0.6),
    a_rule("active", stages="active"),
)
PRIZE = rules_of(*(a_rule(name) for name in TRUTH))
NO_OFFERS = OFFERS.clear()


def year(seed: int, users: int, rules: pl.DataFrame, truth: dict, learns: bool) -> tuple[float, pl.DataFrame]:
    """What all contacts truly earned, and the rules at the end."""
    earned, past = 0.0, []
    for period in range(PERIODS):
        day = date(2025, 1, 1) + timedelta(days=DAYS * period)
        for place, rule in enumerate(read_rules(rules, OFFERS, CHANNELS)):
            name = rule.rule_id
            sent = outcomes(1000 * seed + 10 * period + place, name, users, truth[name], HELD, sent_on=day)
            sent = sent.filter(rule.fits())
            contacted = sent.filter(pl.col("arm") != "control")
            gain = truth[name](contacted["churn_probability"].to_numpy(), contacted["stage"].to_numpy())
            # Beyond a certain purchase nothing can be added.
            gain = np.minimum(gain, contacted["churn_probability"].to_numpy())
            earned += float((gain * ORDER_VALUE * MARGIN - COST).sum())
            past.append(sent)
        if learns:
            recent = pl.concat(past).filter(pl.col("sent_date") > day - timedelta(days=DAYS * WINDOW))
            rules = changed(rules, proposals(effects(recent, rules), recent, rules, NO_OFFERS, 0.2))
    return earned, rules


def changed(rules: pl.DataFrame, made: pl.DataFrame) -> pl.DataFrame:
    rows = {rule["rule_id"]: rule for rule in rules.to_dicts()}
    for row in made.to_dicts():
        value = row["new_value"]
        typed = {"is_active": lambda text: text == "true", "stages": str}.get(row["parameter"], float)(value)
        rows[row["name"]][row["parameter"]] = typed
    return pl.DataFrame(list(rows.values()), schema=rules.schema)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shops", type=int, default=20)
    parser.add_argument("--users", type=int, default=6000, help="of each rule and period")
    options = parser.parse_args()
    shares, wasted, right = [], [], []
    for seed in range(options.shops):
        fixed, _ = year(seed, options.users, PRIZE, TRUTH, learns=False)
        best, _ = year(seed, options.users, BEST, TRUTH, learns=False)
        learned, rules = year(seed, options.users, PRIZE, TRUTH, learns=True)
        shares.append((learned - fixed) / (best - fixed))
        wasted.append(fixed / best)
        right.append(rules.to_dicts())
    print(f"as they were, the rules earn {np.mean(wasted):.0%} of what the best ones do")
    print(f"the loop covers {np.mean(shares):.0%} of the way in its year ({min(shares):.0%} to {max(shares):.0%})")
    for name in TRUTH:
        ends = [next(rule for rule in rules if rule["rule_id"] == name) for rules in right]
        limits = [rule["min_churn_probability"] or 0.0 for rule in ends]
        stopped = sum(not rule["is_active"] for rule in ends)
        stages = sorted({rule["stages"] or "any" for rule in ends})
        print(f"{name}: stopped in {stopped} of {len(ends)}, stages {', '.join(stages)}", end=", ")
        print(f"least churn probability {min(limits):.2f} to {max(limits):.2f}")
    even = {name: (lambda churn, _: np.full_like(churn, WORTH)) for name in TRUTH}
    wrong = 0
    for seed in range(options.shops):
        for period in range(PERIODS):
            parts = [outcomes(7 * seed + 31 * period + k, name, 2000, even[name], HELD) for k, name in enumerate(TRUTH)]
            sent = pl.concat(parts).filter(pl.col("churn_probability") > WORTH)
            wrong += proposals(effects(sent, PRIZE), sent, PRIZE, NO_OFFERS, 0.2).height > 0
    print(
        f"where no change is due, a period brings one in {wrong / (options.shops * PERIODS):.1%} of cases (5 % allowed)"
    )


if __name__ == "__main__":
    main()
