"""How close the champion comes to the best prediction there is, on a simulated shop whose parameters are known.

Simulates the preset plain, runs the whole chain in a warehouse of its own, and compares the champion of `fit` with the
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
        champion = lcm("run")["fitted"]["champion"]
        found = lcm("evaluate", "--folds", "4", "--truth", str(shop / "truth"))
    print(f"\n{options.users:,} users; mean of {len(found['folds'])} dates; champion {champion}")
    for name, metrics in found["mean"].items():
        print(f"  {name:<12} AUC {metrics['auc']['value']:.4f}   log loss {metrics['log_loss']['value']:.4f}")
    for row in found["reached"]:
        print(
            f"  {row['model_name']:<12} {row['share']:6.1%} of the way from recency to the ceiling in {row['metric']}"
        )
    mine, best = found["mean"][champion], found["mean"]["ceiling"]
    auc = best["auc"]["value"] - mine["auc"]["value"]
    loss = mine["log_loss"]["value"] - best["log_loss"]["value"]
    print(f"  champion below the ceiling: AUC {auc:.4f} (bar {AUC_BAR}), log loss {loss:.4f} (bar {LOG_LOSS_BAR})")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f"  peak memory of a step {peak:.1f} GiB")
    sys.exit(auc > AUC_BAR or loss > LOG_LOSS_BAR)


if __name__ == "__main__":
    main()
