"""Does an experiment err as often as it says, and find what it was planned to find?

Simulates experiments without an effect and with the one they were sized for, and counts claims of a difference: for one
test at the end, for CUPED, for looks at users that come one after the other, and for looks at a cohort that fills up
(there through `analyse`, which measures how the looks go together).

    .venv/bin/python benchmarks/experiments.py [--runs 2000]
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "python"))

from simulated_experiments import EFFECT, cohort_with_looks, fixed, users_needed, with_looks

RESULTS = Path(__file__).parent / "results" / "experiments.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=2000)
    runs = parser.parse_args().runs
    found = {"runs": runs}
    for name, rho, cuped in (("fixed", 0.0, False), ("cuped 0.5", 0.5, True), ("cuped 0.8", 0.8, True)):
        error, reduction = fixed(runs, 0.0, rho, cuped, 1)
        power, _ = fixed(runs, EFFECT, rho, cuped, 2)
        found[name] = {"users": users_needed(rho), "error": error, "power": power, "reduction": round(reduction, 4)}
    for looks in (2, 5):
        found[f"{looks} looks"] = {
            "users": users_needed(looks=looks),
            "error": with_looks(runs, 0.0, looks, 3),
            "power": with_looks(runs, EFFECT, looks, 4),
        }
    found["cohort, 4 looks"] = {
        "users": 300,
        "error": cohort_with_looks(runs, 600, (0.05, 0.05), 4, 5),
    }
    for name, figures in found.items():
        print(f"{name:<18} {figures}")
    RESULTS.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    rates = [figures for figures in found.values() if isinstance(figures, dict)]
    sys.exit(any(not 0.04 <= one["error"] <= 0.06 or abs(one.get("power", 0.8) - 0.8) > 0.03 for one in rates))


if __name__ == "__main__":
    main()
