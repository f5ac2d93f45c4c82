"""Does uplift find effects that are known? A simulated campaign of 200,000 users, and as many users to be told about.

Effects depend on observed features plus noise (tests/python/simulated_uplift.py); the bars are a rank correlation of
0.6 with the effect expected given the features, and a policy within 5 % of the best one on these features.

    .venv/bin/python benchmarks/uplift.py [--users 200000]
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "python"))

from simulated_uplift import campaign, policy_share

from lcm_ml.decisions.uplift.comparing import choose_learner, measure_held_out
from lcm_ml.decisions.uplift.learners import LEARNERS, fit_learners
from lcm_ml.decisions.uplift.uplifting import fit_effects

RESULTS = Path(__file__).parent / "results" / "uplift.json"
COSTS = (0.0, 0.06, 0.12)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=200_000)
    users = parser.parse_args().users
    found = {}
    for name, observational in (("randomised", False), ("observational", True)):
        started = time.perf_counter()
        known, held_out = (campaign(users, seed, observational=observational) for seed in (1, 2))
        chosen, _ = choose_learner(known.trial, 0, lambda _share: None)
        fits = fit_learners(known.trial, 0)
        rows, _, rankings = measure_held_out(fits, chosen, held_out.trial, 0)
        truth = held_out.expected_effect
        figures = {"users": users, "chosen": chosen}
        for learner in LEARNERS:
            figures[learner] = {
                "rank_correlation": round(float(spearmanr(rankings[learner], truth)[0]), 3),
                "policy": [round(policy_share(truth, rankings[learner], cost=cost), 3) for cost in COSTS],
                **{row["metric"]: row["value"] for row in rows if row["learner"] == learner},
            }
        effect, error = fit_effects(known.trial, chosen, 0)(held_out.trial.x[:20_000])
        inside = np.abs(effect - truth[:20_000]) <= 1.96 * error
        figures["inside_95"] = round(float(inside.mean()), 3)
        figures["seconds"] = round(time.perf_counter() - started)
        found[name] = figures
        print(name, json.dumps(figures, indent=1))
    RESULTS.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    best = [one[one["chosen"]] for one in found.values()]
    sys.exit(any(one["rank_correlation"] < 0.6 or min(one["policy"]) < 0.95 for one in best))


if __name__ == "__main__":
    main()
