"""How close the champion comes to the best prediction there is, on a simulated shop whose parameters are known.

Simulates the preset plain, runs the whole chain in a warehouse of its own, and compares the better model with the
exact posterior. Ends with 1 when the champion misses the bar (AUC within 0.005, log loss within 0.01).

    .venv/bin/python benchmarks/ceiling.py [--users 100000] [--days 400] [--seed 0]
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lcm_ml.churn.ceiling import way

AUC_BAR, LOG_LOSS_BAR = 0.005, 0.01


def lcm(*arguments: str) -> dict:
    started = time.monotonic()
    command = [sys.executable, "-c", "from lcm_ml.cli.main import entry_point; entry_point()", *arguments, "--json"]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if ended.returncode:
        sys.exit(f"lcm-ml {' '.join(arguments)} failed:\n{ended.stdout}")
    print(f"{time.monotonic() - started:7.1f} s  lcm-ml {arguments[0]}", flush=True)
    return json.loads(ended.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--days", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LCM_WAREHOUSE"] = str(Path(folder) / "lcm.duckdb")
        shop = Path(folder) / "shop"
        size = ["--users", str(options.users), "--days", str(options.days), "--seed", str(options.seed)]
        lcm("simulate", "--preset", "plain", *size, "--out", str(shop))
        tables = [f"--{name}={shop / name.replace('-', '_')}.parquet" for name in ("events", "users", "products")]
        lcm("load", "files", *tables)
        started = time.monotonic()
        subprocess.run([sys.executable, "-m", "dbt.cli.main", "build", "--quiet"], check=True)
        print(f"{time.monotonic() - started:7.1f} s  dbt build", flush=True)
        found = lcm("evaluate", "--folds", "4", "--truth", str(shop / "truth"))
    first, *rest = found["folds"]
    champion = min(("logistic", "xgboost"), key=lambda name: first["models"][name]["log_loss"]["value"])
    print(
        f"\n{options.users:,} users; champion {champion}, chosen on {first['as_of_date']}; "
        f"mean of the {len(rest)} dates after it"
    )
    means = {
        name: {
            metric: sum(f["models"][name][metric]["value"] for f in rest) / len(rest) for metric in ("auc", "log_loss")
        }
        for name in first["models"]
    }
    for name, mean in means.items():
        share = way(*(figures["auc"] for figures in (mean, means["recency"], means["ceiling"])))
        print(f"  {name:<12} AUC {mean['auc']:.4f}   log loss {mean['log_loss']:.4f}   {share:6.1%} of the way in AUC")
    auc = means["ceiling"]["auc"] - means[champion]["auc"]
    loss = means[champion]["log_loss"] - means["ceiling"]["log_loss"]
    print(f"  champion below the ceiling: AUC {auc:.4f} (bar {AUC_BAR}), log loss {loss:.4f} (bar {LOG_LOSS_BAR})")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f"  peak memory of a step {peak:.1f} GiB")
    sys.exit(auc > AUC_BAR or loss > LOG_LOSS_BAR)


if __name__ == "__main__":
    main()
